package connect

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// TestKeepAlive pings: a websocket that does not answer is closed, one that does and a silent tcp connection are not.
func TestKeepAlive(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.Ping = 320 * time.Millisecond })
	answering, silent := testclient.WebSocket(t, n.WebSocketAddr()), testclient.TCP(t, n.TCPAddrs()[0])
	hello(t, n, answering, 2, 1)
	hello(t, n, silent, 3, 1)
	mute, _ := dialPeer(t, n, webSocket, 4)
	if got := mute.rest(t, contract.Unavailable); len(got) != 1 || got[0].Op() != 23 {
		t.Errorf("before the error: got %v, want when to come back", got)
	}
	_ = mute.conn.Close()
	eventually(t, "tcp pings", func() bool { return len(silent.Frames()) > 8 })
	for _, f := range silent.Frames() {
		if f.Op() != 10 {
			t.Errorf("got %v, want pings alone", f)
		}
	}
	settle(t, answering)
	settle(t, silent)
	if got := n.metric(t, "gochat_connection_closes_total"); got != 1 {
		t.Errorf("%v connections closed, want the one that is mute", got)
	}
}

// TestPingSpread checks that connections which come one after the other are pinged at different moments.
func TestPingSpread(t *testing.T) {
	n := startNode(t, obliging(), nil)
	for range 2 * pingSlots {
		settle(t, testclient.TCP(t, n.TCPAddrs()[0]))
	}
	for slot := range pingSlots {
		if got := len(n.inSlot(slot)); got != 2 {
			t.Errorf("slot %d has %d connections, want 2", slot, got)
		}
	}
}

// TestAuthDeadline closes who does not authenticate, and nobody else.
func TestAuthDeadline(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.AuthWithin = time.Second })
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, ws bool) {
		known, stranger := dial(t, n), dial(t, n)
		hello(t, n, known, 2, 1)
		settle(t, stranger) // a ping is no authentication
		stranger.AwaitError(t, "unauthenticated")
		if got := stranger.AwaitEnd(t); ws && got != 1008 {
			t.Errorf("closed with %d, want 1008", got)
		}
		settle(t, known) // it came first: its own deadline has passed too
		known.Close()
		eventually(t, "gone", func() bool { return len(n.bucketOf(2).ofUser(2)) == 0 })
	})
}

// TestAuthDeadlineWhileLogicIsAway does not take a token that could not be looked at for a bad one.
func TestAuthDeadlineWhileLogicIsAway(t *testing.T) {
	logic := obliging()
	logic.authenticate = func(context.Context, *contract.AuthenticateRequest) (*contract.Identity, error) {
		return nil, contract.Errorf(contract.Unavailable, "away")
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.AuthWithin = time.Second })
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, ws bool) {
		conn := dial(t, n)
		conn.Send(t, map[string]any{"op": 6, "authToken": "token"})
		conn.AwaitError(t, "unavailable")
		if got := conn.AwaitEnd(t); ws && got != 1012 {
			t.Errorf("closed with %d, want 1012", got)
		}
	})
}

// TestHalfAPacket does not wait for ever for the rest of a packet, whoever sent its beginning; between packets it does.
func TestHalfAPacket(t *testing.T) {
	const limit = 300 * time.Millisecond
	n := startNode(t, obliging(), func(c *Connect) { c.timeouts.packet, c.cfg.AuthWithin = limit, testclient.Patience })
	idle := testclient.TCP(t, n.TCPAddrs()[0])
	hello(t, n, idle, 2, 1)
	ping := string(testclient.Packet([]byte(`{"op":10}`)))
	long := testclient.Packet(bytes.Repeat([]byte(" "), 1000))
	pieces, err := net.Dial("tcp", n.TCPAddrs()[0]) // whose packet comes in two, and in time
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pieces.Close() }()
	pings := func(parts ...string) {
		t.Helper()
		for _, part := range parts {
			if _, err := pieces.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(limit / 6)
		}
		if got, err := testclient.ReadPacket(pieces); err != nil || !strings.Contains(string(got), `"op":11`) {
			t.Fatalf("a ping is answered by %s, %v", got, err)
		}
	}
	pings(ping[:7], ping[7:])
	for _, c := range []struct {
		name  string
		write string
		pongs int
		drip  []byte // comes byte by byte afterwards
	}{
		{"alone", ping[:7], 0, nil},
		{"glued to a whole one", ping + ping[:7], 1, nil}, // it is read with that one
		{"byte by byte", ping, 1, long},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", n.TCPAddrs()[0])
			if err != nil {
				t.Fatal(err)
			}
			var dripping sync.WaitGroup
			defer dripping.Wait()
			defer func() { _ = conn.Close() }()
			if err := conn.SetReadDeadline(time.Now().Add(testclient.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(c.write)); err != nil {
				t.Fatal(err)
			}
			dripping.Go(func() {
				for i := range c.drip {
					if _, err := conn.Write(c.drip[i : i+1]); err != nil {
						return // the connection has ended, as it should
					}
					time.Sleep(limit / 6)
				}
			})
			packets := wire.NewPacketReader(conn)
			var got []string
			for {
				payload, err := packets.Next()
				if err != nil {
					break
				}
				got = append(got, string(payload))
			}
			if len(got) != c.pongs+1 || !strings.Contains(got[c.pongs], "bad_request") {
				t.Errorf("got %q, want %d pongs, then bad_request and the end", got, c.pongs)
			}
		})
	}
	time.Sleep(2 * limit)
	settle(t, idle)
	pings(ping)
}

