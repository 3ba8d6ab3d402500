package testdeps

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rabbitStartLimit bounds how long a broker may take to answer: it takes some seconds when nothing else runs.
const rabbitStartLimit = 90 * time.Second

// RabbitMQServer is a RabbitMQ broker of its own on loopback. It has two ports and listens on one of them. Its methods
// end the test on failure, so they are called from the test's goroutine alone.
type RabbitMQServer struct {
	t     testing.TB
	dir   string
	ports [2]string
	at    atomic.Int32 // which of the ports it listens on; read from any goroutine
	dist  string       // between Erlang nodes
	epmd  string       // the port of its own port mapper
	as    *syscall.SysProcAttr

	mapper, broker *process // nil while they do not run
}

// RabbitMQ starts a broker with an empty directory and waits until it answers. It ends with the test. Debian's package
// rabbitmq-server must be installed.
func RabbitMQ(t testing.TB) *RabbitMQServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "gochat-rabbitmq-")
	if err != nil {
		t.Fatalf("make RabbitMQ directory: %v", err)
	}
	s := &RabbitMQServer{
		t: t, dir: dir, ports: [2]string{freePort(t), freePort(t)}, dist: freePort(t), epmd: freePort(t),
		// A group of its own, so that what it starts ends with it.
		as: &syscall.SysProcAttr{Setpgid: true},
	}
	t.Cleanup(func() {
		s.Kill()
		s.mapper.end(t, syscall.SIGKILL)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove RabbitMQ directory: %v", err)
		}
	})
	// No plugin, no file of the machine's own broker, and a log that need not hold hundreds of megabytes.
	for name, content := range map[string]string{
		"env": "", "enabled_plugins": "[].\n", "rabbitmq.conf": "raft.wal_max_size_bytes = 16000000\nlog.console.level = warning\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatalf("write RabbitMQ's %s: %v", name, err)
		}
	}
	if os.Geteuid() == 0 {
		s.becomeRabbitMQ() // it does not run as root
	}
	// Without this one the broker would start a daemon that outlives it.
	s.mapper = s.run("epmd", "-port", s.epmd, "-address", "127.0.0.1")
	s.Start()
	return s
}

func (s *RabbitMQServer) becomeRabbitMQ() {
	s.t.Helper()
	account, err := user.Lookup("rabbitmq")
	if err != nil {
		s.t.Fatalf("find the user to run RabbitMQ as: %v; install the package rabbitmq-server", err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr, os.Chown(s.dir, int(uid), int(gid))); err != nil {
		s.t.Fatalf("hand over RabbitMQ directory: %v", err)
	}
	s.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// URL is that of a user who may do everything. It names both ports, so it stays the same wherever the broker is.
func (s *RabbitMQServer) URL() string {
	u := url.URL{
		Scheme: "amqp", User: url.UserPassword("guest", "guest"), Path: "/",
		Host: "127.0.0.1:" + s.ports[0] + ",127.0.0.1:" + s.ports[1],
	}
	return u.String()
}

// Addr is where the broker listens, or listened last.
func (s *RabbitMQServer) Addr() string { return net.JoinHostPort("127.0.0.1", s.ports[s.at.Load()]) }

// Start starts an ended broker on the same port, with the files it left, and returns once it answers.
func (s *RabbitMQServer) Start() {
	s.t.Helper()
	if s.broker != nil {
		s.t.Fatal("RabbitMQ is running already")
	}
	s.broker = s.run("/usr/lib/rabbitmq/bin/rabbitmq-server")
	for deadline := time.Now().Add(rabbitStartLimit); !speaksAMQP(s.Addr()); time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.broker.exited:
			s.t.Fatalf("RabbitMQ ended while it started:\n%s", s.log())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("RabbitMQ does not answer:\n%s", s.log())
		}
	}
}

// StartElsewhere is Start on the other port.
func (s *RabbitMQServer) StartElsewhere() {
	s.t.Helper()
	s.at.Store(1 - s.at.Load())
	s.Start()
}

