package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"gochat/layers/internal/contract"
)

var lastID atomic.Int64

// message is a new one without a client id. The id is also free in a database that another process has filled.
func message(from contract.UserID, c contract.Conversation) contract.Message {
	id := contract.MessageID(now.UnixNano() + lastID.Add(1) + int64(os.Getpid())<<32)
	m := contract.Message{ID: id, Conversation: c, From: from, Text: "text of " + id.String(), CreatedAt: now,
		Traceparent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01"}
	if parties, err := c.Parse(); err == nil {
		m.Room, m.To = parties.Room, 0
		if parties.Room == 0 {
			m.To = parties.Other(from)
		}
	}
	return m
}

func named(m contract.Message, clientID string) contract.Message {
	m.ClientID = clientID
	return m
}

func mustCommit(t testing.TB, s *Store, batch ...contract.Message) []CommitResult {
	t.Helper()
	results, err := s.Commit(t.Context(), batch, nil)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// wholeHistory reads a conversation page by page and checks that it is numbered 1 to n.
func wholeHistory(t testing.TB, s *Store, c contract.Conversation) (msgs []contract.Message) {
	t.Helper()
	for more := true; more; {
		var some []contract.Message
		var err error
		some, more, err = s.History(t.Context(), c, int64(len(msgs)), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, some...)
	}
	for i, m := range msgs {
		if m.Seq != int64(i+1) || m.Conversation != c {
			t.Fatalf("%s: message %d has seq %d of %s", c, i+1, m.Seq, m.Conversation)
		}
	}
	return msgs
}

func testCommit(t *testing.T, s *Store) {
	ann, bob := user(t, s, "ann"), user(t, s, "bob")
	direct := contract.DirectConversation(ann.ID, bob.ID)
	batch := []contract.Message{
		message(ann.ID, "room:1"), named(message(bob.ID, direct), "c1"), message(bob.ID, "room:1"), message(ann.ID, direct),
	}
	for i := range batch {
		batch[i].FromName, batch[i].ToName = map[contract.UserID]string{ann.ID: "ann", bob.ID: "bob"}[batch[i].From], ""
	}
	batch[1].ToName, batch[3].ToName = "ann", "bob"
	batch[1].Room = 7 // carried by a direct message
	given := slices.Clone(batch)
	for round := range int64(2) {
		results, err := s.Commit(t.Context(), batch, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, wantSeq := range []int64{1, 1, 2, 2} {
			want := batch[i]
			want.Seq = wantSeq + 2*round
			if results[i].Message != want || results[i].Duplicate {
				t.Errorf("got %+v, want %+v", results[i], want)
			}
		}
		if !slices.Equal(batch, given) {
			t.Error("the batch was changed")
		}
		for _, c := range []contract.Conversation{"room:1", direct} {
			var want []contract.Message
			for _, r := range results {
				if r.Message.Conversation == c {
					want = append(want, r.Message)
				}
			}
			if got := wholeHistory(t, s, c)[2*round:]; !slices.Equal(got, want) {
				t.Errorf("%s: got %+v, want %+v", c, got, want)
			}
		}
		for i := range batch {
			batch[i].ID = message(1, "room:1").ID
		}
		batch[1].ClientID = "c2"
		given = slices.Clone(batch)
	}
	if results, err := s.Commit(t.Context(), nil, nil); err != nil || len(results) != 0 {
		t.Errorf("empty batch: got %v, %v", results, err)
	}
	_, err := s.Commit(t.Context(), []contract.Message{message(ann.ID, "dm:9:3")}, nil)
	wantCode(t, err, contract.BadRequest)
	_, err = s.Commit(t.Context(), make([]contract.Message, MaxBatch+1), nil)
	wantCode(t, err, contract.BadRequest)
	largest := make([]contract.Message, MaxBatch)
	for i := range largest {
		largest[i] = named(message(ann.ID, direct), fmt.Sprint("largest ", i))
	}
	mustCommit(t, s, largest...)
}

func testDuplicates(t *testing.T, s *Store) {
	ann, bob := user(t, s, "ann"), user(t, s, "bob")
	first := mustCommit(t, s, named(message(ann.ID, "room:1"), "a"), message(ann.ID, "room:1"))[0].Message
	results := mustCommit(t, s,
		named(message(ann.ID, "room:1"), "a"),  // stored before
		named(message(bob.ID, "room:1"), "a"),  // another's
		named(message(ann.ID, "room:1"), "b"),  // new
		named(message(ann.ID, "room:1"), "b"),  // in this batch
		named(message(ann.ID, "dm:1:2"), "a"),  // stored before, elsewhere
		message(ann.ID, "room:1"),              // without a name
		message(ann.ID, "room:1"),              // likewise: not one message
		named(message(ann.ID, "room:1"), "b"),  // once more
		named(message(ann.ID, "dm:1:2"), "b "), // not the same name
	)
	first.FromName = "ann"
	type short struct {
		id        contract.MessageID
		seq       int64
		duplicate bool
	}
	var got []short
	for _, r := range results {
		got = append(got, short{r.Message.ID, r.Message.Seq, r.Duplicate})
	}
	id := func(i int) contract.MessageID { return results[i].Message.ID }
	want := []short{{first.ID, 1, true}, {id(1), 3, false}, {id(2), 4, false}, {id(2), 4, true}, {first.ID, 1, true},
		{id(5), 5, false}, {id(6), 6, false}, {id(2), 4, true}, {id(8), 1, false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if results[0].Message != first {
		t.Errorf("got %+v, want the first message, %+v", results[0].Message, first)
	}
	if n := len(wholeHistory(t, s, "room:1")); n != 6 {
		t.Errorf("got %d messages, want 6", n)
	}
	if n, _, err := s.OutboxSize(t.Context()); n != 7 || err != nil {
		t.Errorf("got %d outbox rows, %v, want 7: none for a duplicate", n, err)
	}
}

func testCommitFails(t *testing.T, s *Store) {
	ctx, cancel := context.WithCancel(t.Context())
	published := mustCommit(t, s, message(1, "room:1"))[0].Outbox
	batch := []contract.Message{message(1, "room:1"), named(message(1, "dm:1:2"), "a")}
	cancel()
	_, err := s.Commit(ctx, batch, []contract.OutboxPosition{published})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context was cancelled", err)
	}
	_, err = s.Commit(t.Context(), append(batch, batch[0]), []contract.OutboxPosition{published})
	if err == nil || !strings.HasPrefix(err.Error(), "commit messages: ") {
		t.Errorf("one id twice: got %v, want an error", err)
	}
	heads, err := s.Heads(t.Context(), []contract.Conversation{"room:1", "dm:1:2"})
	if err != nil || len(heads) != 1 || heads["room:1"] != 1 {
		t.Errorf("got heads %v, %v, want what was there", heads, err)
	}
	if inbox, err := s.Inbox(t.Context(), 2, 10); err != nil || len(inbox) != 0 {
		t.Errorf("got inbox %+v, %v, want none", inbox, err)
	}
	if n, _, err := s.OutboxSize(t.Context()); n != 1 || err != nil {
		t.Errorf("got %d outbox rows, %v, want the one that was there", n, err)
	}
	if results := mustCommit(t, s, batch...); results[0].Message.Seq != 2 || results[1].Message.Seq != 1 || results[1].Duplicate {
		t.Errorf("got %+v, want no trace of the failures", results)
	}
}

func testUnstorableText(t *testing.T, s *Store) {
	bad := message(1, "room:1")
	bad.Text, bad.ClientID, bad.Traceparent = "a\x00b\xffc", "\x00", "\xff"
	results, err := s.Commit(t.Context(), []contract.Message{bad, message(1, "room:1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "a\uFFFDb\uFFFDc"
	if got := wholeHistory(t, s, "room:1")[0]; got != results[0].Message || got.Text != want || got.ClientID != "\uFFFD" {
		t.Errorf("got %+v stored, %+v answered, want the text %q in both", got, results[0].Message, want)
	}
}

func testConcurrentCommitters(t *testing.T, s *Store) {
	const committers, batches, size = 8, 12, 25
	var conversations []contract.Conversation
	for i := range 10 {
		conversations = append(conversations, contract.RoomConversation(contract.RoomID(i+1)),
			contract.DirectConversation(contract.UserID(i+1), contract.UserID(i+2)))
	}
	var mu sync.Mutex
	stored := make(map[contract.MessageID]contract.Message)
	var wg sync.WaitGroup
	for c := range committers {
		wg.Go(func() {
			for b := range batches {
				var batch []contract.Message
				for i := range size {
					m := message(contract.UserID(i%11+1), conversations[(c*7+b*3+i*(c+1))%len(conversations)])
					if i%5 == 0 { // each committer sends these, in one order or the other
						n := i
						if c%2 == 1 {
							n = size - 5 - i
						}
						m = named(message(1, conversations[(b+n)%len(conversations)]), fmt.Sprint(b, "-", n))
					}
					batch = append(batch, m)
				}
				results, err := s.Commit(t.Context(), batch, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, r := range results {
					if first, ok := stored[r.Message.ID]; ok && (first.Seq != r.Message.Seq || first.Conversation != r.Message.Conversation) {
						t.Errorf("one message is %+v and %+v", first, r.Message)
					}
					if !r.Duplicate && r.Message.ID != batch[i].ID {
						t.Errorf("got %+v for %+v", r, batch[i])
					}
					stored[r.Message.ID] = r.Message
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	total := 0
	for _, c := range conversations {
		msgs := wholeHistory(t, s, c)
		total += len(msgs)
		for _, m := range msgs {
			if stored[m.ID] != m {
				t.Errorf("got %+v, want as it was answered: %+v", m, stored[m.ID])
			}
		}
	}
	if want := committers*batches*(size-5) + batches*5; total != want || len(stored) != want {
		t.Errorf("got %d messages, %d answered, want %d", total, len(stored), want)
	}
	due := outbox(t, s)
	if len(due) != total {
		t.Fatalf("got %d outbox rows, want %d", len(due), total)
	}
	seqs := make(map[contract.Conversation]int64)
	for _, row := range due {
		m := row.Message
		seqs[m.Conversation]++
		if m.Seq != seqs[m.Conversation] || m != stored[m.ID] {
			t.Fatalf("got %+v in the outbox, want %+v, seq %d", m, stored[m.ID], seqs[m.Conversation])
		}
	}
}

func testRacingDuplicates(t *testing.T, s *Store) {
	for round := range 10 {
		ids := make([]contract.MessageID, 8)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range ids {
			wg.Go(func() {
				<-start
				c := contract.RoomConversation(contract.RoomID(i%3 + 1)) // the first one decides where it is
				results, err := s.Commit(t.Context(), []contract.Message{named(message(1, c), fmt.Sprint(round))}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = results[0].Message.ID
			})
		}
		close(start)
		wg.Wait()
		if one := slices.Compact(ids); len(one) != 1 {
			t.Errorf("one client id made %d messages", len(one))
		}
	}
	n := 0
	for _, c := range []contract.Conversation{"room:1", "room:2", "room:3"} {
		n += len(wholeHistory(t, s, c))
	}
	if n != 10 {
		t.Errorf("got %d messages, want 10", n)
	}
}

// testMixedLoad has everyone at work at once: nobody may be told that the database is locked or that two waited for
// each other.
func testMixedLoad(t *testing.T, s *Store) {
	ann := user(t, s, "ann")
	var wg sync.WaitGroup
	work := func(times int, f func(i int) error) {
		wg.Go(func() {
			for i := range times {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 4 {
		var published []contract.OutboxPosition
		work(30, func(int) error {
			results, err := s.Commit(t.Context(), []contract.Message{message(ann.ID, "room:1"), message(ann.ID, "dm:1:2")}, published)
			published = nil
			for _, r := range results {
				published = append(published, r.Outbox)
			}
			return err
		})
		work(30, func(int) error {
			due, err := s.Outbox(t.Context(), 0, math.MaxInt64, 50)
			if err != nil {
				return err
			}
			var rows []contract.OutboxPosition
			for _, row := range due {
				rows = append(rows, row.Position)
			}
			if w%2 == 0 {
				slices.Reverse(rows)
			}
			return s.DeleteOutbox(t.Context(), rows)
		})
		work(60, func(i int) error {
			if _, err := s.MarkRead(t.Context(), ann.ID, "dm:1:2", int64(i)); err != nil {
				return err
			}
			if _, _, err := s.History(t.Context(), "room:1", int64(i), 0, 50); err != nil {
				return err
			}
			_, err := s.Inbox(t.Context(), ann.ID, 10)
			return err
		})
		work(30, func(i int) error {
			if i%2 == 0 {
				return s.Join(t.Context(), contract.Lobby, ann.ID, now)
			}
			return s.Leave(t.Context(), contract.Lobby, ann.ID)
		})
	}
	wg.Wait()
}

// testModel compares any sequence of commits with what a map and a slice make of it.
func testModel(t *testing.T, s *Store) {
	ids := contract.UserID(0)
	rapid.Check(t, func(rt *rapid.T) {
		ids += 10 // conversations and senders of this run alone
		base := ids
		conversations := []contract.Conversation{contract.RoomConversation(contract.RoomID(base)),
			contract.DirectConversation(base, base+1), contract.DirectConversation(base, base)}
		model := make(map[contract.Conversation][]contract.Message)
		names := make(map[sent]contract.Message)
		for range rapid.IntRange(1, 6).Draw(rt, "commits") {
			batch := make([]contract.Message, rapid.IntRange(0, 12).Draw(rt, "size"))
			for i := range batch {
				batch[i] = named(message(base+contract.UserID(rapid.IntRange(0, 1).Draw(rt, "from")), rapid.SampledFrom(conversations).Draw(rt, "conversation")),
					rapid.SampledFrom([]string{"", "", "a", "b", "c"}).Draw(rt, "clientID"))
			}
			results, err := s.Commit(t.Context(), batch, nil)
			if err != nil {
				rt.Fatal(err)
			}
			for i, m := range batch {
				want, duplicate := names[sent{m.From, m.ClientID}]
				if !duplicate {
					m.Seq = int64(len(model[m.Conversation]) + 1)
					want = m
					model[m.Conversation] = append(model[m.Conversation], m)
					if m.ClientID != "" {
						names[sent{m.From, m.ClientID}] = m
					}
				}
				if results[i].Message != want || results[i].Duplicate != duplicate {
					rt.Fatalf("got %+v, want %+v, duplicate %t", results[i], want, duplicate)
				}
			}
		}
		heads, err := s.Heads(t.Context(), conversations)
		if err != nil {
			rt.Fatal(err)
		}
		for _, c := range conversations {
			if heads[c] != int64(len(model[c])) {
				rt.Errorf("%s: got head %d, want %d", c, heads[c], len(model[c]))
			}
			got, _, err := s.History(t.Context(), c, 0, 0, 200)
			if err != nil || !slices.Equal(got, model[c]) {
				rt.Errorf("%s: got %+v, %v, want %+v", c, got, err, model[c])
			}
		}
	})
}
