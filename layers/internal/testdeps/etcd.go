package testdeps

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EtcdServer is a real etcd of one member on loopback. Its methods are for the goroutine of the test.
type EtcdServer struct {
	t      testing.TB
	client string // host:port
	peer   string
	dir    string
	cmd    *exec.Cmd // nil while it does not run
	ended  <-chan struct{}
	output bytes.Buffer // read once it has ended
}

// Etcd starts an etcd with an empty folder of its own and returns once it answers. It ends with the test. Leases
// may be as short as a second.
func Etcd(t testing.TB) *EtcdServer {
	t.Helper()
	e := &EtcdServer{t: t, dir: filepath.Join(t.TempDir(), "etcd")}
	t.Cleanup(func() { e.end(syscall.SIGKILL) })
	for range 10 {
		e.client, e.peer = etcdAddr(t), etcdAddr(t)
		if err := e.start(); err == nil {
			return e
		} else if !strings.Contains(err.Error(), "address already in use") { // somebody took it meanwhile
			t.Fatal(err)
		}
	}
	t.Fatal("etcd: no address stays free")
	return nil
}

// etcdAddr is a loopback address whose port is free at this moment.
func etcdAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Endpoint is what a client connects to; it stays the same over restarts.
func (e *EtcdServer) Endpoint() string { return "http://" + e.client }

// Addr is the host:port of the endpoint.
func (e *EtcdServer) Addr() string { return e.client }

// PID is that of the running server.
func (e *EtcdServer) PID() int { return e.cmd.Process.Pid }

// Start starts it again, on the same address and with what is left of its data, and returns once it answers.
func (e *EtcdServer) Start() {
	e.t.Helper()
	if err := e.start(); err != nil {
		e.t.Fatal(err)
	}
}

// start fails if etcd ends before it answers, or does not answer in time.
func (e *EtcdServer) start() error {
	if e.cmd != nil {
		return errors.New("etcd runs already")
	}
	peer := "http://" + e.peer
	e.cmd = exec.Command("etcd", "--name", "test", "--data-dir", e.dir,
		"--listen-client-urls", e.Endpoint(), "--advertise-client-urls", e.Endpoint(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test="+peer,
		"--heartbeat-interval", "10", "--election-timeout", "100", "--logger", "zap", "--log-level", "error")
	e.output.Reset()
	e.cmd.Stdout, e.cmd.Stderr = &e.output, &e.output
	if err := e.cmd.Start(); err != nil {
		e.cmd = nil
		return fmt.Errorf("start etcd: %w", err)
	}
	cmd, ended := e.cmd, make(chan struct{})
	e.ended = ended
	go func() {
		_ = cmd.Wait() // its exit code says only which signal it was
		close(ended)
	}()
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if r, err := client.Get(e.Endpoint() + "/health"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			deadline = time.Time{}
		case <-time.After(20 * time.Millisecond):
		}
	}
	e.end(syscall.SIGKILL)
	return fmt.Errorf("etcd does not answer:\n%s", e.output.Bytes())
}

// Stop ends it in order and waits; its data stay.
func (e *EtcdServer) Stop() { e.end(syscall.SIGTERM) }

// Kill ends it at once; its data stay.
func (e *EtcdServer) Kill() { e.end(syscall.SIGKILL) }

// Wipe removes the data of an etcd that does not run: the next Start begins from nothing.
func (e *EtcdServer) Wipe() {
	e.t.Helper()
	if e.cmd != nil {
		e.t.Fatal("wipe: etcd runs")
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Fatalf("wipe etcd: %v", err)
	}
}

// Pause makes it hang: its connections stay open and nothing answers, until Resume.
func (e *EtcdServer) Pause() { e.signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (e *EtcdServer) Resume() { e.signal(syscall.SIGCONT) }

func (e *EtcdServer) signal(s syscall.Signal) {
	e.t.Helper()
	if e.cmd == nil {
		e.t.Fatalf("signal %v: etcd does not run", s)
	}
	if err := e.cmd.Process.Signal(s); err != nil {
		e.t.Fatalf("signal %v: %v", s, err)
	}
}

func (e *EtcdServer) end(s syscall.Signal) {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGCONT) // a paused one would not hear of anything but SIGKILL
	_ = e.cmd.Process.Signal(s)
	<-e.ended
	e.cmd = nil
}
