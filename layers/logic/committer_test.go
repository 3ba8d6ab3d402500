package logic

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// sends starts sends of the texts, at once, and answers what waits for them: receipts by text, errors by text.
func sends(t *testing.T, l *Logic, p person, texts []string) (wait func() (map[string]*contract.Receipt, map[string]error)) {
	t.Helper()
	receipts, errs := make(map[string]*contract.Receipt), make(map[string]error)
	var mu sync.Mutex
	var sending sync.WaitGroup
	for _, text := range texts {
		sending.Go(func() {
			r, err := p.send(context.Background(), l, 1, text)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[text] = err
			} else {
				receipts[text] = r
			}
		})
	}
	return func() (map[string]*contract.Receipt, map[string]error) {
		sending.Wait()
		return receipts, errs
	}
}

// history is all that is stored in room 1, by text.
func (h *house) history(t *testing.T) map[string]contract.Message {
	t.Helper()
	found := make(map[string]contract.Message)
	after := int64(0)
	for {
		list, more, err := h.store.History(t.Context(), "room:1", after, 0, contract.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.Seq != after+1 {
				t.Fatalf("seq %d follows %d", m.Seq, after)
			}
			found[m.Text], after = m, m.Seq
		}
		if !more {
			return found
		}
	}
}

// What gathers while a commit runs is the next one, up to the limit.
func TestCommitsGather(t *testing.T) {
	h := newHouse(t)
	gated := gate(h.store)
	h.deps.Store = gated
	l := h.running(t, func(c *Config, _ *AuthConfig) { c.Commit.Batch = 20 })
	ann := register(t, l, "ann")
	first := sends(t, l, ann, []string{"first"})
	if n := testwait.Receive(t, "the first commit", gated.entered); n != 1 {
		t.Errorf("the first commit has %d messages, want 1", n)
	}
	rest := sends(t, l, ann, texts(50))
	eventually(t, "all wait", func() bool { return len(l.committer.waiting) == 50 })
	close(gated.enter)
	for _, want := range []int{20, 20, 10} {
		if n := testwait.Receive(t, "a commit", gated.entered); n != want {
			t.Errorf("a commit has %d messages, want %d", n, want)
		}
	}
	one, _ := first()
	receipts, errs := rest()
	stored := h.history(t)
	if len(one) != 1 || len(receipts) != 50 || len(errs) != 0 || len(stored) != 51 {
		t.Fatalf("%d and %d receipts, errors %v, %d stored", len(one), len(receipts), errs, len(stored))
	}
	for text, r := range receipts {
		if m := stored[text]; m.ID != r.ID || m.Seq != r.Seq || !m.CreatedAt.Equal(r.CreatedAt) || r.Conversation != "room:1" || m.From != ann.User {
			t.Errorf("%s: receipt %+v, stored %+v", text, r, m)
		}
	}
}

// Whoever finds no place to wait is told so at once.
func TestFullQueueAnswersAtOnce(t *testing.T) {
	h := newHouse(t)
	gated := gate(h.store)
	h.deps.Store = gated
	l := h.running(t, func(c *Config, _ *AuthConfig) { c.Commit.Batch, c.Commit.Queue = 1, 3 })
	ann := register(t, l, "ann")
	waiting := []func() (map[string]*contract.Receipt, map[string]error){sends(t, l, ann, []string{"running"})}
	testwait.Receive(t, "the first commit", gated.entered)
	waiting = append(waiting, sends(t, l, ann, texts(3)))
	eventually(t, "the queue is full", func() bool { return len(l.committer.waiting) == 3 })
	_, err := ann.send(t.Context(), l, 1, "one too many") // the commit does not go on before this is answered
	wantCode(t, err, contract.Unavailable)
	if contract.AsError(err).RetryAfter != busyRetry {
		t.Errorf("come again after %v, want %v", contract.AsError(err).RetryAfter, busyRetry)
	}
	close(gated.enter)
	for _, wait := range waiting {
		if _, errs := wait(); len(errs) > 0 {
			t.Errorf("those who had a place: %v", errs)
		}
	}
	if stored := h.history(t); len(stored) != 4 || stored["one too many"].ID != 0 {
		t.Errorf("%d stored, want the 4 that were accepted", len(stored))
	}
}

