package embedded

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func startEtcd(t *testing.T, dir string) *Etcd {
	t.Helper()
	e, err := StartEtcd(t.Context(), dir)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(e.Close)
	return e
}

func answers(e *Etcd) bool {
	conn, err := net.Dial("unix", strings.TrimPrefix(e.Endpoint(), "unix://"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// opened lists what this process has open under dir.
func opened(t *testing.T, dir string) []string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			paths = append(paths, to)
		}
	}
	return paths
}

func TestEtcdComesAndGoes(t *testing.T) {
	tests := []struct {
		name string
		sub  string
	}{
		{"folder as it is", ""},
		{"folder too deep for a socket", strings.Repeat("deep/", 30)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etcd", tt.sub)
			for range 3 {
				e := startEtcd(t, dir)
				if !answers(e) {
					t.Fatal("does not answer")
				}
				if len(opened(t, dir)) == 0 {
					t.Error("keeps nothing in its folder")
				}
				e.Close()
				e.Close() // again is no harm
				if answers(e) {
					t.Error("answers after close")
				}
				if left := opened(t, dir); len(left) != 0 {
					t.Errorf("left open: %v", left)
				}
				if e.scratch != "" {
					if _, err := os.Stat(e.scratch); err == nil {
						t.Errorf("%s is left", e.scratch)
					}
				}
			}
		})
	}
}

func TestEtcdIsPrivate(t *testing.T) {
	e := startEtcd(t, filepath.Join(t.TempDir(), "etcd"))
	info, err := os.Stat(filepath.Dir(e.socket))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), fs.FileMode(0o700); got != want {
		t.Errorf("folder of the socket: got mode %v, want %v", got, want)
	}
	if n := len(e.server.Peers); n != 0 {
		t.Errorf("listens for %d peers, want none", n)
	}
}

func TestEtcdRefusesAFolderInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := startEtcd(t, dir)
	if _, err := StartEtcd(t.Context(), dir); err == nil {
		t.Error("started twice in one folder")
	}
	if !answers(e) {
		t.Error("the first does not answer any more")
	}
}

// What a crash left behind, whole or not, does not keep it from starting.
func TestEtcdStartsOverRubbish(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	snap := filepath.Join(dir, "data", "member", "snap")
	if err := os.MkdirAll(snap, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(snap, "db"), filepath.Join(dir, "etcd.sock")} {
		if err := os.WriteFile(name, []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !answers(startEtcd(t, dir)) {
		t.Error("does not answer")
	}
}

func TestEtcdStartEndsWithCtx(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(t.TempDir(), "etcd")
	if e, err := StartEtcd(ctx, dir); err == nil {
		e.Close() // it was faster
	}
	if left := opened(t, dir); len(left) != 0 {
		t.Errorf("left open: %v", left)
	}
}

// What etcd would end the process for, without a word, ends Run with what it said.
func TestEtcdFails(t *testing.T) {
	e := startEtcd(t, t.TempDir())
	go zap.New(zapcore.NewNopCore(), zap.WithFatalHook(fatal{e})).Fatal("failed to create a file", zap.Error(syscall.EMFILE))
	err := e.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "failed to create a file") || !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("got %v", err)
	}
}

// It may do so before it has started.
func TestEtcdFailsAtTheStart(t *testing.T) {
	e := &Etcd{failure: make(chan error, 1)}
	_, err := e.start(func() (*embed.Etcd, error) {
		zap.New(zapcore.NewNopCore(), zap.WithFatalHook(fatal{e})).Fatal("failed to create a directory")
		panic("it went on")
	})
	if err == nil || !strings.Contains(err.Error(), "failed to create a directory") {
		t.Errorf("got %v", err)
	}
}

func TestEtcdRunsUntilCtxEnds(t *testing.T) {
	e := startEtcd(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil || answers(e) {
		t.Errorf("%v; answers: %v", err, answers(e))
	}
}

func BenchmarkEtcdStart(b *testing.B) {
	for b.Loop() {
		e, err := StartEtcd(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		begin := time.Now()
		e.Close()
		b.ReportMetric(float64(time.Since(begin).Milliseconds()), "close-ms")
		b.StartTimer()
	}
}
