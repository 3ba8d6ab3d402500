//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gochat/e2e/load"
)

// scenarios are what every system does, however it is run.
func (s *target) scenarios(t *testing.T) {
	t.Run("page", s.chatPage)
	t.Run("browsers", s.inBrowsers)
	t.Run("seed clients", s.seedClients)
	t.Run("any transport to any", s.anyToAny)
	t.Run("private, offline, read", s.private)
	t.Run("resume", s.resume)
	t.Run("sent once", s.sentOnce)
	t.Run("refusals", s.refusals)
}

// chatPage: it is served, knows where to connect, and the API is described.
func (s *target) chatPage(t *testing.T) {
	get := func(url string) string {
		response, err := s.http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", url, response.Status, err)
		}
		return string(body)
	}
	page := get(s.page)
	if !strings.Contains(page, "<div id=") {
		t.Errorf("the page is %.300q", page)
	}
	told := get(s.page + "config.json")
	for _, address := range s.told {
		if !strings.Contains(told, address) {
			t.Errorf("the page is not told of %s: %s", address, told)
		}
	}
	// A page of that origin may connect, one of another may not.
	for from, may := range map[string]bool{s.origin: true, "https://elsewhere.example": false} {
		link, err := load.DialFrom(s.WebSocket[0], s.TLS, from)
		if (err == nil) != may {
			t.Errorf("from %s: %v, want that it may: %v", from, err, may)
		}
		if err == nil {
			link.Close()
		}
	}
	var described struct{ OpenAPI string }
	if err := json.Unmarshal([]byte(get(s.url("/v1/openapi.json"))), &described); err != nil || !strings.HasPrefix(described.OpenAPI, "3.1") {
		t.Errorf("the API is described as %q, %v", described.OpenAPI, err)
	}
}

// seed calls a route of the system that gochat follows.
func (s *target) seed(t *testing.T, route string, body object) (code int, data any) {
	t.Helper()
	status, answer := s.do(t, nil, http.MethodPost, route, body)
	var out struct {
		Code int
		Data any
	}
	if err := json.Unmarshal(answer, &out); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s", route, status, answer)
	}
	return out.Code, out.Data
}

// seedClients: a client of the seed registers, logs in, connects by its first message, and chats.
func (s *target) seedClients(t *testing.T) {
	var tokens, ids []string
	for _, name := range []string{unique("seed-a"), unique("seed-b")} {
		if code, _ := s.seed(t, "/user/register", object{"userName": name, "passWord": "111111"}); code != 0 {
			t.Fatalf("register: code %d", code)
		}
		code, token := s.seed(t, "/user/login", object{"userName": name, "passWord": "111111"})
		if code != 0 {
			t.Fatalf("login: code %d", code)
		}
		tokens = append(tokens, token.(string))
		_, who := s.seed(t, "/user/checkAuth", object{"authToken": token})
		ids = append(ids, fmt.Sprint(who.(map[string]any)["userId"]))
	}
	web, socket := s.transports()["websocket"](t), s.transports()["tcp"](t)
	web.send(t, object{"authToken": tokens[0], "roomId": 1})
	web.op(t, 5)
	socket.send(t, object{"op": 6, "authToken": tokens[1], "roomId": 1})
	socket.op(t, 5)
	room := unique("to the room")
	if code, _ := s.seed(t, "/push/pushRoom", object{"op": 3, "msg": room, "roomId": 1, "authToken": tokens[0]}); code != 0 {
		t.Errorf("pushRoom: code %d", code)
	}
	got := socket.text(t, room)
	web.text(t, room)
	for _, key := range []string{"code", "msg", "fromUserId", "fromUserName", "toUserId", "toUserName", "roomId", "op", "createTime"} {
		if _, has := got[key]; !has {
			t.Errorf("the frame has no %s: %v", key, got)
		}
	}
	private := unique("to you")
	if code, _ := s.seed(t, "/push/push", object{"op": 2, "msg": private, "toUserId": ids[1], "roomId": 1, "authToken": tokens[0]}); code != 0 {
		t.Errorf("push: code %d", code)
	}
	if f := socket.text(t, private); f.num("op") != 2 {
		t.Errorf("a private message is op %d", f.num("op"))
	}
	if code, _ := s.seed(t, "/push/count", object{"roomId": 1, "authToken": tokens[0]}); code != 0 {
		t.Errorf("count: code %d", code)
	}
	socket.op(t, 4)
	if code, _ := s.seed(t, "/user/checkAuth", object{"authToken": "nonsense"}); code == 0 {
		t.Error("nonsense is a session")
	}
}

// anyToAny: what is sent by one transport comes by all.
func (s *target) anyToAny(t *testing.T) {
	conns := make(map[string]*conn)
	var room struct{ ID int }
	var u *user
	for name, dial := range s.transports() {
		u = s.register(t, unique("any"))
		if room.ID == 0 {
			s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": unique("any to any")}, &room)
		}
		conns[name] = dial(t)
		conns[name].enter(t, u, room.ID)
	}
	for from, c := range conns {
		text := unique("by " + from)
		c.send(t, object{"op": 3, "roomId": room.ID, "msg": text, "clientId": from})
		ack := c.await(t, "the acknowledgement", func(f frame) bool { return f.num("op") == 20 && f.str("clientId") == from })
		for to, other := range conns {
			if f := other.text(t, text); f.str("id") != ack.str("id") || f.num("seq") != ack.num("seq") || f.str("traceId") == "" {
				t.Errorf("by %s to %s: got %v, acknowledged as %v", from, to, f, ack)
			}
		}
	}
	text := unique("by REST")
	s.must(t, u, http.MethodPost, fmt.Sprintf("/v1/rooms/%d/messages", room.ID), object{"msg": text}, nil)
	for _, c := range conns {
		c.text(t, text)
	}
}

