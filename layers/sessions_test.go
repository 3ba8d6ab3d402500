package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/testclient"
	"gochat/layers/logic"
)

// twoNodes are two nodes of logic, api and connect, and one configuration of theirs.
func twoNodes(t *testing.T, tweak func(*Config)) ([]*running, Config) {
	t.Helper()
	b := embeddedBackend(t)
	cfg := patient(b.config())
	cfg.Logic.SessionCache = time.Minute // so that nothing is forgotten by itself
	cfg.Connect.Check = time.Minute
	if tweak != nil {
		tweak(&cfg)
	}
	one := calm(t, start(t, cfg, All()...))
	two := calm(t, start(t, cfg, contract.LayerLogic, contract.LayerConnect, contract.LayerAPI))
	return []*running{one, two}, cfg
}

// everyLogic calls each logic node of the cluster.
func everyLogic(t *testing.T, cfg Config, want int) []*rpc.Logic {
	t.Helper()
	nodes := logicNodes(t, cfg)
	if len(nodes) != want {
		t.Fatalf("got %d logic nodes, want %d", len(nodes), want)
	}
	all := make([]*rpc.Logic, len(nodes))
	for i, node := range nodes {
		all[i] = logicAt(t, cfg, node)
	}
	return all
}

// wantSession asks each logic node whether the token is good.
func wantSession(t *testing.T, nodes []*rpc.Logic, token string, want contract.Code) {
	t.Helper()
	for i, l := range nodes {
		_, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: contract.Credential{Token: token}})
		if got := contract.CodeOf(err); got != want {
			t.Errorf("logic node %d says %q of the token (%v), want %q", i, got, err, want)
		}
	}
}

// TestLesson07LogoutClosesSockets: everywhere, and the token is refused everywhere from the answer on.
func TestLesson07LogoutClosesSockets(t *testing.T) {
	t.Parallel()
	nodes, cfg := twoNodes(t, nil)
	logics := everyLogic(t, cfg, 2)
	ann := testclient.Register(t, nodes[0].api(), "ann")
	login := seedCall(t, nodes[1], "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"})
	other := &testclient.User{API: nodes[1].api(), Name: "ann", ID: ann.ID}
	other.Token, _ = login.Data.(string)
	var ending, staying []*peer
	for _, node := range nodes {
		for _, transport := range transports {
			p, q := dial(t, node, transport), dial(t, node, transport)
			p.enter(ann, 1)
			q.enter(other, 1)
			ending, staying = append(ending, p), append(staying, q)
		}
	}
	wantSession(t, logics, ann.Token, "") // from now on both remember it
	if got := seedCall(t, nodes[0], "/user/logout", map[string]any{"authToken": ann.Token}); got.Code != 0 {
		t.Fatalf("logout: %+v", got)
	}
	wantSession(t, logics, ann.Token, contract.Unauthenticated)
	for _, p := range ending {
		p.wantEnd("session_ended", 4001)
	}
	for _, p := range staying {
		p.sends(1, "still here")
	}
	wantSession(t, logics, other.Token, "")
	for _, node := range nodes {
		for _, transport := range transports {
			p := dial(t, node, transport)
			p.say(map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1})
			p.wantEnd("unauthenticated", 1008)
		}
	}
}

// TestSessionsEndByTheirList: who ends one, or all others, ends their sockets.
func TestSessionsEndByTheirList(t *testing.T) {
	t.Parallel()
	nodes, _ := twoNodes(t, nil)
	ann := testclient.Register(t, nodes[0].api(), "ann")
	own := dial(t, nodes[0], "websocket")
	own.enter(ann, 1)
	for _, how := range []string{"one", "all others"} {
		login := seedCall(t, nodes[1], "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"})
		other := &testclient.User{API: nodes[1].api(), Name: "ann", ID: ann.ID}
		other.Token, _ = login.Data.(string)
		p := dial(t, nodes[1], "tcp")
		p.enter(other, 1)
		path := "/v1/sessions"
		if how == "one" {
			path += "/" + string(contract.SessionOf(other.Token))
		}
		ann.Must(t, "DELETE", path, nil, nil)
		p.wantEnd("session_ended", 4001)
		own.sends(1, "still here")
	}
}

