package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commandVariable makes this test binary the command itself. Its name begins otherwise than a setting's.
const commandVariable = "TEST_IS_GOCHAT"

func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// upUntilReady runs `gochat up` as a process of its own on free ports, and answers how long it took from its start
// until it said that it is ready. Then it stops it.
func upUntilReady(t testing.TB, dir string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "up", "--data-dir", dir, "--site-port", "0", "--api-port", "0",
		"--websocket-port", "0", "--tcp-ports", "0", "--admin-port", "0", "--set", "log.level=error")
	cmd.Env = append(os.Environ(), commandVariable+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	took := time.Since(start)
	if err != nil || !strings.Contains(line, "is ready") {
		t.Fatalf("up said %q, %v; want that it is ready", line, err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // one that has ended answers for it below
	if err := cmd.Wait(); err != nil {
		t.Fatalf("up ended with %v", err)
	}
	return took
}

// BenchmarkReady tells how long `gochat up` takes from its start until every layer works.
func BenchmarkReady(b *testing.B) {
	measure := func(b *testing.B, dir func() string) {
		var sum time.Duration
		for b.Loop() {
			sum += upUntilReady(b, dir())
		}
		b.ReportMetric(float64(sum.Milliseconds())/float64(b.N), "ms/ready")
		b.ReportMetric(0, "ns/op") // it would count the stop as well
	}
	b.Run("new", func(b *testing.B) {
		measure(b, func() string { return filepath.Join(b.TempDir(), "data") })
	})
	b.Run("existing", func(b *testing.B) {
		dir := b.TempDir()
		upUntilReady(b, dir)
		measure(b, func() string { return dir })
	})
}
