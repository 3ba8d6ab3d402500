package connect

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// stillNode is a node in a bubble of synctest, for what needs more time than a test has, or moments that a test chooses.
// It works, but serves no socket: its connections take all that is pushed, and say nothing.
type stillNode struct{ *testNode }

// stillRoutes takes whatever is written.
type stillRoutes struct{}

func (stillRoutes) Apply(context.Context, contract.NodeRef, []contract.RouteChange) error { return nil }
func (stillRoutes) Replace(context.Context, contract.NodeRef, []contract.RouteChange) error {
	return nil
}
func (stillRoutes) Registered(context.Context, contract.NodeRef) (bool, error) { return true, nil }

// startStill is called in the bubble.
func startStill(t *testing.T, logic Logic, repair time.Duration) stillNode {
	t.Helper()
	cfg := Defaults()
	cfg.WebSocket.Listen, cfg.TCP.Listen = "127.0.0.1:0", []string{"127.0.0.1:0"}
	cfg.Buckets, cfg.Repair = 4, repair
	n := stillNode{&testNode{self: contract.NodeRef{ID: "connect-1", Epoch: 1}, metrics: prometheus.NewRegistry()}}
	tel := observability.Discard()
	tel.Metrics = n.metrics
	var err error
	n.Connect, err = New(cfg, logic, stillRoutes{}, func() (contract.NodeRef, bool) { return n.self, true }, tel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, b := range n.buckets {
		running.Go(func() { b.run(ctx) })
	}
	for _, work := range []func(context.Context){n.registrar.run, n.repairMissed, n.compareHeads} {
		running.Go(func() { work(ctx) })
	}
	return n
}

// come authenticates one more connection of the user. What it is sent waits for a writer that never comes: there it is
// found.
func (n stillNode) come(t *testing.T, user contract.UserID) *channel {
	t.Helper()
	conn, peer := net.Pipe()
	t.Cleanup(func() { _ = peer.Close() })
	c := &channel{srv: n.Connect, conn: conn, transport: tcp, number: n.numbers.Add(1), writing: true}
	n.mu.Lock()
	n.channels[c.number%pingSlots][c.number] = c
	n.count++
	n.mu.Unlock()
	n.m.connections[c.transport].Inc()
	if err := c.authenticate(t.Context(), token(user, int(c.number))); err != nil {
		t.Fatal(err)
	}
	return c
}

// sent are the seqs of a conversation's messages that the connection was sent, in order.
func (n stillNode) sent(t *testing.T, c *channel, conversation contract.Conversation) []int64 {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []int64
	for _, packet := range c.queue {
		var m struct {
			Conversation contract.Conversation
			Seq          int64
		}
		if err := json.Unmarshal(packet[wire.TCPHeader:], &m); err != nil {
			t.Fatal(err)
		}
		if m.Conversation == conversation && m.Seq > 0 {
			got = append(got, m.Seq)
		}
	}
	return got
}

func (n stillNode) checkSent(t *testing.T, c *channel, conversation contract.Conversation, want ...int64) {
	t.Helper()
	if got := n.sent(t, c, conversation); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", conversation, got, want)
	}
}

// checkCounted checks how many messages ended as what.
func (n stillNode) checkCounted(t *testing.T, want map[outcome]int) {
	t.Helper()
	synctest.Wait()
	for o := range outcomes {
		if got := n.metric(t, "gochat_connect_deliveries_total", o.String()); got != float64(want[o]) {
			t.Errorf("%v counted as %v, want %d", got, o, want[o])
		}
	}
}

// fromHere is the delivery with the connection excepted, as its sender.
func fromHere(d contract.Delivery, c *channel) contract.Delivery {
	d.Except = c.id()
	return d
}
