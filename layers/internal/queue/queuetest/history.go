package queuetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"slices"
	"strconv"
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
	sharing // time until at least two consumers read, each its own partitions
)

func (s step) String() string {
	return [...]string{"publish", "join", "leave", "die", "fail", "pass", "", "share"}[s]
}

// history is what happens to a queue, one step after another.
type history []step

// Generate implements quick.Generator. Most steps come faster than partitions change hands; twice in a history there
// are owners at once when the next one comes or goes.
func (history) Generate(r *rand.Rand, _ int) reflect.Value {
	h := make(history, 10+r.Intn(20))
	for i := range h {
		h[i] = step(r.Intn(int(steps)))
	}
	for range 2 {
		change := []step{joining, leaving, dying}[r.Intn(3)]
		h = slices.Insert(h, r.Intn(len(h)), sharing, publishing, change)
	}
	return reflect.ValueOf(h)
}

// seedVariable is the environment's: told, the histories are those of the run that printed it.
const seedVariable = "QUEUETEST_SEED"

// testHistories is the property behind order: whatever consumers do, come, leave, die or fail, in whatever order,
// each key's items are acknowledged in the order in which they were published, and all of them.
func testHistories(t *testing.T, h Harness) {
	seed := rand.Int63()
	if told, err := strconv.ParseInt(os.Getenv(seedVariable), 10, 64); err == nil {
		seed = told
	}
	t.Logf("%s=%d", seedVariable, seed)
	run := 0
	holds := func(steps history) bool {
		run++
		return t.Run(fmt.Sprint("history ", run), func(t *testing.T) {
			l := &life{t: t, h: h, prefix: fmt.Sprint("run ", run, " key "), r: newRecorder(h.Partitions), publisher: h.open(t)}
			l.live(steps)
		})
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 6, Rand: rand.New(rand.NewSource(seed))}); err != nil {
		t.Errorf("the order does not hold: %v", err)
	}
}

// life is a queue while a history happens to it.
type life struct {
	t         *testing.T
	h         Harness
	prefix    string // of its keys; earlier histories may have left others
	r         *recorder
	publisher queue.Queue
	published int // of each key
	failures  atomic.Int64
	running   []*instance
}

// instance is one consumer of a history.
type instance struct {
	queue queue.Queue
	*consumer
	reached atomic.Int64 // the highest number it was given
}

func (l *life) live(steps history) {
	l.t.Helper()
	l.t.Logf("history: %v", steps)
	for _, s := range steps {
		switch s {
		case publishing:
			l.publish()
		case joining:
			l.join()
		case leaving, dying:
			l.end(s == dying)
		case failing:
			l.failures.Store(2)
		case passing:
			time.Sleep(5 * time.Millisecond)
		case sharing:
			l.share()
		}
	}
	if len(l.running) == 0 {
		l.join()
	}
	l.r.wait(l.t, len(l.keys())*l.published)
	for len(l.running) > 0 {
		l.end(false)
	}
}

// keys are two of each partition.
func (l *life) keys() []string {
	return append(l.h.keys(l.prefix+"one "), l.h.keys(l.prefix+"two ")...)
}

func (l *life) publish() {
	l.t.Helper()
	const each = 5
	for _, key := range l.keys() {
		publish(l.t, l.publisher, numbered(key, l.published+1, l.published+each)...)
	}
	l.published += each
}

// join adds a consumer, unless there are three already, or one for each partition.
func (l *life) join() {
	if len(l.running) >= min(3, l.h.Partitions) {
		return
	}
	i := &instance{queue: l.h.open(l.t)}
	i.consumer = consume(l.t, i.queue, func(ctx context.Context, items []queue.Item) error { return l.handle(ctx, i, items) })
	l.running = append(l.running, i)
}

func (l *life) handle(ctx context.Context, i *instance, items []queue.Item) error {
	if l.failures.Add(-1) >= 0 {
		return errors.New("failed by the history")
	}
	time.Sleep(time.Millisecond) // so that there is something in flight when partitions move
	own := slices.DeleteFunc(items, func(it queue.Item) bool { return !strings.HasPrefix(it.Key, l.prefix) })
	if len(own) == 0 {
		return nil
	}
	for _, it := range own {
		if n := int64(number(it)); n > i.reached.Load() { // calls of other partitions may lose a race: they come again
			i.reached.Store(n)
		}
	}
	return l.r.handle(ctx, own)
}

// end ends the consumer that has been there for the longest, if there is one.
func (l *life) end(dies bool) {
	if len(l.running) == 0 {
		return
	}
	if dies {
		_ = l.running[0].queue.Close()
	}
	l.running[0].stop()
	l.running = l.running[1:]
}

// share returns when each of the consumers, two at least, has been given something that was published after the call.
func (l *life) share() {
	l.t.Helper()
	for len(l.running) < 2 {
		l.join()
	}
	before, last := int64(l.published), time.Time{}
	eventually(l.t, "every consumer reads", func() bool {
		if time.Since(last) > 100*time.Millisecond {
			l.publish()
			last = time.Now()
		}
		return !slices.ContainsFunc(l.running, func(i *instance) bool { return i.reached.Load() <= before })
	})
}
