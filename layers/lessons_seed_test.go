package layers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/observability"
)

func TestLesson02OnlyTheSessionSpeaks(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	listening := dial(t, r, "websocket")
	listening.enter(bob, 1)
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			p := dial(t, r, transport)
			p.say(map[string]any{"op": 3, "roomId": 1, "msg": "from nobody", "fromUserId": bob.ID})
			p.next("refusal", func(f testclient.Frame) bool { return f.Op() == 21 && f.Str("code") == "unauthenticated" })
			p.enter(ann, 1)
			text := "forged by " + transport
			p.say(map[string]any{"op": 3, "roomId": 1, "msg": text, "fromUserId": bob.ID, "fromUserName": "bob", "authToken": ann.Token})
			if f := listening.text(text).frame(t); f.Int("fromUserId") != ann.ID || f.Str("fromUserName") != "ann" {
				t.Errorf("got %v, want it from ann", f)
			}
			private := "private, " + text
			p.say(map[string]any{"op": 2, "toUserId": bob.ID, "msg": private, "fromUserId": bob.ID, "fromUserName": "bob"})
			if f := listening.text(private).frame(t); f.Int("fromUserId") != ann.ID || f.Str("fromUserName") != "ann" {
				t.Errorf("got %v, want it from ann", f)
			}
		})
	}
	if n := stored(t, ann, 1); n != len(transports) {
		t.Errorf("%d messages are stored, want %d", n, len(transports))
	}
}

func TestLesson03AuthFrameTwice(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	other := createRoom(t, ann, "other", false)
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			p := dial(t, r, transport)
			auth := map[string]any{"authToken": ann.Token, "roomId": 1, "op": 6}
			for range 10 {
				p.say(auth)
			}
			p.sends(1, transport+" first")
			p.sends(1, transport+" second")
			p.text(transport + " second")
			times := 0
			for _, got := range p.frames {
				if got.frame(t).Str("msg") == transport+" first" {
					times++
				}
			}
			if times != 1 {
				t.Errorf("the message came %d times, want 1", times)
			}
			// To another room: what is said in the first no longer comes.
			auth["roomId"] = other
			p.say(auth)
			p.online(ann, other)
			p.forget()
			p.sends(1, transport+" said behind the back")
			p.sends(other, transport+" said in the other room")
			p.text(transport + " said in the other room")
			for _, got := range p.frames {
				if strings.Contains(got.String(), "behind the back") {
					t.Errorf("got %s, though the connection has moved", got)
				}
			}
		})
	}
}

func TestLesson04PrivateToSomebodyOffline(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	got := seedCall(t, r, "/push/push", map[string]any{"authToken": ann.Token, "msg": "for later", "toUserId": fmt.Sprint(bob.ID), "roomId": 1})
	if got.Code != 0 || got.Message != "ok" {
		t.Errorf("got %+v, want ok", got)
	}
	p := dial(t, r, "tcp")
	p.say(map[string]any{"op": 6, "authToken": bob.Token, "resume": map[string]int{}})
	if f := p.text("for later").frame(t); f.Int("fromUserId") != ann.ID || f.Int("seq") != 1 {
		t.Errorf("got %v, want it from ann with seq 1", f)
	}
}

func TestLesson05RegisterRace(t *testing.T) {
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm(t, start(t, patient(make(t).config()), All()...))
			const racers = 50
			answers := [racers]seedAnswer{}
			var racing sync.WaitGroup
			for i := range racers {
				racing.Go(func() {
					body := map[string]any{"userName": "wanted", "passWord": fmt.Sprint("password ", i)}
					_, raw, err := (&testclient.User{API: r.api()}).Try("POST", "/user/register", body)
					if err != nil || json.Unmarshal(raw, &answers[i]) != nil {
						t.Errorf("got %q, error %v", raw, err)
					}
				})
			}
			racing.Wait()
			won := 0
			for i, a := range answers {
				switch token, _ := a.Data.(string); {
				case a.Code == 0 && token != "":
					won++
					login := seedCall(t, r, "/user/login", map[string]any{"userName": "wanted", "passWord": fmt.Sprint("password ", i)})
					if login.Code != 0 {
						t.Errorf("the winner cannot log in: %+v", login)
					}
				case a.Code != 1 || a.Data != nil:
					t.Errorf("got %+v, want code 1 and no data", a)
				}
			}
			if won != 1 {
				t.Errorf("%d registrations of one name succeeded, want 1", won)
			}
		})
	}
}

func TestLesson06PublicPorts(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	private := []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/config", "/metrics", "/readyz"}
	for _, c := range []struct {
		name, addr string
		open       bool
	}{{"api", r.API, false}, {"page", r.Page, false}, {"websocket", r.WebSocket, false}, {"admin", r.Admin, true}} {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range private {
				resp, err := http.Get("http://" + c.addr + path)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body) // its status is what counts
				_ = resp.Body.Close()
				if open := resp.StatusCode == http.StatusOK; open != c.open {
					t.Errorf("%s: status %d, want open: %v", path, resp.StatusCode, c.open)
				}
				if strings.Contains(string(body), "secret of the test") {
					t.Errorf("%s shows a secret", path)
				}
			}
		})
	}
	if defaults := Defaults(); !defaults.onLoopback() {
		t.Error("the defaults listen on more than loopback")
	}
}

