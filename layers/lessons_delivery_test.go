package layers

import (
	"context"
	"encoding/json"
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
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/observability"
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
	const total = 400
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

func TestLesson17SlowReceiver(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Connect.QueueBytes = 64 << 10 })
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	var slow []*peer
	for _, transport := range transports {
		p := dial(t, r, transport)
		p.enter(ann, 1)
		slow = append(slow, p)
	}
	fast := testclient.WebSocket(t, r.WebSocket)
	fast.Enter(t, bob, 1)
	text := strings.Repeat("x", 15<<10)
	sent := 0
	closed := func() int { return int(metric(t, r, "gochat_connection_closes_total", `code="slow_consumer"`)) }
	for ; sent < 1000 && closed() < len(slow); sent += 25 { // 15 MB: more than the kernel keeps
		for n := range 25 {
			fast.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": text, "clientId": fmt.Sprint(sent + n)})
		}
		fast.Await(t, "ack", func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == fmt.Sprint(sent+24) })
	}
	for _, p := range slow {
		p.wantEnd("slow_consumer", 4003)
		got := 0
		for _, packet := range p.frames {
			if f := packet.frame(t); f.Op() == 3 {
				if got++; f.Int("seq") != got {
					t.Fatalf("%s: got seq %d, want %d", p.transport, f.Int("seq"), got)
				}
			}
		}
		if got == sent {
			t.Errorf("%s: got all of %d: it was not slow", p.transport, sent)
		}
		// It comes back and finds the rest.
		again := testclient.TCP(t, r.TCP[0])
		again.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "resume": map[string]int{"room:1": got}})
		again.AwaitOp(t, 22)
		if n := len(seqs(again)); n != sent-got {
			t.Errorf("%s: got %d and then %d messages, want %d in all", p.transport, got, n, sent)
		}
	}
	eventually(t, "everything at the other", func() bool { return len(seqs(fast)) == sent })
}

func TestLesson20RouteOfALongConnection(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) {
		cfg.Redis.TTL, cfg.Connect.Check, cfg.Logic.SessionCache = 3*time.Second, 200*time.Millisecond, 100*time.Millisecond
	})
	ann := testclient.Register(t, r.api(), "ann")
	conn := testclient.TCP(t, r.TCP[0])
	conn.Enter(t, ann, 1)
	seedCall(t, r, "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"}) // is never used
	eventually(t, "the end of a session that is not used", func() bool {
		var list struct{ Sessions []any }
		status, raw := ann.Do(t, "GET", "/v1/sessions", nil)
		if status != http.StatusOK || json.Unmarshal(raw, &list) != nil {
			t.Fatalf("the session in use ended too: status %d, %s", status, raw)
		}
		return len(list.Sessions) == 1
	})
	offline := func() float64 { return metric(t, r, "gochat_deliveries_total", `outcome="offline"`) }
	before := offline()
	ann.Must(t, "POST", fmt.Sprintf("/v1/users/%d/messages", ann.ID), map[string]any{"msg": "still reached"}, nil)
	conn.AwaitText(t, "still reached")
	if got := offline(); got != before {
		t.Errorf("%v deliveries to nobody, want %v", got, before)
	}
	conn.Close()
	eventually(t, "a message to somebody who is offline", func() bool {
		ann.Must(t, "POST", fmt.Sprintf("/v1/users/%d/messages", ann.ID), map[string]any{"msg": "not reached"}, nil)
		return offline() > before
	})
}

func TestLesson21CountsAreTrue(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	stays := testclient.WebSocket(t, r.WebSocket)
	stays.Enter(t, ann, 1)
	var churning sync.WaitGroup
	for i := range 4 {
		u := testclient.Register(t, r.api(), fmt.Sprint("user", i))
		churning.Go(func() {
			for n := range 15 {
				dialer, addr := testclient.DialTCP, r.TCP[0]
				if n%2 == 0 {
					dialer, addr = testclient.DialWebSocket, r.WebSocket
				}
				c, err := dialer(addr)
				if err != nil {
					t.Error(err)
					return
				}
				for range 2 {
					_ = c.TrySend(map[string]any{"op": 6, "authToken": u.Token, "roomId": 1}) // closed below, perhaps in the middle
				}
				if n%3 == 0 {
					_ = c.TrySend(map[string]any{"op": 16, "roomId": 1})
				}
				c.Close()
			}
		})
	}
	churning.Wait()
	var online struct {
		Count int
		Users []any
	}
	eventually(t, "one person online", func() bool {
		ann.Must(t, "GET", "/v1/rooms/1/online", nil, &online)
		return online.Count == 1 && len(online.Users) == 1
	})
	eventually(t, "one connection", func() bool { return metric(t, r, "gochat_connections", "") == 1 })
	seedCall(t, r, "/push/count", map[string]any{"authToken": ann.Token, "roomId": 1})
	if f := stays.AwaitOp(t, 4); f.Int("count") != 1 {
		t.Errorf("got %v, want count 1", f)
	}
}

