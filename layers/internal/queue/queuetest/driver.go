package queuetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/testwait"
)

// What follows is for a driver's own tests, beside the suite.

// Must ends the test with the error, if it is one.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Items are items of one key.
func Items(key string, bodies ...string) []queue.Item {
	var all []queue.Item
	for _, b := range bodies {
		all = append(all, queue.Item{Key: key, Body: []byte(b)})
	}
	return all
}

// KeyIn is a key of the partition p of n.
func KeyIn(p, n int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key ", i); queue.Partition(key, n) == p {
			return key
		}
	}
}

// Consume runs until the end of the test, or until stop is called, which waits for the end.
func Consume(t *testing.T, q queue.Queue, h queue.Handler) (stop func()) {
	return consume(t, q, h).stop
}

// Received keeps what it was handed over as a handler, and acknowledges all of it.
type Received struct {
	mu    sync.Mutex
	items []queue.Item
}

// Handle is a queue.Handler.
func (r *Received) Handle(_ context.Context, items []queue.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items = append(r.items, items...)
	return nil
}

// Items are all, in the order in which they came.
func (r *Received) Items() []queue.Item {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.items)
}

// Bodies are those of all items.
func (r *Received) Bodies() []string {
	var all []string
	for _, it := range r.Items() {
		all = append(all, string(it.Body))
	}
	return all
}

// Distinct are the bodies in the order in which each came first.
func (r *Received) Distinct() []string {
	seen := make(map[string]bool)
	var all []string
	for _, body := range r.Bodies() {
		if !seen[body] {
			seen[body] = true
			all = append(all, body)
		}
	}
	return all
}

// Wait ends the test unless exactly want has come, in this order, items that come again counted once.
func (r *Received) Wait(t *testing.T, want ...string) {
	t.Helper()
	testwait.Eventually(t, fmt.Sprintf("%d items arrive", len(want)), func() bool { return len(r.Distinct()) >= len(want) })
	if got := r.Distinct(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// Value sums the series of the metric that have the label value, or all of them if label is "".
func Value(t *testing.T, registry *prometheus.Registry, name, label string) (sum float64, series int) {
	t.Helper()
	families, err := registry.Gather()
	Must(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || (len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
				series++
			}
		}
	}
	return sum, series
}
