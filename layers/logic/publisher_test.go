package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue/queuetest"
	queueredis "gochat/layers/internal/queue/redis"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

func redisQueue(t *testing.T, addr string) *queueredis.Queue {
	t.Helper()
	cfg := queueredis.DefaultConfig()
	cfg.Addrs, cfg.Partitions = []string{addr}, 4
	q, err := queueredis.New(cfg, queuetest.NewOwners(), observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// collect consumes the queue until the end of the test and answers what has come: the seqs of each conversation, in
// the order in which each came first.
func collect(t *testing.T, q *queueredis.Queue) func() map[contract.Conversation][]int64 {
	var mu sync.Mutex
	came := make(map[contract.Conversation][]int64)
	known := make(map[contract.MessageID]bool)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- q.Consume(ctx, func(_ context.Context, items []contract.Item) error {
			mu.Lock()
			defer mu.Unlock()
			for _, item := range items {
				var d contract.Delivery
				if err := d.Decode(item.Body); err != nil {
					t.Errorf("item: %v", err)
				}
				if !known[d.Message] {
					known[d.Message] = true
					came[d.Conversation] = append(came[d.Conversation], d.Seq)
				}
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := testwait.Receive(t, "the consumer ends", done); err != nil {
			t.Errorf("consume: %v", err)
		}
	})
	return func() map[contract.Conversation][]int64 {
		mu.Lock()
		defer mu.Unlock()
		copied := make(map[contract.Conversation][]int64, len(came))
		for c, seqs := range came {
			copied[c] = slices.Clone(seqs)
		}
		return copied
	}
}

// The queue's Redis is killed and comes back, again and again, while two logic nodes accept messages. Nobody is
// refused; in the end every message has come through the queue, each conversation in its order, and nothing is left
// in the outbox.
func TestQueueIsKilledAndComesBack(t *testing.T) {
	databases(t, func(t *testing.T, cfg store.Config) {
		sessions := testdeps.Redis(t).Addr()
		broker := testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
		var logics []*Logic
		var one *house
		for range 2 {
			one = houseOn(t, cfg, sessions)
			one.deps.Publisher = redisQueue(t, broker.Addr())
			logics = append(logics, one.running(t))
		}
		came := collect(t, redisQueue(t, broker.Addr()))
		ann := register(t, logics[0], "ann")
		const rooms = 6
		var ids [rooms]contract.RoomID
		for i := range ids {
			room, err := logics[0].CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "room"})
			if err != nil {
				t.Fatal(err)
			}
			ids[i] = room.ID
		}
		var stop atomic.Bool
		var accepted [rooms]atomic.Int64
		var sending sync.WaitGroup
		for i, room := range ids {
			for range 3 {
				sending.Go(func() {
					for !stop.Load() && accepted[i].Load() < 3000 {
						if _, err := ann.send(t.Context(), logics[i%2], room, "x"); err != nil { // one node for each conversation
							t.Errorf("refused: %v", err)
							return
						}
						accepted[i].Add(1)
					}
				})
			}
		}
		for range 4 {
			time.Sleep(100 * time.Millisecond) // ahead
			broker.Kill()
			time.Sleep(100 * time.Millisecond) // behind
			broker.Start()
			time.Sleep(200 * time.Millisecond)
		}
		stop.Store(true)
		sending.Wait()
		for i, room := range ids {
			c := contract.RoomConversation(room)
			eventually(t, "every message has come", func() bool { return int64(len(came()[c])) >= accepted[i].Load() })
			seqs := came()[c]
			for n, seq := range seqs {
				if seq != int64(n+1) {
					t.Fatalf("%s: seq %d came as number %d", c, seq, n+1)
				}
			}
			if accepted[i].Load() == 0 || int64(len(seqs)) != accepted[i].Load() {
				t.Errorf("%s: %d came and %d were accepted", c, len(seqs), accepted[i].Load())
			}
		}
		eventually(t, "the outbox is empty", func() bool {
			n, _, err := one.store.OutboxSize(t.Context())
			return err == nil && n == 0
		})
		for _, l := range logics {
			eventually(t, "it is ahead again", func() bool { return !l.committer.publisher.isBehind() })
		}
	})
}

func (p *publisher) isBehind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.behind
}

// busyStore is a database that other nodes write to all the time: there is always something in the outbox.
type busyStore struct {
	*store.Store
	other func()
}

func (s *busyStore) OutboxEnd(ctx context.Context) (contract.OutboxPosition, error) {
	s.other()
	return s.Store.OutboxEnd(ctx)
}

