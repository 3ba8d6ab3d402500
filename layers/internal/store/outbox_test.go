package store

import (
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
	all := outbox(t, s)
	if len(all) != 3 {
		t.Fatalf("got %+v, want 3 rows", all)
	}
	for i, r := range a {
		if r.Outbox == 0 || !slices.Contains(all, contract.OutboxRow{Position: r.Outbox, Message: r.Message}) {
			t.Errorf("message %d: no row %+v in %+v", i, r, all)
		}
	}
	// The next commit takes away what was published.
	b, err := s.Commit(t.Context(), []contract.Message{message(1, "room:1")}, []contract.OutboxPosition{a[0].Outbox, a[1].Outbox, 12345})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...CommitResult) {
		t.Helper()
		var got, positions []contract.OutboxPosition
		for _, row := range outbox(t, s) {
			got = append(got, row.Position)
		}
		for _, r := range want {
			positions = append(positions, r.Outbox)
		}
		if !slices.Equal(got, positions) {
			t.Errorf("got %v, want %v", got, positions)
		}
	}
	check(a[2], b[0])
	if _, err := s.Commit(t.Context(), nil, []contract.OutboxPosition{a[2].Outbox}); err != nil {
		t.Fatal(err)
	}
	check(b[0])
	for range 2 {
		if err := s.DeleteOutbox(t.Context(), []contract.OutboxPosition{b[0].Outbox}); err != nil {
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
	// A row's position is its own for good: whoever deletes it late deletes no other.
	if again := mustCommit(t, s, message(1, "room:1")); again[0].Outbox <= b[0].Outbox {
		t.Errorf("position %d is used again, after %d", again[0].Outbox, b[0].Outbox)
	}
}

// outbox is all of it.
func outbox(t *testing.T, s *Store) (all []contract.OutboxRow) {
	t.Helper()
	end, err := s.OutboxEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for after := contract.OutboxPosition(0); after < end; after = all[len(all)-1].Position {
		page, err := s.Outbox(t.Context(), after, end, 100)
		if err != nil || len(page) == 0 {
			t.Fatalf("behind %d of %d: got %v, %v", after, end, page, err)
		}
		all = append(all, page...)
	}
	return all
}

// testOutboxPages: rows come by their positions, each once, and none beyond the end.
func testOutboxPages(t *testing.T, s *Store) {
	var results []CommitResult
	for _, c := range []contract.Conversation{"room:2", "room:1"} {
		results = append(results, mustCommit(t, s, message(1, c), message(1, "dm:1:2"), message(1, c))...)
	}
	positions := make(map[contract.Conversation][]contract.OutboxPosition)
	var all []contract.OutboxPosition
	for _, r := range results {
		positions[r.Message.Conversation] = append(positions[r.Message.Conversation], r.Outbox)
		all = append(all, r.Outbox)
	}
	for c, of := range positions {
		if !slices.IsSorted(of) {
			t.Errorf("%s: positions %v do not ascend with seq", c, of)
		}
	}
	slices.Sort(all)
	for _, c := range []struct {
		after, end contract.OutboxPosition
		limit      int
		want       []contract.OutboxPosition
	}{
		{0, all[5], 10, all},
		{0, all[5], 2, all[:2]},
		{all[1], all[5], 2, all[2:4]},
		{all[1], all[2], 2, all[2:3]},
		{all[5], all[5], 2, nil},
	} {
		rows, err := s.Outbox(t.Context(), c.after, c.end, c.limit)
		var got []contract.OutboxPosition
		for _, row := range rows {
			got = append(got, row.Position)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d behind %d up to %d: got %v, %v, want %v", c.limit, c.after, c.end, got, err, c.want)
		}
	}
	if end, err := s.OutboxEnd(t.Context()); err != nil || end != all[5] {
		t.Errorf("the end is %d, %v, want %d", end, err, all[5])
	}
}