func TestSingleLogin(t *testing.T) {
	t.Parallel()
	nodes, cfg := twoNodes(t, func(cfg *Config) { cfg.Auth.LoginPolicy = logic.PolicySingle })
	logics := everyLogic(t, cfg, 2)
	ann := testclient.Register(t, nodes[0].api(), "ann")
	bob := testclient.Register(t, nodes[0].api(), "bob")
	var replaced []*peer
	for _, node := range nodes {
		for _, transport := range transports {
			p := dial(t, node, transport)
			p.enter(ann, 1)
			replaced = append(replaced, p)
		}
	}
	neighbour := dial(t, nodes[0], "websocket")
	neighbour.enter(bob, 1)
	wantSession(t, logics, ann.Token, "")
	login := seedCall(t, nodes[1], "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"})
	again := &testclient.User{API: nodes[1].api(), Name: "ann", ID: ann.ID}
	again.Token, _ = login.Data.(string)
	wantSession(t, logics, ann.Token, contract.Unauthenticated)
	wantSession(t, logics, again.Token, "")
	for _, p := range replaced {
		p.wantEnd("replaced", 4002)
	}
	p := dial(t, nodes[0], "tcp")
	p.enter(again, 1)
	p.sends(1, "at the new place")
	neighbour.text("at the new place")
}

func TestLesson07AuthenticationDeadline(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Connect.AuthWithin = 300 * time.Millisecond })
	for _, c := range []struct {
		name, transport string
		before          func(*peer)
	}{
		{"silent websocket", "websocket", func(*peer) {}},
		{"silent tcp", "tcp", func(*peer) {}},
		{"websocket that pings", "websocket", func(p *peer) { p.say(map[string]any{"op": 10}) }},
		{"tcp that pings", "tcp", func(p *peer) { p.say(map[string]any{"op": 10}) }},
		{"half a websocket frame", "websocket", func(p *peer) { p.write(wsFrame(0x80|wsText, make([]byte, 500))[:100]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := dial(t, r, c.transport)
			c.before(p)
			p.wantEnd("unauthenticated", 1008)
		})
	}
}

// TestLesson24HalfAPacket: who announces a packet and sends half of it does not stay.
func TestLesson24HalfAPacket(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Connect.AuthWithin = 300 * time.Millisecond })
	for _, half := range []string{"v", "v1\x00", "v1\x7f\xff", "v1\x7f\xff{\"op\":6", "v1\x00\x0d{\"op\":10}v1\x00\x0d{\"op\""} {
		p := dial(t, r, "tcp")
		p.write([]byte(half))
		p.wantEnd("unauthenticated", 0)
	}
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestLesson07SlowHTTP: who sends a request byte by byte is cut off, on every public port.
func TestLesson07SlowHTTP(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.API.Timeout = time.Second })
	const post = "POST /user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
	var dripping sync.WaitGroup
	for _, c := range []struct{ name, addr, begin, drip string }{
		{"header to the api", r.API, "POST /user/login HTTP/1.1\r\n", "X-A: b\r\n"},
		{"header to the page", r.Page, "GET / HTTP/1.1\r\n", "X-A: b\r\n"},
		{"header to the websocket", r.WebSocket, "GET /ws HTTP/1.1\r\n", "X-A: b\r\n"},
		{"body to the api", r.API, post, " "},
		{"body to /v1", r.API, strings.Replace(post, "/user", "/v1", 1), " "},
		{"body to the page", r.Page, post, " "},
		{"body to the websocket", r.WebSocket, post, " "},
	} {
		dripping.Go(func() {
			if err := drip(c.addr, c.begin, c.drip); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	dripping.Wait()
}

// drip sends a request that never comes to its end, until the server has closed.
func drip(addr, begin, more string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the server has closed it
	_ = conn.SetDeadline(time.Now().Add(2 * testclient.Patience))
	if _, err := io.WriteString(conn, begin); err != nil {
		return err
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				_, _ = io.WriteString(conn, more) // its end is seen by reading
			}
		}
	}()
	_, err = io.Copy(io.Discard, conn)
	close(stop)
	<-stopped
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return errors.New("the connection is still open")
	}
	return nil // by a reset, perhaps: bytes were on their way
}

