package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Batch is calls of one method that travel in one message; the answer to each is a Reply, in this order.
type Batch[A any] struct{ Calls []Call[A] }

// Call is one of a batch, with what crosses beside every argument.
type Call[A any] struct {
	Left        int64  // milliseconds until the caller's deadline
	Traceparent string // W3C trace context
	Arg         *A
}

// batcher carries calls to each peer in batches: while few come each goes at once, else what gathers within batchPause
// goes together. A batch is answered as a whole, so it suits a method whose calls take about equally long.
type batcher[A, R any] struct {
	*caller
	method string

	mu    sync.Mutex // taken before caller.mu
	lanes map[Peer]*lane[A, R]
}

// lane is the calls on their way to one peer. It exists, with its goroutine, while there are some.
type lane[A, R any] struct {
	waiting    []*ticket[A, R]
	unanswered int
	came       [2]int        // how many calls have come since the last batchPause began, and in the one before
	since      time.Time     // when that was
	went       time.Time     // when the last batch did
	wake       chan struct{} // has an element if a batch may be due
}

// ticket is one call and, once done is closed, its outcome.
type ticket[A, R any] struct {
	arg      *A
	deadline time.Time
	trace    string
	reply    *Reply[R]
	err      error
	done     chan struct{}
}

const (
	// batchPause is between two batches, unless batchFull calls wait before: one way over the network, one commit, one
	// round of the queue and one push cost much the same for a few messages as for one.
	batchPause = 16 * time.Millisecond
	batchFull  = 64
	batchMost  = contract.MaxSends
	batchFew   = 8 // in a batchPause: not worth that people wait for one another
)

func newBatcher[A, R any](c *caller, method string) *batcher[A, R] {
	return &batcher[A, R]{caller: c, method: method, lanes: make(map[Peer]*lane[A, R])}
}

// exchange is exchange for one call of a batch.
func (b *batcher[A, R]) exchange(ctx context.Context, peer Peer, arg *A) (*Reply[R], error) {
	t := b.ticket(ctx, arg)
	return t.wait(ctx, b.add(peer, t))
}

// exchangeAlone is exchange for one call that waits for no other, nor any for it.
func (b *batcher[A, R]) exchangeAlone(ctx context.Context, peer Peer, arg *A) (*Reply[R], error) {
	t := b.ticket(ctx, arg)
	return t.wait(ctx, b.start(func() { b.send(peer, []*ticket[A, R]{t}) }))
}

func (b *batcher[A, R]) ticket(ctx context.Context, arg *A) *ticket[A, R] {
	t := &ticket[A, R]{arg: arg, trace: observability.Traceparent(ctx), done: make(chan struct{})}
	t.deadline, _ = ctx.Deadline()
	return t
}

// wait is for a call that is on its way.
func (t *ticket[A, R]) wait(ctx context.Context, onItsWay bool) (*Reply[R], error) {
	if !onItsWay {
		return nil, fmt.Errorf("%w: %w", errNotSent, errClosed)
	}
	select {
	case <-t.done:
		return t.reply, t.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *batcher[A, R]) add(peer Peer, t *ticket[A, R]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[peer]
	if l == nil {
		l = &lane[A, R]{wake: make(chan struct{}, 1)}
		if !b.start(func() { b.run(peer, l) }) {
			return false
		}
		b.lanes[peer] = l
	}
	l.waiting = append(l.waiting, t)
	l.count(time.Now())
	if len(l.waiting) == 1 || len(l.waiting) == batchFull {
		l.stir()
	}
	return true
}

// count notes that one more call has come.
func (l *lane[A, R]) count(now time.Time) {
	switch passed := now.Sub(l.since); {
	case passed >= 2*batchPause:
		l.came, l.since = [2]int{}, now
	case passed >= batchPause:
		l.came, l.since = [2]int{0, l.came[0]}, l.since.Add(batchPause)
	}
	l.came[0]++
}

func (l *lane[A, R]) stir() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (b *batcher[A, R]) run(peer Peer, l *lane[A, R]) {
	var sending sync.WaitGroup
	defer sending.Wait()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		batch, wait, ended := b.take(peer, l)
		switch {
		case ended:
			return
		case len(batch) > 0:
			sending.Go(func() {
				b.send(peer, batch)
				b.answered(l, len(batch))
			})
			continue
		}
		due.Reset(wait)
		select {
		case <-due.C:
		case <-l.wake:
		}
	}
}

