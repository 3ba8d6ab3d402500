package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

func testDrain(t *testing.T, h Harness) {
	key := h.keyIn(0)
	publisher := h.open(t)
	publish(t, publisher, numbered(key, 1, 3)...)

	entered, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	done := newRecorder(h.Partitions)
	var enter sync.Once
	c := consume(t, h.open(t), func(ctx context.Context, items []queue.Item) error {
		enter.Do(func() { close(entered) })
		<-release
		if err := ctx.Err(); err != nil {
			t.Errorf("the handler's context has ended with Consume's: %v", err)
		}
		return done.handle(ctx, items)
	})
	testwait.Receive(t, "the handler runs", entered)
	c.cancel()
	select {
	case err := <-c.ended:
		t.Fatalf("Consume has returned (%v) while a handler runs", err)
	case <-time.After(50 * time.Millisecond): // the control: it returns after release
	}
	close(release)
	c.stop()
	handled := done.distinct()
	if handled == 0 {
		t.Fatal("the handler in flight has not finished")
	}

	var got []queue.Item
	publish(t, publisher, numbered(key, 4, 4)...)
	consume(t, h.open(t), func(_ context.Context, items []queue.Item) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, items...)
		return nil
	})
	eventually(t, "the next item arrives", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) > 0 && number(got[len(got)-1]) == 4
	})
	mu.Lock()
	defer mu.Unlock()
	if want := handled + 1; number(got[0]) != want {
		t.Errorf("after a drain that handled %d items the next is %d, want %d", handled, number(got[0]), want)
	}
}

// A handler that heeds its context ends Consume even if its work never ends.
func testDrainEnds(t *testing.T, h Harness) {
	entered := make(chan struct{})
	var enter sync.Once
	publish(t, h.open(t), numbered(h.keyIn(0), 1, 1)...)
	c := consume(t, h.open(t), func(ctx context.Context, _ []queue.Item) error {
		enter.Do(func() { close(entered) })
		<-ctx.Done()
		return ctx.Err()
	})
	testwait.Receive(t, "the handler runs", entered)
	c.stop()
}

func testFull(t *testing.T, h Harness) {
	full, other := h.keyIn(0), h.keyIn(1)
	q := h.open(t)
	depth := func(p int) int64 {
		stats, err := q.Stats(t.Context())
		if err != nil {
			t.Fatalf("stats: %v", err)
		}
		return stats.Partitions[p].Depth
	}
	publish(t, q, numbered(full, 1, h.Bound-1)...)
	for _, c := range []struct {
		name  string
		items []queue.Item
		want  error
		depth int
	}{
		{"more than fits", numbered(full, h.Bound, h.Bound+1), queue.ErrFull, h.Bound - 1},
		{"the last that fits", numbered(full, h.Bound, h.Bound), nil, h.Bound},
		{"one too many", numbered(full, h.Bound+1, h.Bound+1), queue.ErrFull, h.Bound},
		{"another partition", numbered(other, 1, 1), nil, h.Bound},
	} {
		if err := q.Publish(t.Context(), c.items); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if got := depth(0); got != int64(c.depth) {
			t.Errorf("%s: depth is %d, want %d", c.name, got, c.depth)
		}
	}

	if got := q.Partition(full); got != 0 {
		t.Errorf("the key of partition 0 is said to be in %d", got)
	}
	err := q.Publish(t.Context(), append(numbered(full, h.Bound+1, h.Bound+1), numbered(other, 2, 3)...))
	var partial *contract.PublishError
	if !errors.Is(err, queue.ErrFull) || !errors.As(err, &partial) || !slices.Equal(partial.Partitions, []int{0}) {
		t.Errorf("to a full partition and another: got %v, want that the full one did not take its items", err)
	}
	if got, want := [2]int64{depth(0), depth(1)}, [2]int64{int64(h.Bound), 3}; got != want {
		t.Errorf("the depths are %d, want %d", got, want)
	}

	r := newRecorder(h.Partitions)
	consume(t, h.open(t), r.handle)
	r.wait(t, h.Bound+3)
	if err := insist(t.Context(), q, numbered(full, h.Bound+1, h.Bound+1)); err != nil {
		t.Errorf("publish once there is room: %v", err)
	}
	r.wait(t, h.Bound+4)
}