// private: who is away finds it in the inbox, reads it, and it is unread no more.
func (s *target) private(t *testing.T) {
	ann, bob := s.register(t, unique("ann")), s.register(t, unique("bob"))
	var sent struct{ Conversation string }
	s.must(t, ann, http.MethodPost, fmt.Sprintf("/v1/users/%d/messages", bob.ID), object{"msg": "while you are away"}, &sent)
	unread := func() int {
		var inbox struct {
			Conversations []struct {
				Conversation string
				Unread       int
			}
		}
		s.must(t, bob, http.MethodGet, "/v1/inbox", nil, &inbox)
		for _, c := range inbox.Conversations {
			if c.Conversation == sent.Conversation {
				return c.Unread
			}
		}
		return -1
	}
	if n := unread(); n != 1 {
		t.Fatalf("%d unread, want 1", n)
	}
	s.must(t, bob, http.MethodPut, "/v1/conversations/"+sent.Conversation+"/read", object{"seq": 1}, nil)
	eventually(t, "nothing is unread", func() bool { return unread() <= 0 })
}

// resume: who names where they are gets what followed, in order, and then what is said.
func (s *target) resume(t *testing.T) {
	u := s.register(t, unique("resume"))
	var room struct{ ID int }
	s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": unique("resume")}, &room)
	for i := range 30 {
		s.must(t, u, http.MethodPost, fmt.Sprintf("/v1/rooms/%d/messages", room.ID), object{"msg": fmt.Sprint("earlier ", i)}, nil)
	}
	for name, dial := range s.transports() {
		c := dial(t)
		c.send(t, object{"op": 6, "authToken": u.Token, "roomId": room.ID, "resume": object{fmt.Sprint("room:", room.ID): 10}})
		c.op(t, 22)
		live := unique("live")
		s.must(t, u, http.MethodPost, fmt.Sprintf("/v1/rooms/%d/messages", room.ID), object{"msg": live}, nil)
		last := c.text(t, live).num("seq")
		var seqs, want []int
		c.mu.Lock()
		for _, f := range c.frames {
			if f.num("op") == 3 {
				seqs = append(seqs, f.num("seq"))
			}
		}
		c.mu.Unlock()
		for seq := 11; seq <= last; seq++ {
			want = append(want, seq)
		}
		if !slices.Equal(seqs, want) {
			t.Errorf("%s: got %v, want %v", name, seqs, want)
		}
	}
}

// sentOnce: the same clientId makes one message, by whatever way it is tried again.
func (s *target) sentOnce(t *testing.T) {
	u := s.register(t, unique("once"))
	var first, second struct{ ID string }
	body := object{"msg": "once", "clientId": "the-same"}
	s.must(t, u, http.MethodPost, "/v1/rooms/1/messages", body, &first)
	s.must(t, u, http.MethodPost, "/v1/rooms/1/messages", body, &second)
	c := s.transports()["tcp"](t)
	c.send(t, object{"op": 6, "authToken": u.Token})
	c.send(t, object{"op": 3, "roomId": 1, "msg": "once", "clientId": "the-same"})
	if ack := c.op(t, 20); first.ID == "" || second.ID != first.ID || ack.str("id") != first.ID {
		t.Errorf("messages %q, %q and %q, want one", first.ID, second.ID, ack.str("id"))
	}
}

// refusals: what is wrong is refused with its code.
func (s *target) refusals(t *testing.T) {
	u := s.register(t, unique("refused"))
	for _, c := range []struct {
		user         *user
		method, path string
		body         any
		status       int
		code         string
	}{
		{nil, http.MethodGet, "/v1/me", nil, http.StatusUnauthorized, "unauthenticated"},
		{u, http.MethodPost, "/v1/rooms/987654321/messages", object{"msg": "x"}, http.StatusNotFound, "not_found"},
		{u, http.MethodPost, "/v1/rooms/1/messages", object{"msg": strings.Repeat("x", 100_000)}, http.StatusRequestEntityTooLarge, "too_large"},
		{nil, http.MethodPost, "/v1/register", object{"name": u.Name, "password": "secret-password"}, http.StatusConflict, "conflict"},
	} {
		status, body := s.do(t, c.user, c.method, c.path, c.body)
		var problem struct{ Code string }
		if err := json.Unmarshal(body, &problem); err != nil || status != c.status || problem.Code != c.code {
			t.Errorf("%s %s: %d %.200s, want %d %s", c.method, c.path, status, body, c.status, c.code)
		}
	}
	c := s.transports()["websocket"](t)
	c.send(t, object{"op": 6, "authToken": "nonsense"})
	if f := c.op(t, 21); f.str("code") != "unauthenticated" {
		t.Errorf("got %v, want unauthenticated", f)
	}
}
