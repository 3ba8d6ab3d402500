package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

var allCodes = []contract.Code{
	contract.BadRequest, contract.Unauthenticated, contract.Forbidden, contract.NotFound, contract.Conflict, contract.TooLarge,
	contract.RateLimited, contract.Unavailable, contract.SessionEnded, contract.Replaced, contract.SlowConsumer, contract.Internal,
}

var (
	token   = contract.Credential{Token: "T"}
	at      = time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	lobby   = contract.Room{ID: 1, Name: "lobby", CreatedAt: at, Member: true}
	hello   = contract.Message{ID: 1 << 60, Conversation: "room:1", Seq: 131, From: 7, FromName: "demo", Room: 1, Text: "hello <b>", CreatedAt: at}
	hash    = strings.Repeat("0a", 32)
	granted = &contract.SessionGrant{Token: "secret", User: 7, Name: "demo", ExpiresAt: at}
)

const (
	roomJSON  = `{"id":1,"name":"lobby","private":false,"owner":0,"member":true,"createdAt":"2026-03-04T05:06:07.089Z"}`
	grantJSON = `{"token":"secret","userId":7,"name":"demo","expiresAt":"2026-03-04T05:06:07.089Z"}`
	helloJSON = `{"code":0,"msg":"hello <b>","fromUserId":7,"fromUserName":"demo","toUserId":0,"toUserName":"","roomId":1,"op":3,` +
		`"createTime":"2026-03-04 05:06:07","id":"1152921504606846976","conversation":"room:1","seq":131,"clientId":"",` +
		`"createdAt":"2026-03-04T05:06:07.089Z","traceId":"","traceparent":""}`
	receiptJSON = `{"id":"1152921504606846976","conversation":"room:1","seq":131,"createdAt":"2026-03-04T05:06:07.089Z","traceId":"0af7"}`
)

var receipted = &contract.Receipt{ID: hello.ID, Conversation: "room:1", Seq: 131, CreatedAt: at, TraceID: "0af7"}

