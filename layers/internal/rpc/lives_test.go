package rpc

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// Close fails what is in flight and everything later, and leaves no goroutine.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	entered, block := make(chan struct{}), make(chan struct{})
	n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) {
		close(entered)
		<-block
		return nil, nil
	}}, nil, observability.Discard())
	l := NewClients(config(), observability.Discard()).Logic(func() []Peer { return []Peer{n.peer} })
	flight := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := l.Rooms(ctx, &contract.RoomsRequest{})
		flight <- err
	}()
	testwait.Receive(t, "the call is in flight", entered)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := testwait.Receive(t, "the call in flight fails", flight); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("in flight: got %v, want unavailable", err)
	}
	if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("later: got %v, want unavailable", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("once more: %v", err)
	}
	close(block)
	if err := n.drain(); err != nil {
		t.Error(err)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestDrain(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) {
		close(inside)
		<-release
		return &contract.Room{Name: "late"}, nil
	}}, nil, observability.Discard())
	l := logicOn(t, n.peer)
	type result struct {
		room *contract.Room
		err  error
	}
	got := make(chan result, 1)
	go func() { r, err := l.Room(t.Context(), &contract.RoomRequest{}); got <- result{r, err} }()
	<-inside
	n.stop()
	eventually(t, "no more connections are accepted", func() bool {
		conn, err := net.Dial("tcp", n.peer.Addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-n.done:
		t.Fatalf("the server ended with a call in flight: %v", err)
	default:
	}
	close(release)
	if r := testwait.Receive(t, "the answer", got); r.err != nil || r.room.Name != "late" {
		t.Errorf("got %v, %v, want the answer", r.room, r.err)
	}
	if err := n.drain(); err != nil {
		t.Errorf("drain: %v", err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	srv, err := NewServer(config(), observability.Discard().Log)
	if err != nil {
		t.Fatal(err)
	}
	inside, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	err = srv.ServeLogic(&scripted{reply: func(context.Context, string, any) (any, error) { close(inside); <-release; return nil, nil }}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, 10*time.Millisecond) }()
	l := logicOn(t, Peer{Ref: ref("logic-1"), Addr: srv.Addr()})
	failed := make(chan error, 1)
	go func() { failed <- sendUnnamed(t.Context(), l, 1) }()
	<-inside
	cancel()
	if err := testwait.Receive(t, "the server ends", done); err == nil || !strings.Contains(err.Error(), "drain") {
		t.Errorf("got %v, want that it was not drained", err)
	}
	if err := testwait.Receive(t, "the call fails", failed); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestRunWithAnEndedContext(t *testing.T) {
	for range 200 { // it may end before or after the server listens
		srv, err := NewServer(config(), observability.Discard().Log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() { done <- srv.Run(ctx, patience) }()
		if err := testwait.Receive(t, "the server ends", done); err != nil {
			t.Fatal(err)
		}
	}
}

// Servers are killed and come back, as later lives on other ports, while calls go on: each call is answered once or
// is unavailable, none without a name is done twice, and when all are back every call works.
func TestRestarts(t *testing.T) {
	const rounds, callers = 8, 8
	var mu sync.Mutex
	done := make(map[string]int)
	logic := &scripted{reply: func(_ context.Context, _ string, r any) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		done[r.(*contract.SendRequest).Text]++
		return nil, nil
	}}
	var nodes [2]*node
	var list atomic.Pointer[[]Peer]
	start := func(i int, epoch int64) {
		nodes[i] = serve(t, contract.NodeRef{ID: contract.NodeID(fmt.Sprintf("logic-%d", i)), Epoch: epoch}, logic, nil, observability.Discard())
		var peers []Peer
		for _, n := range nodes {
			if n != nil {
				peers = append(peers, n.peer)
			}
		}
		list.Store(&peers)
	}
	start(0, 1)
	start(1, 2)
	l := logicOf(t, func() []Peer { return *list.Load() })

	ctx, stop := context.WithCancel(t.Context())
	answered := make([]map[string]bool, callers)
	var calling sync.WaitGroup
	for c := range callers {
		answered[c] = make(map[string]bool)
		calling.Go(func() {
			for i := 0; ctx.Err() == nil && i < 20_000; i++ {
				r := &contract.SendRequest{Room: contract.RoomID(i%50 + 1), Text: fmt.Sprintf("%d-%d", c, i)}
				if c%2 == 0 {
					r.ClientID = r.Text
				}
				switch _, err := l.Send(context.WithoutCancel(ctx), r); contract.CodeOf(err) {
				case "":
					answered[c][r.Text] = true
				case contract.Unavailable:
					time.Sleep(time.Millisecond)
				default:
					t.Errorf("got %v", err)
				}
			}
		})
	}
	for round := range rounds {
		time.Sleep(20 * time.Millisecond) // of calls; how many is of no matter
		i := round % 2
		if round%4 < 2 {
			nodes[i].kill()
		} else if err := nodes[i].drain(); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
		start(i, int64(10+round))
	}
	stop()
	calling.Wait()
	mu.Lock()
	defer mu.Unlock()
	succeeded := 0
	for c := range callers {
		for text := range answered[c] {
			succeeded++
			if done[text] == 0 {
				t.Errorf("%s was answered and never done", text)
			}
		}
	}
	for text, times := range done {
		var c, i int
		if _, err := fmt.Sscanf(text, "%d-%d", &c, &i); err != nil {
			t.Fatal(err)
		}
		if c%2 == 1 && times > 1 {
			t.Errorf("%s, which has no name, was done %d times", text, times)
		}
	}
	if succeeded < 100 {
		t.Errorf("%d calls succeeded, too few to say anything", succeeded)
	}
	for i := range 50 {
		mu.Unlock()
		err := sendUnnamed(t.Context(), l, contract.RoomID(i+1))
		mu.Lock()
		if err != nil {
			t.Errorf("when all are back: %v", err)
		}
	}
}
