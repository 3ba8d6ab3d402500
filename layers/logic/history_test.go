package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
)

func TestHistory(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob, eve := register(t, l, "ann"), register(t, l, "bob"), register(t, l, "eve")
	direct := contract.DirectConversation(ann.User, bob.User)
	for i := range 5 {
		from, to := ann, bob
		if i%2 == 1 {
			from, to = bob, ann
		}
		if _, err := l.Send(t.Context(), &contract.SendRequest{Credential: from.by, To: to.User, Text: fmt.Sprint(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		ask  contract.HistoryRequest
		code contract.Code
		want string
		more bool
	}{
		{"by name", contract.HistoryRequest{Credential: ann.by, Conversation: direct}, "", "1 2 3 4 5", false},
		{"with the other", contract.HistoryRequest{Credential: ann.by, With: bob.User}, "", "1 2 3 4 5", false},
		{"with the one", contract.HistoryRequest{Credential: bob.by, With: ann.User}, "", "1 2 3 4 5", false},
		{"after", contract.HistoryRequest{Credential: bob.by, With: ann.User, After: 2, Limit: 2}, "", "3 4", true},
		{"before", contract.HistoryRequest{Credential: bob.by, With: ann.User, Before: 4, Limit: 2}, "", "2 3", true},
		{"before the first", contract.HistoryRequest{Credential: bob.by, With: ann.User, Before: 1}, "", "", false},
		{"nothing was said", contract.HistoryRequest{Credential: eve.by, With: ann.User}, "", "", false},
		{"with oneself", contract.HistoryRequest{Credential: eve.by, With: eve.User}, "", "", false},

		{"of others", contract.HistoryRequest{Credential: eve.by, Conversation: direct}, contract.Forbidden, "", false},
		{"with nobody", contract.HistoryRequest{Credential: ann.by, With: 999}, contract.NotFound, "", false},
		{"with a user below 0", contract.HistoryRequest{Credential: ann.by, With: -1}, contract.BadRequest, "", false},
		{"of a user who is not there", contract.HistoryRequest{Credential: ann.by, Conversation: contract.DirectConversation(ann.User, 999)}, contract.NotFound, "", false},
		{"no conversation", contract.HistoryRequest{Credential: ann.by}, contract.BadRequest, "", false},
		{"another spelling", contract.HistoryRequest{Credential: ann.by, Conversation: "room:01"}, contract.BadRequest, "", false},
		{"a name with a NUL", contract.HistoryRequest{Credential: ann.by, Conversation: "room:1\x00"}, contract.BadRequest, "", false},
		{"after and before", contract.HistoryRequest{Credential: ann.by, With: bob.User, After: 1, Before: 3}, contract.BadRequest, "", false},
		{"after below 0", contract.HistoryRequest{Credential: ann.by, With: bob.User, After: -1}, contract.BadRequest, "", false},
		{"before below 0", contract.HistoryRequest{Credential: ann.by, With: bob.User, Before: -1}, contract.BadRequest, "", false},
		{"page too large", contract.HistoryRequest{Credential: ann.by, With: bob.User, Limit: contract.MaxPage + 1}, contract.BadRequest, "", false},
		{"nobody asks", contract.HistoryRequest{With: bob.User}, contract.Unauthenticated, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := l.History(t.Context(), &c.ask)
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			var got []string
			for _, m := range r.Messages {
				got = append(got, m.Text)
			}
			if strings.Join(got, " ") != c.want || r.More != c.more {
				t.Errorf("got %v, more %v, want %s, %v", got, r.More, c.want, c.more)
			}
		})
	}
}

// Heads answers for what the caller may read and passes over the rest.
func TestHeads(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob, eve := register(t, l, "ann"), register(t, l, "bob"), register(t, l, "eve")
	private, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "private", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ann.say(t, l, 1, "x")
		ann.say(t, l, private.ID, "x")
	}
	if _, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, To: bob.User, Text: "x"}); err != nil {
		t.Fatal(err)
	}
	secret, direct := contract.RoomConversation(private.ID), contract.DirectConversation(ann.User, bob.User)
	empty := contract.DirectConversation(ann.User, eve.User)
	named := []contract.Conversation{"room:1", secret, direct, empty, "room:999"}
	for name, c := range map[string]struct {
		by   contract.Credential
		want map[contract.Conversation]int64
	}{
		"ann": {ann.by, map[contract.Conversation]int64{"room:1": 3, secret: 3, direct: 1}},
		"bob": {bob.by, map[contract.Conversation]int64{"room:1": 3, direct: 1}},
		"eve": {eve.by, map[contract.Conversation]int64{"room:1": 3}},
	} {
		r, err := l.Heads(t.Context(), &contract.HeadsRequest{Credential: c.by, Conversations: named})
		if err != nil || fmt.Sprint(r.Heads) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, r, err, c.want)
		}
	}
	if r, err := l.Heads(t.Context(), &contract.HeadsRequest{Credential: eve.by, Conversations: []contract.Conversation{secret, direct}}); err != nil || len(r.Heads) != 0 {
		t.Errorf("foreign ones alone: got %v, %v, want none", r, err)
	}
	_, err = l.Heads(t.Context(), &contract.HeadsRequest{Credential: ann.by, Conversations: []contract.Conversation{"room:01"}})
	wantCode(t, err, contract.BadRequest)
	_, err = l.Heads(t.Context(), &contract.HeadsRequest{Credential: ann.by, Conversations: slices.Repeat(named[:1], contract.MaxResume+1)})
	wantCode(t, err, contract.BadRequest)
}

