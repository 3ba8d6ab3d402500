package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

func testEmpty(t *testing.T, h Harness) {
	q := h.open(t)
	publish(t, q)
	if err := q.Publish(t.Context(), []queue.Item{}); err != nil {
		t.Errorf("publish an empty slice: %v", err)
	}
	stats, err := q.Stats(t.Context())
	if err != nil {
		t.Fatalf("stats: %v", err)
	}
	if got := total(stats).Depth; got != 0 {
		t.Errorf("depth is %d after publishing nothing", got)
	}
}

func testBytes(t *testing.T, h Harness) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	big := bytes.Repeat(every, 1<<10)
	key := h.keyIn(1)
	want := []queue.Item{
		{Key: key, Body: every, Headers: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
		{Key: key, Body: big, Headers: map[string]string{"a=b&c": "d;e%20+\r\n", "bytes": string(every), "empty": "", "ä": "日"}},
		{Key: key},
		{Key: key, Body: []byte("end")},
	}
	q := h.open(t)
	publish(t, q, want...)
	got := make(chan queue.Item, 2*len(want))
	consume(t, h.open(t), func(_ context.Context, items []queue.Item) error {
		for _, it := range items {
			got <- it
		}
		return nil
	})
	for i, w := range want {
		g := testwait.Receive(t, fmt.Sprintf("item %d arrives", i), got)
		if g.Key != w.Key || !bytes.Equal(g.Body, w.Body) || !maps.Equal(g.Headers, w.Headers) {
			t.Errorf("item %d: got key %q, %d bytes, headers %q; want key %q, %d bytes, headers %q",
				i, g.Key, len(g.Body), g.Headers, w.Key, len(w.Body), w.Headers)
		}
		if g.Attempt != 1 {
			t.Errorf("item %d: attempt %d, want 1", i, g.Attempt)
		}
	}
}

