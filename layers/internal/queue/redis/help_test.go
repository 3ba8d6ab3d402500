package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

const patience = testwait.Patience

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var eventually = testwait.Eventually

// connect is a client beside the queue, to look at what it does and to interfere with it.
func connect(t testing.TB, addr string) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func stream(key string) string {
	return fmt.Sprintf("gochat:deliveries:{%d}", queue.Partition(key, partitions))
}

func items(key string, bodies ...string) []queue.Item {
	var all []queue.Item
	for _, b := range bodies {
		all = append(all, queue.Item{Key: key, Body: []byte(b)})
	}
	return all
}

// consume runs until the end of the test, or until stop is called, which waits for the end.
func consume(t *testing.T, q queue.Queue, h queue.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Consume(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Consume: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Consume has not returned within %s", patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

// received keeps what handlers have acknowledged.
type received struct {
	mu    sync.Mutex
	items []queue.Item
}

func (r *received) handle(_ context.Context, items []queue.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items = append(r.items, items...)
	return nil
}

func (r *received) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, it := range r.items {
		all = append(all, string(it.Body))
	}
	return all
}

// wait ends the test unless exactly want has come, in this order, items that come again counted once.
func (r *received) wait(t *testing.T, want ...string) {
	t.Helper()
	distinct := func() []string {
		var all []string
		for _, b := range r.bodies() {
			if !slices.Contains(all, b) {
				all = append(all, b)
			}
		}
		return all
	}
	eventually(t, fmt.Sprintf("%q arrive", want), func() bool { return len(distinct()) >= len(want) })
	if got := distinct(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}
