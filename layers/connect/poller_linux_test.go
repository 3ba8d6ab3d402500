package connect

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// TestPollerBreaks has the epoll fail under a node: it ends with the error, and leaves nobody behind.
func TestPollerBreaks(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.Drain = 0 })
	idle, busy := testclient.TCP(t, n.TCPAddrs()[0]), testclient.WebSocket(t, n.WebSocketAddr())
	enter(t, idle, hello(t, n, idle, 2, 1), 1)
	enter(t, busy, hello(t, n, busy, 3, 1), 1)
	if err := n.poller.epoll.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*testclient.Conn{idle, busy} {
		c.AwaitError(t, "unavailable")
		c.AwaitEnd(t)
	}
	if err := n.stop(); err == nil {
		t.Error("run says nothing of it")
	}
	n.stop = func() error { return nil } // that it has failed is what is wanted
	if users, rooms := n.present(); len(users)+len(rooms) != 0 || len(n.all()) != 0 {
		t.Errorf("%d users and %d rooms are registered, %d connections left, want none", len(users), len(rooms), len(n.all()))
	}
}

// TestIdleHasNoGoroutine: a connection that nothing comes from costs no goroutine.
func TestIdleHasNoGoroutine(t *testing.T) {
	const connections = 200
	n := startNode(t, obliging(), nil)
	before := runtime.NumGoroutine()
	var all []net.Conn
	for i := range connections {
		c, err := net.Dial("tcp", n.TCPAddrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write(testclient.Packet(fmt.Appendf(nil, `{"op":6,"authToken":%q}`, token(contract.UserID(i+1), 1)))); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	eventually(t, "all are there, and nobody works", func() bool {
		users, _ := n.present()
		return len(users) == connections && runtime.NumGoroutine() < before+connections/10
	})
	for _, c := range all { // and they still live
		if _, err := c.Write(testclient.Packet([]byte(`{"op":10}`))); err != nil {
			t.Fatal(err)
		}
		if got, err := testclient.ReadPacket(c); err != nil || !strings.Contains(string(got), `"op":11`) {
			t.Fatalf("a ping is answered by %s, %v", got, err)
		}
	}
}
