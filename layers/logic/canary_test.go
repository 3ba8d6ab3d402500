package logic

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
)

// canaryOf is the canary of a node, with a session.
func canaryOf(t testing.TB, l *Logic, node contract.NodeID) person {
	t.Helper()
	g, err := l.CanarySession(t.Context(), &contract.CanarySessionRequest{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return person{*g, contract.Credential{Token: g.Token}}
}

// note has a canary write to itself.
func (p person) note(ctx context.Context, l *Logic, clientID string) (*contract.Receipt, error) {
	return l.Send(ctx, &contract.SendRequest{Credential: p.by, From: p.User, To: p.User, Text: "canary", ClientID: clientID})
}

// A node's canary is one user for good, with one session at a time; the session speaks for it.
func TestCanarySession(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	first, other := canaryOf(t, l, "connect-17"), canaryOf(t, l, "connect-0")
	if first.User == other.User || first.Name == other.Name {
		t.Errorf("two nodes have one canary: %+v, %+v", first, other)
	}
	again := canaryOf(t, l, "connect-17")
	if again.User != first.User || again.Token == first.Token {
		t.Errorf("the next session is of user %d, want another one of %d", again.User, first.User)
	}
	who, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: again.by})
	if err != nil || who.User != first.User || who.Name != first.Name {
		t.Errorf("the session speaks for %+v, %v", who, err)
	}
	_, err = l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: first.by})
	wantCode(t, err, contract.Unauthenticated)
	if !h.told.wasClosed(contract.SessionOf(first.Token), contract.Replaced) {
		t.Error("the connections of the session before were not closed")
	}
	if _, err := l.Authenticate(t.Context(), &contract.AuthenticateRequest{Credential: other.by}); err != nil {
		t.Errorf("the other node's canary: %v", err)
	}
	for _, node := range []contract.NodeID{"", "17", "connect-", "connect-x", "connect--1", "connect-017", "connect-+1", "connect-1024", "logic-17", "connect-17 "} {
		_, err := l.CanarySession(t.Context(), &contract.CanarySessionRequest{Node: node})
		wantCode(t, err, contract.BadRequest)
	}
}

// Two logic nodes that make one canary at once make one.
func TestCanaryIsMadeOnce(t *testing.T) {
	l := newHouse(t).logic(t)
	var mu sync.Mutex
	var users []contract.UserID
	var making sync.WaitGroup
	for range 20 {
		making.Go(func() {
			g, err := l.CanarySession(t.Context(), &contract.CanarySessionRequest{Node: "connect-3"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			users = append(users, g.User)
			mu.Unlock()
		})
	}
	making.Wait()
	if slices.Sort(users); len(users) == 0 || users[0] != users[len(users)-1] {
		t.Errorf("got the users %v, want one", users)
	}
}

// People cannot be a canary, find one, write to one or be counted as one.
func TestCanariesAreNobody(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	canary, ann := canaryOf(t, l, "connect-1"), register(t, l, "ann")
	for _, name := range []string{canary.Name, canaryMark + "connect-2"} {
		_, err := l.Register(t.Context(), &contract.RegisterRequest{Name: name, Password: "123456"})
		wantCode(t, err, contract.BadRequest)
		for _, password := range []string{"", "123456", canary.Name} {
			_, err = l.Login(t.Context(), &contract.LoginRequest{Name: name, Password: password})
			wantCode(t, err, contract.Unauthenticated)
		}
	}
	for n := range len(canary.Name) {
		r, err := l.FindUsers(t.Context(), &contract.FindUsersRequest{Credential: ann.by, Name: canary.Name[:n+1]})
		if err != nil || len(r.Users) > 0 {
			t.Errorf("who looks for %q finds %v, %v", canary.Name[:n+1], r, err)
		}
	}
	_, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, From: ann.User, To: canary.User, Text: "hello"})
	wantCode(t, err, contract.NotFound)
	if _, err := canary.note(t.Context(), l, "to oneself"); err != nil {
		t.Errorf("the canary writes to itself: %v", err)
	}
	inbox, err := l.Inbox(t.Context(), &contract.InboxRequest{Credential: ann.by})
	if err != nil || len(inbox.Entries) > 0 {
		t.Errorf("ann has %v, %v", inbox, err)
	}

	fresh := newHouse(t).logic(t)
	canaryOf(t, fresh, "connect-1")
	if err := fresh.MakeDemoUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open, err := fresh.DemoUsers(t.Context()); err != nil || len(open) != 3 {
		t.Errorf("beside a canary there are the demo users %v, %v, want all three", open, err)
	}
}

// The rate that holds for people does not stop a canary.
func TestCanaryHasNoRate(t *testing.T) {
	l := newHouse(t).running(t, func(c *Config, _ *AuthConfig) { c.Rate = RateConfig{PerSecond: 1e-6, Burst: 1} })
	canary, ann := canaryOf(t, l, "connect-1"), register(t, l, "ann")
	for i := range 5 {
		if _, err := canary.note(t.Context(), l, fmt.Sprint(i)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	ann.say(t, l, contract.Lobby, "one")
	_, err := ann.send(t.Context(), l, contract.Lobby, "two")
	wantCode(t, err, contract.RateLimited)
}

// A canary's conversation keeps its latest messages; people's keep all of theirs, be it with themselves.
func TestCanaryIsTrimmed(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	const sent = 2*canaryKeep + canaryTrim + 7
	canary, ann := canaryOf(t, l, "connect-1"), register(t, l, "ann")
	for _, p := range []person{canary, ann} {
		for i := range sent {
			if _, err := p.note(t.Context(), l, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Those that wait to be published stay, so the trim that counts may be a later one.
	last := int64(sent)
	stored := func(p person) (seqs []int64) {
		t.Helper()
		for after, more := int64(0), true; more; {
			msgs, further, err := h.store.History(t.Context(), contract.DirectConversation(p.User, p.User), after, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range msgs {
				seqs = append(seqs, m.Seq)
				after = m.Seq
			}
			more = further
		}
		return seqs
	}
	eventually(t, "the canary's older messages are gone", func() bool {
		r, err := canary.note(t.Context(), l, fmt.Sprint("more ", last))
		if err != nil {
			t.Fatal(err)
		}
		last = r.Seq
		return len(stored(canary)) <= canaryKeep+canaryTrim
	})
	seqs := stored(canary)
	if len(seqs) < canaryKeep || seqs[len(seqs)-1] != last || seqs[len(seqs)-canaryKeep] != last-canaryKeep+1 {
		t.Errorf("of %d messages there are left %v, want the latest %d", last, seqs, canaryKeep)
	}
	if got := len(stored(ann)); got != sent {
		t.Errorf("ann has %d messages, want all %d", got, sent)
	}
}
