package redis_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/redis"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// leaving owns partitions 0 and 1, and gives up 1 when told.
type leaving struct {
	giveUp chan struct{}
	given  chan struct{} // closed when 1 is released
}

func (l *leaving) Run(ctx context.Context, _ int, own func(ctx context.Context, p int) error) error {
	one, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var owning sync.WaitGroup
	defer owning.Wait()
	owning.Go(func() { _ = own(ctx, 0) })
	owning.Go(func() {
		_ = own(one, 1)
		close(l.given)
	})
	select {
	case <-l.giveUp:
		giveUp()
	case <-ctx.Done():
	}
	return nil
}

// TestQuietPartitionIsGivenUp has a partition without items be given up while another gets some all the time: they are
// read together.
func TestQuietPartitionIsGivenUp(t *testing.T) {
	q, owner := busy(t)
	close(owner.giveUp)
	testwait.Receive(t, "the quiet one is given up", owner.given)
	must(t, q.Ping(t.Context()))
}

// busy reads two partitions, one of which gets items all the time.
func busy(t *testing.T) (*redis.Queue, *leaving) {
	owner := &leaving{giveUp: make(chan struct{}), given: make(chan struct{})}
	q := open(t, config(testdeps.Redis(t).Addr()), owner, observability.Discard())
	t.Cleanup(func() { _ = q.Close() })
	r := &received{}
	consume(t, q, r.Handle)
	ctx, stop := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for ctx.Err() == nil {
			_ = q.Publish(ctx, items(queuetest.KeyIn(0, partitions), "x")) // refused when ctx ends
		}
	})
	t.Cleanup(func() { stop(); publishing.Wait() })
	eventually(t, "items come", func() bool { return len(r.Bodies()) > 100 })
	return q, owner
}

// TestBusyPartitionIsReadAgain has an item come soon after the one before it, which came after a silence: it does not wait
// for the other partitions' silence to be over.
func TestBusyPartitionIsReadAgain(t *testing.T) {
	owner := &leaving{giveUp: make(chan struct{}), given: make(chan struct{})} // never gives up: two are read together
	q := open(t, config(testdeps.Redis(t).Addr()), owner, observability.Discard())
	t.Cleanup(func() { _ = q.Close() })
	handled := make(chan time.Time, 1)
	consume(t, q, func(context.Context, []queue.Item) error {
		handled <- time.Now()
		return nil
	})
	waits := make([]time.Duration, 9)
	for i := range waits {
		time.Sleep(120 * time.Millisecond)
		for range 2 {
			began := time.Now()
			must(t, q.Publish(t.Context(), items(queuetest.KeyIn(0, partitions), "x")))
			waits[i] = testwait.Receive(t, "the item", handled).Sub(began)
			time.Sleep(8 * time.Millisecond) // more than a round
		}
	}
	slices.Sort(waits)
	if got := waits[len(waits)/2]; got > 25*time.Millisecond {
		t.Errorf("the second of two items waited %v, the median of %v", got, waits)
	}
}
