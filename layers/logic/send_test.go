package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
)

// A direct message of a caller that does not know the conversation goes, once, by way of the node that its conversation
// prefers: with the session's user. All else is for this node.
func TestDirectMessagesArePassedOn(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	var passed []contract.SendRequest
	h.told.send = func(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		passed = append(passed, *r)
		if len(passed) > 1 {
			return nil, contract.Errorf(contract.Internal, "passed on again")
		}
		return l.Send(ctx, r)
	}
	for _, c := range []struct {
		name string
		send contract.SendRequest
		want []contract.SendRequest // without a credential, which is the session's own
	}{
		{"direct, of a caller that does not know", contract.SendRequest{To: bob.User, Text: "a", ClientID: "1", Origin: "c1"},
			[]contract.SendRequest{{From: ann.User, To: bob.User, Text: "a", ClientID: "1", Origin: "c1"}}},
		{"direct, of one that knows", contract.SendRequest{From: ann.User, To: bob.User, Text: "b"}, nil},
		{"direct, of one that is mistaken", contract.SendRequest{From: bob.User, To: bob.User, Text: "c"}, nil},
		{"to a room", contract.SendRequest{Room: contract.Lobby, Text: "d"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			passed = nil
			c.send.Credential = ann.by
			asked := c.send
			receipt, err := l.Send(t.Context(), &asked)
			if err != nil {
				t.Fatal(err)
			}
			want := contract.RoomConversation(c.send.Room)
			if c.send.To != 0 {
				want = contract.DirectConversation(ann.User, bob.User)
			}
			if receipt.Conversation != want {
				t.Errorf("it is in %s, want %s", receipt.Conversation, want)
			}
			for i := range c.want {
				c.want[i].Credential = ann.by
			}
			if !slices.Equal(passed, c.want) {
				t.Errorf("passed on %+v, want %+v", passed, c.want)
			}
			if asked != c.send {
				t.Errorf("the caller's request has become %+v, want %+v", asked, c.send)
			}
		})
	}
	t.Run("nobody's", func(t *testing.T) {
		passed = nil
		_, err := l.Send(t.Context(), &contract.SendRequest{Credential: contract.Credential{Token: "?"}, To: bob.User, Text: "x"})
		wantCode(t, err, contract.Unauthenticated)
		if len(passed) != 0 {
			t.Errorf("passed on %+v, want nothing", passed)
		}
	})
}

// databases are those that some tests run on: SQLite in a file, and PostgreSQL.
func databases(t *testing.T, test func(*testing.T, store.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, store.Config{URL: "sqlite:" + t.TempDir() + "/gochat.db"}) })
	t.Run("postgres", func(t *testing.T) { test(t, store.Config{URL: testdeps.Postgres(t)}) })
}

