package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

func testHistory(t *testing.T, s *Store) {
	var batch []contract.Message
	for i := range 10 {
		m := message(1, "room:1")
		m.CreatedAt = now.Add(time.Duration(i)*time.Millisecond + time.Microsecond).In(time.FixedZone("east", 3600))
		batch = append(batch, m, message(1, "room:2"))
	}
	mustCommit(t, s, batch...)
	for _, c := range []struct {
		name          string
		after, before int64
		limit         int
		want          []int64
		more          bool
	}{
		{"from the start", 0, 0, 3, []int64{1, 2, 3}, true},
		{"after", 7, 0, 2, []int64{8, 9}, true},
		{"to the end", 7, 0, 3, []int64{8, 9, 10}, false},
		{"after the end", 10, 0, 3, nil, false},
		{"before", 0, 6, 3, []int64{3, 4, 5}, true},
		{"before, to the start", 0, 4, 3, []int64{1, 2, 3}, false},
		{"before the start", 0, 1, 3, nil, false},
		{"before beyond the end", 0, 99, 2, []int64{9, 10}, true},
		{"between", 4, 8, 5, []int64{5, 6, 7}, false},
		{"the last between", 4, 8, 2, []int64{6, 7}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			msgs, more, err := s.History(t.Context(), "room:1", c.after, c.before, c.limit)
			var got []int64
			for _, m := range msgs {
				got = append(got, m.Seq)
				if want := now.Add(time.Duration(m.Seq-1) * time.Millisecond); m.CreatedAt != want {
					t.Errorf("got time %v, want %v: whole milliseconds, UTC", m.CreatedAt, want)
				}
			}
			if err != nil || more != c.more || !slices.Equal(got, c.want) {
				t.Errorf("got %v, more %t, %v, want %v, more %t", got, more, err, c.want, c.more)
			}
		})
	}
	if msgs, more, err := s.History(t.Context(), "room:9", 0, 0, 5); err != nil || more || len(msgs) != 0 {
		t.Errorf("of nothing: got %v, %t, %v", msgs, more, err)
	}
}

func testLastBefore(t *testing.T, s *Store) {
	var batch []contract.Message
	for i := range 10 {
		m := message(1, "dm:1:2")
		m.CreatedAt = now.Add(time.Duration(i) * time.Millisecond)
		batch = append(batch, m, message(1, "dm:1:3"))
	}
	mustCommit(t, s, batch...)
	for _, c := range []struct {
		name   string
		of     contract.Conversation
		since  time.Duration
		before int64
		want   int64
	}{
		{"between two", "dm:1:2", 3500 * time.Microsecond, 99, 3}, // whole milliseconds
		{"at one", "dm:1:2", 3 * time.Millisecond, 99, 3},
		{"below a seq", "dm:1:2", 7 * time.Millisecond, 5, 4},
		{"after all", "dm:1:2", time.Hour, 99, 10},
		{"before all", "dm:1:2", -time.Hour, 99, 0},
		{"of nothing", "dm:1:9", time.Hour, 99, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := s.LastBefore(t.Context(), c.of, now.Add(c.since), c.before); err != nil || got != c.want {
				t.Errorf("got %d, %v, want %d", got, err, c.want)
			}
		})
	}
}