// v1Calls has each route: what it asks of logic, what logic says, and the whole answer.
var v1Calls = []struct {
	method, path, body string
	call               string
	want, reply        any
	status             int
	answer             string
	open               bool
}{
	{method: "POST", path: "/v1/register", body: `{"name":"demo","password":"secret","device":"web"}`, open: true,
		call: "Register", want: &contract.RegisterRequest{Name: "demo", Password: "secret", Device: "web"}, reply: granted, status: 201, answer: grantJSON},
	{method: "POST", path: "/v1/login", body: `{"name":"demo","password":"pw","unknown":{}}`, open: true,
		call: "Login", want: &contract.LoginRequest{Name: "demo", Password: "pw"}, reply: granted, status: 200, answer: grantJSON},
	{method: "POST", path: "/v1/logout", call: "Logout", want: &contract.LogoutRequest{Credential: token}, status: 204},
	{method: "GET", path: "/v1/me", call: "Authenticate", want: &contract.AuthenticateRequest{Credential: token},
		reply:  &contract.Identity{User: 7, Name: "demo", Session: contract.SessionID(hash), Device: "web", ExpiresAt: at},
		status: 200, answer: `{"userId":7,"name":"demo","sessionId":"` + hash + `","device":"web","expiresAt":"2026-03-04T05:06:07.089Z"}`},
	{method: "GET", path: "/v1/sessions", call: "Sessions", want: &contract.SessionsRequest{Credential: token},
		reply:  &contract.SessionsReply{Sessions: []contract.SessionInfo{{ID: contract.SessionID(hash), Device: "web", CreatedAt: at, ExpiresAt: at, Current: true}}},
		status: 200, answer: `{"sessions":[{"id":"` + hash + `","device":"web","createdAt":"2026-03-04T05:06:07.089Z","expiresAt":"2026-03-04T05:06:07.089Z","current":true}]}`},
	{method: "DELETE", path: "/v1/sessions/" + hash, call: "EndSessions",
		want: &contract.EndSessionsRequest{Credential: token, Session: contract.SessionID(hash)}, status: 204},
	{method: "DELETE", path: "/v1/sessions", call: "EndSessions", want: &contract.EndSessionsRequest{Credential: token}, status: 204},
	{method: "GET", path: "/v1/users?name=de&limit=5", call: "FindUsers", want: &contract.FindUsersRequest{Credential: token, Name: "de", Limit: 5},
		reply: &contract.UsersReply{Users: []contract.User{{ID: 7, Name: "demo"}}}, status: 200, answer: `{"users":[{"id":7,"name":"demo"}]}`},

	{method: "POST", path: "/v1/rooms", body: `{"name":"lobby","private":true}`, call: "CreateRoom",
		want: &contract.CreateRoomRequest{Credential: token, Name: "lobby", Private: true}, reply: &lobby, status: 201, answer: roomJSON},
	{method: "GET", path: "/v1/rooms?query=lo&after=2&limit=200", call: "Rooms",
		want:  &contract.RoomsRequest{Credential: token, Query: "lo", After: 2, Limit: 200},
		reply: &contract.RoomsReply{Rooms: []contract.Room{lobby}, More: true}, status: 200, answer: `{"rooms":[` + roomJSON + `],"more":true}`},
	{method: "GET", path: "/v1/rooms", call: "Rooms", want: &contract.RoomsRequest{Credential: token}, status: 200, answer: `{"rooms":[],"more":false}`},
	{method: "GET", path: "/v1/rooms/1", call: "Room", want: &contract.RoomRequest{Credential: token, Room: 1}, reply: &lobby, status: 200, answer: roomJSON},
	{method: "POST", path: "/v1/rooms/42/join", call: "JoinRoom", want: &contract.RoomRequest{Credential: token, Room: 42}, status: 204},
	{method: "POST", path: "/v1/rooms/42/leave", call: "LeaveRoom", want: &contract.RoomRequest{Credential: token, Room: 42}, status: 204},
	{method: "GET", path: "/v1/rooms/42/members?after=6&limit=1", call: "Members",
		want:  &contract.MembersRequest{Credential: token, Room: 42, After: 6, Limit: 1},
		reply: &contract.MembersReply{Members: []contract.User{{ID: 7, Name: "demo"}}}, status: 200, answer: `{"members":[{"id":7,"name":"demo"}],"more":false}`},
	{method: "GET", path: "/v1/rooms/1/online", call: "Online", want: &contract.RoomRequest{Credential: token, Room: 1},
		reply:  &contract.OnlineReply{Room: 1, Count: 300, Users: []contract.User{{ID: 7, Name: "demo"}}},
		status: 200, answer: `{"roomId":1,"count":300,"users":[{"id":7,"name":"demo"}]}`},

	{method: "POST", path: "/v1/rooms/1/messages", body: `{"msg":"hello","clientId":"c1"}`, call: "Send",
		want: &contract.SendRequest{Credential: token, Room: 1, Text: "hello", ClientID: "c1"}, reply: receipted, status: 201, answer: receiptJSON},
	{method: "POST", path: "/v1/users/9/messages", body: `{"msg":"hello"}`, call: "Send",
		want: &contract.SendRequest{Credential: token, To: 9, Text: "hello"}, reply: receipted, status: 201, answer: receiptJSON},
	{method: "GET", path: "/v1/rooms/1/messages?after=130&limit=1", call: "History",
		want:   &contract.HistoryRequest{Credential: token, Conversation: "room:1", After: 130, Limit: 1},
		reply:  &contract.HistoryReply{Messages: []contract.Message{hello}, More: true},
		status: 200, answer: `{"messages":[` + helloJSON + `],"more":true}`},
	{method: "GET", path: "/v1/rooms/1/messages?before=132", call: "History",
		want:   &contract.HistoryRequest{Credential: token, Conversation: "room:1", Before: 132},
		status: 200, answer: `{"messages":[],"more":false}`},
	{method: "GET", path: "/v1/users/9/messages?after=8&limit=200", call: "History",
		want:   &contract.HistoryRequest{Credential: token, With: 9, After: 8, Limit: 200},
		status: 200, answer: `{"messages":[],"more":false}`},
	{method: "GET", path: "/v1/inbox?limit=2", call: "Inbox", want: &contract.InboxRequest{Credential: token, Limit: 2},
		reply: &contract.InboxReply{Entries: []contract.InboxEntry{
			{Conversation: "room:1", LastSeq: 131, ReadSeq: 130, Unread: 1, Last: &hello}, {Conversation: "room:2"}}},
		status: 200, answer: `{"conversations":[{"conversation":"room:1","lastSeq":131,"readSeq":130,"unread":1,"last":` + helloJSON + `},` +
			`{"conversation":"room:2","lastSeq":0,"readSeq":0,"unread":0}]}`},
	{method: "PUT", path: "/v1/conversations/dm:3:7/read", body: `{"seq":5}`, call: "MarkRead",
		want:  &contract.MarkReadRequest{Credential: token, Conversation: "dm:3:7", Seq: 5},
		reply: &contract.MarkReadReply{Seq: 8}, status: 200, answer: `{"seq":8}`},
	{method: "PUT", path: "/v1/conversations/room%3A1/read", body: `{"seq":5}`, call: "MarkRead",
		want:  &contract.MarkReadRequest{Credential: token, Conversation: "room:1", Seq: 5},
		reply: &contract.MarkReadReply{Seq: 5}, status: 200, answer: `{"seq":5}`},
}