func TestLesson23RoomMessageNamesNobody(t *testing.T) {
	t.Parallel()
	cfg := patient(embeddedBackend(t).config())
	r := calm(t, start(t, cfg, All()...))
	const members = 20
	var ann *testclient.User
	for i := range members {
		ann = testclient.Register(t, r.api(), fmt.Sprint("member", i))
		testclient.TCP(t, r.TCP[0]).Enter(t, ann, 1)
	}
	db, err := store.Open(cfg.Database, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // it was only read from
	var rows []store.Outgoing
	eventually(t, "an outbox row that has not been deleted yet", func() bool {
		ann.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "hello"}, nil)
		rows, err = db.Outbox(t.Context(), time.Now().Add(time.Hour), 1)
		return err == nil && len(rows) > 0
	})
	var d contract.Delivery
	if err := d.Decode(rows[0].Body); err != nil {
		t.Fatal(err)
	}
	if extra := len(rows[0].Body) - len(d.Frame); len(d.Users) != 0 || d.Room != 1 || extra > 64 {
		t.Errorf("a delivery to a room of %d has %d users and %d bytes besides its frame", members, len(d.Users), extra)
	}
}

func TestLesson25Advertise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, listen, advertise string
		ok                      bool
	}{
		{"every address, none advertised", "0.0.0.0:7080", "", false},
		{"every address, no host", ":7080", "", false},
		{"every address of IPv6", "[::]:7080", "", false},
		{"every address advertised", "127.0.0.1:7080", "0.0.0.0:7080", false},
		{"every address, one advertised", "0.0.0.0:7080", "node-1:7080", true},
		{"one address", "127.0.0.1:0", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := rpc.Defaults()
			cfg.Listen, cfg.Advertise = c.listen, c.advertise
			if err := cfg.Validate(); (err == nil) != c.ok {
				t.Errorf("got error %v, want it accepted: %v", err, c.ok)
			}
		})
	}
	t.Run("what others see", func(t *testing.T) {
		cfg := patient(embeddedBackend(t).config())
		cfg.RPC.Listen, cfg.RPC.Advertise = "127.0.0.1:0", "node-1.example:7080"
		start(t, cfg, contract.LayerLogic)
		if got := logicNodes(t, cfg); len(got) != 1 || got[0].Addr != "node-1.example:7080" {
			t.Errorf("got %v, want what is advertised", got)
		}
	})
}

func TestLesson25OwnDependencies(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	start(t, patient(b.config()), contract.LayerLogic)
	without := patient(b.config())
	without.Database.URL = ""
	start(t, without, contract.LayerConnect, contract.LayerTask)
	without.Redis.Addrs = nil
	r := start(t, without, contract.LayerAPI)
	testclient.Register(t, r.api(), "ann")
	alone := Defaults()
	alone.Site.Listen, alone.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0"
	start(t, alone, contract.LayerSite)
}

func TestLesson26Drain(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	rest := calm(t, start(t, patient(b.config()), contract.LayerLogic, contract.LayerTask, contract.LayerAPI))
	r := calm(t, start(t, patient(b.config()), contract.LayerConnect))
	ann := testclient.Register(t, rest.api(), "ann")
	peers := make([]*peer, 10)
	for i := range peers {
		peers[i] = dial(t, r, transports[i%2])
		peers[i].enter(ann, 1)
	}
	stray := dial(t, r, "tcp") // has not authenticated
	ann.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "last words"}, nil)
	peers[0].text("last words") // so it has been pushed to all
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	for _, p := range append(peers, stray) {
		p.wantEnd("unavailable", 1012)
		after := 0
		for _, got := range p.frames {
			if f := got.frame(t); f.Op() == 23 {
				after = f.Int("reconnectAfterMs")
			}
		}
		if after < 1 || after > 5000 {
			t.Errorf("told to come back after %d ms; frames: %s", after, p.frames)
		}
		if p != stray {
			p.text("last words")
		}
		_ = p.conn.Close()
	}
	if err := <-stopped; err != nil {
		t.Errorf("drain: %v", err)
	}
	for _, addr := range append(r.TCP, r.WebSocket) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("%s accepts after the drain", addr)
		}
	}
}
