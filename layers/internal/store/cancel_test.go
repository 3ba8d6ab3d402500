package store

import (
	"context"
	"errors"
	"testing"

	"gorm.io/gorm"

	"gochat/layers/internal/contract"
)

// testCommitCancelled ends the caller's ctx after each statement of a commit in turn: nothing of it is stored, and the
// next commit is as if it had never been.
func testCommitCancelled(t *testing.T, s *Store) {
	published := mustCommit(t, s, message(1, "room:1"), named(message(1, "room:1"), "earlier"))
	batch := []contract.Message{message(1, "room:1"), named(message(1, "dm:1:2"), "a"), named(message(1, "room:1"), "earlier")}
	rows := []contract.OutboxPosition{published[0].Outbox, published[1].Outbox}
	if s.dialect == postgres {
		cancelWhileItWaits(t, s, batch, rows)
	} else {
		cancelAfterEach(t, s, batch, rows)
	}
	results, err := s.Commit(t.Context(), batch, rows)
	if err != nil || results[0].Message.Seq != 3 || results[1].Message.Seq != 1 || results[1].Duplicate || results[2].Message.Seq != 2 {
		t.Errorf("the next commit: got %+v, %v, want no trace of what was cancelled", results, err)
	}
	if n, _, err := s.OutboxSize(t.Context()); n != 2 || err != nil {
		t.Errorf("got %d outbox rows, %v, want the 2 new ones", n, err)
	}
}

func wantUntouched(t *testing.T, s *Store) {
	t.Helper()
	heads, err := s.Heads(t.Context(), []contract.Conversation{"room:1", "dm:1:2"})
	if err != nil || len(heads) != 1 || heads["room:1"] != 2 {
		t.Errorf("got heads %v, %v, want what was there", heads, err)
	}
	if n := len(wholeHistory(t, s, "room:1")); n != 2 {
		t.Errorf("got %d messages, want the 2 that were there", n)
	}
	if inbox, err := s.Inbox(t.Context(), 2, 10); err != nil || len(inbox) != 0 {
		t.Errorf("got inbox %+v, %v, want none", inbox, err)
	}
	if n, _, err := s.OutboxSize(t.Context()); n != 2 || err != nil {
		t.Errorf("got %d outbox rows, %v, want the 2 that were there", n, err)
	}
}

// cancelAfterEach is for SQLite, where a commit is several statements.
func cancelAfterEach(t *testing.T, s *Store, batch []contract.Message, published []contract.OutboxPosition) {
	after := func(int) {}
	ran := 0
	count := func(*gorm.DB) { ran++; after(ran) }
	callbacks := s.write.Callback()
	for _, err := range []error{
		callbacks.Raw().After("gorm:raw").Register("test:raw", count), callbacks.Row().After("gorm:row").Register("test:row", count),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	statements := 0
	for n := 1; n == 1 || n <= statements; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		ran = 0
		after = func(now int) {
			if now == n {
				cancel()
			}
		}
		_, err := s.Commit(ctx, batch, published)
		cancel()
		statements = ran
		if !errors.Is(err, context.Canceled) || errors.Is(err, contract.ErrUncertain) {
			t.Errorf("cancelled after statement %d of %d: got %v, want that, and that nothing is stored", n, ran, err)
		}
		wantUntouched(t, s)
	}
	if statements < 6 {
		t.Errorf("a commit was seen to be %d statements", statements)
	}
	after = func(int) {}
}

// cancelWhileItWaits is for PostgreSQL, where a commit is one statement: it ends in the middle of it.
func cancelWhileItWaits(t *testing.T, s *Store, batch []contract.Message, published []contract.OutboxPosition) {
	waiting := func() (n int) {
		if err := s.read.Raw(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&n).Error; err != nil {
			t.Fatal(err)
		}
		return n
	}
	holder := s.write.Begin()
	defer holder.Rollback() // else a failure would leave the row locked
	if err := holder.Exec(`UPDATE conversations SET last_seq = last_seq WHERE id = 'room:1'`).Error; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := s.Commit(ctx, batch, published); failed <- err }()
	eventually(t, "the commit waits for the room's row", func() bool { return waiting() == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, contract.ErrUncertain) {
		t.Errorf("got %v, want that the outcome is not known: the server goes on until it hears of the end", err)
	}
	eventually(t, "the server hears of the end", func() bool { return waiting() == 0 })
	if err := holder.Rollback().Error; err != nil {
		t.Fatal(err)
	}
	wantUntouched(t, s)
}
