package logic

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/internal/contract"
)

// What is remembered is remembered for its life and no longer, however often it is used.
func TestCacheIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newTimedCache[string, int](10, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		fetches := 0
		get := func() int {
			v, err := c.get(t.Context(), "k", func(context.Context, string) (int, error) { fetches++; return fetches, nil })
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for _, step := range []struct{ after, want int }{{0, 1}, {1, 1}, {998, 1}, {1000, 1}, {1, 2}, {1999, 2}, {1, 3}} {
			time.Sleep(time.Duration(step.after) * time.Millisecond)
			if got := get(); got != step.want {
				t.Errorf("%d ms later: got fetch %d, want %d", step.after, got, step.want)
			}
		}
	})
}

func TestCacheKeepsNoErrors(t *testing.T) {
	c, err := newTimedCache[string, int](10, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.get(t.Context(), "k", func(context.Context, string) (int, error) { return 0, errAway }); err == nil {
		t.Error("the error of a fetch is gone")
	}
	if v, err := c.get(t.Context(), "k", func(context.Context, string) (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("got %d, %v: the error is remembered", v, err)
	}
}

// A fetch that began before a drop may have read what was dropped: its answer is given, not remembered.
func TestFetchThatRacesADropIsNotRemembered(t *testing.T) {
	c, err := newTimedCache[string, string](10, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.get(t.Context(), "k", func(context.Context, string) (string, error) {
		c.drop("k")
		return "old", nil
	})
	if got != "old" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err = c.get(t.Context(), "k", func(context.Context, string) (string, error) { return "new", nil }); got != "new" || err != nil {
		t.Errorf("got %q, %v: what was read before the drop is remembered", got, err)
	}
}

// A session that has ended is unknown at once where it ended and where that was told, and elsewhere when the cache's
// time is over.
func TestEndedSessions(t *testing.T) {
	h := newHouse(t)
	long := func(c *Config, _ *AuthConfig) { c.SessionCache = time.Minute }
	here, there := h.logic(t, long), h.logic(t, long)
	cutOff := h.logic(t, func(c *Config, _ *AuthConfig) { c.SessionCache = 100 * time.Millisecond })
	h.told.forget = func(ended []contract.SessionID) {
		if _, err := there.ForgetSessions(context.Background(), &contract.ForgetSessionsRequest{Sessions: ended}); err != nil {
			t.Error(err)
		}
	}
	ask := func(l *Logic, p person) error {
		_, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: p.by})
		return err
	}
	for name, end := range map[string]func(by person, victim contract.SessionID) error{
		"logout": func(by person, _ contract.SessionID) error {
			_, err := here.Logout(t.Context(), &contract.LogoutRequest{Credential: by.by})
			return err
		},
		"ended by another": func(by person, victim contract.SessionID) error {
			g, err := here.Login(t.Context(), &contract.LoginRequest{Name: by.Name, Password: "password of " + by.Name})
			if err != nil {
				return err
			}
			_, err = here.EndSessions(t.Context(), &contract.EndSessionsRequest{Credential: contract.Credential{Token: g.Token}, Session: victim})
			return err
		},
		"ended with all others": func(by person, _ contract.SessionID) error {
			g, err := here.Login(t.Context(), &contract.LoginRequest{Name: by.Name, Password: "password of " + by.Name})
			if err != nil {
				return err
			}
			keep := contract.Credential{Token: g.Token}
			if _, err = here.EndSessions(t.Context(), &contract.EndSessionsRequest{Credential: keep}); err != nil {
				return err
			}
			_, err = here.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: keep})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := register(t, here, name)
			victim := contract.SessionOf(p.Token)
			for _, l := range []*Logic{here, there, cutOff} {
				if err := ask(l, p); err != nil {
					t.Fatal(err)
				}
			}
			if err := end(p, victim); err != nil {
				t.Fatal(err)
			}
			wantCode(t, ask(here, p), contract.Unauthenticated)
			wantCode(t, ask(there, p), contract.Unauthenticated)
			_, err := here.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: contract.Credential{Session: victim}})
			wantCode(t, err, contract.Unauthenticated)
			eventually(t, "the node that was not told forgets it", func() bool { return ask(cutOff, p) != nil })
			if !h.told.wasClosed(victim, contract.SessionEnded) {
				t.Error("the connect nodes were not told")
			}
		})
	}
}