// The read mark goes forward alone, and the user's other connections hear of it.
func TestMarkRead(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	for range 5 {
		bob.say(t, l, 1, "x")
	}
	for _, c := range []struct{ mark, want int64 }{{0, 0}, {3, 3}, {2, 3}, {99, 5}, {1 << 62, 5}} {
		r, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: ann.by, Conversation: "room:1", Seq: c.mark, Origin: "c1"})
		if err != nil || r.Seq != c.want {
			t.Errorf("mark %d: got %v, %v, want %d", c.mark, r, err, c.want)
		}
	}
	notices := h.queue.deliveries(t, false)
	if len(notices) != 5 {
		t.Fatalf("%d notices, want 5", len(notices))
	}
	d := notices[1]
	if d.Room != 0 || fmt.Sprint(d.Users) != fmt.Sprint([]contract.UserID{ann.User}) || d.Except != "c1" ||
		string(d.Frame) != `{"op":13,"conversation":"room:1","seq":3}` {
		t.Errorf("the notice is %+v %s", d, d.Frame)
	}
	_, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: ann.by, Conversation: "room:1", Seq: -1})
	wantCode(t, err, contract.BadRequest)
	other := contract.DirectConversation(bob.User, 999)
	_, err = l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: ann.by, Conversation: other, Seq: 1})
	wantCode(t, err, contract.Forbidden)
	// A queue that is away takes nothing from the mark.
	h.queue.failing(func([]contract.Item) error { return errAway })
	if r, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: bob.by, Conversation: "room:1", Seq: 4}); err != nil || r.Seq != 4 {
		t.Errorf("with the queue away: got %v, %v", r, err)
	}
}

func TestTyping(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann, bob, eve := register(t, l, "ann"), register(t, l, "bob"), register(t, l, "eve")
	direct := contract.DirectConversation(ann.User, bob.User)
	for _, c := range []struct {
		name         string
		by           person
		conversation contract.Conversation
		code         contract.Code
		room         contract.RoomID
		users        []contract.UserID
	}{
		{"in a room", ann, "room:1", "", 1, nil},
		{"to another", ann, direct, "", 0, []contract.UserID{bob.User}},
		{"to the one", bob, direct, "", 0, []contract.UserID{ann.User}},
		{"in others' conversation", eve, direct, contract.Forbidden, 0, nil},
		{"in no room", eve, "room:999", contract.NotFound, 0, nil},
		{"nowhere", eve, "", contract.BadRequest, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(h.queue.deliveries(t, false))
			_, err := l.Typing(t.Context(), &contract.TypingRequest{Credential: c.by.by, Conversation: c.conversation, Origin: "c1"})
			wantCode(t, err, c.code)
			notices := h.queue.deliveries(t, false)[before:]
			if err != nil {
				if len(notices) > 0 {
					t.Errorf("refused, and told: %+v", notices)
				}
				return
			}
			if len(notices) != 1 || notices[0].Room != c.room || fmt.Sprint(notices[0].Users) != fmt.Sprint(c.users) || notices[0].Except != "c1" || notices[0].Message != 0 {
				t.Errorf("got %+v", notices)
			}
		})
	}
	if stored, _, err := h.store.History(context.Background(), "room:1", 0, 0, 10); err != nil || len(stored) != 0 {
		t.Errorf("typing is stored: %v, %v", stored, err)
	}
}

// device is one of a user's, with a session of its own.
func (p person) device(t *testing.T, l *Logic, name string) contract.Credential {
	t.Helper()
	g, err := l.Login(t.Context(), &contract.LoginRequest{Name: p.Name, Password: "password of " + p.Name, Device: name})
	if err != nil {
		t.Fatal(err)
	}
	return contract.Credential{Token: g.Token}
}

