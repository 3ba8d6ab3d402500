package logic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// committer stores messages by batches: what gathers while one commit runs is the next one.
type committer struct {
	cfg       CommitConfig
	store     Store
	publisher *publisher
	m         *metrics
	tracer    trace.Tracer
	log       *slog.Logger

	waiting  chan *pending
	admitted atomic.Int64 // by admit
	failed   atomic.Pointer[failedCommit]

	mu     sync.RWMutex // held to hand over, so that none is handed over after closed
	closed bool
}

// failedCommit is the last commit, if it failed.
type failedCommit struct {
	at  time.Time
	err error
}

// failingFor is how long a failed commit that none has followed says that the next one will fail as well.
const failingFor = time.Minute

// failing is why the last commit, of late, has failed; nil if it has not. A database that answers may still not store anything.
func (c *committer) failing() error {
	if f := c.failed.Load(); f != nil && time.Since(f.at) < failingFor {
		return fmt.Errorf("messages could not be stored at %s: %w", f.at.UTC().Format(time.RFC3339), f.err)
	}
	return nil
}

// pending is a message whose sender waits.
type pending struct {
	message  contract.Message
	origin   contract.ConnID
	accepted time.Time
	taken    atomic.Bool  // by the committer, or back by its sender: whoever sets it first
	done     chan outcome // has room for one, so that a sender who has left blocks nobody
}

type outcome struct {
	message contract.Message
	err     error
}

func newCommitter(cfg CommitConfig, store Store, p *publisher, m *metrics, tracer trace.Tracer, log *slog.Logger) *committer {
	return &committer{cfg: cfg, store: store, publisher: p, m: m, tracer: tracer, log: log, waiting: make(chan *pending, cfg.Queue)}
}

// busyRetry is what a sender is told to wait when the queue is full: a few commits.
const busyRetry = 200 * time.Millisecond

func errBusy() error {
	return contract.RetryLater(contract.Unavailable, busyRetry, "too many messages are waiting to be stored")
}

// admit keeps places for n messages until done is called. It is Unavailable if there are not that many.
func (c *committer) admit(n int) (done func(), err error) {
	if c.admitted.Add(int64(n)) > int64(c.cfg.Queue) {
		c.admitted.Add(-int64(n))
		return nil, errBusy()
	}
	return func() { c.admitted.Add(-int64(n)) }, nil
}

// commit answers the message as stored; for a clientId used before, the first one. It does not wait for a place:
// Unavailable if there is none. When ctx is about to end, the message is taken back, if it still waits: Unavailable,
// and it is not stored. If a transaction has it by then, the error says that its outcome is not known.
func (c *committer) commit(ctx context.Context, m contract.Message, origin contract.ConnID) (contract.Message, error) {
	p := &pending{message: m, origin: origin, accepted: time.Now(), done: make(chan outcome, 1)}
	if !c.handOver(p) {
		return contract.Message{}, errBusy()
	}
	ctx, cancel := withTimeToAnswer(ctx)
	defer cancel()
	select {
	case o := <-p.done:
		return o.message, o.err
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return contract.Message{}, errNotStored()
		}
	}
	select {
	case o := <-p.done: // at the same moment
		return o.message, o.err
	default:
		return contract.Message{}, errUncertain()
	}
}

// answerTime is kept for the way back of an answer that says what is known: the caller who gives up first knows nothing.
const answerTime = 100 * time.Millisecond

// withTimeToAnswer ends before ctx does: by answerTime, or by half of what is left if that is less.
func withTimeToAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, has := ctx.Deadline()
	if !has {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithDeadline(ctx, deadline.Add(-min(answerTime, left/2)))
}

// errNotStored is for a message that is not stored and will not be. The cause stays here: to senders the store is away.
func errNotStored() error {
	return contract.RetryLater(contract.Unavailable, time.Second, "the message could not be stored")
}

// errUncertain is for a message that may be stored, or may yet be.
func errUncertain() error {
	return contract.RetryLater(contract.Unavailable, time.Second,
		"it is not known whether the message was stored: sent again with the same clientId, it is stored once")
}

func (c *committer) handOver(p *pending) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	select {
	case c.waiting <- p:
		return true
	default:
		return false
	}
}

