// Package testdeps starts the real programs that tests run against. Each listens on a free loopback port, keeps
// its files in the test's temporary directory, and ends with the test.
package testdeps

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startLimit bounds how long a program may take to answer, on a machine that is busy with other tests.
const startLimit = 30 * time.Second

// RedisServer is a redis-server of its own for one test. Its methods end the test on failure, so they are called
// from the test's goroutine alone.
type RedisServer struct {
	t    testing.TB
	args []string
	dir  string

	mu   sync.Mutex // Addr may be called from any goroutine
	port string

	cmd    *exec.Cmd
	exited chan struct{}
}

// Redis starts a redis-server that keeps nothing on disk, unless args ("--appendonly", "yes") say otherwise, and
// waits until it answers.
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if !slices.Contains(args, "--save") {
		args = append(slices.Clone(args), "--save", "")
	}
	s := &RedisServer{t: t, args: args, dir: t.TempDir()}
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	s.StartElsewhere()
	return s
}

// Addr is where the server listens, or listened last.
func (s *RedisServer) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", s.port)
}

// PID is that of the running server.
func (s *RedisServer) PID() int { return s.cmd.Process.Pid }

// Stop ends the server as an operator does, and returns once it has ended.
func (s *RedisServer) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server by SIGKILL, and returns once it has ended.
func (s *RedisServer) Kill() { s.end(syscall.SIGKILL) }

// Wipe removes the files of a server that does not run: the next Start begins from nothing.
func (s *RedisServer) Wipe() {
	s.t.Helper()
	if s.cmd != nil {
		s.t.Fatal("wipe: redis-server is running")
	}
	for _, left := range []string{"appendonlydir", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(s.dir, left)); err != nil {
			s.t.Fatalf("wipe redis-server: %v", err)
		}
	}
}

// Pause stops the process without closing its connections, as a host that hangs.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

// Start starts an ended server on the same port, with the files it left.
func (s *RedisServer) Start() {
	s.t.Helper()
	for deadline := time.Now().Add(startLimit); !s.start(); {
		if time.Now().After(deadline) {
			s.t.Fatalf("start redis-server on %s: %s", s.Addr(), s.log())
		}
	}
}

// StartElsewhere starts an ended server on another port, with the files it left.
func (s *RedisServer) StartElsewhere() {
	s.t.Helper()
	for deadline := time.Now().Add(startLimit); ; {
		port := freePort(s.t)
		s.mu.Lock()
		s.port = port
		s.mu.Unlock()
		if s.start() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("start redis-server: %s", s.log())
		}
	}
}

// start is false if the server ended before it answered, as when another process has taken the port.
func (s *RedisServer) start() bool {
	if s.cmd != nil {
		s.t.Fatal("redis-server is running already")
	}
	log, err := os.Create(s.logFile())
	if err != nil {
		s.t.Fatalf("create log: %v", err)
	}
	defer func() { _ = log.Close() }()
	_, port, _ := net.SplitHostPort(s.Addr())
	cmd := exec.Command("redis-server", append(slices.Clone(s.args), "--port", port, "--bind", "127.0.0.1", "--dir", s.dir)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }() // how it ended does not matter, end waits for exited
	s.cmd, s.exited = cmd, exited

	for deadline := time.Now().Add(startLimit); ; {
		if answers(s.Addr()) {
			return true
		}
		select {
		case <-exited:
			s.cmd = nil
			return false
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redis-server does not answer: %s", s.log())
		}
	}
}

// answers is true once the data is loaded; a server that wants a password answers too.
func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH"))
}

func (s *RedisServer) end(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case <-s.exited:
	case <-time.After(startLimit):
		_ = s.cmd.Process.Kill()
		<-s.exited
		s.t.Errorf("redis-server did not end within %s of %v", startLimit, sig)
	}
	s.cmd = nil
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatal("redis-server is not running")
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}

func (s *RedisServer) logFile() string { return filepath.Join(s.dir, "redis.log") }

func (s *RedisServer) log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// freePort is a port that was free a moment ago. Another process may take it first: callers try again.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
