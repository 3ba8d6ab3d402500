package logic

import (
	"context"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
)

// wantAway wants what a client can make something of: that it is to try again, and when; nothing of the cause.
func wantAway(t *testing.T, err error) {
	t.Helper()
	e := contract.AsError(err)
	if e == nil || e.Code != contract.Unavailable || e.RetryAfter != time.Second {
		t.Errorf("got %v, want unavailable and to come again after a second", err)
	}
	if e != nil && strings.ContainsAny(e.Message, "/:0123456789") {
		t.Errorf("clients see %q", e.Message)
	}
}

// While the database is away, whoever makes it be asked is told so, and by itself it works again.
func TestDatabaseAway(t *testing.T) {
	proxy := testdeps.StartPostgres(t).Proxy(t)
	h := houseOn(t, store.Config{URL: proxy.URL}, testdeps.Redis(t).Addr())
	l := h.running(t, func(c *Config, _ *AuthConfig) { c.SessionCache = time.Minute })
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	calls := map[string]func() error{
		"a user by name": func() error {
			_, err := l.Login(t.Context(), &contract.LoginRequest{Name: "ann", Password: "password of ann"})
			return err
		},
		"a user by id": func() error {
			_, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, From: ann.User, To: bob.User, Text: "to bob"})
			return err
		},
		"a room to write to": func() error { _, err := ann.send(t.Context(), l, 2, "to a room"); return err },
		"a room to enter": func() error {
			_, err := l.EnterRoom(t.Context(), &contract.RoomRequest{Credential: ann.by, Room: 3})
			return err
		},
		"users by their names": func() error {
			_, err := l.FindUsers(t.Context(), &contract.FindUsersRequest{Credential: ann.by, Name: "b"})
			return err
		},
		"rooms": func() error {
			_, err := l.Rooms(t.Context(), &contract.RoomsRequest{Credential: ann.by})
			return err
		},
	}
	proxy.Away()
	for name, call := range calls {
		t.Run(name, func(t *testing.T) { wantAway(t, call()) })
	}
	proxy.Back()
	for name, call := range calls {
		t.Run(name+", when it is back", func(t *testing.T) {
			if err := call(); contract.CodeOf(err) != "" && contract.CodeOf(err) != contract.NotFound {
				t.Errorf("got %v", err)
			}
		})
	}
}

// While Redis is away, whoever is not remembered is told so.
func TestRedisAway(t *testing.T) {
	redis := testdeps.Redis(t)
	h := houseOn(t, store.Config{URL: "sqlite:" + t.TempDir() + "/gochat.db"}, redis.Addr())
	l, other := h.running(t, func(c *Config, _ *AuthConfig) { c.SessionCache = time.Minute }), h.logic(t)
	ann := register(t, l, "ann")
	ask := func(l *Logic) error {
		_, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: ann.by})
		return err
	}
	if err := ask(l); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	for name, call := range map[string]func(ctx context.Context) error{
		"a session":         func(context.Context) error { return ask(other) },
		"a session to send": func(ctx context.Context) error { _, err := ann.send(ctx, other, 1, "text"); return err },
		"a new session": func(ctx context.Context) error {
			_, err := l.Login(ctx, &contract.LoginRequest{Name: "ann", Password: "password of ann"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantAway(t, call(t.Context())) })
	}
	if err := ask(l); err != nil { // the control: it is Redis that is asked above
		t.Errorf("a session that is remembered: %v", err)
	}
}
