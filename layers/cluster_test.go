package layers

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// TestCluster runs two of each layer. People on different nodes and transports chat in one room: every message
// arrives once, in order, everywhere. Then a connect node is killed, and who is online is right again.
func TestCluster(t *testing.T) {
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			b := make(t)
			one := start(t, b.config(), All()...)
			cfg := b.config()
			cfg.Site.WebSocketURL = "ws://" + one.WebSocket + "/ws"
			two := start(t, cfg, contract.LayerLogic, contract.LayerTask, contract.LayerAPI, contract.LayerSite)
			other := spawn(t, b.config(), contract.LayerConnect)
			chatInOneRoom(t, cfg, one, two, other)
		})
	}
}

// TestEveryLayerIsKnown runs a process for each layer: another one finds every one of them in etcd, where it answers.
func TestEveryLayerIsKnown(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	cfg.Site.APIURL, cfg.Site.WebSocketURL = "http://localhost", "ws://localhost/ws" // of other processes
	for _, layer := range All() {
		r := start(t, cfg, layer)
		want := map[string]string{contract.LayerAPI: r.API, contract.LayerSite: r.Page}
		got := nodesOf(t, cfg, layer)
		if len(got) != 1 || !strings.HasPrefix(string(got[0].Ref.ID), layer+"-") {
			t.Errorf("%s nodes: got %v, want one", layer, got)
			continue
		}
		if addr, isTold := want[layer]; isTold && got[0].Addr != addr {
			t.Errorf("%s is known at %q, want %q", layer, got[0].Addr, addr)
		}
		if layer == contract.LayerTask {
			tasks := rpc.NewClients(cfg.RPC, observability.Discard()).Task(func() []rpc.Peer { return got })
			t.Cleanup(func() { _ = tasks.Close() }) // the node may have left first
			if answers := tasks.Whereabouts(t.Context(), &contract.WhereaboutsRequest{Message: 1}); len(answers) != 1 || answers[0].Err != nil {
				t.Errorf("task does not answer where it is known: %+v", answers)
			}
		}
	}
}