// run commits until ctx ends, then commits what still waits and publishes it.
func (c *committer) run(ctx context.Context) {
	// Not derived from ctx: its end starts the drain.
	working := context.WithoutCancel(ctx)
	var publishing sync.WaitGroup
	stopPublisher := make(chan struct{})
	publishing.Go(func() { c.publisher.run(working, stopPublisher) })
	defer publishing.Wait()
	defer close(stopPublisher)

	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		close(c.waiting)
	})
	defer stop()

	batch := make([]*pending, 0, c.cfg.Batch)
	for first := range c.waiting {
		// While messages come one by one, each is stored at once. A commit costs much the same for one as for several.
		if crowded := len(batch) > 1; crowded && len(c.waiting) < c.cfg.Batch {
			time.Sleep(c.cfg.Gather - time.Since(first.accepted))
		}
		batch = c.gather(append(batch[:0], first))
		// Those that their senders have taken back are nobody's.
		batch = slices.DeleteFunc(batch, func(p *pending) bool { return !p.taken.CompareAndSwap(false, true) })
		if len(batch) > 0 {
			c.storeBatch(working, batch)
		}
	}
}

// gather adds what waits to the batch, up to its size.
func (c *committer) gather(batch []*pending) []*pending {
	for len(batch) < c.cfg.Batch {
		select {
		case next, open := <-c.waiting:
			if !open {
				return batch
			}
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

// storeBatch stores one batch and answers everyone in it.
func (c *committer) storeBatch(ctx context.Context, batch []*pending) {
	messages := make([]contract.Message, len(batch))
	for i, p := range batch {
		messages[i] = p.message
	}
	published := c.publisher.takePublished()
	c.publisher.commits.Store(true)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	start := time.Now()
	results, err := c.store.Commit(ctx, messages, published)
	if err != nil {
		c.publisher.returnPublished(published)
		c.failed.Store(&failedCommit{time.Now(), err})
		c.log.Error("commit failed", "messages", len(batch), "err", err)
		answer := errNotStored()
		if errors.Is(err, contract.ErrUncertain) {
			c.publisher.doubt() // the outbox tells, now or later, before what follows
			answer = errUncertain()
		}
		failed := time.Now()
		for _, p := range batch {
			p.done <- outcome{err: answer}
		}
		c.traceCommit(batch, nil, start, failed)
		return
	}
	committed := time.Now()
	c.failed.Store(nil)
	c.m.commitSeconds.Observe(committed.Sub(start).Seconds())
	c.m.batch.Observe(float64(len(batch)))

	fresh := make([]outgoing, 0, len(results))
	for i := range results {
		if results[i].Duplicate {
			c.m.duplicates.Inc()
			continue
		}
		c.m.accepted.Inc()
		c.publisher.records.Committed(results[i].Message.ID, batch[i].accepted, committed, len(batch))
		d := messageDelivery(&results[i].Message, batch[i].origin, batch[i].accepted)
		d.QueuedAt = committed
		observability.ObserveIn(c.m.stage, committed.Sub(d.AcceptedAt).Seconds(), d.Traceparent)
		fresh = append(fresh, outgoingOf(&d, results[i].Outbox))
	}
	c.publisher.add(fresh)
	for i, p := range batch {
		p.done <- outcome{message: results[i].Message}
	}
	c.traceCommit(batch, results, start, committed)
}

// traceCommit adds a span to the trace of each message that is sampled, from its acceptance to the end of the commit, with
// links to those next to it in the batch. results is nil if the commit failed.
func (c *committer) traceCommit(batch []*pending, results []contract.CommitResult, began, ended time.Time) {
	var links []trace.Link // to the sampled ones
	for _, p := range batch {
		if observability.IsSampled(p.message.Traceparent) {
			links = append(links, trace.Link{SpanContext: observability.SpanContext(p.message.Traceparent)})
		}
	}
	if links == nil {
		return
	}
	next := 0 // of the sampled ones
	for i, p := range batch {
		parent := p.message.Traceparent
		if !observability.IsSampled(parent) {
			continue
		}
		next++
		_, span := c.tracer.Start(observability.Remote(context.Background(), parent), "commit", trace.WithTimestamp(p.accepted),
			trace.WithLinks(around(links, next-1)...))
		if span.IsRecording() {
			id := p.message.ID
			if results != nil {
				id = results[i].Message.ID // of a duplicate, the first one's
			}
			span.SetAttributes(
				observability.AttrMessageID.String(id.String()),
				attribute.Int("gochat.batch.messages", len(batch)),
				attribute.Float64("gochat.wait.seconds", began.Sub(p.accepted).Seconds()),
			)
			if results == nil {
				span.SetStatus(codes.Error, "not stored, or not known to be")
			}
		}
		span.End(trace.WithTimestamp(ended))
	}
}

// commitLinks is to how many others of its batch a commit is linked: all would be as many as the square of the batch.
const commitLinks = 8

// around are the links next to the i-th, without it.
func around(links []trace.Link, i int) []trace.Link {
	from := max(min(i-commitLinks/2, len(links)-commitLinks-1), 0)
	near := make([]trace.Link, 0, commitLinks)
	for j := from; j < min(from+commitLinks+1, len(links)); j++ {
		if j != i {
			near = append(near, links[j])
		}
	}
	return near
}
