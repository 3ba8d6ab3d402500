package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// counting is a Logic that counts its calls.
func counting(calls *atomic.Int32) *scripted {
	return &scripted{reply: func(context.Context, string, any) (any, error) { calls.Add(1); return nil, nil }}
}

// keyFor is a room whose messages go to the peer first.
func keyFor(t *testing.T, l *Logic, first Peer) contract.RoomID {
	t.Helper()
	for room := contract.RoomID(1); room < 1000; room++ {
		if l.order(string(contract.RoomConversation(room)))[0] == first {
			return room
		}
	}
	t.Fatalf("no room of 1000 goes to %v", first)
	return 0
}

// A call that may have been done is repeated elsewhere only if that is harmless; one that surely was not, always.
func TestRepetition(t *testing.T) {
	for _, c := range []struct {
		name   string
		peer   func(*testing.T, *atomic.Int32) Peer
		call   func(context.Context, *Logic, contract.RoomID) error
		broken int32 // calls that reach the broken peer
		other  int32 // and the other one; 0: the call fails
	}{
		{"refused, repeatable", refusing, sendNamed, 0, 1},
		{"refused, not repeatable", refusing, sendUnnamed, 0, 1},
		{"cut, repeatable", cutting, sendNamed, 1, 1},
		{"cut, not repeatable", cutting, sendUnnamed, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var reached, answered atomic.Int32
			bad := c.peer(t, &reached)
			good := serve(t, ref("logic-2"), counting(&answered), nil, observability.Discard())
			l := logicOn(t, bad, good.peer)
			err := c.call(t.Context(), l, keyFor(t, l, bad))
			if c.other == 0 && contract.CodeOf(err) != contract.Unavailable || c.other > 0 && err != nil {
				t.Errorf("got %v", err)
			}
			if reached.Load() != c.broken || answered.Load() != c.other {
				t.Errorf("the broken peer got %d calls and the other %d, want %d and %d", reached.Load(), answered.Load(), c.broken, c.other)
			}
		})
	}
	for name, call := range map[string]func(context.Context, *Logic) error{
		"Register": func(ctx context.Context, l *Logic) error {
			_, err := l.Register(ctx, &contract.RegisterRequest{})
			return err
		},
		"Login": func(ctx context.Context, l *Logic) error {
			_, err := l.Login(ctx, &contract.LoginRequest{})
			return err
		},
		"CreateRoom": func(ctx context.Context, l *Logic) error {
			_, err := l.CreateRoom(ctx, &contract.CreateRoomRequest{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var reached atomic.Int32
			l := logicOn(t, cutting(t, &reached), cutting(t, &reached))
			if err := call(t.Context(), l); contract.CodeOf(err) != contract.Unavailable || reached.Load() != 1 {
				t.Errorf("got %v after %d calls, want unavailable after one", err, reached.Load())
			}
		})
	}
	t.Run("at most three times", func(t *testing.T) {
		var reached atomic.Int32
		l := logicOn(t, cutting(t, &reached))
		if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); contract.CodeOf(err) != contract.Unavailable || reached.Load() != attempts {
			t.Errorf("got %v after %d calls, want unavailable after %d", err, reached.Load(), attempts)
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		if _, err := logicOn(t).Rooms(t.Context(), &contract.RoomsRequest{}); contract.CodeOf(err) != contract.Unavailable {
			t.Errorf("got %v, want unavailable", err)
		}
	})
}

func sendNamed(ctx context.Context, l *Logic, room contract.RoomID) error {
	_, err := l.Send(ctx, &contract.SendRequest{Room: room, Text: "x", ClientID: "c"})
	return err
}

func sendUnnamed(ctx context.Context, l *Logic, room contract.RoomID) error {
	_, err := l.Send(ctx, &contract.SendRequest{Room: room, Text: "x"})
	return err
}

func refusing(t *testing.T, _ *atomic.Int32) Peer { return dead(t, "logic-1") }

// cutting is a peer that reads a call and dies over it.
func cutting(t *testing.T, calls *atomic.Int32) Peer {
	return silent(t, "logic-1", func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, 16)); err == nil {
			calls.Add(1)
		}
		_ = conn.Close()
	})
}

// hanging is a peer that does not finish connecting: the kernel's queue for it is full.
func hanging(t *testing.T, id contract.NodeID) Peer {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return Peer{Ref: ref(id), Addr: addr}
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("connections never hang")
	return Peer{}
}