func TestV1Routes(t *testing.T) {
	for _, c := range v1Calls {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			var calls []any
			logic := &scripted{reply: func(ctx context.Context, method string, req any) (any, error) {
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("the call has no deadline")
				}
				calls = append(calls, method, req)
				return c.reply, nil
			}}
			g := do(t, c.method, start(t, logic, observability.Discard())+c.path, c.body, "Authorization: Bearer T")
			if g.status != c.status || strings.TrimSpace(string(g.raw)) != c.answer {
				t.Errorf("got %d %s\nwant %d %s", g.status, g.raw, c.status, c.answer)
			}
			if ct := g.header.Get("Content-Type"); c.answer != "" && ct != "application/json" {
				t.Errorf("got content type %q", ct)
			}
			if want := []any{c.call, c.want}; !reflect.DeepEqual(calls, want) {
				t.Errorf("got calls %+v, want %+v", calls, want)
			}
		})
	}
}

func TestRetriedMessageHasTheSameReceipt(t *testing.T) {
	base := start(t, &scripted{reply: func(context.Context, string, any) (any, error) { return receipted, nil }}, observability.Discard())
	for range 2 {
		g := do(t, "POST", base+"/v1/rooms/1/messages", `{"msg":"hello","clientId":"c1"}`, "Authorization: Bearer T")
		if g.status != http.StatusCreated || strings.TrimSpace(string(g.raw)) != receiptJSON {
			t.Errorf("got %d %s, want 201 %s", g.status, g.raw, receiptJSON)
		}
	}
}

func TestV1Errors(t *testing.T) {
	statuses := map[contract.Code]int{
		contract.BadRequest: 400, contract.Unauthenticated: 401, contract.SessionEnded: 401, contract.Replaced: 401, contract.Forbidden: 403,
		contract.NotFound: 404, contract.Conflict: 409, contract.TooLarge: 413, contract.RateLimited: 429, contract.Unavailable: 503,
		contract.Internal: 500, contract.SlowConsumer: 500, "of a later version": 500,
	}
	for code, status := range statuses {
		t.Run(string(code), func(t *testing.T) {
			base := start(t, fails(fmt.Errorf("wrapped: %w", contract.Errorf(code, "because"))), observability.Discard())
			for _, c := range v1Calls {
				g := do(t, c.method, base+c.path, c.body, "Authorization: Bearer T")
				isProblem(t, g, status, code)
				if g.body["detail"] != "because" {
					t.Errorf("got detail %v, want because", g.body["detail"])
				}
				if got, want := g.header.Get("WWW-Authenticate") == "Bearer", status == 401; got != want {
					t.Errorf("%s: WWW-Authenticate: Bearer is there: %v, want %v", c.path, got, want)
				}
				if got, want := g.header.Get("Retry-After"), map[int]string{429: "1", 503: "1"}[status]; got != want {
					t.Errorf("%s: got Retry-After %q, want %q", c.path, got, want)
				}
			}
		})
	}
}

func TestV1SaysWhenToRetry(t *testing.T) {
	cases := []struct {
		name         string
		err          error
		status       int
		code         contract.Code
		header       string
		retryAfterMs any
	}{
		{"rate limited, rounded up", contract.RetryLater(contract.RateLimited, 1800*time.Millisecond, "slowly"), 429, contract.RateLimited, "2", 1800.0},
		{"unavailable", contract.RetryLater(contract.Unavailable, 3*time.Second, "soon"), 503, contract.Unavailable, "3", 3000.0},
		{"nothing known", contract.Errorf(contract.Unavailable, "soon"), 503, contract.Unavailable, "1", nil},
		{"deadline", context.DeadlineExceeded, 503, contract.Unavailable, "1", 1000.0},
		{"not worth a retry", contract.Errorf(contract.Conflict, "taken"), 409, contract.Conflict, "", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := do(t, "GET", start(t, fails(c.err), observability.Discard())+"/v1/me", "", "Authorization: Bearer T")
			isProblem(t, g, c.status, c.code)
			if g.header.Get("Retry-After") != c.header || g.body["retryAfterMs"] != c.retryAfterMs {
				t.Errorf("got Retry-After %q, body %s; want %q and %v", g.header.Get("Retry-After"), g.raw, c.header, c.retryAfterMs)
			}
		})
	}
}

