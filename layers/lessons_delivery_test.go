package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

func TestLesson12AskingDoesNotBlock(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	conn := testclient.WebSocket(t, r.WebSocket)
	conn.Enter(t, ann, 1)
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 10 {
				for _, path := range []string{"/push/count", "/push/getRoomInfo"} {
					_, raw, err := ann.Try("POST", path, map[string]any{"authToken": ann.Token, "roomId": 1})
					var got seedAnswer
					if err != nil || json.Unmarshal(raw, &got) != nil || got.Code != 0 {
						t.Errorf("%s: got %q, error %v", path, raw, err)
					}
				}
			}
		})
	}
	asking.Wait()
}

// starting runs layers without waiting for them. The channel gives the addresses once they are ready.
func starting(t *testing.T, cfg Config, chosen ...string) <-chan Addresses {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	log := &syncBuffer{}
	go func() {
		ended <- Run(ctx, cfg, Options{Layers: chosen, Log: log, Ready: func(a Addresses) { ready <- a }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%v: %v\n%s", chosen, err, log)
		}
	})
	return ready
}

func TestLesson13AnyOrderOfStart(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	wait := func(what string, ready <-chan Addresses) Addresses {
		t.Helper()
		select {
		case a := <-ready:
			return a
		case <-time.After(testclient.Patience):
			t.Fatalf("%s is not ready", what)
			return Addresses{}
		}
	}
	task := starting(t, patient(b.config()), contract.LayerTask)
	connect := starting(t, patient(b.config()), contract.LayerConnect)
	api := starting(t, patient(b.config()), contract.LayerAPI)
	wait("task, which needs no other layer to wait for messages,", task)
	select { // both have had the time that task needed
	case <-connect:
		t.Error("connect is ready without logic")
	case <-api:
		t.Error("api is ready without logic")
	default:
	}
	logic := starting(t, patient(b.config()), contract.LayerLogic)
	wait("logic", logic)
	r := &running{Addresses: wait("api", api), log: &syncBuffer{}}
	ann := testclient.Register(t, r.api(), "ann") // at once: ready means that the port accepts
	ann.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "before anybody could receive it"}, nil)
	to := wait("connect", connect)
	r.WebSocket, r.TCP = to.WebSocket, to.TCP
	for _, transport := range transports {
		p := dial(t, r, transport)
		p.say(map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1, "resume": map[string]int{"room:1": 0}})
		p.text("before anybody could receive it")
		p.online(ann, 1)
		p.sends(1, "hello by "+transport)
		p.text("hello by " + transport)
	}
}

// metric sums the process's series of that name which have the label, `name="value"`, if one is given.
func metric(t testing.TB, r *running, name, label string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + r.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), "# TYPE "+name+" ") {
		return 0 // nothing has been counted yet
	}
	sum := 0.0
	series := regexp.MustCompile(`(?m)^` + name + `(\{.*\})? (\S+)$`)
	for _, found := range series.FindAllStringSubmatch(string(body), -1) {
		value, err := strconv.ParseFloat(found[2], 64)
		if err != nil {
			t.Fatalf("metric %s: %v", found[0], err)
		}
		if strings.Contains(found[1], label) {
			sum += value
		}
	}
	return sum
}

func TestLesson14NodesThatLeave(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	base := spawn(t, patient(b.config()), All()...)
	ann := testclient.Register(t, base.api(), "ann")
	here := testclient.WebSocket(t, base.WebSocket)
	here.Enter(t, ann, 1)
	var first float64
	for round := range 4 {
		node := start(t, patient(b.config()), contract.LayerConnect)
		there := testclient.TCP(t, node.TCP[0])
		there.Enter(t, ann, 1)
		text := fmt.Sprint("to both nodes ", round)
		here.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": text})
		there.AwaitText(t, text)
		there.Close()
		if err := node.stop(); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first = metric(t, base, "go_goroutines", "")
		}
	}
	const slack = 8 // each node left behind would cost that many at least: both ends of a connection from logic and task
	eventually(t, fmt.Sprintf("as many goroutines as after the first node left, %v", first), func() bool {
		here.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "sweep"}) // connections go when others are used
		time.Sleep(100 * time.Millisecond)
		return metric(t, base, "go_goroutines", "") <= first+slack
	})
}

func TestLesson15RetryIsTheSameMessage(t *testing.T) {
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm(t, start(t, patient(make(t).config()), All()...))
			ann := testclient.Register(t, r.api(), "ann")
			conn := testclient.WebSocket(t, r.WebSocket)
			conn.Enter(t, ann, 1)
			var sending sync.WaitGroup
			for range 20 {
				sending.Go(func() {
					if _, raw, err := ann.Try("POST", "/v1/rooms/1/messages", map[string]any{"msg": "once", "clientId": "c"}); err != nil || !strings.Contains(string(raw), `"seq":1`) {
						t.Errorf("got %s, error %v, want seq 1", raw, err)
					}
				})
				conn.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "once", "clientId": "c"})
			}
			sending.Wait()
			conn.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "last", "clientId": "d"})
			conn.AwaitText(t, "last")
			ids := map[string]bool{}
			for _, f := range conn.Frames() {
				if f.Op() == 20 && f.Str("clientId") == "c" {
					ids[f.Str("id")] = true
				}
			}
			if n := stored(t, ann, 1); n != 2 || len(ids) != 1 {
				t.Errorf("%d messages are stored, want 2; acks name %v", n, ids)
			}
			if texts := conn.Texts("room:1"); len(texts) != 2 {
				t.Errorf("got %v, want each message once", texts)
			}
		})
	}
}

