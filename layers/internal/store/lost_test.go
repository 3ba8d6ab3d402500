package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
)

// lossy is one database twice: as it is, and behind a proxy that loses what it is told to.
type lossy struct {
	proxy   *testdeps.PostgresProxy
	plain   *Store
	behind  *Store
	conn    *pgx.Conn
	earlier contract.Message // is stored
}

func newLossy(t *testing.T) *lossy {
	t.Helper()
	server := testdeps.StartPostgres(t)
	if _, err := MigrateUp(t.Context(), Config{URL: server.URL}); err != nil {
		t.Fatal(err)
	}
	l := &lossy{proxy: server.Proxy(t), plain: open(t, Config{URL: server.URL})}
	l.behind = open(t, Config{URL: l.proxy.URL})
	var err error
	if l.conn, err = pgx.Connect(t.Context(), server.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.conn.Close(context.Background()) })
	l.earlier = mustCommit(t, l.behind, named(message(1, "room:1"), "earlier"))[0].Message
	return l
}

// batch has every kind of message. The text is in it, so that the proxy knows it.
func (l *lossy) batch(text string) []contract.Message {
	batch := []contract.Message{
		message(1, "room:1"), named(message(2, "room:1"), text), named(message(1, "room:1"), "earlier"), message(1, "dm:1:2"),
	}
	batch[0].Text = text
	return batch
}

// want checks that the batch is stored once, as it was answered, and that its outbox rows are there.
func (l *lossy) want(t *testing.T, batch []contract.Message, results []CommitResult, room, direct int64) {
	t.Helper()
	if len(results) != len(batch) {
		t.Fatalf("%d results", len(results))
	}
	if got := results[2]; !got.Duplicate || got.Message.ID != l.earlier.ID || got.Message.Seq != 1 {
		t.Errorf("got %+v for what was stored before as %+v", got, l.earlier)
	}
	stored := append(wholeHistory(t, l.plain, "room:1"), wholeHistory(t, l.plain, "dm:1:2")...)
	waiting := outbox(t, l.plain)
	for _, i := range []int{0, 1, 3} {
		r := results[i]
		if r.Duplicate || r.Message.ID != batch[i].ID || !slices.Contains(stored, r.Message) {
			t.Errorf("message %d: got %+v, want it new, as it is stored", i, r)
		}
		if !slices.Contains(waiting, contract.OutboxRow{Position: r.Outbox, Message: r.Message}) {
			t.Errorf("message %d: no row %d of the outbox is its own", i, r.Outbox)
		}
	}
	l.wantCounts(t, room, direct)
}

func (l *lossy) wantCounts(t *testing.T, room, direct int64) {
	t.Helper()
	heads, err := l.plain.Heads(t.Context(), []contract.Conversation{"room:1", "dm:1:2"})
	if err != nil || heads["room:1"] != room || heads["dm:1:2"] != direct {
		t.Errorf("got heads %v, %v, want %d and %d", heads, err, room, direct)
	}
	if n, _, err := l.plain.OutboxSize(t.Context()); err != nil || n != room+direct {
		t.Errorf("got %d outbox rows, %v, want %d: all that is stored", n, err, room+direct)
	}
	if got := int64(len(wholeHistory(t, l.plain, "room:1"))); got != room {
		t.Errorf("got %d messages in the room, want %d", got, room)
	}
}

