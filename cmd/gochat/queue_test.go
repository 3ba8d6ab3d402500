package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// startRedis starts a redis-server on a free port of loopback, which ends with the test.
func startRedis(t *testing.T) (addr string, client *goredis.Client) {
	t.Helper()
	free, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	addr = free.Addr().String()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("redis-server", "--port", port, "--bind", loopback, "--save", "", "--dir", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // it may have ended by itself
		_ = server.Wait()         // says that it was killed
	})
	client = goredis.NewClient(&goredis.Options{Addr: addr})
	t.Cleanup(func() { _ = client.Close() })
	eventually(t, "Redis answers", func() bool { return client.Ping(t.Context()).Err() == nil })
	return addr, client
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestQueueAside puts what is no delivery into the queue of a running system, which sets it aside, and has the command
// list it: latest first, with what an operator looks for and without texts.
func TestQueueAside(t *testing.T) {
	addr, redis := startRedis(t)
	setting := "--set=redis.addrs=" + addr
	list := func(args ...string) []string {
		t.Helper()
		out, err := invoke(t, append([]string{"queue", "aside", setting}, args...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	heading := regexp.MustCompile(`^SET ASIDE +PARTITION +KEY +BYTES +TRACEPARENT +REASON$`)
	if got := list(); len(got) != 1 || !heading.MatchString(got[0]) {
		t.Errorf("nothing is set aside, and it lists %q", got)
	}
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	add := func(body string) {
		t.Helper()
		// As the queue's own layout is: room:1 is in partition 7 of 16.
		if err := redis.XAdd(t.Context(), &goredis.XAddArgs{Stream: "gochat:deliveries:{7}", Values: []string{
			"key", "room:1", "headers", "traceparent=" + traceparent, "body", body,
		}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	up := startUp(t, "--data-dir", t.TempDir(), "--site-port", "0", "--api-port", "0", "--websocket-port", "0",
		"--tcp-ports", "0", "--admin-port", "0", setting)
	for i, body := range []string{"a text", "another text"} {
		add(body)
		eventually(t, "it is set aside", func() bool { return len(list()) == i+2 })
	}
	lines := list()
	for i, bytes := range []int{len("another text"), len("a text")} {
		want := regexp.MustCompile(fmt.Sprintf(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +7 +"room:1" +%d +%s +\S.*delivery`, bytes, traceparent))
		if got := lines[i+1]; !want.MatchString(got) || strings.Contains(got, "text") {
			t.Errorf("line %d is %q, want %s, and no text", i+1, got, want)
		}
	}
	if got := list("--limit", "1"); len(got) != 2 || got[1] != lines[1] {
		t.Errorf("the last one alone is %q, want %q", got, lines[1])
	}
	up.stop(t)
	if got := list(); len(got) != 3 {
		t.Errorf("after the end of who set them aside it lists %q", got)
	}
}

// TestQueueAsideWithoutAQueue: a queue that cannot be reached is an error, not an empty list.
func TestQueueAsideWithoutAQueue(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := command()
	cmd.SetArgs([]string{"queue", "aside", "--set=redis.addrs=127.0.0.1:1"})
	if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v, want an error that names the address", err)
	}
}