// seqs are the seqs of the lobby's messages that came.
func seqs(conns ...*testclient.Conn) []int {
	seen := map[int]bool{}
	for _, c := range conns {
		for _, f := range c.Frames() {
			if f.Op() == 3 {
				seen[f.Int("seq")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestLesson16MovingLosesNothing(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	nodes := []*running{calm(t, start(t, patient(b.config()), All()...)), calm(t, start(t, patient(b.config()), contract.LayerConnect))}
	ann, bob := testclient.Register(t, nodes[0].api(), "ann"), testclient.Register(t, nodes[0].api(), "bob")
	const total = 300
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for n := range total {
			if status, raw, err := bob.Try("POST", "/v1/rooms/1/messages", map[string]any{"msg": fmt.Sprint(n)}); err != nil || status != http.StatusCreated {
				t.Errorf("send: status %d, %s, error %v", status, raw, err)
			}
		}
	})
	var conns []*testclient.Conn
	last := 0
	for move := range 10 {
		node := nodes[move%2]
		c := testclient.TCP(t, node.TCP[0])
		if move%3 == 0 {
			c = testclient.WebSocket(t, node.WebSocket)
		}
		c.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1, "resume": map[string]int{"room:1": last}})
		conns = append(conns, c)
		eventually(t, "further messages", func() bool { s := seqs(conns...); return len(s) >= (move+1)*total/10 })
		if move < 9 {
			c.Close()
		}
		// What came last, not what came without a hole: that is all a client need remember of what it has in order.
		for _, seq := range seqs(conns...) {
			if seq == last+1 {
				last = seq
			}
		}
	}
	eventually(t, "all messages", func() bool { return len(seqs(conns...)) == total })
}

func TestLesson16TaskDies(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	r := calm(t, start(t, b.config(), contract.LayerLogic, contract.LayerConnect, contract.LayerAPI))
	first := spawn(t, b.config(), contract.LayerTask)
	ann := testclient.Register(t, r.api(), "ann")
	conn := testclient.TCP(t, r.TCP[0])
	conn.Enter(t, ann, 1)
	const total = 200
	for n := range total {
		conn.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": fmt.Sprint(n)})
		if n == total/2 {
			eventually(t, "first messages", func() bool { return len(seqs(conn)) > 10 })
			first.kill()
		}
	}
	spawn(t, b.config(), contract.LayerTask)
	eventually(t, "all messages", func() bool { return len(seqs(conn)) == total })
	next := 1
	for _, f := range conn.Frames() { // one that is there already may come again, none may be passed over
		if seq := f.Int("seq"); f.Op() == 3 && seq > next {
			t.Fatalf("got seq %d, want %d", seq, next)
		} else if f.Op() == 3 && seq == next {
			next++
		}
	}
}

// TestLesson17SlowReceiver: who does not read is closed instead of being passed over, what it got has no hole, and
// the rest is there when it comes back.
func TestLesson17SlowReceiver(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			r := system(t, func(cfg *Config) { cfg.Connect.QueueBytes = 64 << 10 })
			ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
			slow := dial(t, r, transport)
			slow.enter(ann, 1)
			senders := make([]*testclient.Conn, 16) // what they send at once is stored at once
			for i := range senders {
				senders[i] = testclient.TCP(t, r.TCP[0])
				senders[i].Send(t, map[string]any{"op": 6, "authToken": bob.Token})
			}
			text := strings.Repeat("x", 15<<10)
			sent := 0
			closed := func() bool { return metric(t, r, "gochat_connection_closes_total", `code="slow_consumer"`) == 1 }
			for ; sent < 1000 && !closed(); sent += len(senders) { // 15 MB: more than the kernel keeps
				for i, c := range senders {
					c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": text, "clientId": fmt.Sprint(sent + i)})
				}
				for i, c := range senders {
					c.Await(t, "ack", func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == fmt.Sprint(sent+i) })
				}
			}
			if !closed() {
				t.Fatalf("not closed, though %d messages wait for it", sent)
			}
			_ = slow.conn.SetDeadline(time.Now().Add(testclient.Patience))
			got := 0
			for {
				packet, err := slow.read()
				if err != nil {
					if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
						t.Fatal("the connection is still open")
					}
					break // the last frames may be cut off, for one who begins to read late
				}
				if packet.opcode != wsText {
					continue
				}
				switch f := packet.frame(t); {
				case f.Op() == 21 && f.Str("code") != "slow_consumer":
					t.Errorf("got %v, want slow_consumer", f)
				case f.Op() == 3 && f.Int("seq") != got+1:
					t.Fatalf("got seq %d, want %d", f.Int("seq"), got+1)
				case f.Op() == 3:
					got++
				}
			}
			if got == sent {
				t.Errorf("got all of %d: it was not slow", sent)
			}
			again := testclient.TCP(t, r.TCP[0])
			again.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "resume": map[string]int{"room:1": got}})
			again.AwaitOp(t, 22)
			if n := len(seqs(again)); n != sent-got {
				t.Errorf("got %d and then %d messages, want %d in all", got, n, sent)
			}
		})
	}
}
