package testdeps_test

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gochat/layers/internal/testdeps"
)

func TestRabbitMQOverItsLives(t *testing.T) {
	var ports []string
	t.Run("lives", func(t *testing.T) {
		s := testdeps.RabbitMQ(t)
		first := s.Addr()
		for _, c := range []struct {
			name       string
			end, start func()
			moves      bool
		}{
			{"killed, same port", s.Kill, s.Start, false},
			{"stopped, another port", s.Stop, s.StartElsewhere, true},
		} {
			_, port, _ := net.SplitHostPort(s.Addr())
			ports = append(ports, port)
			c.end()
			if conn, err := net.Dial("tcp", s.Addr()); err == nil {
				_ = conn.Close()
				t.Fatalf("%s: %s still accepts connections", c.name, s.Addr())
			}
			c.start()
			if moved := s.Addr() != first; moved != c.moves {
				t.Errorf("%s: moved from %s to %s, want moved %v", c.name, first, s.Addr(), c.moves)
			}
			if !strings.Contains(s.URL(), s.Addr()) {
				t.Errorf("%s: %s is not in the URL", c.name, s.Addr())
			}
		}
		_, port, _ := net.SplitHostPort(s.Addr())
		ports = append(ports, port)
		if found := startedFor(t, ports); len(found) < 2 {
			t.Errorf("found %q, want the broker and its port mapper", found)
		}
	})
	if left := startedFor(t, ports); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// startedFor is the command line of every process whose environment says that its broker has one of the ports.
func startedFor(t *testing.T, ports []string) (found []string) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		environ, _ := os.ReadFile(file) // it may have ended, or be another user's
		for _, port := range ports {
			if bytes.Contains(environ, []byte("RABBITMQ_NODE_PORT="+port+"\x00")) {
				command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
				found = append(found, string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
				break
			}
		}
	}
	return found
}