func testStats(t *testing.T, h Harness) {
	q := h.open(t)
	publish(t, q, numbered(h.keyIn(0), 1, 7)...)
	publish(t, q, numbered(h.keyIn(1), 1, 2)...)
	asked := q
	var stats queue.Stats
	read := func() queue.Stats {
		var err error
		if stats, err = asked.Stats(t.Context()); err != nil {
			t.Fatalf("stats: %v", err)
		}
		if len(stats.Partitions) != h.Partitions {
			t.Fatalf("stats of %d partitions, want %d", len(stats.Partitions), h.Partitions)
		}
		return stats
	}
	ageGrows := func() {
		eventually(t, "the age grows", func() bool { return read().Partitions[0].OldestAge > 10*time.Millisecond })
	}
	if read(); !h.ReaderKnows {
		ageGrows()
	}
	for p, want := range map[int]int64{0: 7, 1: 2} {
		if got := stats.Partitions[p]; got.Partition != p || got.Depth != want || got.Pending != 0 || got.Redelivered != 0 {
			t.Errorf("before consuming: %+v, want depth %d, nothing pending or redelivered", got, want)
		}
	}

	entered, release := make(chan struct{}), make(chan struct{})
	var refuse, enter sync.Once
	open := sync.OnceFunc(func() { close(release) })
	instance := h.open(t)
	consume(t, instance, func(context.Context, []queue.Item) error {
		var err error
		refuse.Do(func() { err = errors.New("refused by the test") })
		if err == nil {
			enter.Do(func() { close(entered) })
			<-release
		}
		return err
	})
	defer open()
	testwait.Receive(t, "a handler holds items", entered)
	if h.ReaderKnows {
		asked = instance
		ageGrows()
	}
	eventually(t, "items are pending", func() bool { return total(read()).Pending > 0 })
	if got := total(stats).Depth; got != 9 {
		t.Errorf("depth while handlers run is %d, want 9", got)
	}
	open()
	eventually(t, "everything is acknowledged", func() bool { return total(read()).Depth == 0 })
	for _, p := range stats.Partitions {
		if p.Pending != 0 || p.OldestAge != 0 {
			t.Errorf("after consuming: %+v, want nothing pending and no age", p)
		}
	}
	own, err := instance.Stats(t.Context())
	if err != nil || total(own).Redelivered < 1 {
		t.Errorf("after a refusal the consumer counts %d redelivered (%v), want some", total(own).Redelivered, err)
	}
}

func total(s queue.Stats) queue.PartitionStats {
	var sum queue.PartitionStats
	for _, p := range s.Partitions {
		sum.Depth += p.Depth
		sum.Pending += p.Pending
		sum.Redelivered += p.Redelivered
	}
	return sum
}

func testRestart(t *testing.T, h Harness) {
	const keys, last, restarts = 10, 120, 2
	r := newRecorder(h.Partitions)
	consume(t, h.open(t), r.handle)
	publisher := h.open(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := 1; i <= last; i++ {
			var batch []queue.Item
			for k := range keys {
				batch = append(batch, numbered(fmt.Sprint("key ", k), i, i)...)
			}
			if err := insist(t.Context(), publisher, batch); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			time.Sleep(time.Millisecond) // so that the restarts are in the middle
		}
	})
	for n := 1; n <= restarts; n++ {
		eventually(t, "items arrive between restarts", func() bool { return r.distinct() >= n*keys*last/8 })
		h.Stop(t)
		h.Start(t)
	}
	r.wait(t, keys*last)
}

func testAway(t *testing.T, h Harness) {
	key := h.keyIn(0)
	r := newRecorder(h.Partitions)
	consuming, publisher := h.open(t), h.open(t)
	c := consume(t, consuming, r.handle)
	publish(t, publisher, numbered(key, 1, 5)...)
	r.wait(t, 5)

	h.Stop(t)
	failed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failed <- publisher.Publish(ctx, numbered(key, 6, 6))
	}()
	if err := testwait.Receive(t, "publishing fails by its deadline", failed); err == nil {
		t.Error("publishing succeeded without a broker")
	}
	eventually(t, "the consumer says that it cannot work", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return consuming.Ping(ctx) != nil
	})
	h.Start(t)

	eventually(t, "both can work again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return consuming.Ping(ctx) == nil && publisher.Ping(ctx) == nil
	})
	if err := insist(t.Context(), publisher, numbered(key, 6, 10)); err != nil {
		t.Fatalf("publish: %v", err)
	}
	r.wait(t, 10)

	// It can also be ended while the broker is away.
	h.Stop(t)
	c.stop()
	h.Start(t)
}
