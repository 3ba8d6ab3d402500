package connect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// TestDrain stops a node to which pushes go on: every client is told when to come back and why it was closed, and
// what a push called written or queued has arrived.
func TestDrain(t *testing.T) {
	const people = 32
	n := startNode(t, obliging(), func(c *Connect) {
		c.cfg.Drain, c.timeouts.linger = 300*time.Millisecond, 2*time.Second
	})
	var conns []*testclient.Conn
	for i := range people {
		c := transports[i%len(transports)].dial(t, n)
		enter(t, c, hello(t, n, c, contract.UserID(i+1), 1), 1)
		conns = append(conns, c)
	}
	delivered, duringDrain := 0, 0
	pushed := make(chan error, 1)
	go func() {
		for seq := int64(1); ; seq++ {
			got, err := n.tryPush(note("room:1", seq, "on and on"))
			if err != nil {
				pushed <- err
				return
			}
			delivered += got.Written + got.Queued
			if got.Receivers() > 0 && got.Written < people {
				duringDrain++
			}
		}
	}()
	eventually(t, "pushes arrive", func() bool { return len(seqs(conns[0], "room:1")) > 0 })
	if err := n.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
	if err := <-pushed; !errors.Is(err, errStopped) {
		t.Errorf("push to a node that stops: got %v, want %v", err, errStopped)
	}
	for range 10 {
		if _, err := n.tryPush(note("room:1", 1, "too late")); !errors.Is(err, errStopped) {
			t.Errorf("push to a node that has stopped: got %v, want %v", err, errStopped)
		}
	}
	if duringDrain == 0 {
		t.Error("nothing was pushed while some had gone: this test shows less than it should")
	}
	received, moments := 0, make(map[int]bool)
	for i, c := range conns {
		if got := c.AwaitEnd(t); transports[i%len(transports)].name != "tcp" && got != 1012 {
			t.Errorf("connection %d: closed with %d, want 1012", i, got)
		}
		frames := c.Frames()
		if len(frames) < 2 {
			t.Fatalf("connection %d: got %v", i, frames)
		}
		away, last := frames[len(frames)-2], frames[len(frames)-1]
		if ms := away.Int("reconnectAfterMs"); away.Op() != 23 || ms < 200 || ms > 2000 {
			t.Errorf("connection %d: got %v, want op 23 with 200 to 2000 ms", i, away)
		}
		moments[away.Int("reconnectAfterMs")] = true
		if last.Op() != 21 || last.Str("code") != "unavailable" {
			t.Errorf("connection %d: got %v, want the error unavailable", i, last)
		}
		got := seqs(c, "room:1")
		if !slices.Equal(got, upTo(1, int64(len(got)))) {
			t.Errorf("connection %d: got %v", i, got)
		}
		received += len(got)
	}
	if received != delivered {
		t.Errorf("received %d, but %d were said to be written or queued", received, delivered)
	}
	if len(moments) < people*3/4 {
		t.Errorf("told to come back at %d moments, want nearly one for each of %d", len(moments), people)
	}
	for _, addr := range append(n.TCPAddrs(), n.WebSocketAddr()) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("%s accepts still", addr)
		}
	}
}

// TestDrainEndsWithTheLast has the clients leave by themselves while the node waits to tell the second to go.
func TestDrainEndsWithTheLast(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.Drain = time.Hour })
	var conns []*testclient.Conn
	for user := contract.UserID(1); user <= 3; user++ {
		c := testclient.TCP(t, n.TCPAddrs()[0])
		hello(t, n, c, user, 1)
		conns = append(conns, c)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	eventually(t, "one is told to go", func() bool { return n.metric(t, "gochat_connection_closes_total") > 0 })
	eventually(t, "two are said to wait", func() bool { return n.metric(t, "gochat_drain_waiting_connections") == 2 })
	if got := n.metric(t, "gochat_draining"); got != 1 {
		t.Errorf("gochat_draining is %v, want 1", got)
	}
	if end := n.metric(t, "gochat_drain_end_timestamp_seconds") - float64(time.Now().Unix()); end < 3000 || end > 3601 {
		t.Errorf("the drain is to end in %v s, want an hour from its beginning", end)
	}
	for _, c := range conns {
		c.Close()
	}
	if err := testwait.Receive(t, "the end of the drain", stopped); err != nil {
		t.Error(err)
	}
	if got := n.metric(t, "gochat_connection_closes_total"); got != 1 {
		t.Errorf("%v were told to go, want 1: the test shows less than it should", got)
	}
	if got := n.metric(t, "gochat_drain_waiting_connections"); got != 0 {
		t.Errorf("%v wait after the end, want none", got)
	}
}