// Two devices of one user, on two logic nodes, show the same: what one has read is read on the other, what the user has
// said on either is unread on none, and no mark goes back or beyond what was said.
func TestTwoDevicesOfOneUser(t *testing.T) {
	databases(t, func(t *testing.T, cfg store.Config) {
		redis := testdeps.Redis(t).Addr()
		one, two := houseOn(t, cfg, redis), houseOn(t, cfg, redis)
		desk, road := one.running(t), two.running(t)
		ann, bob := register(t, desk, "ann"), register(t, desk, "bob")
		laptop, phone := ann.device(t, desk, "laptop"), ann.device(t, road, "phone")
		direct := contract.DirectConversation(ann.User, bob.User)
		room, err := desk.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: laptop, Name: "room"})
		if err != nil {
			t.Fatal(err)
		}
		inRoom := contract.RoomConversation(room.ID)
		say := func(l *Logic, by contract.Credential, to contract.UserID, room contract.RoomID) {
			t.Helper()
			if _, err := l.Send(t.Context(), &contract.SendRequest{Credential: by, To: to, Room: room, Text: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, c contract.Conversation, last, read, unread int64) {
			t.Helper()
			for name, d := range map[string]struct {
				l  *Logic
				by contract.Credential
			}{"laptop": {desk, laptop}, "phone": {road, phone}} {
				r, err := d.l.Inbox(t.Context(), &contract.InboxRequest{Credential: d.by})
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(r.Entries, func(e contract.InboxEntry) bool { return e.Conversation == c })
				if i < 0 {
					t.Fatalf("%s: %s is not in the inbox of the %s", what, c, name)
				}
				if e := r.Entries[i]; e.LastSeq != last || e.ReadSeq != read || e.Unread != unread {
					t.Errorf("%s: the %s has last %d, read %d, unread %d; want %d, %d, %d", what, name, e.LastSeq, e.ReadSeq, e.Unread, last, read, unread)
				}
			}
		}
		mark := func(l *Logic, by contract.Credential, c contract.Conversation, seq, want int64) {
			t.Helper()
			r, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: by, Conversation: c, Seq: seq, Origin: "c1"})
			if err != nil || r.Seq != want {
				t.Errorf("mark %d: got %v, %v, want %d", seq, r, err, want)
			}
		}

		mark(road, phone, direct, 7, 0) // before anything is said
		for range 4 {
			say(desk, bob.by, ann.User, 0)
			say(desk, bob.by, 0, room.ID)
		}
		want("four of bob", direct, 4, 0, 4)
		want("four of bob", inRoom, 4, 0, 4)
		say(road, phone, bob.User, 0)
		say(desk, laptop, bob.User, 0)
		say(desk, laptop, 0, room.ID)
		want("and two of ann, one on each", direct, 6, 0, 4)
		want("and one of ann", inRoom, 5, 0, 4)
		mark(road, phone, direct, 3, 3)
		want("read on the phone", direct, 6, 3, 1)
		want("read elsewhere", inRoom, 5, 0, 4)
		mark(desk, laptop, direct, 1, 3)
		want("an older mark of the laptop", direct, 6, 3, 1)
		mark(desk, laptop, direct, 5, 5)
		want("own ones are left", direct, 6, 5, 0)
		mark(desk, laptop, direct, 1<<60, 6)
		want("beyond the last", direct, 6, 6, 0)
		say(desk, bob.by, ann.User, 0)
		want("one more of bob", direct, 7, 6, 1)
		say(road, phone, bob.User, 0)
		want("and of ann", direct, 8, 6, 1)

		for range 40 {
			say(desk, bob.by, 0, room.ID)
		}
		var marking sync.WaitGroup
		for seq := int64(1); seq <= 45; seq++ { // from both at once, in any order
			marking.Go(func() { markAmongOthers(t, desk, laptop, inRoom, seq) })
			marking.Go(func() { markAmongOthers(t, road, phone, inRoom, 46-seq) })
		}
		marking.Wait()
		want("both have read all", inRoom, 45, 45, 0)

		// Every notice says the mark as it was then, to all of ann's connections but the one that has marked.
		for _, h := range []*house{one, two} {
			for _, d := range h.queue.deliveries(t, false) {
				if !strings.HasPrefix(string(d.Frame), `{"op":13,`) {
					continue
				}
				if d.Room != 0 || !slices.Equal(d.Users, []contract.UserID{ann.User}) || d.Except != "c1" {
					t.Errorf("the notice is %+v %s", d, d.Frame)
				}
			}
		}
	})
}

// markAmongOthers marks while others do: the answer is at least what was asked for.
func markAmongOthers(t *testing.T, l *Logic, by contract.Credential, c contract.Conversation, seq int64) {
	r, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: by, Conversation: c, Seq: seq, Origin: "c1"})
	if err != nil || r.Seq < seq {
		t.Errorf("mark %d among others: got %v, %v", seq, r, err)
	}
}