// Stop ends the broker as an operator does, and returns once it has ended.
func (s *RabbitMQServer) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the broker by SIGKILL, and returns once it has ended.
func (s *RabbitMQServer) Kill() { s.end(syscall.SIGKILL) }

// Pause stops the process without closing its connections, as a host that hangs.
func (s *RabbitMQServer) Pause() { s.broker.signal(s.t, syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RabbitMQServer) Resume() { s.broker.signal(s.t, syscall.SIGCONT) }

// Ctl runs rabbitmqctl against the broker, which takes a second or more.
func (s *RabbitMQServer) Ctl(args ...string) {
	s.t.Helper()
	p := s.run("/usr/lib/rabbitmq/bin/rabbitmqctl", args...)
	<-p.exited
	p.end(s.t, syscall.SIGTERM)
	if !p.cmd.ProcessState.Success() {
		s.t.Fatalf("rabbitmqctl %v: %s", args, s.log())
	}
}

func (s *RabbitMQServer) end(sig syscall.Signal) {
	s.broker.end(s.t, sig)
	s.broker = nil
}

func (s *RabbitMQServer) logFile() string { return filepath.Join(s.dir, "output") }

func (s *RabbitMQServer) log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// process is a program that was started here, and what ends it should this process die without a cleanup.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	alive  io.WriteCloser // of the guard, which kills when it is closed without a word
	guard  *exec.Cmd
}

func (s *RabbitMQServer) run(program string, args ...string) *process {
	s.t.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatalf("create log: %v", err)
	}
	defer func() { _ = log.Close() }()
	file := func(name string) string { return filepath.Join(s.dir, name) }
	p := &process{cmd: exec.Command(program, args...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.SysProcAttr, p.cmd.Stdout, p.cmd.Stderr = s.dir, s.as, log, log
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LANG=C.UTF-8",
		"ERL_EPMD_PORT=" + s.epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=gochat-test@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + s.ports[s.at.Load()], "RABBITMQ_DIST_PORT=" + s.dist,
		"RABBITMQ_BASE=" + s.dir, "RABBITMQ_MNESIA_BASE=" + file("mnesia"), "RABBITMQ_LOG_BASE=" + file("log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_CONF_ENV_FILE=" + file("env"), "RABBITMQ_CONFIG_FILE=" + file("rabbitmq"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + file("enabled_plugins"),
		// Idle schedulers sleep instead of spinning, and the other nodes' port is on loopback too.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
		// The script then becomes the broker, instead of a shell beside it, so that signals reach it.
		"RUNNING_UNDER_SYSTEMD=true",
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", program, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }() // how it ended does not matter, end waits for exited
	p.guard = exec.Command("sh", "-c", fmt.Sprintf("read word || kill -KILL -%d", p.cmd.Process.Pid))
	if p.alive, err = p.guard.StdinPipe(); err == nil {
		err = p.guard.Start()
	}
	if err != nil {
		p.end(s.t, syscall.SIGKILL)
		s.t.Fatalf("guard %s: %v", program, err)
	}
	return p
}

// end returns once the process has ended. What it had started ends with it.
func (p *process) end(t testing.TB, sig syscall.Signal) {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused one would not hear of anything but SIGKILL
	if sig == syscall.SIGKILL {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	} else {
		_ = p.cmd.Process.Signal(sig)
	}
	select {
	case <-p.exited:
	case <-time.After(startLimit):
		t.Errorf("%s did not end within %s of %v", p.cmd.Path, startLimit, sig)
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	}
	if p.guard != nil && p.guard.Process != nil {
		_, _ = io.Copy(p.alive, strings.NewReader("done\n"))
		_ = p.guard.Wait()
	}
}

func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if p == nil {
		t.Fatal("RabbitMQ is not running")
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal RabbitMQ: %v", err)
	}
}

// speaksAMQP is true once the broker offers a connection, which it does when its queues are there.
func speaksAMQP(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return false
	}
	var frame [1]byte
	_, err = io.ReadFull(conn, frame[:])
	return err == nil && frame[0] == 1 // a method: connection.start
}