// TestHalfAMessage is TestHalfAPacket for websockets: for a frame and for a message in several; between messages it does.
func TestHalfAMessage(t *testing.T) {
	const limit = 300 * time.Millisecond
	n := startNode(t, obliging(), func(c *Connect) {
		c.timeouts.packet, c.cfg.AuthWithin, c.cfg.Ping = limit, testclient.Patience, time.Hour // no ping ends who is silent
	})
	idle := testclient.WebSocket(t, n.WebSocketAddr())
	hello(t, n, idle, 2, 1)
	// A final and a first text frame of 100 bytes, with a mask of zero.
	whole, part := "\x81\xe4\x00\x00\x00\x00", "\x01\xe4\x00\x00\x00\x00"
	hundred := strings.Repeat(" ", 100)
	pong := "\x8a\x84\x00\x00\x00\x00pong"
	split, ch := dialPeer(t, n, webSocket, 100) // whose pongs come in two, and in time
	next := pong[2:] + pong[:2]                 // the rest of one and the beginning of another
	for _, piece := range []string{pong[:3], pong[3:], pong[:2], next, next, next, pong[2:]} {
		if _, err := split.conn.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit / 3)
	}
	for i, c := range []struct{ name, write, drip string }{
		{"alone", whole + hundred[:50], ""},
		{"a message without its last frame", part + hundred, ""},
		{"byte by byte", whole, hundred},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := dialPeer(t, n, webSocket, contract.UserID(3+i))
			if err := p.conn.SetReadDeadline(time.Now().Add(testclient.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.conn.Write([]byte(c.write)); err != nil {
				t.Fatal(err)
			}
			var dripping sync.WaitGroup
			defer dripping.Wait()
			defer func() { _ = p.conn.Close() }()
			dripping.Go(func() {
				for i := range len(c.drip) {
					if _, err := p.conn.Write([]byte(c.drip[i : i+1])); err != nil {
						return // the connection has ended, as it should
					}
					time.Sleep(limit / 6)
				}
			})
			eventually(t, "gone", func() bool { return len(n.bucketOf(contract.UserID(3+i)).ofUser(contract.UserID(3+i))) == 0 })
		})
	}
	time.Sleep(2 * limit)
	settle(t, idle)
	if ch.isEnded() || ch.begunAt.Load() != 0 {
		t.Error("whose pongs came in two was ended, or is thought to have begun something")
	}
}

// TestFloodTakesTurns has some send without end what needs no answer: the others are served in between, and one who was
// ended is gone in time all the same.
func TestFloodTakesTurns(t *testing.T) {
	n := startNode(t, obliging(), nil)
	victim := testclient.TCP(t, n.TCPAddrs()[0])
	hello(t, n, victim, 2, 1)
	flood := []byte(strings.Repeat(maskedFrame(0x8a, ""), 4000))
	var flooding sync.WaitGroup
	for user := contract.UserID(3); user < 9; user++ {
		p, _ := dialPeer(t, n, webSocket, user)
		flooding.Go(func() {
			for {
				if _, err := p.conn.Write(flood); err != nil {
					return
				}
			}
		})
	}
	for range 20 {
		settle(t, victim)
	}
	for _, ch := range n.all() {
		ch.end(contract.SessionEnded, "over")
	}
	eventually(t, "all have gone", func() bool { return len(n.all()) == 0 })
	flooding.Wait()
}

// ledger is a list of sessions that have ended.
type ledger struct {
	mu    sync.Mutex
	ended []contract.SessionID
	asked []contract.SessionID // in the latest check
	away  bool
}

func (l *ledger) check(_ context.Context, r *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = slices.Sorted(slices.Values(r.Sessions))
	if l.away {
		return nil, errors.New("away")
	}
	return &contract.CheckSessionsReply{Ended: slices.DeleteFunc(slices.Clone(r.Sessions), func(id contract.SessionID) bool {
		return !slices.Contains(l.ended, id)
	})}, nil
}

func (l *ledger) end(id contract.SessionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, id)
}