func TestSessionsAreTheCallersOwn(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	_, err := l.EndSessions(t.Context(), &contract.EndSessionsRequest{Credential: bob.by, Session: contract.SessionOf(ann.Token)})
	wantCode(t, err, contract.NotFound)
	if _, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: ann.by}); err != nil {
		t.Errorf("bob ended ann's session: %v", err)
	}
	r, err := l.Sessions(t.Context(), &contract.SessionsRequest{Credential: ann.by})
	if err != nil || len(r.Sessions) != 1 || !r.Sessions[0].Current || r.Sessions[0].ID != contract.SessionOf(ann.Token) {
		t.Errorf("got %+v, %v, want her own one", r, err)
	}
	for name, c := range map[string]contract.Credential{
		"none": {}, "a guess": {Token: "guess"}, "the name of a session as its token": {Token: string(contract.SessionOf(ann.Token))},
		"no session": {Session: "x"}, "a name with a NUL": {Session: "\x00"}, "a token with a space": {Token: ann.Token + " "},
	} {
		_, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: c})
		if contract.CodeOf(err) != contract.Unauthenticated {
			t.Errorf("%s: got %v", name, err)
		}
	}
	checked, err := l.CheckSessions(t.Context(), &contract.CheckSessionsRequest{Sessions: []contract.SessionID{contract.SessionOf(ann.Token), "gone"}})
	if err != nil || len(checked.Ended) != 1 || checked.Ended[0] != "gone" {
		t.Errorf("got %+v, %v, want one that has ended", checked, err)
	}
}

// A user may send a burst, then so many a second; who is refused is told when to come again, and is let in then.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := newLimits(RateConfig{PerSecond: 10, Burst: 5})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := l.send(1); err != nil {
				t.Fatalf("message %d of the burst: %v", i+1, err)
			}
		}
		for range 3 { // being refused costs nothing
			err := l.send(1)
			wantCode(t, err, contract.RateLimited)
			if after := contract.AsError(err).RetryAfter; after <= 0 || after > 101*time.Millisecond {
				t.Errorf("come again after %v, want about 100ms", after)
			}
		}
		if err := l.send(2); err != nil {
			t.Errorf("another user: %v", err)
		}
		time.Sleep(contract.AsError(l.send(1)).RetryAfter)
		if err := l.send(1); err != nil {
			t.Errorf("at the time that was told: %v", err)
		}
		wantCode(t, l.send(1), contract.RateLimited)
		time.Sleep(time.Hour)
		for range 5 {
			if err := l.send(1); err != nil {
				t.Errorf("after an hour: %v", err)
			}
		}
		wantCode(t, l.send(1), contract.RateLimited)
	})
}

func TestFailedLoginsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := newLimits(RateConfig{PerSecond: 1, Burst: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range loginBurst {
			if err := l.login("ann"); err != nil {
				t.Fatal(err)
			}
			l.failed("ann")
		}
		wantCode(t, l.login("ann"), contract.RateLimited)
		if err := l.login("bob"); err != nil {
			t.Errorf("another name: %v", err)
		}
		time.Sleep(loginInterval)
		if err := l.login("ann"); err != nil {
			t.Errorf("after the interval: %v", err)
		}
	})
}

// The limits of one node are the sender's, whatever it sends.
func TestLimitsHoldForEveryNotice(t *testing.T) {
	h := newHouse(t)
	l := h.running(t, func(c *Config, _ *AuthConfig) { c.Rate = RateConfig{PerSecond: 1e-6, Burst: 1} })
	for name, call := range map[string]func(by contract.Credential) error{
		"send": func(by contract.Credential) error {
			_, err := l.Send(t.Context(), &contract.SendRequest{Credential: by, Room: 1, Text: "x"})
			return err
		},
		"typing": func(by contract.Credential) error {
			_, err := l.Typing(t.Context(), &contract.TypingRequest{Credential: by, Conversation: "room:1"})
			return err
		},
		"mark read": func(by contract.Credential) error {
			_, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: by, Conversation: "room:1", Seq: 1})
			return err
		},
		"announce": func(by contract.Credential) error {
			_, err := l.Announce(t.Context(), &contract.AnnounceRequest{Credential: by, Room: 1})
			return err
		},
		"create room": func(by contract.Credential) error {
			_, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: by, Name: "r"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			by := register(t, l, name).by
			if err := call(by); err != nil {
				t.Fatal(err)
			}
			wantCode(t, call(by), contract.RateLimited)
		})
	}
}

func TestNamesAreRemembered(t *testing.T) {
	h := newHouse(t)
	ann := register(t, h.logic(t), "ann")
	var asked atomic.Int32
	names, err := newNameCache(&countedStore{Store: h.store, asked: &asked})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := names.name(t.Context(), ann.User); got != "ann" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		_, err := names.name(t.Context(), 999)
		wantCode(t, err, contract.NotFound)
	}
	if asked.Load() != 4 {
		t.Errorf("asked %d times, want once for who exists and each time for who does not", asked.Load())
	}
}

type countedStore struct {
	Store
	asked *atomic.Int32
}

func (s *countedStore) User(ctx context.Context, id contract.UserID) (contract.User, error) {
	s.asked.Add(1)
	return s.Store.User(ctx, id)
}