// TestUnreadBodyIsNoRequest: what is left of a body that was too long never passes for the next request, which a
// proxy would answer somebody else with.
func TestUnreadBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	for _, c := range []struct{ name, path, begin string }{
		{"v1", "/v1/rooms/1/messages", `{"msg":"`},
		{"seed", "/push/pushRoom", `{"msg":"`},
		{"page", "/", ""},
		{"path that does not exist", "/v1/nothing", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := r.API
			if c.name == "page" {
				addr = r.Page
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }() // the server has closed it
			_ = conn.SetDeadline(time.Now().Add(testclient.Patience))
			const hidden = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
			body := c.begin + strings.Repeat(hidden, 2<<20/len(hidden))
			request := "POST " + c.path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + ann.Token +
				"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
			go func() { _, _ = io.WriteString(conn, request) }() // the server need not read all of it
			var got bytes.Buffer
			if _, err := io.Copy(&got, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("not closed: %v", err)
			}
			if n := strings.Count(got.String(), "HTTP/1.1 "); n > 1 {
				t.Errorf("%d answers to one request: %.300s", n, got.String())
			}
		})
	}
}

// TestBadRequests are refused by /v1 with a status, a code and a trace id, and store nothing.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"not JSON", "POST", "/v1/rooms/ROOM/messages", `{"msg":`, 400, "bad_request"},
		{"an array", "POST", "/v1/rooms/ROOM/messages", `["x"]`, 400, "bad_request"},
		{"msg is a number", "POST", "/v1/rooms/ROOM/messages", `{"msg":7}`, 400, "bad_request"},
		{"msg is missing", "POST", "/v1/rooms/ROOM/messages", `{}`, 400, "bad_request"},
		{"msg is not UTF-8", "POST", "/v1/rooms/ROOM/messages", "{\"msg\":\"\xe9\"}", 400, "bad_request"},
		{"msg holds a NUL", "POST", "/v1/rooms/ROOM/messages", `{"msg":"a\u0000b"}`, 400, "bad_request"},
		{"body over its limit", "POST", "/v1/rooms/ROOM/messages", `{"msg":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "too_large"},
		{"room that does not exist", "POST", "/v1/rooms/999999999/messages", `{"msg":"x"}`, 404, "not_found"},
		{"room below zero", "POST", "/v1/rooms/-1/messages", `{"msg":"x"}`, 400, "bad_request"},
		{"room is a word", "POST", "/v1/rooms/lobby/messages", `{"msg":"x"}`, 400, "bad_request"},
		{"private room of others", "POST", "/v1/rooms/PRIVATE/messages", `{"msg":"x"}`, 403, "forbidden"},
		{"addressee who does not exist", "POST", "/v1/users/999999999/messages", `{"msg":"x"}`, 404, "not_found"},
		{"read mark in others' conversation", "PUT", "/v1/conversations/OTHERS/read", `{"seq":1}`, 403, "forbidden"},
		{"path that does not exist", "POST", "/v1/nothing", `{}`, 404, "not_found"},
		{"name that is taken", "POST", "/v1/register", `{"name":"eve","password":"secret-password"}`, 409, "conflict"},
		{"name is not UTF-8", "POST", "/v1/register", "{\"name\":\"\xe9ve\",\"password\":\"secret-password\"}", 400, "bad_request"},
		{"password is too short", "POST", "/v1/register", `{"name":"new","password":"short"}`, 400, "bad_request"},
		{"seed: not UTF-8", "POST", "/push/pushRoom", "{\"authToken\":\"TOKEN\",\"roomId\":ROOM,\"msg\":\"\xe9\"}", 200, ""},
		{"seed: name is not UTF-8", "POST", "/user/register", "{\"userName\":\"\xe9ve\",\"passWord\":\"secret-password\"}", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.total(t)
			req, err := http.NewRequest(c.method, s.api()+s.replace.Replace(c.path), strings.NewReader(s.replace.Replace(c.body)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+s.ann.Token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			var body map[string]any
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d: %v", resp.StatusCode, c.status, body)
			}
			switch traceID, _ := body["traceId"].(string); {
			case c.code == "" && body["code"] != 1.0:
				t.Errorf("got %v, want code 1", body)
			case c.code != "" && (body["code"] != c.code || len(traceID) != 32 || body["detail"] == ""):
				t.Errorf("got %v, want %s, a sentence and a trace", body, c.code)
			}
			if after := s.total(t); after != before {
				t.Errorf("%d messages are stored, want %d", after, before)
			}
		})
	}
}
