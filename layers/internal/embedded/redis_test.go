package embedded_test

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/embedded"
)

// client speaks just enough of the protocol: every answer is one line here.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (c *client) ask(format string, args ...any) string {
	c.t.Helper()
	c.send(format, args...)
	line, err := c.in.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") && !strings.HasPrefix(line, "$-") {
		line, err = c.in.ReadString('\n')
	}
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return strings.TrimSpace(line)
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	command := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		command += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := c.conn.Write([]byte(command)); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func start(t *testing.T) *embedded.Redis {
	t.Helper()
	r, err := embedded.StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRedisWantsItsPassword(t *testing.T) {
	r := start(t)
	defer r.Close()
	other := start(t)
	defer other.Close()
	if host, _, _ := net.SplitHostPort(r.Addr()); host != "127.0.0.1" {
		t.Errorf("listens on %s, want 127.0.0.1", host)
	}
	c := dial(t, r.Addr())
	if got := c.ask("SET k v"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("without a password: %q, want NOAUTH", got)
	}
	if got := c.ask("AUTH %s", other.Password()); !strings.HasPrefix(got, "-WRONGPASS") {
		t.Errorf("with another server's password: %q, want WRONGPASS", got)
	}
	if got := c.ask("AUTH %s", r.Password()); got != "+OK" {
		t.Errorf("with the password: %q, want +OK", got)
	}
	if got := c.ask("SET k v"); got != "+OK" {
		t.Errorf("after AUTH: %q, want +OK", got)
	}
}

func TestRedisFollowsTheClock(t *testing.T) {
	r := start(t)
	defer r.Close()
	c := dial(t, r.Addr())
	c.ask("AUTH %s", r.Password())

	before := time.Now()
	id := c.ask("XADD s * f v")
	ms, err := strconv.ParseInt(strings.Split(id, "-")[0], 10, 64)
	if at := time.UnixMilli(ms); err != nil || at.Before(before.Truncate(time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("stream id %s is not of now", id)
	}
	c.ask("SET short v PX 200")
	c.ask("SET long v EX 3600")
	c.ask("SET dated v")
	c.ask("PEXPIREAT dated %d", time.Now().Add(200*time.Millisecond).UnixMilli())
	for deadline := time.Now().Add(20 * time.Second); c.ask("EXISTS short dated") != ":0"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("keys with a TTL of 200 ms are still there")
		}
	}
	if got := c.ask("EXISTS long"); got != ":1" {
		t.Error("a key with an hour to live has expired")
	}
	// The time to live went down by what has passed, give or take a tick of 50 ms.
	left, err := strconv.ParseInt(strings.TrimPrefix(c.ask("PTTL long"), ":"), 10, 64)
	if passed := time.Since(before).Milliseconds(); err != nil || left < 3_600_000-passed-50 || left >= 3_600_000 {
		t.Errorf("after %d ms, %d ms are left of an hour", passed, left)
	}
}

func TestRedisCloseEndsEverything(t *testing.T) {
	r := start(t)
	c := dial(t, r.Addr())
	c.ask("AUTH %s", r.Password())
	c.ask("XGROUP CREATE s g 0 MKSTREAM")
	c.send("XREADGROUP GROUP g c BLOCK 60000 STREAMS s >")
	r.Close() // must not wait for the blocked reader
	if _, err := c.in.ReadByte(); err == nil {
		t.Error("a connection outlives the server")
	}
	if conn, err := net.Dial("tcp", r.Addr()); err == nil {
		_ = conn.Close()
		t.Error("the port is still open")
	}
}