// take is the next batch. If none is due, it says how long it will be until then unless the lane is stirred before.
func (b *batcher[A, R]) take(peer Peer, l *lane[A, R]) (batch []*ticket[A, R], wait time.Duration, ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(l.waiting), batchMost)
	if n == 0 && l.unanswered == 0 {
		delete(b.lanes, peer)
		return nil, 0, true
	}
	if n == 0 {
		return nil, time.Hour, false
	}
	wait = time.Until(l.went.Add(batchPause))
	if n < batchFull && max(l.came[0], l.came[1]) > batchFew && wait > 0 {
		return nil, wait, false
	}
	batch, l.waiting = l.waiting[:n:n], l.waiting[n:]
	l.unanswered += n
	l.went = time.Now()
	return batch, 0, false
}

func (b *batcher[A, R]) answered(l *lane[A, R], n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.unanswered -= n; l.unanswered == 0 {
		l.stir() // it may have ended
	}
}

// send carries one batch and answers everyone in it.
func (b *batcher[A, R]) send(peer Peer, batch []*ticket[A, R]) {
	request, latest := &Batch[A]{}, time.Time{}
	for _, t := range batch {
		if t.deadline.After(latest) {
			latest = t.deadline
		}
		request.Calls = append(request.Calls, Call[A]{Left: left(t.deadline), Traceparent: t.trace, Arg: t.arg})
	}
	ctx, cancel := context.WithDeadline(context.Background(), latest) // each caller waits under its own
	defer cancel()
	replies, err := exchange[[]Reply[R]](ctx, b.caller, peer, b.method, request)
	if contract.CodeOf(err) == contract.TooLarge && len(batch) > 1 { // the fault of one, perhaps
		for i := range batch {
			b.send(peer, batch[i:i+1])
		}
		return
	}
	for i, t := range batch {
		switch {
		case err != nil:
			t.err = err
		case replies.Err != nil:
			t.reply = &Reply[R]{Err: replies.Err}
		case replies.Value == nil || len(*replies.Value) != len(batch):
			t.err = errors.New("peer answered another number of calls than it was asked")
		default:
			t.reply = &(*replies.Value)[i]
		}
		close(t.done)
	}
}

// handleBatch registers a method whose calls come by batches. Each is handled by itself, at the same time as the
// others. A batch that is not admitted is refused as a whole, and so at once: an answer to some of its calls would have
// to wait for the others.
func handleBatch[A, R any](
	s *service, method string, admit func(n int) (done func(), err error), f func(context.Context, *A) (*R, error),
) error {
	return s.register(method, func(ctx context.Context, batch *Batch[A], reply *Reply[[]Reply[R]]) error {
		done, err := admit(len(batch.Calls))
		if err != nil {
			reply.Err = contract.AsError(err)
			return nil
		}
		defer done()
		replies := make([]Reply[R], len(batch.Calls))
		var handling sync.WaitGroup
		one := func(i int) {
			call := &batch.Calls[i]
			ctx, cancel := context.WithTimeout(ctx, time.Duration(call.Left)*time.Millisecond)
			defer cancel()
			replies[i] = answer(ctx, s, method, call.Traceparent, call.Arg, f)
		}
		for i := 1; i < len(replies); i++ {
			handling.Add(1)
			s.workers.start(func() { defer handling.Done(); one(i) })
		}
		if len(replies) > 0 {
			one(0)
		}
		handling.Wait()
		reply.Value = &replies
		return nil
	})
}
