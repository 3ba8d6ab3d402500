package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

func testOutbox(t *testing.T, s *Store) {
	if n, oldest, err := s.OutboxSize(t.Context()); n != 0 || !oldest.IsZero() || err != nil {
		t.Errorf("empty: got %d, %v, %v", n, oldest, err)
	}
	first := message(1, "dm:1:2")
	first.CreatedAt = now.Add(-time.Minute)
	a := mustCommit(t, s, message(1, "room:1"), first, message(1, "room:1"))
	if n, oldest, err := s.OutboxSize(t.Context()); n != 3 || oldest != first.CreatedAt || err != nil {
		t.Errorf("got %d, %v, %v, want 3, %v", n, oldest, err, first.CreatedAt)
	}
	due, err := s.Outbox(t.Context(), now.Add(time.Millisecond), 10)
	if err != nil || len(due) != 3 {
		t.Fatalf("got %+v, %v, want 3 rows", due, err)
	}
	for _, r := range a {
		m := r.Message
		i := slices.IndexFunc(due, func(o contract.Message) bool { return o.ID == m.ID })
		if i < 0 {
			t.Fatalf("no row for %+v", m)
		}
		if due[i] != m {
			t.Errorf("got %+v, want %+v", due[i], m)
		}
	}
	// The next commit takes away what was published.
	b, err := s.Commit(t.Context(), []contract.Message{message(1, "room:1")}, []contract.MessageID{a[0].Message.ID, a[1].Message.ID, 12345})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...contract.MessageID) {
		t.Helper()
		due, err := s.Outbox(t.Context(), now.Add(time.Millisecond), 10)
		var got []contract.MessageID
		for _, o := range due {
			got = append(got, o.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	check(a[2].Message.ID, b[0].Message.ID)
	if _, err := s.Commit(t.Context(), nil, []contract.MessageID{a[2].Message.ID}); err != nil {
		t.Fatal(err)
	}
	check(b[0].Message.ID)
	for range 2 {
		if err := s.DeleteOutbox(t.Context(), []contract.MessageID{b[0].Message.ID}); err != nil {
			t.Error(err)
		}
	}
	if err := s.DeleteOutbox(t.Context(), nil); err != nil {
		t.Error(err)
	}
	check()
	if n := len(wholeHistory(t, s, "room:1")); n != 3 {
		t.Errorf("got %d messages, want 3: the outbox alone shrinks", n)
	}
}

// testOutboxOrder: clocks that differ put no later message of a conversation before an earlier one.
func testOutboxOrder(t *testing.T, s *Store) {
	for _, m := range []struct {
		c     contract.Conversation
		after time.Duration
	}{
		{"room:1", 3 * time.Second}, {"room:1", 1 * time.Second}, {"room:2", 2 * time.Second}, {"room:1", 9 * time.Second},
		{"room:2", 20 * time.Second}, {"room:2", 0}, {"room:3", 0}, {"room:1", 0},
	} {
		next := message(1, m.c)
		next.CreatedAt = now.Add(m.after)
		mustCommit(t, s, next)
	}
	for _, c := range []struct {
		name  string
		older time.Duration
		limit int
		want  []string
	}{
		{"all", time.Minute, 10, []string{"room:1 1", "room:1 2", "room:2 1", "room:1 3", "room:2 2", "room:2 3", "room:3 1", "room:1 4"}},
		{"limited", time.Minute, 3, []string{"room:1 1", "room:1 2", "room:2 1"}},
		{"nothing behind a young one", 5 * time.Second, 10, []string{"room:1 1", "room:1 2", "room:2 1", "room:3 1"}},
		{"older, not as old", 3 * time.Second, 10, []string{"room:2 1", "room:3 1"}},
		{"none", 0, 10, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			due, err := s.Outbox(t.Context(), now.Add(c.older), c.limit)
			var got []string
			for _, o := range due {
				got = append(got, fmt.Sprint(o.Conversation, " ", o.Seq))
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}