// TestCheckSessions ends sessions of which nobody tells the node.
func TestCheckSessions(t *testing.T) {
	l := &ledger{}
	logic := obliging()
	logic.checkSessions = l.check
	n := startNode(t, logic, func(c *Connect) { c.cfg.Check = 20 * time.Millisecond })
	one, two := contract.SessionOf(token(2, 1)), contract.SessionOf(token(2, 2))
	conns := []*testclient.Conn{
		testclient.WebSocket(t, n.WebSocketAddr()), testclient.TCP(t, n.TCPAddrs()[0]), testclient.TCP(t, n.TCPAddrs()[0])}
	for i, session := range []int{1, 1, 2} {
		hello(t, n, conns[i], 2, session)
	}
	want := slices.Sorted(slices.Values([]contract.SessionID{one, two}))
	eventually(t, "each session is asked for once", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Equal(l.asked, want)
	})
	l.mu.Lock()
	l.away = true // a check that fails ends nobody
	l.mu.Unlock()
	l.end(one)
	settle(t, conns[0])
	l.mu.Lock()
	l.away = false
	l.mu.Unlock()
	for i, c := range conns[:2] {
		c.AwaitError(t, "session_ended")
		if got := c.AwaitEnd(t); i == 0 && got != 4001 {
			t.Errorf("closed with %d, want 4001", got)
		}
	}
	settle(t, conns[2])
}

// TestEndedWhileAuthenticating ends a session after logic has vouched for it and before the node knows the connection.
// No check of the sessions comes to help.
func TestEndedWhileAuthenticating(t *testing.T) {
	vouched, proceed := make(chan struct{}), make(chan struct{})
	logic := obliging()
	authenticate := logic.authenticate
	logic.authenticate = func(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
		identity, err := authenticate(ctx, r)
		vouched <- struct{}{}
		<-proceed
		return identity, err
	}
	var writing sync.Mutex // while it is held, no route is written
	n := startNode(t, logic, func(c *Connect) {
		self := c.registrar.self
		c.registrar.self = func() (contract.NodeRef, bool) {
			writing.Lock()
			defer writing.Unlock()
			return self()
		}
	})
	sessions := 0
	for _, moment := range []string{"before logic has answered", "before the routes are written"} {
		for code, want := range map[contract.Code]int{contract.SessionEnded: 4001, contract.Replaced: 4002} {
			ended := t.Run(moment+" "+string(code), func(t *testing.T) {
				sessions++
				ending := token(2, sessions)
				c := testclient.WebSocket(t, n.WebSocketAddr())
				writing.Lock()
				c.Send(t, object{"op": 6, "authToken": ending, "roomId": 1})
				<-vouched
				if moment == "before the routes are written" {
					proceed <- struct{}{}
					eventually(t, "it waits for its routes", func() bool { users, _ := n.present(); return users[2] == 1 })
				}
				if _, err := n.CloseSessions(t.Context(), &contract.CloseSessionsRequest{
					Sessions: []contract.SessionID{contract.SessionOf(ending)}, Code: code}); err != nil {
					t.Fatal(err)
				}
				if moment == "before logic has answered" {
					proceed <- struct{}{}
				}
				writing.Unlock()
				c.AwaitError(t, string(code))
				if got := c.AwaitEnd(t); got != want {
					t.Errorf("closed with %d, want %d", got, want)
				}
				eventually(t, "gone", func() bool { users, _ := n.present(); return len(users) == 0 })
			})
			if !ended {
				return // each would wait as long to show the same
			}
		}
	}
	other := testclient.TCP(t, n.TCPAddrs()[0])
	go func() { <-vouched; proceed <- struct{}{} }()
	hello(t, n, other, 2, sessions+1)
	settle(t, other)
}

// TestCloseSessions closes the connections of the sessions named, with the code given, and no others of the user.
func TestCloseSessions(t *testing.T) {
	for code, want := range map[contract.Code]int{contract.SessionEnded: 4001, contract.Replaced: 4002} {
		t.Run(string(code), func(t *testing.T) {
			n := startNode(t, obliging(), nil)
			first, second, other := testclient.WebSocket(t, n.WebSocketAddr()), testclient.TCP(t, n.TCPAddrs()[0]), testclient.TCP(t, n.TCPAddrs()[0])
			hello(t, n, first, 2, 1)
			hello(t, n, second, 2, 1)
			hello(t, n, other, 2, 2)
			if _, err := n.CloseSessions(t.Context(), &contract.CloseSessionsRequest{
				Sessions: []contract.SessionID{contract.SessionOf(token(2, 1)), "unknown"}, Code: code}); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*testclient.Conn{first, second} {
				c.AwaitError(t, string(code))
				if got := c.AwaitEnd(t); c == first && got != want {
					t.Errorf("closed with %d, want %d", got, want)
				}
			}
			settle(t, other)
		})
	}
}
