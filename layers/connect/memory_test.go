package connect

import (
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// heap is what is in use once all that nobody holds is gone.
func heapInUse() int64 {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // pools give up what they hold at the second collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// typically calls use several times, and answers by how much the heap grew over the median one. What is kept for each
// connection is kept by every call; what else comes and goes in the process is not.
func typically(rounds int, use func()) int64 {
	use() // fills what is filled once
	grown := make([]int64, rounds)
	for i := range grown {
		before := heapInUse()
		use()
		grown[i] = heapInUse() - before
	}
	slices.Sort(grown)
	return grown[rounds/2]
}

// dialers connect without the test holding the connection until its end.
func dialers(n *testNode) map[string]func() (*testclient.Conn, error) {
	return map[string]func() (*testclient.Conn, error){
		"websocket": func() (*testclient.Conn, error) { return testclient.DialWebSocket(n.WebSocketAddr()) },
		"tcp":       func() (*testclient.Conn, error) { return testclient.DialTCP(n.TCPAddrs()[0]) },
		"deflated":  func() (*testclient.Conn, error) { return testclient.DialDeflated(n.WebSocketAddr()) },
	}
}

// connected are connections of as many users, in rooms.
func connected(t testing.TB, n *testNode, count int, dial func() (*testclient.Conn, error)) []*testclient.Conn {
	t.Helper()
	conns := make([]*testclient.Conn, count)
	for i := range conns {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		c.Send(t, object{"op": 6, "authToken": token(contract.UserID(2+i), 1), "roomId": 1 + i%10})
		conns[i] = c
	}
	eventually(t, "all are there", func() bool { users, rooms := n.present(); return len(users) == count && len(rooms) == count })
	return conns
}

// busy has each connection send a large frame and be sent one.
func busy(t testing.TB, n *testNode, conns []*testclient.Conn) {
	t.Helper()
	deliveries := make([]contract.Delivery, len(conns))
	for i, c := range conns {
		c.Send(t, object{"op": 10, "more": strings.Repeat("x", 16<<10)})
		deliveries[i] = note(contract.DirectConversation(1, contract.UserID(2+i)), 1, strings.Repeat("y", 1<<10))
	}
	n.push(t, deliveries...)
	for _, c := range conns {
		c.AwaitOp(t, 2)
		c.AwaitOp(t, int(wire.OpPong))
	}
}

// TestMemoryAfterTheEnd: nothing is kept of connections that have been used and have ended.
func TestMemoryAfterTheEnd(t *testing.T) {
	const connections, each = 250, 224 // bytes that a connection may leave: half of the least buffer
	n := startNode(t, obliging(), nil)
	for name, dial := range dialers(n) {
		t.Run(name, func(t *testing.T) {
			grown := typically(7, func() {
				conns := connected(t, n, connections, dial)
				busy(t, n, conns)
				for _, c := range conns {
					c.Close()
				}
				eventually(t, "all gone", func() bool {
					users, _ := n.present()
					return len(users) == 0 && n.metric(t, "gochat_connections") == 0
				})
			})
			if grown > connections*each {
				t.Errorf("each of %d connections left %d bytes behind, want at most %d", connections, grown/connections, each)
			}
		})
	}
}

// TestMemoryWhenIdle: a connection that is idle after large frames holds what it held before them.
func TestMemoryWhenIdle(t *testing.T) {
	const connections, each = 100, 6 << 10 // bytes, most of it what the test's client recorded; it sent 16 KiB
	n := startNode(t, obliging(), nil)
	for name, dial := range dialers(n) {
		t.Run(name, func(t *testing.T) {
			conns := connected(t, n, connections, dial)
			before := heapInUse()
			busy(t, n, conns)
			if grown := heapInUse() - before; grown > connections*each {
				t.Errorf("each of %d idle connections holds %d bytes more than before it was used, want at most %d", connections, grown/connections, each)
			} else {
			}
			for _, c := range conns {
				c.Close()
			}
			eventually(t, "all gone", func() bool { users, _ := n.present(); return len(users) == 0 })
		})
	}
}
