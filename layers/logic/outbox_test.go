package logic

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

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
	p := newPublisher(s, entranceOf(q), newMetrics(observability.Discard().Metrics), observability.Discard().Log)
	all := func(time.Time) bool { return true }
	for _, want := range []int{publishBatch + 100, publishBatch + 102} {
		if err := p.publishOutbox(t.Context(), contract.PublishedFromBox, all); err != nil {
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
		p := newPublisher(silentStore{}, entranceOf(&recordedQueue{}), newMetrics(observability.Discard().Metrics), observability.Discard().Log)
		p.fallBehind()
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { p.run(context.Background(), stop) })
		time.Sleep(time.Minute)
		close(stop)
		running.Wait() // the test fails if nothing can go on
	})
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

// TestOutboxIsMeasured has something wait in the outbox, which the one who sweeps it says while it knows, and sweeps.
func TestOutboxIsMeasured(t *testing.T) {
	h := newHouse(t)
	m := newMetrics(observability.Discard().Metrics)
	p := newPublisher(h.store, entranceOf(h.queue), m, observability.Discard().Log)
	values := func(g *prometheus.GaugeVec) (all []float64) {
		series := make(chan prometheus.Metric, 10)
		g.Collect(series)
		close(series)
		for one := range series {
			var now dto.Metric
			if err := one.Write(&now); err != nil {
				t.Fatal(err)
			}
			all = append(all, now.GetGauge().GetValue())
		}
		return all
	}
	check := func(when string, waiting, least, most float64) {
		t.Helper()
		n, age := values(m.waiting), values(m.oldest)
		if !slices.Equal(n, []float64{waiting}) || len(age) != 1 || age[0] < least || age[0] > most {
			t.Errorf("%s: %v wait, the oldest for %v s; want %v, for %v to %v s", when, n, age, waiting, least, most)
		}
	}
	checkUnknown := func(when string) {
		t.Helper()
		if n, age := values(m.waiting), values(m.oldest); len(n)+len(age) > 0 {
			t.Errorf("%s: %v wait, the oldest for %v s; want nothing said", when, n, age)
		}
	}
	checkUnknown("at the start")
	p.measure(t.Context())
	check("empty", 0, 0, 0)
	leave(t, h, "room:1", 3, time.Now().Add(-time.Minute))
	leave(t, h, "room:2", 2, time.Now().Add(time.Minute)) // by a clock that is ahead
	p.measure(t.Context())
	check("left behind", 5, 60, 90)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	p.measure(gone)
	checkUnknown("the database is away")
	p.measure(t.Context())
	check("it is back", 5, 60, 90)
	if err := p.sweep(gone); err != nil {
		t.Error(err)
	}
	checkUnknown("another sweeps")
}