func TestFailedCommitAnswersEveryone(t *testing.T) {
	h := newHouse(t)
	gated := gate(h.store)
	gated.err.Store(&errAway)
	close(gated.enter)
	h.deps.Store = gated
	l := h.running(t)
	ann := register(t, l, "ann")
	receipts, errs := sends(t, l, ann, texts(20))()
	if len(receipts) != 0 || len(errs) != 20 {
		t.Fatalf("%d receipts and %d errors", len(receipts), len(errs))
	}
	for _, err := range errs {
		if e := contract.AsError(err); e.Code != contract.Unavailable || e.RetryAfter <= 0 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want unavailable and nothing of the cause", err)
		}
	}
	if stored := h.history(t); len(stored) != 0 {
		t.Errorf("%d are stored", len(stored))
	}
	if err := l.CheckCommit(t.Context()); err == nil || !strings.Contains(err.Error(), errAway.Error()) {
		t.Errorf("readiness says %v, want why nothing is stored", err)
	}
	gated.err.Store(nil)
	ann.say(t, l, 1, "the database is back")
	if err := l.CheckCommit(t.Context()); err != nil {
		t.Errorf("readiness says %v after a commit", err)
	}
	eventually(t, "it is published", func() bool { return len(h.queue.deliveries(t, true)) == 1 })
}

// A failed commit says nothing of the next one for ever, if none follows.
func TestFailedCommitIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &committer{}
		c.failed.Store(&failedCommit{time.Now(), errAway})
		time.Sleep(failingFor - time.Second)
		if c.failing() == nil {
			t.Error("forgotten too soon")
		}
		time.Sleep(time.Second)
		if err := c.failing(); err != nil {
			t.Errorf("still known: %v", err)
		}
	})
}

// The end of a sender's ctx answers that sender alone. A message that no transaction has by then is not stored.
func TestOneSenderLeaves(t *testing.T) {
	h := newHouse(t)
	gated := gate(h.store)
	h.deps.Store = gated
	l := h.running(t)
	ann := register(t, l, "ann")
	others := sends(t, l, ann, texts(10))
	testwait.Receive(t, "the first commit", gated.entered)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := ann.send(ctx, l, 1, "left"); left <- err }()
	eventually(t, "all wait", func() bool { return len(l.committer.waiting) > 0 })
	leave()
	wantCode(t, testwait.Receive(t, "the one that leaves is answered", left), contract.Unavailable)
	close(gated.enter)
	if receipts, errs := others(); len(receipts) != 10 || len(errs) != 0 {
		t.Errorf("the others: %d receipts, %v", len(receipts), errs)
	}
	if stored := h.history(t); len(stored) != 10 || stored["left"].ID != 0 {
		t.Errorf("%d are stored, want the 10 of those who stayed", len(stored))
	}
}

// stuckStore does nothing but commits, which wait for leave.
type stuckStore struct {
	Store
	enter  chan struct{}
	stored []contract.Message
}

func (s *stuckStore) Commit(_ context.Context, batch []contract.Message, _ []contract.OutboxPosition) ([]contract.CommitResult, error) {
	<-s.enter
	results := make([]contract.CommitResult, len(batch))
	for i, m := range batch {
		m.Seq = int64(len(s.stored) + 1)
		s.stored = append(s.stored, m)
		results[i].Message, results[i].Outbox = m, contract.OutboxPosition(m.Seq)
	}
	return results, nil
}

func (s *stuckStore) DeleteOutbox(context.Context, []contract.OutboxPosition) error { return nil }

// A sender whose time is up is told what is known, in time to hear it: of a message in a transaction, nothing; of one
// that waits, that it is not stored, and so it is.
func TestDeadlineTellsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, tel := &stuckStore{enter: make(chan struct{})}, observability.Discard()
		m := newMetrics(tel.Metrics)
		c := newCommitter(Defaults().Commit, s, newPublisher(s, entranceOf(&recordedQueue{}), m, tel.Log), m, untraced(), tel.Log)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		send := func(text string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.commit(ctx, contract.Message{Conversation: "room:1", Room: 1, Text: text}, "")
			if ctx.Err() != nil {
				t.Errorf("%s: answered when the caller had left", text)
			}
			return err
		}
		begun := make(chan error, 1)
		go func() { begun <- send("begun") }()
		synctest.Wait() // the transaction has it
		waits := send("waits")
		wantUncertain(t, <-begun)
		if e := contract.AsError(waits); e == nil || e.Code != contract.Unavailable || !strings.Contains(e.Message, "could not be stored") {
			t.Errorf("got %v, want that it is not stored", waits)
		}
		close(s.enter)
		if err := send("last"); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
		if len(s.stored) != 2 || s.stored[0].Text != "begun" || s.stored[1].Text != "last" {
			t.Errorf("stored are %+v, want what had begun and the last", s.stored)
		}
	})
}

