package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds every wait: much longer than anything takes, so that only a broken promise meets it.
const patience = 30 * time.Second

// start serves until stop is called, which answers what Run returned, or the test ends.
func start(t *testing.T, limits Limits, handler http.HandlerFunc) (addr string, stop func() error) {
	t.Helper()
	s, err := New("127.0.0.1:0", handler, limits, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			_ = stop() // what it returns is looked at by tests that stop it
		}
	})
	return s.Addr(), stop
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, err := io.Copy(io.Discard, r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case err != nil:
		panic(http.ErrAbortHandler)
	default:
		_, _ = io.WriteString(w, "hello")
	}
}

// Each phase of a request that a client leaves unfinished ends the connection.
func TestEveryPhaseHasADeadline(t *testing.T) {
	const short = 50 * time.Millisecond
	for _, c := range []struct {
		name   string
		limits Limits
		send   string
		answer string // what comes before the end
	}{
		{"nothing is sent", Limits{ReadHeader: short}, "", ""},
		{"half a header", Limits{ReadHeader: short}, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", ""},
		{"half a body", Limits{Read: short}, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123", ""},
		{"nothing after an answer", Limits{Idle: short}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _ := start(t, c.limits, hello)
			conn := dial(t, addr)
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn) // ends when the server closes
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the server waits on: %v", err)
			}
			if !strings.HasSuffix(string(got), c.answer) || c.answer == "" && strings.Contains(string(got), "200 OK") {
				t.Errorf("got %q, want an end after %q", got, c.answer)
			}
		})
	}
}

func TestWriteDeadline(t *testing.T) {
	failed := make(chan error, 1)
	addr, _ := start(t, Limits{Write: 50 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := w.Write(chunk); err != nil {
				failed <- err
				return
			}
		}
	})
	conn := dial(t, addr)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select { // nothing is read from conn
	case <-failed:
	case <-time.After(patience):
		t.Fatal("the answer to a client that does not read never ends")
	}
}

func TestBodyLimit(t *testing.T) {
	addr, _ := start(t, Limits{Body: 1000}, hello)
	for size, want := range map[int]int{0: 200, 1000: 200, 1001: 413, 100_000: 413} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(strings.Repeat("x", size))
			if chunked {
				body = io.MultiReader(body) // of a length that nobody knows
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Close = true
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %v", size, chunked, err)
			}
			_ = answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("%d bytes, chunked %v: got %d, want %d", size, chunked, answer.StatusCode, want)
			}
		}
	}
}

func TestHeaderLimit(t *testing.T) {
	addr, _ := start(t, Limits{}, hello)
	conn := dial(t, addr)
	// The server may cut it off while this writes.
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	if !strings.Contains(line, "431") {
		t.Errorf("got %q, want 431", line)
	}
}

// The end of the context refuses new connections and lets a request in flight finish.
func TestDrain(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	addr, stop := start(t, Limits{}, func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-finish
		_, _ = io.WriteString(w, "late")
	})
	conn := dial(t, addr)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-inside
	var returned atomic.Bool
	stopped := make(chan error, 1)
	go func() { err := stop(); returned.Store(true); stopped <- err }()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		other, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		_ = other.Close()
		if time.Now().After(deadline) {
			t.Fatal("connections are accepted during the drain")
		}
	}
	if returned.Load() {
		t.Error("Run has returned with a request in flight")
	}
	close(finish)
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(got), "late") {
		t.Errorf("got %q, %v: want the whole answer", got, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("got %v, want nil after a full drain", err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	defer close(finish)
	addr, stop := start(t, Limits{Drain: 50 * time.Millisecond}, func(http.ResponseWriter, *http.Request) {
		close(inside)
		<-finish
	})
	conn := dial(t, addr)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-inside
	if err := stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the drain took too long", err)
	}
	if got, err := io.ReadAll(conn); len(got) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want a cut without an answer", got, err)
	}
}

// TestDrainClosesConnectionsNeverUsed: browsers open some ahead of need, for which net/http would wait for seconds.
func TestDrainClosesConnectionsNeverUsed(t *testing.T) {
	addr, stop := start(t, Limits{Drain: time.Second, ReadHeader: time.Hour}, hello) // nothing else closes it
	ahead := dial(t, addr)
	if resp, err := http.Get("http://" + addr); err != nil {
		t.Fatal(err)
	} else {
		_ = resp.Body.Close() // the server has accepted what came before this
	}
	if err := stop(); err != nil {
		t.Errorf("drain: %v", err)
	}
	if _, err := ahead.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want it closed", err)
	}
}

// A body that a handler did not read is not taken for the next request.
func TestUnreadBody(t *testing.T) {
	addr, _ := start(t, Limits{}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<"+r.URL.Path+">") })
	conn := dial(t, addr)
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	_, err := fmt.Fprintf(conn, "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%sGET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		len(smuggled), smuggled)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(got), "</first>") || !strings.HasSuffix(string(got), "</second>") || strings.Contains(string(got), "smuggled") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRunWithAnEndedContext(t *testing.T) {
	s, err := New("127.0.0.1:0", http.HandlerFunc(hello), Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("got %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Error("the port is still open")
	}
}

func TestCloseReleasesThePort(t *testing.T) {
	s, err := New("127.0.0.1:0", http.HandlerFunc(hello), Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(s.Addr(), nil, Limits{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a port is bound twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(s.Addr(), nil, Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestOriginAllowed(t *testing.T) {
	listed := []string{"https://chat.example", "http://localhost:5173"}
	for _, c := range []struct {
		name, host, origin string
		allowed            []string
		want               bool
	}{
		{"not a page", "chat.example", "", nil, true},
		{"the same host", "chat.example", "https://chat.example", nil, true},
		{"the same host in other case", "Chat.Example", "https://chat.eXample", nil, true},
		{"another port", "127.0.0.1:7000", "http://127.0.0.1:8080", nil, true},
		{"IPv6", "[::1]:7000", "http://[::1]:8080", nil, true},
		{"IPv6 without a port", "[::1]", "http://[::1]:8080", nil, true},
		{"listed", "api.example", "https://chat.example", listed, true},
		{"everybody", "api.example", "https://evil.example", []string{"*"}, true},
		{"everybody, from a file", "api.example", "null", []string{"*"}, true},

		{"another host", "chat.example", "https://evil.example", nil, false},
		{"not in the list", "api.example", "https://evil.example", listed, false},
		{"listed with another scheme", "api.example", "http://chat.example", listed, false},
		{"listed with another port", "api.example", "https://chat.example:8443", listed, false},
		{"a name that begins alike", "chat.example", "https://chat.example.evil.example", nil, false},
		{"a name that ends alike", "chat.example", "https://evilchat.example", nil, false},
		{"the host as a user", "chat.example", "https://chat.example@evil.example", nil, false},
		{"null", "chat.example", "null", nil, false},
		{"null against no host", "", "null", nil, false},
		{"a file", "", "file://", nil, false},
		{"not a URL", "chat.example", "https://[", nil, false},
		{"another loopback name", "localhost:7000", "http://127.0.0.1:8080", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{Host: c.host, Header: http.Header{}}
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			if got := OriginAllowed(r, c.allowed); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