func TestLesson06StrangePages(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	for _, c := range []struct {
		name, origin string
		status       int
	}{
		{"a strange page", "http://evil.example", http.StatusForbidden},
		{"a page whose host begins like ours", "http://127.0.0.1.evil.example", http.StatusForbidden},
		{"no page's origin", "null", http.StatusForbidden},
		{"our page", "http://" + r.Page, http.StatusSwitchingProtocols},
		{"no page", "", http.StatusSwitchingProtocols},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := httptest.NewRequest("GET", "http://"+r.WebSocket+"/ws", nil)
			req.RequestURI = ""
			for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Origin": c.origin,
				"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
				if value != "" {
					req.Header.Set(name, value)
				}
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
		})
	}
}

// logicNodes are the logic nodes of the configuration's cluster, as another process sees them.
func logicNodes(t testing.TB, cfg Config) []rpc.Peer {
	t.Helper()
	return nodesOf(t, cfg, contract.LayerLogic)
}

// nodesOf are the nodes of one layer of the configuration's cluster, as another process sees them.
func nodesOf(t testing.TB, cfg Config, layer string) []rpc.Peer {
	t.Helper()
	client, err := discovery.Open(cfg.Etcd, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }() // it was only read from
	view, err := client.Watch(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := view.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return peers(view)()
}

// logicAt calls one logic node, over the network as every layer does.
func logicAt(t testing.TB, cfg Config, node rpc.Peer) *rpc.Logic {
	t.Helper()
	l := rpc.NewClients(cfg.RPC, observability.Discard()).Logic(func() []rpc.Peer { return []rpc.Peer{node} })
	t.Cleanup(func() { _ = l.Close() }) // the node may have left first
	return l
}

func TestLesson06RPCWantsTheSecret(t *testing.T) {
	t.Parallel()
	cfg := patient(embeddedBackend(t).config())
	calm(t, start(t, cfg, All()...))
	node := logicNodes(t, cfg)[0]
	for _, c := range []struct {
		name, secret string
		answered     bool
	}{
		{"the secret", cfg.RPC.Secret, true},
		{"another secret", "another secret altogether", false},
		{"none", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			with := cfg
			with.RPC.Secret = c.secret
			ctx, cancel := context.WithTimeout(t.Context(), testclient.Patience)
			defer cancel()
			_, err := logicAt(t, with, node).CheckSessions(ctx, &contract.CheckSessionsRequest{})
			if (err == nil) != c.answered {
				t.Errorf("got error %v, want an answer: %v", err, c.answered)
			}
		})
	}
	// rpcx would speak HTTP and JSON on the same port.
	if resp, err := http.Post("http://"+node.Addr+"/", "application/rpcx", strings.NewReader("")); err == nil {
		_ = resp.Body.Close()
		t.Errorf("the rpc port answers HTTP: %s", resp.Status)
	}
}

func TestLesson06LogsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	var rpcSecret string
	r := system(t, func(cfg *Config) { cfg.Log.Level, rpcSecret = "debug", cfg.RPC.Secret })
	ann := testclient.Register(t, r.api(), "ann")
	login := seedCall(t, r, "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"})
	second, _ := login.Data.(string)
	for _, transport := range transports {
		p := dial(t, r, transport)
		p.enter(ann, 1)
		p.sends(1, "words between friends")
		p.send([]byte(`{"op":3,"msg":"words between friends","authToken":"` + ann.Token + `"}`)) // lacks the room
		p.op(21)
	}
	seedCall(t, r, "/user/login", map[string]any{"userName": "ann", "passWord": "secret-passwort"})
	seedCall(t, r, "/push/pushRoom", map[string]any{"authToken": second, "msg": "words between friends"})
	seedCall(t, r, "/user/logout", map[string]any{"authToken": second})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	log := r.log.String()
	if !strings.Contains(log, `"msg":"request"`) {
		t.Error("the log has no requests: it is not at level debug, and proves nothing")
	}
	for name, secret := range map[string]string{"token": ann.Token, "another token": second, "password": "secret-password",
		"wrong password": "secret-passwort", "text": "words between friends", "secret of the cluster": rpcSecret} {
		if secret == "" || strings.Contains(log, secret) {
			t.Errorf("the log has the %s %q", name, secret)
		}
	}
}

