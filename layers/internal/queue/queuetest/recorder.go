package queuetest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

const patience = testwait.Patience

var eventually = testwait.Eventually

// numbered are the items of key from first to last; the body is the number.
func numbered(key string, first, last int) []queue.Item {
	items := make([]queue.Item, 0, last-first+1)
	for i := first; i <= last; i++ {
		items = append(items, queue.Item{Key: key, Body: []byte(strconv.Itoa(i))})
	}
	return items
}

func number(it queue.Item) int {
	n, err := strconv.Atoi(string(it.Body))
	if err != nil {
		return -1
	}
	return n
}

// recorder keeps what handlers have acknowledged, and whatever went against the promises while they did.
type recorder struct {
	partitions int

	mu     sync.Mutex
	last   map[string]int // by key: the highest number acknowledged
	count  int            // of distinct items
	again  int            // of items that came after they were acknowledged
	faults []string
}

func newRecorder(partitions int) *recorder {
	return &recorder{partitions: partitions, last: make(map[string]int)}
}

// handle acknowledges everything.
func (r *recorder) handle(_ context.Context, items []queue.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(items) == 0 {
		r.fault("a handler was called without items")
		return nil
	}
	p := queue.Partition(items[0].Key, r.partitions)
	for _, it := range items {
		if got := queue.Partition(it.Key, r.partitions); got != p {
			r.fault("items of partitions %d and %d in one call", p, got)
		}
		if it.Attempt < 1 {
			r.fault("attempt is %d, want 1 or more", it.Attempt)
		}
		switch n := number(it); {
		case n == r.last[it.Key]+1:
			r.last[it.Key] = n
			r.count++
		case n > r.last[it.Key]:
			r.fault("key %s: %d came after %d", it.Key, n, r.last[it.Key])
		default:
			r.again++
		}
	}
	return nil
}

func (r *recorder) fault(format string, args ...any) {
	if len(r.faults) < 10 {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}

func (r *recorder) distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// wait ends the test unless exactly want distinct items are acknowledged, in order.
func (r *recorder) wait(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("all %d items arrive", want), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.count >= want || len(r.faults) > 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		t.Error(f)
	}
	if r.count != want {
		t.Fatalf("%d distinct items arrived, want %d", r.count, want)
	}
}

// exactlyOnce fails the test if an acknowledged item came again, which nothing but a fault may cause.
func (r *recorder) exactlyOnce(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again > 0 {
		t.Errorf("%d items came again after they were acknowledged", r.again)
	}
}

// consumer is a running Consume.
type consumer struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

// consume runs Consume until stop, or the end of the test.
func consume(t *testing.T, q queue.Queue, h queue.Handler) *consumer {
	ctx, cancel := context.WithCancel(t.Context())
	c := &consumer{t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { c.ended <- q.Consume(ctx, h) }()
	t.Cleanup(func() { c.stop() })
	return c
}

// stop ends Consume and waits for it. A second call does nothing.
func (c *consumer) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	c.cancel = nil
	select {
	case err := <-c.ended:
		if err != nil {
			c.t.Errorf("Consume: %v, want nil after its context has ended", err)
		}
	case <-time.After(patience):
		c.t.Errorf("Consume has not returned within %s", patience)
	}
}

func publish(t *testing.T, q queue.Queue, items ...queue.Item) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := q.Publish(ctx, items); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// insist publishes until the queue has accepted, as the sweeper of the outbox does.
func insist(ctx context.Context, q queue.Queue, items []queue.Item) error {
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := q.Publish(try, items)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("publish: %w, last %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
