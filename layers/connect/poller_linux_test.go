package connect

import (
	"testing"

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
