package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/api/seedtest"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// scripted is a Logic that answers what the test says: reply gets the method's name and its request, and returns
// what the method is to return. A method that the api layer has no business calling panics.
type scripted struct {
	contract.Logic
	reply func(ctx context.Context, method string, req any) (any, error)
}

func ask[R any](ctx context.Context, s *scripted, method string, req any) (*R, error) {
	answer, err := s.reply(ctx, method, req)
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return new(R), nil
	}
	return answer.(*R), nil
}

func (s *scripted) Register(ctx context.Context, r *contract.RegisterRequest) (*contract.SessionGrant, error) {
	return ask[contract.SessionGrant](ctx, s, "Register", r)
}
func (s *scripted) Login(ctx context.Context, r *contract.LoginRequest) (*contract.SessionGrant, error) {
	return ask[contract.SessionGrant](ctx, s, "Login", r)
}
func (s *scripted) Logout(ctx context.Context, r *contract.LogoutRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "Logout", r)
}
func (s *scripted) Authenticate(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	return ask[contract.Identity](ctx, s, "Authenticate", r)
}
func (s *scripted) Sessions(ctx context.Context, r *contract.SessionsRequest) (*contract.SessionsReply, error) {
	return ask[contract.SessionsReply](ctx, s, "Sessions", r)
}
func (s *scripted) EndSessions(ctx context.Context, r *contract.EndSessionsRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "EndSessions", r)
}
func (s *scripted) FindUsers(ctx context.Context, r *contract.FindUsersRequest) (*contract.UsersReply, error) {
	return ask[contract.UsersReply](ctx, s, "FindUsers", r)
}
func (s *scripted) CreateRoom(ctx context.Context, r *contract.CreateRoomRequest) (*contract.Room, error) {
	return ask[contract.Room](ctx, s, "CreateRoom", r)
}
func (s *scripted) Rooms(ctx context.Context, r *contract.RoomsRequest) (*contract.RoomsReply, error) {
	return ask[contract.RoomsReply](ctx, s, "Rooms", r)
}
func (s *scripted) Room(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return ask[contract.Room](ctx, s, "Room", r)
}
func (s *scripted) JoinRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "JoinRoom", r)
}
func (s *scripted) LeaveRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "LeaveRoom", r)
}
func (s *scripted) Members(ctx context.Context, r *contract.MembersRequest) (*contract.MembersReply, error) {
	return ask[contract.MembersReply](ctx, s, "Members", r)
}
func (s *scripted) Online(ctx context.Context, r *contract.RoomRequest) (*contract.OnlineReply, error) {
	return ask[contract.OnlineReply](ctx, s, "Online", r)
}
func (s *scripted) Announce(ctx context.Context, r *contract.AnnounceRequest) (*contract.Empty, error) {
	return ask[contract.Empty](ctx, s, "Announce", r)
}
func (s *scripted) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return ask[contract.Receipt](ctx, s, "Send", r)
}
func (s *scripted) History(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	return ask[contract.HistoryReply](ctx, s, "History", r)
}
func (s *scripted) Inbox(ctx context.Context, r *contract.InboxRequest) (*contract.InboxReply, error) {
	return ask[contract.InboxReply](ctx, s, "Inbox", r)
}
func (s *scripted) MarkRead(ctx context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
	return ask[contract.MarkReadReply](ctx, s, "MarkRead", r)
}

// start runs an API on a free port until the test ends, and answers its address.
func start(t *testing.T, logic contract.Logic, tel observability.Telemetry, change ...func(*Config)) string {
	t.Helper()
	cfg := Defaults()
	cfg.Listen = "127.0.0.1:0"
	for _, f := range change {
		f(&cfg)
	}
	a, err := New(cfg, logic, tel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return "http://" + a.Addr()
}

// fails is a Logic of which every call fails with err.
func fails(err error) *scripted {
	return &scripted{reply: func(context.Context, string, any) (any, error) { return nil, err }}
}

// got is an answer that has been read.
type got struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

// do sends a request over a connection of its own, so that none outlives the test's server. Headers are given as
// "Name: value".
func do(t *testing.T, method, url, body string, headers ...string) got {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	req.Close = true
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	g := got{status: answer.StatusCode, header: answer.Header, raw: raw}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &g.body); err != nil {
			t.Fatalf("%s %s: answer %q: %v", method, url, raw, err)
		}
	}
	return g
}

// isProblem checks that the answer is a whole problem with that status and code.
func isProblem(t *testing.T, g got, status int, code contract.Code) {
	t.Helper()
	if ct := g.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q, want application/problem+json; body %s", ct, g.raw)
	}
	if g.status != status || g.body["status"] != float64(status) || g.body["code"] != string(code) {
		t.Errorf("status %d, body %s, want %d %s", g.status, g.raw, status, code)
	}
	if g.body["type"] != "about:blank" || g.body["title"] != http.StatusText(status) || g.body["detail"] == "" {
		t.Errorf("body %s: want type about:blank, title %q and a detail", g.raw, http.StatusText(status))
	}
}

// house is a small Logic with accounts, the lobby and nothing else: what the seed's scenarios need.
func house() *scripted {
	var mu sync.Mutex
	users, passwords, sessions := map[string]contract.UserID{}, map[string]string{}, map[string]string{}
	grant := func(name string) (any, error) {
		token := fmt.Sprintf("token-%d", len(sessions)+1)
		sessions[token] = name
		return &contract.SessionGrant{Token: token, User: users[name], Name: name, ExpiresAt: time.Now()}, nil
	}
	return &scripted{reply: func(_ context.Context, method string, req any) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		switch r := req.(type) {
		case *contract.RegisterRequest:
			if _, taken := users[r.Name]; taken {
				return nil, contract.Errorf(contract.Conflict, "the name is taken")
			}
			users[r.Name], passwords[r.Name] = contract.UserID(len(users)+1), r.Password
			return grant(r.Name)
		case *contract.LoginRequest:
			if password, ok := passwords[r.Name]; !ok || password != r.Password {
				return nil, contract.Errorf(contract.Unauthenticated, "the name or the password is wrong")
			}
			return grant(r.Name)
		}
		credential := reflect.ValueOf(req).Elem().FieldByName("Credential").Interface().(contract.Credential)
		name, ok := sessions[credential.Token]
		if !ok {
			return nil, contract.Errorf(contract.Unauthenticated, "no such session")
		}
		switch r := req.(type) {
		case *contract.LogoutRequest:
			delete(sessions, credential.Token)
		case *contract.AuthenticateRequest:
			return &contract.Identity{User: users[name], Name: name}, nil
		case *contract.AnnounceRequest:
			if r.Room != contract.Lobby {
				return nil, contract.Errorf(contract.NotFound, "no such room")
			}
		case *contract.SendRequest:
			if (r.To == 0 && r.Room != contract.Lobby) || r.To > contract.UserID(len(users)) {
				return nil, contract.Errorf(contract.NotFound, "no such addressee")
			}
		default:
			return nil, fmt.Errorf("%s is not furnished", method)
		}
		return nil, nil
	}}
}

func TestSeedScenarios(t *testing.T) {
	seedtest.Run(t, start(t, house(), observability.Discard()), os.DirFS("testdata/seed"))
}
