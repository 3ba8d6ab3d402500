package logic

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// stuck is a queue of which some partitions take nothing.
func stuck(q *recordedQueue, partitions ...int) func([]contract.Item) error {
	return func(items []contract.Item) error {
		for _, item := range items {
			if slices.Contains(partitions, q.Partition(item.Key)) {
				return &contract.PublishError{Partitions: partitions, Err: errAway}
			}
		}
		return nil
	}
}

// A partition that takes nothing holds up what is in it, however much that is, and nothing else.
func TestStuckPartition(t *testing.T) {
	const many = 2*publishBatch + 100
	h := newHouse(t)
	l := h.running(t)
	ann := register(t, l, "ann")
	waiting := func(t *testing.T, want int64) {
		t.Helper()
		eventually(t, "all but what is stuck is out of the outbox", func() bool {
			n, _, err := h.store.OutboxSize(t.Context())
			return err == nil && n == want
		})
	}
	rooms := []contract.RoomID{1}
	for range 2 {
		room, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "room"})
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, room.ID)
	}
	h.queue.failing(stuck(h.queue, int(rooms[0])))
	leave(t, h, "room:1", many, time.Now())
	for i, room := range []contract.RoomID{rooms[1], rooms[0], rooms[2], rooms[0], rooms[1], rooms[2]} {
		ann.say(t, l, room, fmt.Sprint(i))
	}
	waiting(t, many+2)
	if !l.committer.publisher.isBehind() {
		t.Error("it is ahead, with a partition that is stuck")
	}
	for range 3 {
		for _, room := range rooms {
			ann.say(t, l, room, "more")
		}
	}
	waiting(t, many+5)
	tries := 0
	h.queue.failing(func(items []contract.Item) error { // now and then it takes something
		err := stuck(h.queue, int(rooms[0]))(items)
		if tries++; err != nil && tries%2 == 0 {
			return nil
		}
		return err
	})
	waiting(t, 0)
	eventually(t, "it is ahead again", func() bool { return !l.committer.publisher.isBehind() })
	next := make(map[contract.Conversation]int64)
	for _, d := range h.queue.deliveries(t, true) {
		if d.Seq > next[d.Conversation]+1 {
			t.Fatalf("%s: seq %d is published after %d", d.Conversation, d.Seq, next[d.Conversation])
		}
		next[d.Conversation] = max(next[d.Conversation], d.Seq)
	}
	for i, want := range []int64{many + 5, 5, 5} {
		if c := contract.RoomConversation(rooms[i]); next[c] != want {
			t.Errorf("%s: published up to %d, want %d", c, next[c], want)
		}
	}
}

// The sweeper goes past a partition that takes nothing, and past one conversation's young rows.
func TestSweepPastStuckPartition(t *testing.T) {
	h := newHouse(t)
	h.deps.Singleton = everybody{}
	h.queue.failing(stuck(h.queue, 1))
	old := time.Now().Add(-time.Hour)
	leave(t, h, "room:1", publishBatch+100, old)
	leave(t, h, "room:2", 10, old)
	leave(t, h, "room:2", 10, time.Now().Add(time.Hour))
	leave(t, h, "room:3", 10, old)
	h.running(t)
	eventually(t, "the others are published, and out of the outbox", func() bool {
		n, _, err := h.store.OutboxSize(t.Context())
		return err == nil && n == publishBatch+110
	})
	if got := h.queue.deliveries(t, true); len(got) != 20 {
		t.Errorf("%d are published, want the 20 that are due and not stuck", len(got))
	}
}

// pagedStore is an outbox that grows while it is read, as by a transaction that drew its positions early and commits late.
type pagedStore struct {
	Store
	rows []contract.OutboxRow // by position
	late []contract.OutboxRow // come when a page has been read
}

func (s *pagedStore) OutboxEnd(context.Context) (contract.OutboxPosition, error) {
	return s.rows[len(s.rows)-1].Position, nil
}

func (s *pagedStore) Outbox(_ context.Context, after, end contract.OutboxPosition, limit int) (page []contract.OutboxRow, err error) {
	for _, row := range s.rows {
		if row.Position > after && row.Position <= end && len(page) < limit {
			page = append(page, row)
		}
	}
	s.rows, s.late = append(s.rows, s.late...), nil
	slices.SortFunc(s.rows, func(a, b contract.OutboxRow) int { return cmp.Compare(a.Position, b.Position) })
	return page, nil
}

