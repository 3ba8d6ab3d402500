package queuetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/quick"
	"time"

	"gochat/layers/internal/queue"
)

// step is one thing that happens to a queue.
type step int

const (
	publishing step = iota // the next items of every key
	joining                // one more consumer
	leaving                // one consumer drains
	dying                  // one consumer is gone at once, whatever its handler does
	failing                // the next calls of handlers fail
	passing                // a little time
	steps
)

func (s step) String() string {
	return [...]string{"publish", "join", "leave", "die", "fail", "pass"}[s]
}

// history is what happens to a queue, one step after another.
type history []step

// Generate implements quick.Generator.
func (history) Generate(r *rand.Rand, _ int) reflect.Value {
	h := make(history, 10+r.Intn(20))
	for i := range h {
		h[i] = step(r.Intn(int(steps)))
	}
	return reflect.ValueOf(h)
}

// testHistories is the property behind order: whatever consumers do, come, leave, die or fail, in whatever order,
// each key's items are acknowledged in the order in which they were published, and all of them.
func testHistories(t *testing.T, h Harness) {
	run := 0
	holds := func(steps history) bool {
		run++
		return t.Run(fmt.Sprint("history ", run), func(t *testing.T) { live(t, h, fmt.Sprint("run ", run, " key "), steps) })
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 6}); err != nil {
		t.Errorf("the order does not hold: %v", err)
	}
}

func live(t *testing.T, h Harness, prefix string, steps history) {
	t.Helper()
	const keys, each = 6, 5
	r := newRecorder(h.Partitions)
	var failures atomic.Int64
	handle := func(ctx context.Context, items []queue.Item) error {
		if failures.Add(-1) >= 0 {
			return errors.New("failed by the history")
		}
		time.Sleep(time.Millisecond) // so that there is something in flight when partitions move
		var own []queue.Item
		for _, it := range items { // an earlier history may have left some
			if strings.HasPrefix(it.Key, prefix) {
				own = append(own, it)
			}
		}
		if len(own) == 0 {
			return nil
		}
		return r.handle(ctx, own)
	}
	type instance struct {
		queue queue.Queue
		*consumer
	}
	var running []instance
	join := func() {
		q := h.open(t)
		running = append(running, instance{q, consume(t, q, handle)})
	}
	publisher := h.open(t)
	last := 0
	for _, s := range steps {
		switch s {
		case publishing:
			for k := range keys {
				publish(t, publisher, numbered(fmt.Sprint(prefix, k), last+1, last+each)...)
			}
			last += each
		case joining:
			if len(running) < 3 {
				join()
			}
		case leaving, dying:
			if len(running) > 0 {
				if s == dying {
					_ = running[0].queue.Close()
				}
				running[0].stop()
				running = running[1:]
			}
		case failing:
			failures.Store(2)
		case passing:
			time.Sleep(5 * time.Millisecond)
		}
	}
	join()
	r.wait(t, keys*last)
	if t.Failed() {
		t.Logf("history: %v", steps)
	}
	for _, i := range running {
		i.stop()
	}
}
