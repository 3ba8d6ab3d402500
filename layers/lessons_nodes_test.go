package layers

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/testclient"
	"gochat/observability"
)

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
	r := start(t, cfg, contract.LayerLogic, contract.LayerConnect, contract.LayerAPI) // no task: what is queued stays
	const members = 20
	var ann *testclient.User
	for i := range members {
		ann = testclient.Register(t, r.api(), fmt.Sprint("member", i))
		c := testclient.TCP(t, r.TCP[0])
		c.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1})
		c.Send(t, map[string]any{"op": 10})
		c.AwaitOp(t, 11) // it is in the room
	}
	ann.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "hello"}, nil)
	q, err := cfg.Queue.open(cfg.Redis, queuetest.NewOwners(), observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }() // nothing is left to lose
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := false
	err = q.Consume(ctx, func(_ context.Context, items []contract.Item) error {
		for _, it := range items {
			var d contract.Delivery
			if err := d.Decode(it.Body); err != nil {
				t.Error(err)
			}
			if extra := len(it.Body) - len(d.Frame); d.Seq > 0 && (len(d.Users) != 0 || d.Room != 1 || extra > 64) {
				t.Errorf("a delivery to a room of %d has %d users and %d bytes besides its frame", members, len(d.Users), extra)
			}
			if d.Seq > 0 {
				found = true
				cancel()
			}
		}
		return nil
	})
	if err != nil || !found {
		t.Errorf("the message was not queued: %v", err)
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
		{"every address, the own name advertised", "0.0.0.0:7080", "hostname:0", true},
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
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for advertise, want := range map[string]string{"node-1.example:7080": "node-1.example:7080", "hostname:7080": net.JoinHostPort(name, "7080")} {
		t.Run("what others see of "+advertise, func(t *testing.T) {
			cfg := patient(embeddedBackend(t).config())
			cfg.RPC.Listen, cfg.RPC.Advertise = "127.0.0.1:0", advertise
			start(t, cfg, contract.LayerLogic)
			if got := logicNodes(t, cfg); len(got) != 1 || got[0].Addr != want {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
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
	without.RPC.Secret = ""
	without.Site.APIURL, without.Site.WebSocketURL = r.api(), "ws://localhost/ws"
	start(t, without, contract.LayerSite)
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