func (s *pagedStore) DeleteOutbox(_ context.Context, rows []contract.OutboxPosition) error {
	s.rows = slices.DeleteFunc(s.rows, func(row contract.OutboxRow) bool { return slices.Contains(rows, row.Position) })
	return nil
}

// What comes into the outbox while it is read is left to the next reading, since what it follows may have come behind
// the reader.
func TestOutboxGrowsWhileItIsRead(t *testing.T) {
	row := func(p contract.OutboxPosition, room contract.RoomID, seq int64) contract.OutboxRow {
		return contract.OutboxRow{Position: p, Message: contract.Message{
			ID: contract.MessageID(p), Conversation: contract.RoomConversation(room), Room: room, Seq: seq, Text: "x"}}
	}
	s := &pagedStore{late: []contract.OutboxRow{row(10, 1, 1), row(5000, 1, 2)}}
	for i := range int64(publishBatch + 100) {
		s.rows = append(s.rows, row(contract.OutboxPosition(1000+i), 2, i+1))
	}
	q := &recordedQueue{}
	p := newPublisher(s, q, newMetrics(observability.Discard().Metrics), observability.Discard().Log)
	all := func(time.Time) bool { return true }
	for _, want := range []int{publishBatch + 100, publishBatch + 102} {
		if err := p.publishOutbox(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		next := make(map[contract.RoomID]int64)
		got := q.deliveries(t, true)
		for _, d := range got {
			if next[d.Room]++; d.Seq != next[d.Room] {
				t.Fatalf("room %d: seq %d is published where %d is due", d.Room, d.Seq, next[d.Room])
			}
		}
		if len(got) != want {
			t.Errorf("%d are published, want %d", len(got), want)
		}
	}
}

// silentStore answers nothing before its callers' patience ends.
type silentStore struct{ Store }

func (silentStore) OutboxEnd(ctx context.Context) (contract.OutboxPosition, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// A database that does not answer keeps neither the publisher nor the sweeper from their end.
func TestOutboxIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(silentStore{}, &recordedQueue{}, newMetrics(observability.Discard().Metrics), observability.Discard().Log)
		p.fallBehind()
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { p.run(context.Background(), stop) })
		time.Sleep(time.Minute)
		close(stop)
		running.Wait() // the test fails if nothing can go on
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

// leave puts rows into the outbox as a process does that dies before it publishes them.
func leave(t *testing.T, h *house, c contract.Conversation, n int, at time.Time) {
	t.Helper()
	for n > 0 {
		batch := make([]contract.Message, min(n, 500))
		n -= len(batch)
		for i := range batch {
			id, err := h.deps.IDs.Next()
			if err != nil {
				t.Error(err)
				return
			}
			batch[i] = contract.Message{ID: id, Conversation: c, From: 1, Room: 1, Text: "x", CreatedAt: at}
		}
		if _, err := h.store.Commit(context.Background(), batch, nil); err != nil {
			t.Error(err)
			return
		}
	}
}

// What dead processes left is published in order; what a living one has just stored is left to it.
func TestSweeper(t *testing.T) {
	h := newHouse(t)
	h.deps.Singleton = everybody{}
	old, young := time.Now().Add(-time.Hour), time.Now().Add(time.Hour) // as a clock that runs ahead says
	leave(t, h, "room:1", 300, old)
	leave(t, h, "room:2", 300, young)
	leave(t, h, "room:3", 1200, old)
	leave(t, h, "room:2", 10, old) // behind a young one of its conversation: held back
	h.running(t)
	eventually(t, "what is old is gone from the outbox", func() bool {
		n, _, err := h.store.OutboxSize(t.Context())
		return err == nil && n == 310
	})
	next := map[contract.Conversation]int64{"room:1": 1, "room:3": 1}
	for _, d := range h.queue.deliveries(t, true) {
		if d.Seq != next[d.Conversation] {
			t.Fatalf("%s: seq %d is published, want %d", d.Conversation, d.Seq, next[d.Conversation])
		}
		next[d.Conversation]++
	}
	if next["room:1"] != 301 || next["room:3"] != 1201 {
		t.Errorf("published up to %v", next)
	}
}

// A queue that is slow does not make memory grow: beyond the bound all is left to the outbox, and comes from there.
func TestGatheredIsBounded(t *testing.T) {
	h := newHouse(t)
	p := newPublisher(h.store, h.queue, h.logic(t).committer.m, observability.Discard().Log)
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