func testOrder(t *testing.T, h Harness) {
	const producers, keys, last, step = 4, 12, 60, 5
	r := newRecorder(h.Partitions)
	consume(t, h.open(t), r.handle)
	var wg sync.WaitGroup
	for p := range producers {
		q := h.open(t)
		wg.Go(func() {
			for first := 1; first <= last; first += step {
				var batch []queue.Item // all keys, one after the other, so that it spans partitions
				for i := first; i < first+step; i++ {
					for k := range keys {
						batch = append(batch, numbered(fmt.Sprintf("producer %d key %d", p, k), i, i)...)
					}
				}
				if err := q.Publish(t.Context(), batch); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	r.wait(t, producers*keys*last)
	r.exactlyOnce(t)
}

func testIndependence(t *testing.T, h Harness) {
	stuck, free := h.keyIn(0), h.keyIn(1)
	entered, release, passed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var enter, pass sync.Once
	defer close(release) // before the cleanup that stops the consumer and waits for its handlers
	q := h.open(t)
	consume(t, h.open(t), func(ctx context.Context, items []queue.Item) error {
		if items[0].Key == stuck {
			enter.Do(func() { close(entered) })
			<-release
			return nil
		}
		pass.Do(func() { close(passed) })
		return nil
	})
	publish(t, q, numbered(stuck, 1, 1)...)
	testwait.Receive(t, "the handler is stuck in one partition", entered)
	publish(t, q, numbered(free, 1, 1)...)
	testwait.Receive(t, "another partition is served", passed)
}

func testHandlerError(t *testing.T, h Harness) {
	key, refusals := h.keyIn(0), 3
	q := h.open(t)
	publish(t, q, numbered(key, 1, 10)...)

	type call struct{ first, attempt int }
	var mu sync.Mutex
	var calls []call
	r := newRecorder(h.Partitions)
	consume(t, h.open(t), func(ctx context.Context, items []queue.Item) error {
		mu.Lock()
		calls = append(calls, call{number(items[0]), items[0].Attempt})
		n := len(calls)
		mu.Unlock()
		if n == 1 {
			// Newer ones are there when the old ones are due again.
			if err := q.Publish(ctx, numbered(key, 11, 20)); err != nil {
				t.Errorf("publish: %v", err)
			}
		}
		if n <= refusals {
			return errors.New("refused by the test")
		}
		return r.handle(ctx, items)
	})
	r.wait(t, 20)
	r.exactlyOnce(t)
	mu.Lock()
	defer mu.Unlock()
	for n := range refusals + 1 {
		if calls[n].first != 1 {
			t.Errorf("call %d began with item %d, want 1 until it is acknowledged", n+1, calls[n].first)
		}
		if again := n > 0; (calls[n].attempt > 1) != again {
			t.Errorf("call %d: attempt %d, want more than 1: %v", n+1, calls[n].attempt, again)
		}
	}
}

// What no handler was given comes for the first time, whatever became of those who were given what is before it.
func testFirst(t *testing.T, h Harness) {
	const until = 6
	for _, c := range []struct {
		name string
		ends func(q queue.Queue, c *consumer) // while the handler runs
	}{
		{"a refusal", nil},
		{"a drain", func(_ queue.Queue, c *consumer) { c.cancel() }},
		{"a death", func(q queue.Queue, _ *consumer) { _ = q.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := h.keys(c.name)[0]
			publisher, first := h.open(t), h.open(t)
			publish(t, publisher, numbered(key, 1, 3)...)
			entered, release := make(chan map[int]bool, 1), make(chan struct{})
			var refuse sync.Once
			var mu sync.Mutex
			attempts := make(map[int]int) // by number, when it was given after the refusal
			handle := func(_ context.Context, items []queue.Item) error {
				var err error
				refuse.Do(func() {
					handed := make(map[int]bool)
					for _, it := range items {
						handed[number(it)] = true
					}
					entered <- handed
					<-release
					err = errors.New("refused by the test")
				})
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, it := range items {
					if _, seen := attempts[number(it)]; !seen {
						attempts[number(it)] = it.Attempt
					}
				}
				return nil
			}
			consumer := consume(t, first, handle)
			handed := testwait.Receive(t, "the handler runs", entered)
			publish(t, publisher, numbered(key, 4, until)...)
			if c.ends != nil {
				c.ends(first, consumer)
				close(release)
				consumer.stop()
				consume(t, h.open(t), handle)
			} else {
				close(release)
			}
			eventually(t, "all items come", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(attempts) == until
			})
			for n := 1; n <= until; n++ {
				switch got := attempts[n]; {
				case handed[n] && got < 2:
					t.Errorf("item %d was refused: attempt %d, want more than 1", n, got)
				case !handed[n] && got != 1 && (c.ends == nil || !h.ReadsAhead):
					t.Errorf("item %d was never handed over: attempt %d, want 1", n, got)
				}
			}
		})
	}
}

// A consumer whose connections are gone while its handler works has died, as far as the broker can tell.
func testDeath(t *testing.T, h Harness) {
	const keys, each = 8, 20
	publisher := h.open(t)
	var all []queue.Item
	for k := range keys {
		all = append(all, numbered(fmt.Sprint("key ", k), 1, each)...)
	}
	publish(t, publisher, all...)

	var mu sync.Mutex
	held := make(map[string]int) // the first number of each key that the dead one got and did not acknowledge
	entered, release := make(chan struct{}), make(chan struct{})
	var enter sync.Once
	dying := h.open(t)
	c := consume(t, dying, func(_ context.Context, items []queue.Item) error {
		mu.Lock()
		for _, it := range items {
			if _, seen := held[it.Key]; !seen {
				held[it.Key] = number(it)
			}
		}
		mu.Unlock()
		enter.Do(func() { close(entered) })
		<-release
		return nil
	})
	testwait.Receive(t, "the first consumer holds items", entered)
	_ = dying.Close()
	close(release) // too late to acknowledge
	c.stop()

	for k := range keys {
		publish(t, publisher, numbered(fmt.Sprint("key ", k), each+1, 2*each)...)
	}
	r := newRecorder(h.Partitions)
	attempts := make(map[string]int) // of item 1 of each key
	consume(t, h.open(t), func(ctx context.Context, items []queue.Item) error {
		mu.Lock()
		for _, it := range items {
			if number(it) == 1 {
				attempts[it.Key] = it.Attempt
			}
		}
		mu.Unlock()
		return r.handle(ctx, items)
	})
	r.wait(t, keys*2*each)
	mu.Lock()
	defer mu.Unlock()
	for key, first := range held {
		if first != 1 {
			t.Errorf("the first consumer got %s from %d on, want from 1", key, first)
		}
		if attempts[key] < 2 {
			t.Errorf("%s was held by a dead consumer: attempt %d, want more than 1", key, attempts[key])
		}
	}
}

func testRebalance(t *testing.T, h Harness) {
	const keys, last = 16, 150
	r := newRecorder(h.Partitions)
	work := func(ctx context.Context, items []queue.Item) error {
		time.Sleep(time.Millisecond) // so that there is something in flight when partitions move
		return r.handle(ctx, items)
	}
	publisher := h.open(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := 1; i <= last; i++ {
			for k := range keys {
				if err := insist(t.Context(), publisher, numbered(fmt.Sprint("key ", k), i, i)); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
			}
		}
	})

	running := []*consumer{consume(t, h.open(t), work)}
	for round := 1; r.distinct() < keys*last*3/4 && round < 12; round++ {
		before := r.distinct()
		if len(running) < 3 && round%4 != 0 {
			running = append(running, consume(t, h.open(t), work))
		} else {
			running[0].stop()
			running = running[1:]
		}
		eventually(t, "items go on arriving", func() bool { return r.distinct() >= min(before+keys*last/20, keys*last) })
	}
	r.wait(t, keys*last)
}
