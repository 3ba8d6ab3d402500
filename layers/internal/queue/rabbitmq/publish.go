package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
)

var (
	errLost    = errors.New("the connection was lost before the broker has confirmed")
	errMissing = errors.New("the queue was missing")
)

// outlet is the one channel that an instance publishes on, so that what it publishes keeps its order.
type outlet struct {
	link     *link
	inFlight []atomic.Int64 // by partition: items written and neither confirmed nor given up
	doubtful []atomic.Bool  // by partition: the broker must be asked before the next item goes there

	turn  chan struct{} // holds an element while somebody has what follows
	conn  *connection
	ch    *amqp.Channel // nil or closed when it must be made anew
	lost  *unrouted     // what came back on ch
	rooms []room        // by partition
}

// room is how many items may be published to a partition before the broker must be asked again how many it holds.
type room struct {
	left  int
	until time.Time
}

// Asking costs a round trip for each partition. Until the next question an instance takes a share of what fits, so
// that as many publishers at once do not overfill a partition.
const (
	roomFor   = time.Second
	roomShare = 8
)

func newOutlet(l *link, partitions int) *outlet {
	return &outlet{
		link: l, turn: make(chan struct{}, 1),
		inFlight: make([]atomic.Int64, partitions), doubtful: make([]atomic.Bool, partitions),
		rooms: make([]room, partitions),
	}
}

// open makes the channel if there is none. The caller has the turn.
func (o *outlet) open(ctx context.Context) error {
	if o.ch != nil && !o.ch.IsClosed() {
		return nil
	}
	conn, err := o.link.get(ctx)
	if err != nil {
		return err
	}
	return conn.within(ctx, func() error {
		ch, err := conn.Channel()
		if err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		if err := ch.Confirm(false); err != nil {
			return fmt.Errorf("ask for confirms: %w", err)
		}
		o.conn, o.ch, o.lost = conn, ch, watchUnrouted(ch.NotifyReturn(make(chan amqp.Return)))
		clear(o.rooms) // the broker may be another one: the queues are declared before the next item goes to them
		return nil
	})
}

// message is what is written, and to which queue.
type message struct {
	queue string
	amqp.Publishing
}

// flight is what one call has written.
type flight struct {
	ch       *amqp.Channel
	lost     *unrouted
	before   map[string]int // what had come back when it began, by queue
	messages []message
	confirms []*amqp.DeferredConfirmation // of the first messages
	err      error                        // why the others were not written
}

// send writes what choose answers, in order. choose is called when there is a channel to write to.
func (o *outlet) send(ctx context.Context, choose func() []message) *flight {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return &flight{err: ctx.Err()}
	}
	opening, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if err := o.open(opening); err != nil {
		return &flight{err: err}
	}
	f := &flight{ch: o.ch, lost: o.lost, before: o.lost.soFar(), messages: choose()}
	f.err = o.conn.within(ctx, func() error {
		for _, m := range f.messages {
			if err := ctx.Err(); err != nil {
				return err
			}
			confirm, err := f.ch.PublishWithDeferredConfirm("", m.queue, true, false, m.Publishing)
			if err != nil {
				return err
			}
			f.confirms = append(f.confirms, confirm)
		}
		return nil
	})
	return f
}

// wait answers for each message why it is not held for sure, nil if it is.
func (f *flight) wait(ctx context.Context) []error {
	errs := make([]error, len(f.messages))
	for i := range f.messages {
		if i >= len(f.confirms) {
			errs[i] = f.err
			continue
		}
		ok, err := f.confirms[i].WaitContext(ctx)
		switch {
		case err != nil:
			errs[i] = err
		case !ok && f.ch.IsClosed():
			errs[i] = errLost
		case !ok:
			errs[i] = queue.ErrFull
		}
	}
	// A message that has no queue comes back before it is confirmed.
	for name, n := range f.lost.soFar() {
		if n == f.before[name] {
			continue
		}
		for i, m := range f.messages {
			if m.queue == name && errs[i] == nil {
				errs[i] = errMissing
			}
		}
	}
	return errs
}