// However often, wherever and however close together one sender sends under one name, it is one message and one
// receipt; another sender's name is another's.
func TestDuplicates(t *testing.T) {
	databases(t, func(t *testing.T, cfg store.Config) {
		redis := testdeps.Redis(t).Addr()
		one, two := houseOn(t, cfg, redis), houseOn(t, cfg, redis)
		logics := []*Logic{one.running(t), two.running(t)}
		ann, bob := register(t, logics[0], "ann"), register(t, logics[1], "bob")
		const names, times = 20, 6
		type key struct {
			by   contract.UserID
			name string
		}
		var mu sync.Mutex
		receipts := make(map[key][]contract.Receipt)
		var sending sync.WaitGroup
		for n := range names {
			for i := range times {
				for _, p := range []person{ann, bob} {
					sending.Go(func() {
						name := fmt.Sprint("name ", n)
						r, err := logics[i%2].Send(t.Context(), &contract.SendRequest{
							Credential: p.by, Room: 1, Text: fmt.Sprintf("%s of %s", name, p.Name), ClientID: name})
						if err != nil {
							t.Errorf("got %v", err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						receipts[key{p.User, name}] = append(receipts[key{p.User, name}], *r)
					})
				}
			}
		}
		sending.Wait()
		if len(receipts) != 2*names {
			t.Errorf("%d names, want %d", len(receipts), 2*names)
		}
		for k, list := range receipts {
			for _, r := range list {
				if r != list[0] {
					t.Errorf("%v: receipts %+v and %+v", k, r, list[0])
				}
			}
		}
		if stored := one.history(t); len(stored) != 2*names {
			t.Errorf("%d messages are stored, want %d", len(stored), 2*names)
		}
		// A name used before is the message sent then, to whomever it is now.
		first := receipts[key{ann.User, "name 0"}][0]
		again, err := logics[0].Send(t.Context(), &contract.SendRequest{Credential: ann.by, To: bob.User, Text: "other", ClientID: "name 0"})
		if err != nil || *again != first {
			t.Errorf("got %+v, %v, want the first receipt %+v", again, err, first)
		}
		published := func() int {
			ids := make(map[contract.MessageID]bool)
			for _, h := range []*house{one, two} {
				for _, d := range h.queue.deliveries(t, true) {
					ids[d.Message] = true
				}
			}
			return len(ids)
		}
		eventually(t, "each message is published", func() bool { return published() == 2*names })
	})
}

// Each delivery says what it is, for whom, and since when it is on its way.
func TestDeliveries(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	for _, c := range []struct {
		name  string
		send  contract.SendRequest
		room  contract.RoomID
		users []contract.UserID
		not   contract.ConnID
	}{
		{"to a room", contract.SendRequest{Room: 1, Origin: "c1"}, 1, nil, ""},
		{"to a user", contract.SendRequest{To: bob.User, Room: 7, Origin: "c1"}, 0, []contract.UserID{bob.User, ann.User}, "c1"},
		{"by REST", contract.SendRequest{To: bob.User}, 0, []contract.UserID{bob.User, ann.User}, ""},
		{"to oneself", contract.SendRequest{To: ann.User, Origin: "c1"}, 0, []contract.UserID{ann.User}, "c1"},
		{"in another's name", contract.SendRequest{Room: 1, From: bob.User}, 1, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.send.Credential, c.send.Text = ann.by, c.name
			before := time.Now()
			receipt, err := l.Send(t.Context(), &c.send)
			if err != nil {
				t.Fatal(err)
			}
			var got contract.Delivery
			eventually(t, "it is published", func() bool {
				for _, d := range h.queue.deliveries(t, true) {
					if d.Message == receipt.ID {
						got = d
						return true
					}
				}
				return false
			})
			if got.Conversation != receipt.Conversation || got.Seq != receipt.Seq || got.Room != c.room ||
				fmt.Sprint(got.Users) != fmt.Sprint(c.users) || got.Except != c.not {
				t.Errorf("got %+v, want room %d, users %v, except %q", got, c.room, c.users, c.not)
			}
			if got.AcceptedAt.Before(before.Truncate(time.Microsecond)) || got.AcceptedAt.After(time.Now()) {
				t.Errorf("accepted at %v, want since %v", got.AcceptedAt, before)
			}
			if want := fmt.Sprintf(`"fromUserId":%d,"fromUserName":"ann"`, ann.User); !strings.Contains(string(got.Frame), want) {
				t.Errorf("frame %s, want it from ann", got.Frame)
			}
		})
	}
}

func TestSendRefuses(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	private, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: bob.by, Name: "private", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", contract.MaxTextBytes+1)
	for _, c := range []struct {
		name string
		send contract.SendRequest
		code contract.Code
	}{
		{"nobody", contract.SendRequest{Credential: contract.Credential{Token: "?"}, Room: 1, Text: "x"}, contract.Unauthenticated},
		{"nowhere", contract.SendRequest{Text: "x"}, contract.BadRequest},
		{"room below 0", contract.SendRequest{Room: -1, Text: "x"}, contract.BadRequest},
		{"user below 0", contract.SendRequest{To: -1, Text: "x"}, contract.BadRequest},
		{"user, with a room below 0", contract.SendRequest{To: bob.User, Room: -1, Text: "x"}, contract.BadRequest},
		{"a room that is not there", contract.SendRequest{Room: 999, Text: "x"}, contract.NotFound},
		{"a user who is not there", contract.SendRequest{To: 999, Text: "x"}, contract.NotFound},
		{"another's private room", contract.SendRequest{Room: private.ID, Text: "x"}, contract.Forbidden},
		{"no text", contract.SendRequest{Room: 1}, contract.BadRequest},
		{"text with a NUL", contract.SendRequest{Room: 1, Text: "a\x00b"}, contract.BadRequest},
		{"text not UTF-8", contract.SendRequest{Room: 1, Text: "a\xffb"}, contract.BadRequest},
		{"text too long", contract.SendRequest{Room: 1, Text: long}, contract.TooLarge},
		{"text too long once escaped", contract.SendRequest{Room: 1, Text: strings.Repeat("\x01", contract.MaxTextBytes)}, contract.TooLarge},
		{"clientId too long", contract.SendRequest{Room: 1, Text: "x", ClientID: long[:65]}, contract.BadRequest},
		{"clientId with a NUL", contract.SendRequest{Room: 1, Text: "x", ClientID: "\x00"}, contract.BadRequest},
		{"clientId not UTF-8", contract.SendRequest{Room: 1, Text: "x", ClientID: "\xff"}, contract.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.send.Credential == (contract.Credential{}) {
				c.send.Credential = ann.by
			}
			_, err := l.Send(t.Context(), &c.send)
			wantCode(t, err, c.code)
		})
	}
	if n := len(h.history(t)); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}