// TestLeavesFirst: a layer that nobody calls leaves the view before the rest of its process drains.
func TestLeavesFirst(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	cfg.Connect.Drain = 10 * time.Second // half of it between the two connections
	start(t, cfg, contract.LayerLogic, contract.LayerTask)
	r := start(t, cfg, contract.LayerConnect, contract.LayerAPI, contract.LayerSite)
	for i := range 2 {
		testclient.TCP(t, r.TCP[0]).Enter(t, testclient.Register(t, r.api(), fmt.Sprint("stays-", i)), 1)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for _, layer := range []string{contract.LayerAPI, contract.LayerSite} {
		eventually(t, layer+" has left", func() bool { return len(nodesOf(t, cfg, layer)) == 0 })
	}
	select {
	case <-ended:
		t.Error("the process has ended: nothing was shown")
	default:
	}
}

func chatInOneRoom(t *testing.T, cfg Config, one, two, other *running) {
	const perPerson = 50
	people := []*testclient.User{
		testclient.Register(t, one.api(), "ann"), testclient.Register(t, two.api(), "bob"),
		testclient.Register(t, one.api(), "cem"), testclient.Register(t, two.api(), "dora"),
	}
	conns := []*testclient.Conn{
		testclient.WebSocket(t, one.WebSocket), testclient.TCP(t, one.TCP[0]),
		testclient.WebSocket(t, other.WebSocket), testclient.TCP(t, other.TCP[0]),
	}
	for i, c := range conns {
		c.Enter(t, people[i], 1)
	}
	// A second connection of ann, on the other node: she is online once, and gets everything there too.
	second := testclient.TCP(t, other.TCP[0])
	second.Enter(t, people[0], 1)

	var sending sync.WaitGroup
	for i, c := range conns {
		sending.Go(func() {
			for n := range perPerson {
				frame := map[string]any{"op": 3, "roomId": 1, "msg": fmt.Sprintf("%s %d", people[i].Name, n), "clientId": fmt.Sprintf("%d-%d", i, n)}
				if err := c.TrySend(frame); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	receivers := append(slices.Clone(conns), second)
	total := perPerson * len(conns)
	for _, c := range receivers {
		eventually(t, fmt.Sprintf("%d messages", total), func() bool { return len(c.Texts("room:1")) >= total })
	}
	first := receivers[0].Texts("room:1")
	for i, c := range receivers {
		checkRoom(t, fmt.Sprintf("receiver %d", i), c, total)
		if texts := c.Texts("room:1"); !slices.Equal(texts, first) {
			t.Errorf("receiver %d has another order than the first: %v, %v", i, texts, first)
		}
	}
	for i, c := range conns {
		for n := range perPerson {
			c.Await(t, "ack", func(f testclient.Frame) bool {
				return f.Op() == 20 && f.Str("clientId") == fmt.Sprintf("%d-%d", i, n)
			})
		}
	}
	privately(t, people, conns, second)

	online := func(want int) func() bool {
		return func() bool {
			var out struct {
				Count int
				Users []struct{ Name string }
			}
			people[0].Must(t, "GET", "/v1/rooms/1/online", nil, &out)
			return out.Count == want && len(out.Users) == want && !slices.ContainsFunc(out.Users, func(u struct{ Name string }) bool {
				return !slices.ContainsFunc(people[:want], func(p *testclient.User) bool { return p.Name == u.Name })
			})
		}
	}
	eventually(t, "four people online, whatever their connections", online(4))
	client, err := discovery.Open(cfg.Etcd, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }() // it was only read from
	nodes, err := client.Watch(t.Context(), contract.LayerConnect)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both connect nodes in etcd", func() bool { return len(nodes.Nodes()) == 2 })
	before := len(conns[0].Frames()) // there were two online when the second entered, too
	other.kill()
	// A lease later etcd has forgotten the node: discovery's tests see to that. What follows needs no wait for a
	// second lease, nor for the next time that somebody looks.
	eventually(t, "the node gone from etcd", func() bool { return len(nodes.Nodes()) == 1 })
	testwait.Within(t, cfg.Etcd.LeaseTTL, "two people online once their node is gone", online(2))
	testwait.Within(t, cfg.Etcd.LeaseTTL, "op 5 that tells of the loss", func() bool {
		return slices.ContainsFunc(conns[0].Frames()[before:], func(f testclient.Frame) bool {
			people, _ := f["roomUserInfo"].(map[string]any)
			return f.Op() == 5 && f.Int("count") == 2 && len(people) == 2
		})
	})
	conns[0].Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "still here?"})
	conns[1].AwaitText(t, "still here?")
}

// checkRoom checks that a receiver of everything has each seq once, from 1, in order.
func checkRoom(t *testing.T, who string, c *testclient.Conn, total int) {
	t.Helper()
	next := 1
	for _, f := range c.Frames() {
		if f.Op() != 3 {
			continue
		}
		if f.Int("seq") != next {
			t.Errorf("%s: got seq %d, want %d", who, f.Int("seq"), next)
			return
		}
		next++
	}
	if next != total+1 {
		t.Errorf("%s: got %d messages, want %d", who, next-1, total)
	}
}

// privately sends between every two of the people: to all connections of the addressee and to the sender's other
// ones, whichever node and transport.
func privately(t *testing.T, people []*testclient.User, conns []*testclient.Conn, second *testclient.Conn) {
	for i, from := range people {
		for j, to := range people {
			text := fmt.Sprintf("%s to %s", from.Name, to.Name)
			conns[i].Send(t, map[string]any{"op": 2, "toUserId": to.ID, "msg": text, "clientId": "p" + text})
			ack := conns[i].Await(t, "ack", func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == "p"+text })
			if i != j {
				got := conns[j].AwaitText(t, text)
				if got.Int("fromUserId") != from.ID || got.Str("id") != ack.Str("id") || got.Int("seq") != ack.Int("seq") {
					t.Errorf("got %v, want it from %d as acknowledged: %v", got, from.ID, ack)
				}
			}
			if i == 0 || j == 0 {
				second.AwaitText(t, text)
			}
		}
	}
	for i, c := range conns {
		for _, f := range c.Frames() {
			if f.Op() == 2 && f.Int("fromUserId") == people[i].ID {
				t.Errorf("%s got back what was acknowledged: %v", people[i].Name, f)
			}
			if f.Op() == 2 && f.Int("toUserId") != people[i].ID {
				t.Errorf("%s got a private message of others: %v", people[i].Name, f)
			}
		}
	}
}
