package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

func testMarkRead(t *testing.T, s *Store) {
	ann := user(t, s, "ann")
	mark := func(c contract.Conversation, seq, want int64) {
		t.Helper()
		if got, err := s.MarkRead(t.Context(), ann.ID, c, seq); err != nil || got != want {
			t.Errorf("mark %d: got %d, %v, want %d", seq, got, err, want)
		}
	}
	mark("room:1", 5, 0) // nothing to read
	mustCommit(t, s, message(2, "room:1"), message(2, "room:1"), message(2, "room:1"), message(2, "room:2"))
	mark("room:1", -1, 0)
	mark("room:1", 2, 2)
	mark("room:1", 1, 2)
	mark("room:1", 99, 3)
	mark("room:1", 0, 3)
	mark("room:2", 1, 1)

	var batch []contract.Message
	for range 40 {
		batch = append(batch, message(2, "room:3"))
	}
	mustCommit(t, s, batch...)
	var wg sync.WaitGroup
	for seq := range int64(40) {
		wg.Go(func() {
			if got, err := s.MarkRead(t.Context(), ann.ID, "room:3", seq+1); err != nil || got < seq+1 {
				t.Errorf("mark %d: got %d, %v", seq+1, got, err)
			}
		})
	}
	wg.Wait()
	mark("room:3", 1, 40)
}

func testInbox(t *testing.T, s *Store) {
	ann, bob, eve := user(t, s, "ann"), user(t, s, "bob"), user(t, s, "eve")
	if inbox, err := s.Inbox(t.Context(), ann.ID, 10); err != nil || len(inbox) != 0 {
		t.Errorf("of a new user: got %+v, %v", inbox, err)
	}
	quiet, err := s.CreateRoom(t.Context(), "quiet", true, ann.ID, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Join(t.Context(), contract.Lobby, ann.ID, now); err != nil {
		t.Fatal(err)
	}
	at := 0
	say := func(from contract.User, c contract.Conversation) {
		t.Helper()
		m := message(from.ID, c)
		at++
		m.CreatedAt = now.Add(time.Duration(at) * time.Second)
		mustCommit(t, s, m)
	}
	withBob, withEve, notes := contract.DirectConversation(ann.ID, bob.ID), contract.DirectConversation(ann.ID, eve.ID), contract.DirectConversation(ann.ID, ann.ID)
	for _, from := range []contract.User{bob, ann, bob, bob, ann, ann} {
		say(from, withBob)
	}
	say(eve, withEve)
	say(bob, "room:1")
	say(ann, "room:1")
	say(ann, notes)
	say(eve, contract.DirectConversation(bob.ID, eve.ID)) // none of ann's
	say(eve, "room:77")
	if _, err := s.MarkRead(t.Context(), ann.ID, withBob, 2); err != nil {
		t.Fatal(err)
	}
	check := func(of contract.User, limit int, want ...string) {
		t.Helper()
		inbox, err := s.Inbox(t.Context(), of.ID, limit)
		var got []string
		for _, e := range inbox {
			got = append(got, fmt.Sprint(e.Conversation, " last ", e.LastSeq, " read ", e.ReadSeq, " unread ", e.Unread))
			if e.LastSeq == 0 && e.Last == nil {
				continue
			}
			msgs, _, err := s.History(t.Context(), e.Conversation, e.LastSeq-1, 0, 1)
			if err != nil || len(msgs) != 1 || e.Last == nil || *e.Last != msgs[0] || e.Last.FromName == "" {
				t.Errorf("%s: got last %+v, want %+v, %v", e.Conversation, e.Last, msgs, err)
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	line := func(c contract.Conversation, last, read, unread int) string {
		return fmt.Sprint(c, " last ", last, " read ", read, " unread ", unread)
	}
	all := []string{line(notes, 1, 0, 0), line("room:1", 2, 0, 1), line(withEve, 1, 0, 1), line(withBob, 6, 2, 2),
		line(contract.RoomConversation(quiet.ID), 0, 0, 0)}
	check(ann, 10, all...)
	check(ann, 2, all[:2]...)
	say(bob, withBob)
	check(ann, 1, line(withBob, 7, 2, 3))
	if err := s.Leave(t.Context(), contract.Lobby, ann.ID); err != nil {
		t.Fatal(err)
	}
	check(ann, 10, line(withBob, 7, 2, 3), all[0], all[2], all[4])
}