// A node that hangs in dialling delays no calls to others, and those to it by one dial, however many they are.
func TestHangingDial(t *testing.T) {
	hung := hanging(t, "connect-1")
	var answered atomic.Int32
	good := serve(t, ref("connect-2"), nil, (*nodeScript)(counting(&answered)), observability.Discard())
	c := NewClients(config(), observability.Discard()).Connect(func() []Peer { return []Peer{hung, good.peer} })
	t.Cleanup(func() { _ = c.Close() })
	const calls = 100
	var hanging sync.WaitGroup
	var ended atomic.Int32
	for range calls {
		hanging.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := c.Push(ctx, hung, &contract.PushRequest{}); contract.CodeOf(err) != contract.Unavailable || ctx.Err() != nil {
				t.Errorf("got %v, want unavailable long before the deadline", err)
			}
			ended.Add(1)
		})
	}
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Push(impatient, hung, &contract.PushRequest{}); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	for range calls {
		if _, err := c.Push(t.Context(), good.peer, &contract.PushRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if ended.Load() == calls {
		t.Error("the dial ended before the calls to the other node: nothing was tested")
	}
	hanging.Wait()
}

func TestChoiceByKey(t *testing.T) {
	var nodes []Peer
	for i := range 5 {
		nodes = append(nodes, Peer{Ref: contract.NodeRef{ID: contract.NodeID(fmt.Sprintf("logic-%d", i)), Epoch: int64(100 + i)}, Addr: fmt.Sprint(i)})
	}
	list := nodes
	l := logicOf(t, func() []Peer { return list })
	const keys = 5000
	key := func(i int) string { return string(contract.RoomConversation(contract.RoomID(i))) }
	first := make([]Peer, keys)
	share := make(map[Peer]int)
	for i := range keys {
		order := l.order(key(i))
		first[i] = order[0]
		share[order[0]]++
		if !slices.Equal(order, l.order(key(i))) {
			t.Fatal("the same key is ordered differently")
		}
	}
	for _, n := range nodes {
		if share[n] < keys/len(nodes)/2 || share[n] > keys/len(nodes)*2 {
			t.Errorf("%v is preferred by %d of %d keys", n.Ref, share[n], keys)
		}
	}
	list = slices.Clone(nodes)
	slices.Reverse(list)
	for i := range keys {
		if l.order(key(i))[0] != first[i] {
			t.Fatal("the choice depends on the order of the list")
		}
	}
	gone := nodes[2]
	list = slices.Delete(slices.Clone(nodes), 2, 3)
	for i := range keys {
		if now := l.order(key(i))[0]; first[i] != gone && now != first[i] {
			t.Fatalf("key %d moved from %v to %v, neither of which left", i, first[i].Ref, now.Ref)
		}
	}
	list = append(slices.Clone(nodes), Peer{Ref: contract.NodeRef{ID: "logic-5", Epoch: 200}, Addr: "5"})
	for i := range keys {
		if now := l.order(key(i))[0]; now != first[i] && now.Ref.ID != "logic-5" {
			t.Fatalf("key %d moved from %v to %v, not to the one that came", i, first[i].Ref, now.Ref)
		}
	}
}

func TestChoiceByTurns(t *testing.T) {
	nodes := []Peer{{Ref: ref("a")}, {Ref: ref("b")}, {Ref: ref("c")}}
	l := logicOn(t, nodes...)
	got := make(map[Peer]int)
	for range 300 {
		order := l.order("")
		got[order[0]]++
		if len(order) != 3 || order[0] == order[1] || order[1] == order[2] || order[0] == order[2] {
			t.Fatalf("got order %v", order)
		}
	}
	for _, n := range nodes {
		if got[n] != 100 {
			t.Errorf("%v was first %d times of 300", n.Ref, got[n])
		}
	}
}

// Both directions of a direct conversation, and a room, have one node each, whoever asks.
func TestConversationsHaveOneNode(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]map[string]bool) // conversation → nodes
	var peers []Peer
	for i := range 4 {
		id := fmt.Sprintf("logic-%d", i)
		n := serve(t, ref(contract.NodeID(id)), &scripted{reply: func(_ context.Context, _ string, r any) (any, error) {
			s := r.(*contract.SendRequest)
			c := string(contract.RoomConversation(s.Room))
			if s.To != 0 {
				c = string(contract.DirectConversation(s.From, s.To))
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[c] == nil {
				seen[c] = make(map[string]bool)
			}
			seen[c][id] = true
			return nil, nil
		}}, nil, observability.Discard())
		peers = append(peers, n.peer)
	}
	clients := []*Logic{logicOn(t, peers...), logicOn(t, peers[3], peers[1], peers[0], peers[2])}
	for i := range 40 {
		for _, l := range clients {
			for _, r := range []*contract.SendRequest{
				{Room: contract.RoomID(i + 1)}, {From: 7, To: contract.UserID(i + 10)}, {From: contract.UserID(i + 10), To: 7, Room: 3},
			} {
				if _, err := l.Send(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	used := make(map[string]bool)
	for c, nodes := range seen {
		if len(nodes) != 1 {
			t.Errorf("%s is sent to %d nodes", c, len(nodes))
		}
		for n := range nodes {
			used[n] = true
		}
	}
	if len(seen) != 80 || len(used) != 4 {
		t.Errorf("%d conversations on %d nodes, want 80 on 4", len(seen), len(used))
	}
}

// The connection to a node that has left is closed, but not before the calls in flight over it have their answers.
func TestConnectionsOfNodesThatLeft(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	leaving := serve(t, ref("logic-1"), &scripted{reply: func(_ context.Context, m string, _ any) (any, error) {
		if m == "CreateRoom" { // which is not repeated elsewhere
			<-release
		}
		return nil, nil
	}}, nil, observability.Discard())
	var answered atomic.Int32
	staying := serve(t, ref("logic-2"), counting(&answered), nil, observability.Discard())
	var list atomic.Pointer[[]Peer]
	list.Store(&[]Peer{leaving.peer})
	l := logicOf(t, func() []Peer { return *list.Load() })
	slow := make(chan error, 1)
	go func() { _, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{}); slow <- err }()
	eventually(t, "a call is in flight", func() bool { return len(leaving.srv.rpcx.ActiveClientConn()) == 1 })

	list.Store(&[]Peer{staying.peer})
	begin := time.Now()
	for time.Since(begin) < 2*sweepEvery { // at least one sweep finds it gone
		if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	once.Do(func() { close(release) })
	if err := testwait.Receive(t, "the call in flight", slow); err != nil {
		t.Errorf("the call in flight on the node that left: %v", err)
	}
	eventually(t, "its connection is closed", func() bool {
		if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); err != nil {
			t.Fatal(err)
		}
		return len(leaving.srv.rpcx.ActiveClientConn()) == 0
	})
	if len(staying.srv.rpcx.ActiveClientConn()) != 1 {
		t.Errorf("%d connections to the node that stays, want 1", len(staying.srv.rpcx.ActiveClientConn()))
	}
}