// A publisher that fell behind goes ahead again though the outbox is never empty.
func TestBehindEndsUnderLoad(t *testing.T) {
	h := newHouse(t)
	h.deps.Store = &busyStore{h.store, func() { leave(t, h, "room:2", 1, time.Now()) }}
	l := h.running(t)
	ann := register(t, l, "ann")
	for i := range 3 {
		h.queue.failing(func([]contract.Item) error { return errAway })
		ann.say(t, l, 1, fmt.Sprint(i))
		eventually(t, "it is behind", l.committer.publisher.isBehind)
		h.queue.failing(nil)
		eventually(t, "it is ahead again", func() bool { return !l.committer.publisher.isBehind() })
	}
	eventually(t, "all is published", func() bool {
		own := 0
		for _, d := range h.queue.deliveries(t, true) {
			if d.Conversation == "room:1" {
				own++
			}
		}
		return own >= 3
	})
}

// breakingStore loses the answers to commits that the database does.
type breakingStore struct {
	*store.Store
	broken atomic.Bool                        // of the next one
	late   atomic.Pointer[func(func() error)] // of the next one: is given what does it
}

func (s *breakingStore) Commit(ctx context.Context, batch []contract.Message, published []contract.OutboxPosition) ([]contract.CommitResult, error) {
	commit := func() ([]contract.CommitResult, error) { return s.Store.Commit(ctx, batch, published) }
	if later := s.late.Swap(nil); later != nil {
		ctx = context.WithoutCancel(ctx)
		(*later)(func() error { _, err := commit(); return err })
		return nil, contract.ErrUncertain
	}
	results, err := commit()
	if s.broken.CompareAndSwap(true, false) {
		return nil, fmt.Errorf("%w: the connection broke", contract.ErrUncertain)
	}
	return results, err
}

// wantAllPublished waits for an empty outbox and checks that no message of the lobby was published before an earlier one.
func (h *house) wantAllPublished(t *testing.T, last int64) {
	t.Helper()
	eventually(t, "all is published and the outbox empty", func() bool {
		n, _, err := h.store.OutboxSize(t.Context())
		return err == nil && n == 0
	})
	next := int64(1)
	for _, d := range h.queue.deliveries(t, true) {
		if d.Seq > next {
			t.Fatalf("seq %d is published before %d", d.Seq, next)
		}
		next = max(next, d.Seq+1)
	}
	if next != last+1 {
		t.Errorf("published up to %d, want %d", next-1, last)
	}
}

// A message of which nobody knows whether it is stored is published if it is, and before those that follow it. Its
// sender is told that it is not known, and what is sent again under its name is that message.
func TestUnknownOutcomeOfACommit(t *testing.T) {
	h := newHouse(t)
	breaking := &breakingStore{Store: h.store}
	h.deps.Store = breaking
	l := h.running(t)
	ann := register(t, l, "ann")
	for i := range 20 {
		breaking.broken.Store(true)
		unknown := contract.SendRequest{Credential: ann.by, Room: 1, Text: "unknown", ClientID: fmt.Sprint(i)}
		_, err := l.Send(t.Context(), &unknown)
		wantUncertain(t, err)
		if r := ann.say(t, l, 1, "known"); r.Seq != int64(2*i+2) {
			t.Fatalf("got seq %d, want %d: the other one is not stored", r.Seq, 2*i+2)
		}
		if r, err := l.Send(t.Context(), &unknown); err != nil || r.Seq != int64(2*i+1) {
			t.Errorf("sent again: got %+v, %v, want seq %d", r, err, 2*i+1)
		}
	}
	h.wantAllPublished(t, 40)
}

func wantUncertain(t *testing.T, err error) {
	t.Helper()
	e := contract.AsError(err)
	if e == nil || e.Code != contract.Unavailable || e.RetryAfter <= 0 || !strings.Contains(e.Message, "not known") || !strings.Contains(e.Message, "same clientId") {
		t.Errorf("got %v, want unavailable, and that the outcome is not known", err)
	}
}