// TestLostCommits: wherever the connection breaks, a commit is answered as what it is in the end, and is done once.
func TestLostCommits(t *testing.T) {
	l := newLossy(t)
	room, direct := int64(1), int64(0)
	for name, how := range map[string]testdeps.Loss{
		"the answer is lost": testdeps.AnswerLost, "the statement is lost": testdeps.RequestLost, "the statement comes late": testdeps.RequestLate,
	} {
		t.Run(name, func(t *testing.T) {
			batch := l.batch(name)
			lost := l.proxy.Lose(name, how)
			results, err := l.behind.Commit(t.Context(), batch, nil)
			if err != nil {
				t.Fatal(err)
			}
			testwait.Receive(t, "the loss", lost.Done)
			room, direct = room+2, direct+1
			l.want(t, batch, results, room, direct)
			if how == testdeps.RequestLate {
				lost.Release()
				l.wantCounts(t, room, direct)
			}
		})
	}
	t.Run("the server is at work", func(t *testing.T) {
		const text = "held up"
		tx, err := l.conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }() // else a failure would leave the row locked
		if _, err := tx.Exec(t.Context(), `UPDATE conversations SET last_seq = last_seq WHERE id = 'room:1'`); err != nil {
			t.Fatal(err)
		}
		batch := l.batch(text)
		lost := l.proxy.Lose(text, testdeps.WhileWorking)
		type answer struct {
			results []CommitResult
			err     error
		}
		answers := make(chan answer, 1)
		go func() {
			results, err := l.behind.Commit(context.Background(), batch, nil)
			answers <- answer{results, err}
		}()
		testwait.Receive(t, "the loss", lost.Done)
		eventually(t, "the first try and the second wait", func() bool { return l.waiting(t) == 2 })
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := testwait.Receive(t, "an answer", answers)
		if got.err != nil {
			t.Fatal(got.err)
		}
		room, direct = room+2, direct+1
		l.want(t, batch, got.results, room, direct)
	})
	mustCommit(t, l.behind, message(1, "room:1"))
	l.wantCounts(t, room+1, direct)
}

// waiting is how many statements wait for a lock.
func (l *lossy) waiting(t *testing.T) (n int) {
	t.Helper()
	if err := l.plain.read.Raw(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`).Scan(&n).Error; err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUncertainCommit: what cannot be found out is said so, and nothing else is.
func TestUncertainCommit(t *testing.T) {
	l := newLossy(t)
	for i, c := range []struct {
		name      string
		how       testdeps.Loss
		uncertain bool
		stored    int64 // of the room
	}{
		{"done, and not answered", testdeps.AnswerLost, true, 2},
		{"never seen", testdeps.RequestLost, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := int64(len(wholeHistory(t, l.plain, "room:1")))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			batch := l.batch(c.name)
			lost := l.proxy.Lose(c.name, c.how)
			failed := make(chan error, 1)
			go func() { _, err := l.behind.Commit(ctx, batch, nil); failed <- err }()
			testwait.Receive(t, "the loss", lost.Done)
			l.proxy.Away()
			err := testwait.Receive(t, "an answer", failed) // after settleLimit
			if errors.Is(err, contract.ErrUncertain) != c.uncertain || err == nil {
				t.Errorf("got %v, uncertain wanted: %v", err, c.uncertain)
			}
			l.wantCounts(t, before+c.stored, int64(len(wholeHistory(t, l.plain, "dm:1:2"))))
			_, err = l.behind.Commit(t.Context(), []contract.Message{message(1, "room:1")}, nil)
			if err == nil || errors.Is(err, contract.ErrUncertain) {
				t.Errorf("without a server: got %v, want an error that is certain", err)
			}
			l.proxy.Back()
			if got := mustCommit(t, l.behind, named(message(2, "room:1"), fmt.Sprint(c.name)))[0]; got.Duplicate != (c.stored > 0) {
				t.Errorf("round %d: sent again under the same client id: got %+v", i, got)
			}
		})
	}
	_, err := l.behind.Commit(t.Context(), []contract.Message{l.earlier}, nil)
	if err != nil {
		t.Errorf("got %v", err)
	}
	twice := message(1, "room:1")
	_, err = l.behind.Commit(t.Context(), []contract.Message{twice, twice}, nil)
	if err == nil || errors.Is(err, contract.ErrUncertain) {
		t.Errorf("one id twice: got %v, want an error that is certain", err)
	}
}
