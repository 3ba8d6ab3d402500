package queuetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

// A handler that cannot do one item names it, or panics over it. What comes before and after it is handled, in order.
func testFaultyItem(t *testing.T, h Harness) {
	const first, last, faulty = 1, 20, 8
	for _, c := range []struct {
		name, reason string
		fail         func(at int) error
	}{
		{"named", "bad to the bone", func(at int) error { return &queue.ItemError{Index: at, Err: errors.New("bad to the bone")} }},
		{"panic", "struck by lightning", func(int) error { panic("struck by lightning") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := h.keyIn(0) + c.name
			publisher := h.open(t)
			publish(t, publisher, numbered(key, first, last)...)
			var tries atomic.Int64
			var got []int
			handled := make(chan int, 10*last)
			consumer := consume(t, h.open(t), func(_ context.Context, items []queue.Item) error {
				for at, it := range items {
					if number(it) == faulty && it.Key == key {
						tries.Add(1)
						return c.fail(at)
					}
				}
				for _, it := range items {
					handled <- number(it)
				}
				return nil
			})
			for len(got) < last-first {
				got = append(got, testwait.Receive(t, "the other items arrive", handled))
			}
			consumer.stop()
			want := slices.DeleteFunc(slices.Collect(func(yield func(int) bool) {
				for i := first; i <= last && yield(i); i++ {
				}
			}), func(i int) bool { return i == faulty })
			if !slices.Equal(got, want) {
				t.Errorf("handled %v, want %v", got, want)
			}
			if n := tries.Load(); n < 2 {
				t.Errorf("the faulty item was tried %d times, want more", n)
			}
			aside, err := publisher.SetAside(t.Context(), 100)
			if err != nil {
				t.Fatalf("look at what was set aside: %v", err)
			}
			is := slices.DeleteFunc(aside, func(a queue.Aside) bool { return a.Key != key })
			if len(is) != 1 || number(is[0].Item) != faulty || !strings.Contains(is[0].Reason, c.reason) || is[0].At.IsZero() {
				t.Errorf("set aside %+v, want item %d because of %q", is, faulty, c.reason)
			}
			if stats, err := publisher.Stats(t.Context()); err != nil || total(stats).Depth != 0 {
				t.Errorf("depth is %d (%v), want 0: what was set aside waits no more", total(stats).Depth, err)
			}
		})
	}
}

// A handler that fails because of what it rests on is asked for ever: nothing is set aside.
func testOutage(t *testing.T, h Harness) {
	publisher := h.open(t)
	publish(t, publisher, numbered(h.keyIn(0), 1, 3)...)
	r := newRecorder(h.Partitions)
	var calls atomic.Int64
	consume(t, h.open(t), func(ctx context.Context, items []queue.Item) error {
		if calls.Add(1) <= 8 { // more than an item at fault is tried
			return errors.New("the routes cannot be read")
		}
		return r.handle(ctx, items)
	})
	r.wait(t, 3)
	if aside, err := publisher.SetAside(t.Context(), 10); err != nil || len(aside) != 0 {
		t.Errorf("%d items set aside (%v), want none", len(aside), err)
	}
}