// A commit that comes through after it was given up is published before those that follow it all the same, and without
// any that follow.
func TestCommitThatComesThroughLate(t *testing.T) {
	h := newHouse(t)
	breaking := &breakingStore{Store: h.store}
	h.deps.Store = breaking
	l := h.running(t)
	ann := register(t, l, "ann")
	for i := range 5 {
		var commit func() error
		keep := func(do func() error) { commit = do }
		breaking.late.Store(&keep)
		_, err := ann.send(t.Context(), l, 1, "late")
		wantUncertain(t, err)
		ann.say(t, l, 1, "first")
		h.wantAllPublished(t, int64(3*i+1)) // the publisher has looked, and has caught up
		if err := commit(); err != nil {
			t.Fatal(err)
		}
		if r := ann.say(t, l, 1, "follows"); r.Seq != int64(3*i+3) {
			t.Fatalf("got seq %d, want %d: the late one is not stored", r.Seq, 3*i+3)
		}
		h.wantAllPublished(t, int64(3*i+3))
	}
	if !l.committer.publisher.isBehind() {
		t.Error("the publisher is ahead while a commit is in doubt")
	}
	var commit func() error
	keep := func(do func() error) { commit = do }
	breaking.late.Store(&keep)
	_, err := ann.send(t.Context(), l, 1, "late, and the last")
	wantUncertain(t, err)
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	h.wantAllPublished(t, 16)
}

// A doubt has an end.
func TestDoubtEnds(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann := register(t, l, "ann")
	p := l.committer.publisher
	p.doubt()
	ann.say(t, l, 1, "in doubt")
	h.wantAllPublished(t, 1)
	if !p.isBehind() {
		t.Error("the publisher is ahead while a commit is in doubt")
	}
	p.mu.Lock()
	p.doubted = time.Now() // as doubtTime later
	p.mu.Unlock()
	eventually(t, "it is ahead again", func() bool { return !p.isBehind() })
	ann.say(t, l, 1, "beyond doubt")
	h.wantAllPublished(t, 2)
}

// What was committed, and whose row of the outbox is not known, is published from there and is out of it then.
func TestRowNotKnown(t *testing.T) {
	h := newHouse(t)
	p := newPublisher(h.store, entranceOf(h.queue), h.logic(t).committer.m, observability.Discard().Log)
	leave(t, h, "room:1", 2, time.Now())
	p.add([]outgoing{{item: contract.Item{Key: "room:1"}}})
	if !p.isBehind() || len(p.gathered) != 0 {
		t.Fatalf("behind %v with %d gathered", p.isBehind(), len(p.gathered))
	}
	stop := make(chan struct{})
	close(stop)
	p.run(t.Context(), stop)
	h.wantAllPublished(t, 2)
}

// A queue that is slow does not make memory grow: beyond the bound all is left to the outbox, and comes from there.
func TestGatheredIsBounded(t *testing.T) {
	h := newHouse(t)
	p := newPublisher(h.store, entranceOf(h.queue), h.logic(t).committer.m, observability.Discard().Log)
	some := make([]outgoing, maxGathered)
	for i := range some {
		some[i].row = contract.OutboxPosition(i + 1)
	}
	p.add(some)
	if p.isBehind() || len(p.gathered) != maxGathered {
		t.Fatalf("behind %v with %d gathered, before the bound", p.isBehind(), len(p.gathered))
	}
	p.add(some[:1])
	if !p.isBehind() || len(p.gathered) != 0 {
		t.Fatalf("behind %v with %d gathered, beyond the bound", p.isBehind(), len(p.gathered))
	}
	leave(t, h, "room:1", 1100, time.Now())
	stop := make(chan struct{})
	close(stop)
	p.run(t.Context(), stop)
	if got := h.queue.deliveries(t, true); len(got) != 1100 || p.isBehind() {
		t.Errorf("%d published, behind %v", len(got), p.isBehind())
	}
	for i, d := range h.queue.deliveries(t, true) {
		if d.Seq != int64(i+1) {
			t.Fatalf("seq %d is published as number %d", d.Seq, i+1)
		}
	}
}

// While the queue is away messages are accepted, and the end does not wait for it: they stay in the outbox for the
// next process.
func TestEndWithTheQueueAway(t *testing.T) {
	h := newHouse(t)
	h.queue.failing(func([]contract.Item) error { return errAway })
	first := h.logic(t)
	stop := run(t, first)
	ann := register(t, first, "ann")
	for i := range 10 {
		ann.say(t, first, 1, fmt.Sprint(i))
	}
	stop()
	if n, _, err := h.store.OutboxSize(t.Context()); err != nil || n != 10 {
		t.Errorf("%d rows in the outbox (%v), want 10", n, err)
	}
	h.queue.failing(nil)
	second := h.running(t)
	second.committer.publisher.fallBehind() // as the sweeper would, ten seconds later
	eventually(t, "all is published", func() bool { return len(h.queue.deliveries(t, true)) == 10 })
}
