package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
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