func testDirectHeads(t *testing.T, s *Store) {
	at := func(c contract.Conversation, after time.Duration) contract.Message {
		m := message(1, c)
		m.CreatedAt = now.Add(after)
		return m
	}
	mustCommit(t, s, at("dm:1:2", 0), at("dm:1:2", time.Second), at("dm:2:3", 0), at("dm:2:4", time.Hour), at("room:2", time.Hour), at("dm:3:4", time.Hour))
	since := func(user contract.UserID, after time.Duration) contract.UserSince {
		return contract.UserSince{User: user, Since: now.Add(after)}
	}
	got, err := s.DirectHeads(t.Context(), []contract.UserSince{since(1, time.Minute), since(2, time.Second), since(3, -time.Hour), since(9, 0)})
	slices.SortFunc(got, func(a, b contract.UserHead) int {
		return strings.Compare(fmt.Sprint(a.User, a.Conversation), fmt.Sprint(b.User, b.Conversation))
	})
	want := []contract.UserHead{
		{User: 2, Conversation: "dm:1:2", Last: 2}, {User: 2, Conversation: "dm:2:4", Last: 1},
		{User: 3, Conversation: "dm:2:3", Last: 1}, {User: 3, Conversation: "dm:3:4", Last: 1},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := s.DirectHeads(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("of nobody: got %v, %v", got, err)
	}
}

func testHeads(t *testing.T, s *Store) {
	mustCommit(t, s, message(1, "room:1"), message(1, "dm:1:2"), message(1, "room:1"))
	got, err := s.Heads(t.Context(), []contract.Conversation{"room:1", "dm:1:2", "room:9", "room:1"})
	if want := map[contract.Conversation]int64{"room:1": 2, "dm:1:2": 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := s.Heads(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("of none: got %v, %v", got, err)
	}
}

// testManyIDs asks for more than a statement of either database takes as parameters.
func testManyIDs(t *testing.T, s *Store) {
	results := mustCommit(t, s, message(1, "room:69999"), message(1, "room:1"))
	var conversations []contract.Conversation
	rows := []contract.OutboxPosition{results[0].Outbox}
	for i := range 70_000 {
		conversations = append(conversations, contract.RoomConversation(contract.RoomID(i+1)))
		rows = append(rows, contract.OutboxPosition(i+1_000_000))
	}
	rows = append(rows, results[1].Outbox)
	heads, err := s.Heads(t.Context(), conversations)
	if err != nil || fmt.Sprint(heads) != "map[room:1:1 room:69999:1]" {
		t.Errorf("got %v, %v", heads, err)
	}
	if err := s.DeleteOutbox(t.Context(), rows); err != nil {
		t.Error(err)
	}
	if n, _, err := s.OutboxSize(t.Context()); n != 0 || err != nil {
		t.Errorf("got %d outbox rows, %v, want none", n, err)
	}
}

// testTrim: what goes are the oldest messages of that conversation alone, none that waits to be published, and the others
// keep their seq.
func testTrim(t *testing.T, s *Store) {
	seqs := func(c contract.Conversation) (list []int64) {
		t.Helper()
		msgs, more, err := s.History(t.Context(), c, 0, 0, 100)
		if err != nil || more {
			t.Fatalf("history: more %v, %v", more, err)
		}
		for _, m := range msgs {
			list = append(list, m.Seq)
		}
		return list
	}
	var notes []contract.Message
	for range 6 {
		notes = append(notes, message(1, "dm:1:1"), message(2, "dm:1:2"))
	}
	results := mustCommit(t, s, notes...)
	var published []contract.OutboxPosition
	for i, r := range results {
		if i != 2 { // seq 2 of the notes waits
			published = append(published, r.Outbox)
		}
	}
	if err := s.DeleteOutbox(t.Context(), published); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(t.Context(), "dm:1:1", 5); err != nil {
		t.Fatal(err)
	}
	if got, want := seqs("dm:1:1"), []int64{2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v: the latest, and what waits in the outbox", got, want)
	}
	if got := outbox(t, s); len(got) != 1 || got[0].Message.Seq != 2 {
		t.Errorf("the outbox has %v, want the one that waits", got)
	}
	if got := seqs("dm:1:2"); len(got) != 6 {
		t.Errorf("of another conversation %v are left, want all six", got)
	}
	if err := s.DeleteOutbox(t.Context(), []contract.OutboxPosition{results[2].Outbox}); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(t.Context(), "dm:1:1", 6); err != nil {
		t.Fatal(err)
	}
	if next := mustCommit(t, s, message(1, "dm:1:1")); next[0].Message.Seq != 7 {
		t.Errorf("the next message has seq %d, want 7", next[0].Message.Seq)
	}
	if got, want := seqs("dm:1:1"), []int64{6, 7}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}