func TestLesson07PrivateRooms(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann, eve := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "eve")
	room := createRoom(t, ann, "private", true)
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			inside, outside := dial(t, r, transport), dial(t, r, transport)
			inside.enter(ann, room)
			outside.enter(eve, 1)
			for _, frame := range []map[string]any{
				{"op": 3, "roomId": room, "msg": "let me in"},
				{"op": 15, "roomId": room},
				{"op": 6, "authToken": eve.Token, "roomId": room},
				{"op": 12, "resume": map[string]int{fmt.Sprint("room:", room): 0}},
				{"op": 13, "conversation": fmt.Sprint("room:", room), "seq": 1},
				{"op": 14, "conversation": fmt.Sprint("room:", room)},
			} {
				outside.forget()
				outside.say(frame)
				if f := outside.op(21).frame(t); f.Str("code") != "forbidden" {
					t.Errorf("%v: got %v, want forbidden", frame, f)
				}
			}
			inside.sends(room, "among us by "+transport)
			inside.text("among us by " + transport)
			outside.sends(1, "to all by "+transport)
			outside.text("to all by " + transport)
			for _, got := range outside.frames {
				if strings.Contains(got.String(), "among us") {
					t.Errorf("who is no member was sent %s", got)
				}
			}
		})
	}
	for _, path := range []string{"messages", "online", "members"} {
		if status, body := eve.Do(t, "GET", fmt.Sprintf("/v1/rooms/%d/%s", room, path), nil); status != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403: %s", path, status, body)
		}
	}
	for _, path := range []string{"/push/pushRoom", "/push/count", "/push/getRoomInfo"} {
		got := seedCall(t, r, path, map[string]any{"authToken": eve.Token, "roomId": room, "msg": "x"})
		if got.Code != 1 {
			t.Errorf("%s: got %+v, want code 1", path, got)
		}
	}
	if n := stored(t, ann, room); n != len(transports) {
		t.Errorf("%d messages are stored, want %d", n, len(transports))
	}
}

func TestLesson08Passwords(t *testing.T) {
	t.Parallel()
	cfg := patient(embeddedBackend(t).config())
	r := calm(t, start(t, cfg, All()...))
	for _, name := range []string{"demo", "test", "admin"} { // as the seed ships, and `up` on loopback makes
		got := seedCall(t, r, "/user/login", map[string]any{"userName": name, "passWord": "111111"})
		if got.Code != 1 {
			t.Errorf("%s is shipped: %+v", name, got)
		}
	}
	testclient.Register(t, r.api(), "ann")
	testclient.Register(t, r.api(), "bob") // with the same password
	db, err := store.Open(cfg.Database, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // it was only read from
	hashes := map[string]bool{}
	for _, name := range []string{"ann", "bob"} {
		_, hash, err := db.UserByName(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(hash, "$argon2id$v=19$") {
			t.Errorf("%s: stored as %q, want argon2id", name, hash)
		}
		hashes[hash] = true
	}
	if len(hashes) != 2 {
		t.Error("equal passwords are stored alike: no salt")
	}
}

func TestLesson09OldSocketGoesAlone(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	sender := dial(t, r, "websocket")
	sender.enter(bob, 1)
	for round := range 10 {
		older, newer := dial(t, r, transports[round%2]), dial(t, r, transports[(round/2)%2])
		older.enter(ann, 1)
		newer.enter(ann, 1)
		_ = older.conn.Close() // on purpose while messages are on their way
		for _, text := range []string{fmt.Sprint("while it goes ", round), fmt.Sprint("then ", round)} {
			sender.sends(1, text)
			newer.text(text)
			sender.say(map[string]any{"op": 2, "toUserId": ann.ID, "msg": "to ann " + text})
			newer.text("to ann " + text)
		}
		_ = newer.conn.Close()
	}
}

func TestLesson10LogicDies(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	first := spawn(t, b.config(), contract.LayerLogic)
	r := calm(t, start(t, b.config(), contract.LayerConnect, contract.LayerTask, contract.LayerAPI))
	ann := testclient.Register(t, r.api(), "ann")
	conns := []*testclient.Conn{testclient.WebSocket(t, r.WebSocket), testclient.TCP(t, r.TCP[0])}
	for _, c := range conns {
		c.Enter(t, ann, 1)
	}
	first.kill()
	for _, c := range conns {
		c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "is anybody there?", "clientId": "lost"})
		c.AwaitError(t, "unavailable")
	}
	if got := seedCall(t, r, "/push/pushRoom", map[string]any{"authToken": ann.Token, "roomId": 1, "msg": "lost too"}); got.Code != 1 {
		t.Errorf("without logic: got %+v, want code 1", got)
	}
	spawn(t, b.config(), contract.LayerLogic)
	for i, c := range conns { // the same connections, as if nothing had been
		tries := 0
		eventually(t, "a send that is acknowledged", func() bool {
			tries++
			c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": fmt.Sprint("back ", i), "clientId": fmt.Sprint(i, " ", tries)})
			time.Sleep(20 * time.Millisecond)
			for _, f := range c.Frames() {
				if f.Op() == 20 {
					return true
				}
			}
			return false
		})
		conns[1-i].AwaitText(t, fmt.Sprint("back ", i))
	}
}
