package connect

import (
	"context"
	"sync"
	"time"
)

// expiry ends waits that all take equally long, so that they end in the order in which they began: one timer serves them all.
// It keeps numbers, so that nothing of a connection is left that has ended before.
type expiry struct {
	start   time.Time            // of its clock, which does not change when the time of day is set
	after   func() time.Duration // always the same
	expired func(number uint64, began int64)

	mu    sync.Mutex
	waits []wait        // in the order of began
	more  chan struct{} // holds one when waits is not empty any more
}

type wait struct {
	number uint64 // of the channel
	began  int64  // nanoseconds since start, and never 0
}

func newExpiry(after func() time.Duration, expired func(number uint64, began int64)) *expiry {
	return &expiry{start: time.Now(), after: after, expired: expired, more: make(chan struct{}, 1)}
}

// add begins a wait of the channel, and answers when that was.
func (e *expiry) add(c *channel) (began int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	began = int64(time.Since(e.start)) + 1
	e.waits = append(e.waits, wait{c.number, began})
	if len(e.waits) == 1 {
		select {
		case e.more <- struct{}{}:
		default:
		}
	}
	return began
}

// due takes out the waits that are over, and answers how long the next will be; false if there is none.
func (e *expiry) due() (over []wait, next time.Duration, any bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, after := int64(time.Since(e.start)), int64(e.after())
	n := 0
	for n < len(e.waits) && e.waits[n].began+after <= now {
		n++
	}
	over, e.waits = e.waits[:n:n], e.waits[n:]
	if len(e.waits) == 0 {
		e.waits = nil
		return over, 0, false
	}
	return over, time.Duration(e.waits[0].began + after - now), true
}

// expirySlack is by how much waits may be longer: those that end within it share a wake-up.
const expirySlack = 20 * time.Millisecond

// run calls expired for each wait that is over, until ctx ends.
func (e *expiry) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		over, next, any := e.due()
		for _, w := range over {
			e.expired(w.number, w.began)
		}
		if any {
			timer.Reset(next + expirySlack)
		}
		select {
		case <-timer.C:
		case <-e.more:
		case <-ctx.Done():
			return
		}
	}
}