// Publish implements queue.Queue. Items of all partitions are written one after the other, then their confirms are
// awaited, so that calls do not wait for each other.
func (q *Queue) Publish(ctx context.Context, items []queue.Item) error {
	if len(items) == 0 {
		return nil
	}
	now := time.Now()
	parts := make([][]message, q.cfg.Partitions)
	for i := range items {
		p := q.Partition(items[i].Key)
		m, err := encode(items[i], now)
		if err != nil {
			q.readings.Metrics.Failed(queue.OpPublish)
			return fmt.Errorf("publish: %w", err)
		}
		parts[p] = append(parts[p], message{q.names[p], m})
	}

	failed := make([]error, len(parts)) // by partition
	var sent []int                      // the partition of each message sent
	f := q.outlet.send(ctx, func() []message {
		var all []message
		for p, messages := range parts {
			if len(messages) == 0 {
				continue
			}
			if failed[p] = q.admit(ctx, p, len(messages)); failed[p] != nil {
				continue
			}
			for range messages {
				sent = append(sent, p)
			}
			all = append(all, messages...)
			q.outlet.inFlight[p].Add(int64(len(messages)))
		}
		return all
	})
	errs := f.wait(ctx)
	for i, err := range errs {
		p := sent[i]
		q.outlet.inFlight[p].Add(-1)
		if failed[p] == nil {
			failed[p] = err
		}
		if errors.Is(err, errMissing) || errors.Is(err, queue.ErrFull) {
			q.outlet.doubtful[p].Store(true)
		}
	}
	return q.outcome(parts, failed, f)
}

// Partition implements queue.Queue.
func (q *Queue) Partition(key string) int { return queue.Partition(key, q.cfg.Partitions) }

// outcome counts what became of each partition's items, and says it in one error.
func (q *Queue) outcome(parts [][]message, failed []error, f *flight) error {
	failures, published := make(queue.Failures), 0
	for p, messages := range parts {
		err := failed[p]
		if err == nil && f.messages == nil {
			err = f.err // nothing was chosen
		}
		if len(messages) == 0 {
			continue
		}
		published++
		if err == nil {
			q.readings.Metrics.Published.Add(float64(len(messages)))
			continue
		}
		failures[p] = err
		if errors.Is(err, queue.ErrFull) {
			q.readings.Metrics.Failed(queue.OpFull)
		} else {
			q.readings.Metrics.Failed(queue.OpPublish)
		}
	}
	return failures.Err(published)
}

// admit is nil if n more items fit the partition, whose queue is then known to be there. The caller has the outlet's
// turn.
func (q *Queue) admit(ctx context.Context, p, n int) error {
	r := &q.outlet.rooms[p]
	if q.outlet.doubtful[p].Swap(false) || n > r.left || time.Now().After(r.until) {
		is, err := q.declare(ctx, p)
		if err != nil {
			*r = room{}
			return err
		}
		free := q.cfg.MaxItems - is.Messages - int(q.outlet.inFlight[p].Load())
		if n > free {
			*r = room{}
			return queue.ErrFull
		}
		*r = room{left: max(n, free/roomShare), until: time.Now().Add(roomFor)}
	}
	r.left -= n
	return nil
}

// unrouted counts, by queue, the messages that came back because there was no such queue. What it has counted outlives
// the channel: a message may have come back and been confirmed just before the channel was closed.
type unrouted struct {
	asked chan chan map[string]int
	ended chan struct{}
	count map[string]int // of the goroutine that counts; nobody's, and final, when ended is closed
}

// watchUnrouted counts until back is closed, with the channel that returns messages to it. It is not to be buffered: so
// a return that was taken before a confirm is counted before a question that comes after the confirm.
func watchUnrouted(back <-chan amqp.Return) *unrouted {
	u := &unrouted{asked: make(chan chan map[string]int), ended: make(chan struct{}), count: make(map[string]int)}
	go func() { // ends with the channel
		defer close(u.ended)
		for {
			select {
			case m, open := <-back:
				if !open {
					return
				}
				u.count[m.RoutingKey]++
			case answer := <-u.asked:
				answer <- maps.Clone(u.count)
			}
		}
	}()
	return u
}

// soFar is not to be changed. It is nil if there is nothing to count.
func (u *unrouted) soFar() map[string]int {
	if u == nil {
		return nil
	}
	answer := make(chan map[string]int, 1)
	select {
	case u.asked <- answer:
		return <-answer
	case <-u.ended:
		return u.count
	}
}