// TestComeBack spreads those who are sent away evenly over the configured time, whichever they are.
func TestComeBack(t *testing.T) {
	const people, parts = 1000, 10
	for _, window := range []time.Duration{time.Second, 90 * time.Second} {
		c := &Connect{cfg: Config{ComeBack: window}}
		for _, first := range []uint64{1, 1 << 20, 1<<40 - 3} {
			var got [parts]int
			for i := range uint64(people) {
				at := c.comeBack(first + i)
				if at < window/10 || at >= window {
					t.Fatalf("%v: %v is not between %v and %v", window, at, window/10, window)
				}
				got[int((at-window/10)*parts/(window-window/10))]++
			}
			for _, n := range got {
				if n < people/parts*9/10 || n > people/parts*11/10 {
					t.Errorf("%v, from %d on: got %v, want about %d each", window, first, got, people/parts)
					break
				}
			}
		}
	}
}

// TestDrainStalled stops a node whose clients do not read.
func TestDrainStalled(t *testing.T) {
	eachTransport(t, func(t *testing.T, tr transport) {
		n := startNode(t, obliging(), func(c *Connect) { c.timeouts.linger = 100 * time.Millisecond })
		for user := contract.UserID(2); user < 6; user++ {
			dialPeer(t, n, tr, user)
			for range 10 {
				n.push(t, note(contract.DirectConversation(1, user), 0, strings.Repeat("s", 16_000)))
			}
		}
		if err := n.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
		if got := n.metric(t, "gochat_connections_forced_total"); got != 4 {
			t.Errorf("%v counted as forced, want 4", got)
		}
	})
}

// TestDrainRacesArrivals connects and authenticates while the node stops: nobody is left behind.
func TestDrainRacesArrivals(t *testing.T) {
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			n := startNode(t, obliging(), func(c *Connect) { c.cfg.Drain = 0 })
			ended := make(chan struct{}, 8)
			for i := range cap(ended) {
				go func() {
					defer func() { ended <- struct{}{} }()
					for { // until nobody listens
						dial, addr := testclient.DialWebSocket, n.WebSocketAddr()
						if i%2 == 0 {
							dial, addr = testclient.DialTCP, n.TCPAddrs()[0]
						}
						c, err := dial(addr)
						if err != nil {
							return
						}
						_ = c.TrySend(object{"op": 6, "authToken": token(contract.UserID(i+1), 1), "roomId": 1}) // may be too late
						c.Close()
					}
				}()
			}
			eventually(t, "they come", func() bool { return n.numbers.Load() > 10 })
			if err := n.stop(); err != nil {
				t.Errorf("run: %v", err)
			}
			for range cap(ended) {
				<-ended
			}
		})
	}
}

// TestAfterDrain brings a connection, and a request for one, that were on their way when the node drained.
func TestAfterDrain(t *testing.T) {
	n := startNode(t, obliging(), nil)
	if err := n.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
	if n.begin() {
		t.Error("a handshake begins")
	}
	client, server := socketPair(t)
	n.admit(server, tcp)
	p := &peer{transport: tcp, conn: client, r: bufio.NewReader(client)}
	if got := p.rest(t, contract.Unavailable); len(got) != 1 || got[0].Op() != 23 {
		t.Errorf("before the error: got %v, want when to come back", got)
	}
}

// TestPushEnds ends the context of a push whose bucket does not work, as before Run.
func TestPushEnds(t *testing.T) {
	cfg := Defaults()
	cfg.WebSocket.Listen, cfg.TCP.Listen = "127.0.0.1:0", []string{"127.0.0.1:0"}
	c, err := New(cfg, obliging(), nil, nil, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.sequencer.arrive(t.Context(), 1); err != nil { // who is nowhere has no bucket to wait for
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Push(ctx, &contract.PushRequest{Deliveries: []contract.Delivery{note("room:1", 1, "x")}})
	if contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}
