package testdeps_test

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/testdeps"
)

func TestRedisKeepsItsDataOverItsLives(t *testing.T) {
	for _, c := range []struct {
		name       string
		end, start func(*testdeps.RedisServer)
		moves      bool
	}{
		{"stopped, same port", (*testdeps.RedisServer).Stop, (*testdeps.RedisServer).Start, false},
		{"killed, same port", (*testdeps.RedisServer).Kill, (*testdeps.RedisServer).Start, false},
		{"stopped, another port", (*testdeps.RedisServer).Stop, (*testdeps.RedisServer).StartElsewhere, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
			before := s.Addr()
			if got := ask(t, before, "SET k v"); got != "+OK" {
				t.Fatalf("SET: %q", got)
			}
			c.end(s)
			if conn, err := net.Dial("tcp", before); err == nil {
				_ = conn.Close()
				t.Fatalf("%s still accepts connections", before)
			}
			c.start(s)
			if moved := s.Addr() != before; moved != c.moves {
				t.Errorf("moved from %s to %s, want moved %v", before, s.Addr(), c.moves)
			}
			if got := ask(t, s.Addr(), "STRLEN k"); got != ":1" {
				t.Errorf("after the restart STRLEN is %q, want :1", got)
			}
		})
	}
}

func TestRedisPause(t *testing.T) {
	s := testdeps.Redis(t)
	s.Pause()
	answered := make(chan string, 1)
	go func() { answered <- ask(t, s.Addr(), "PING") }()
	select {
	case got := <-answered:
		t.Errorf("a paused server answered %q", got)
	case <-time.After(50 * time.Millisecond): // the control: it answers after Resume
	}
	s.Resume()
	if got := <-answered; got != "+PONG" {
		t.Errorf("after Resume: %q, want +PONG", got)
	}
}

func ask(t *testing.T, addr, command string) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("dial: %v", err)
		return ""
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = conn.Write([]byte(command + "\r\n"))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return strings.TrimSpace(line)
}