func TestV1HidesWhatFailed(t *testing.T) {
	g := do(t, "GET", start(t, fails(errors.New("secret: password of the database")), observability.Discard())+"/v1/me", "", "Authorization: Bearer T")
	isProblem(t, g, 500, contract.Internal)
	if strings.Contains(string(g.raw), "secret") {
		t.Errorf("got %s", g.raw)
	}
}

func TestV1WantsAToken(t *testing.T) {
	base := start(t, fails(errors.New("called")), observability.Discard())
	for _, c := range v1Calls {
		if c.open {
			continue
		}
		for _, header := range []string{"X-Nothing: x", "Authorization: Bearer", "Authorization: Bearer  ", "Authorization: Basic T", "Authorization: T"} {
			t.Run(c.method+" "+c.path+" "+header, func(t *testing.T) {
				// The body is bad too: who may not ask is not told what is wrong with the question.
				g := do(t, c.method, base+c.path, `{"bad`, header)
				isProblem(t, g, 401, contract.Unauthenticated)
				if g.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("got WWW-Authenticate %q", g.header.Get("WWW-Authenticate"))
				}
			})
		}
	}
}

func TestV1BadInput(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	cases := []struct {
		name, method, path, body string
		status                   int
		code                     contract.Code
		location                 string // of the first of errors, "" if there need be none
		headers                  []string
	}{
		{name: "no body", method: "POST", path: "/v1/login", status: 400},
		{name: "cut", method: "POST", path: "/v1/login", body: `{"name":"a"`, status: 400, location: "body"},
		{name: "trailing data", method: "POST", path: "/v1/login", body: `{"name":"a","password":"b"} x`, status: 400, location: "body"},
		{name: "array", method: "POST", path: "/v1/login", body: `[]`, status: 400, location: "body"},
		{name: "null", method: "POST", path: "/v1/login", body: `null`, status: 400, location: "body"},
		{name: "field missing", method: "POST", path: "/v1/login", body: `{"name":"a"}`, status: 400, location: "body"},
		{name: "field empty", method: "POST", path: "/v1/login", body: `{"name":"","password":"b"}`, status: 400, location: "body.name"},
		{name: "wrong type", method: "POST", path: "/v1/login", body: `{"name":7,"password":"b"}`, status: 400, location: "body.name"},
		{name: "field null", method: "POST", path: "/v1/login", body: `{"name":null,"password":"b"}`, status: 400, location: "body.name"},
		{name: "name too long", method: "POST", path: "/v1/register", body: `{"name":"` + long[:65] + `","password":"b"}`, status: 400, location: "body.name"},
		{name: "password too short", method: "POST", path: "/v1/register", body: `{"name":"a","password":"12345"}`, status: 400, location: "body.password"},
		{name: "password too long", method: "POST", path: "/v1/register", body: `{"name":"a","password":"` + long[:257] + `"}`, status: 400, location: "body.password"},
		{name: "device too long", method: "POST", path: "/v1/login", body: `{"name":"a","password":"b","device":"` + long[:65] + `"}`, status: 400, location: "body.device"},
		{name: "content type", method: "POST", path: "/v1/login", body: `{"name":"a","password":"b"}`, status: 415, headers: []string{"Content-Type: text/plain"}},
		{name: "content type that is none", method: "POST", path: "/v1/login", body: `{"name":"a","password":"b"}`, status: 415, headers: []string{"Content-Type: ;+"}},
		{name: "body over 1 MiB", method: "POST", path: "/v1/login", body: `{"name":"` + long + `","password":"b"}`, status: 413, code: contract.TooLarge},

		{name: "text empty", method: "POST", path: "/v1/rooms/1/messages", body: `{"msg":""}`, status: 400, location: "body.msg"},
		{name: "text missing", method: "POST", path: "/v1/users/1/messages", body: `{}`, status: 400, location: "body"},
		{name: "text too long", method: "POST", path: "/v1/rooms/1/messages", body: `{"msg":"` + long[:contract.MaxTextBytes+1] + `"}`, status: 413, code: contract.TooLarge},
		{name: "text too long in bytes alone", method: "POST", path: "/v1/rooms/1/messages", body: `{"msg":"` + strings.Repeat("é", contract.MaxTextBytes/2+1) + `"}`, status: 413, code: contract.TooLarge},
		{name: "clientId too long", method: "POST", path: "/v1/rooms/1/messages", body: `{"msg":"x","clientId":"` + long[:65] + `"}`, status: 400, location: "body.clientId"},
		{name: "room name too long", method: "POST", path: "/v1/rooms", body: `{"name":"` + long[:65] + `"}`, status: 400, location: "body.name"},
		{name: "private is a word", method: "POST", path: "/v1/rooms", body: `{"name":"a","private":"yes"}`, status: 400, location: "body.private"},

		{name: "room is a word", method: "GET", path: "/v1/rooms/lobby", status: 400, location: "path.id"},
		{name: "room 0", method: "GET", path: "/v1/rooms/0/online", status: 400, location: "path.id"},
		{name: "room below 0", method: "POST", path: "/v1/rooms/-1/join", status: 400, location: "path.id"},
		{name: "room too large", method: "GET", path: "/v1/rooms/9223372036854775808/members", status: 400, location: "path.id"},
		{name: "user is a word", method: "GET", path: "/v1/users/bob/messages", status: 400, location: "path.id"},
		{name: "session id", method: "DELETE", path: "/v1/sessions/17", status: 400, location: "path.id"},
		{name: "conversation", method: "PUT", path: "/v1/conversations/room:01/read", body: `{"seq":1}`, status: 400},
		{name: "conversation of two in the wrong order", method: "PUT", path: "/v1/conversations/dm:7:3/read", body: `{"seq":1}`, status: 400},
		{name: "seq below 0", method: "PUT", path: "/v1/conversations/room:1/read", body: `{"seq":-1}`, status: 400, location: "body.seq"},
		{name: "seq is a fraction", method: "PUT", path: "/v1/conversations/room:1/read", body: `{"seq":1.5}`, status: 400, location: "body.seq"},
		{name: "seq beyond JSON", method: "PUT", path: "/v1/conversations/room:1/read", body: `{"seq":1e30}`, status: 400, location: "body.seq"},
		{name: "seq missing", method: "PUT", path: "/v1/conversations/room:1/read", body: `{}`, status: 400, location: "body"},

		{name: "limit over the page", method: "GET", path: "/v1/rooms/1/messages?limit=201", status: 400, location: "query.limit"},
		{name: "limit 0", method: "GET", path: "/v1/inbox?limit=0", status: 400, location: "query.limit"},
		{name: "limit is a word", method: "GET", path: "/v1/rooms?limit=all", status: 400, location: "query.limit"},
		{name: "after below 0", method: "GET", path: "/v1/users/1/messages?after=-1", status: 400, location: "query.after"},
		{name: "before 0", method: "GET", path: "/v1/rooms/1/messages?before=0", status: 400, location: "query.before"},
		{name: "after and before", method: "GET", path: "/v1/rooms/1/messages?after=1&before=9", status: 400},
		{name: "users without a name", method: "GET", path: "/v1/users?name=", status: 400, location: "query.name"},

		{name: "path that does not exist", method: "GET", path: "/v1/rooms/1/nothing", status: 404, code: contract.NotFound},
		{name: "path with a slash too many", method: "GET", path: "/v1/me/", status: 404, code: contract.NotFound},
		{name: "the version alone", method: "GET", path: "/v1", status: 404, code: contract.NotFound},
		{name: "wrong method", method: "DELETE", path: "/v1/me", status: 405},
		{name: "unheard-of method", method: "BREW", path: "/v1/me", status: 405},
	}
	base := start(t, &scripted{reply: func(_ context.Context, method string, _ any) (any, error) {
		if method != "Authenticate" {
			t.Errorf("%s was called", method)
		}
		return nil, nil
	}}, observability.Discard())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.code == "" {
				c.code = contract.BadRequest
			}
			g := do(t, c.method, base+c.path, c.body, append(c.headers, "Authorization: Bearer T")...)
			isProblem(t, g, c.status, c.code)
			list, _ := g.body["errors"].([]any)
			if c.location != "" {
				if len(list) == 0 || list[0].(map[string]any)["location"] != c.location {
					t.Errorf("got %s, want an error at %s", g.raw, c.location)
				}
			}
			if strings.Contains(string(g.raw), `"value"`) || len(g.raw) > 1<<10 {
				t.Errorf("the answer echoes the question: %.200s", g.raw)
			}
			if allow := g.header.Get("Allow"); (c.status == 405) != (allow != "") {
				t.Errorf("got Allow %q", allow)
			}
		})
	}
}