// Wherever the connection to the database breaks in a commit, everyone in it is told the truth: the receipt of what is
// stored, and once only. It is published as what was never lost.
func TestConnectionLostInACommit(t *testing.T) {
	server := testdeps.StartPostgres(t)
	proxy := server.Proxy(t)
	h := houseOn(t, store.Config{URL: proxy.URL}, testdeps.Redis(t).Addr())
	l := h.running(t, func(c *Config, _ *AuthConfig) { c.Commit.Timeout, c.SessionCache = 2*time.Second, time.Minute })
	ann := register(t, l, "ann")
	first, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, Room: 1, Text: "first", ClientID: "first"})
	if err != nil {
		t.Fatal(err)
	}
	total := int64(1)
	for name, how := range map[string]testdeps.Loss{
		"the answer is lost": testdeps.AnswerLost, "the statement is lost": testdeps.RequestLost, "the statement comes late": testdeps.RequestLate,
	} {
		t.Run(name, func(t *testing.T) {
			lost := proxy.Lose(name, how)
			receipts := make([]*contract.Receipt, 12)
			requests := make([]contract.SendRequest, len(receipts))
			var sending sync.WaitGroup
			for i := range receipts {
				requests[i] = contract.SendRequest{Credential: ann.by, Room: 1, Text: name}
				if i%2 == 0 {
					requests[i].ClientID = fmt.Sprint(name, i)
				}
				sending.Go(func() {
					var err error
					if receipts[i], err = l.Send(t.Context(), &requests[i]); err != nil {
						t.Errorf("message %d: %v", i, err)
					}
				})
			}
			again, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, Room: 1, Text: "again", ClientID: "first"})
			if err != nil || *again != *first {
				t.Errorf("got %+v, %v, want the receipt of the first: %+v", again, err, first)
			}
			sending.Wait()
			testwait.Receive(t, "the loss", lost.Done)
			if how == testdeps.RequestLate {
				lost.Release()
			}
			if t.Failed() {
				return
			}
			total += int64(len(receipts))
			seqs := make(map[int64]bool)
			for i, r := range receipts {
				seqs[r.Seq] = true
				if requests[i].ClientID == "" {
					continue
				}
				if again, err := l.Send(t.Context(), &requests[i]); err != nil || *again != *r {
					t.Errorf("sent again: got %+v, %v, want %+v", again, err, r)
				}
			}
			if len(seqs) != len(receipts) {
				t.Errorf("%d seqs for %d messages", len(seqs), len(receipts))
			}
			h.wantAllPublished(t, total)
		})
	}
	if l.committer.publisher.isBehind() {
		t.Error("the publisher is behind, though every outcome is known")
	}

	t.Run("and does not come back in time", func(t *testing.T) {
		const text = "nobody knows"
		lost := proxy.Lose(text, testdeps.AnswerLost)
		sent := contract.SendRequest{Credential: ann.by, Room: 1, Text: text, ClientID: text}
		answer := make(chan error, 1)
		go func() { _, err := l.Send(context.Background(), &sent); answer <- err }()
		testwait.Receive(t, "the loss", lost.Done)
		proxy.Away()
		wantUncertain(t, testwait.Receive(t, "an answer", answer))
		_, err := ann.send(t.Context(), l, 1, "without a database")
		if e := contract.AsError(err); e.Code != contract.Unavailable || !strings.Contains(e.Message, "could not be stored") {
			t.Errorf("got %v, want that it is not stored", err)
		}
		proxy.Back()
		h.wantAllPublished(t, total+1) // without anybody who sends
		if r, err := l.Send(t.Context(), &sent); err != nil || r.Seq != total+1 {
			t.Errorf("sent again: got %+v, %v, want seq %d", r, err, total+1)
		}
	})
}

// What was accepted before the end is committed, published and answered; what comes later is refused.
func TestDrainCommitsWhatWasAccepted(t *testing.T) {
	h := newHouse(t)
	gated := gate(h.store)
	h.deps.Store = gated
	l := h.logic(t, func(c *Config, _ *AuthConfig) { c.Commit.Batch = 5 })
	stop := run(t, l)
	ann := register(t, l, "ann")
	accepted := sends(t, l, ann, texts(30))
	first := testwait.Receive(t, "the first commit", gated.entered)
	eventually(t, "all are accepted", func() bool { return len(l.committer.waiting) == 30-first })
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	eventually(t, "the drain begins", func() bool {
		l.committer.mu.RLock()
		defer l.committer.mu.RUnlock()
		return l.committer.closed
	})
	_, err := ann.send(t.Context(), l, 1, "late")
	wantCode(t, err, contract.Unavailable)
	close(gated.enter)
	receipts, errs := accepted()
	testwait.Receive(t, "the logic ends", stopped)
	if len(receipts) != 30 || len(errs) != 0 {
		t.Errorf("%d receipts, %v", len(receipts), errs)
	}
	if stored := h.history(t); len(stored) != 30 {
		t.Errorf("%d are stored, want 30", len(stored))
	}
	if n := len(h.queue.deliveries(t, true)); n != 30 {
		t.Errorf("%d are published, want 30", n)
	}
	if n, _, err := h.store.OutboxSize(t.Context()); err != nil || n != 0 {
		t.Errorf("%d rows are left in the outbox (%v)", n, err)
	}
}
