package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
)

// prefetch is how many items of a partition a reader holds. Never changed: the broker puts what a reader had behind
// what earlier readers had given back, so a reader must take all of that at once, or its own death would leave it out
// of order.
const prefetch = 512

// Consume implements queue.Queue.
func (q *Queue) Consume(ctx context.Context, h queue.Handler) error {
	if q.ownership == nil {
		return errors.New("consume: this queue was made without ownership")
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { q.readings.Sample(sampling, q.stats) })
	err := q.ownership.Run(ctx, q.cfg.Partitions, func(ctx context.Context, p int) error {
		q.consume(ctx, p, h)
		return nil
	})
	stop()
	sampler.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("consume: own partitions: %w", err)
	}
	return nil
}

// reader reads one partition while this instance owns it.
type reader struct {
	*Queue
	partition int
	handler   queue.Handler
	session   *session // nil while there is none
}

// consume returns once ctx has ended and the handler has returned.
func (q *Queue) consume(ctx context.Context, p int, h queue.Handler) {
	q.readings.Begin(p)
	defer q.readings.End(p)
	work, release := queue.Drainable(ctx, q.cfg.Drain)
	defer release()
	r := &reader{Queue: q, partition: p, handler: h}
	queue.Repeat(ctx, func() bool { return r.step(ctx, work) })
	r.close(work)
	q.readers[p].hangUp()
}

// step goes on by one batch, see the package's description. It is false if something failed, which has been reported.
func (r *reader) step(ctx, work context.Context) bool {
	if r.session == nil {
		err := r.open(work)
		r.readings.Reached(r.partition, queue.OpRead, err)
		if err != nil {
			return false
		}
	}
	err := r.session.await(ctx)
	if errors.Is(err, errIdle) {
		r.close(work)
		return true
	}
	if err != nil {
		r.close(work)
		r.readings.Reached(r.partition, queue.OpRead, err)
		return false
	}
	batch := r.session.oldest(r.cfg.Batch)
	if len(batch) == 0 { // idle, or ctx has ended
		return true
	}
	items, err := r.items(batch)
	done := 0
	if len(items) > 0 {
		done, err = r.readings.HandOver(work, r.partition, r.handler, items, r.setAside)
	} else if err = r.setForeignAside(work, batch[0].Delivery, err); err == nil {
		done = 1
	}
	ackErr := r.session.ack(work, done, len(items))
	r.readings.Reached(r.partition, queue.OpAck, ackErr)
	if ackErr != nil {
		r.close(work)
	}
	return err == nil && ackErr == nil
}

// items are the first of the batch that are items. If there are none, the error says why the first is not.
func (r *reader) items(batch []arrival) ([]queue.Item, error) {
	var items []queue.Item
	for _, a := range batch {
		it, err := decode(a.Delivery)
		if err != nil && len(items) == 0 {
			r.log.Error("message is not a delivery", "queue", r.names[r.partition], "err", err)
			r.readings.Metrics.Failed(queue.OpDecode)
			return nil, err
		}
		if err != nil {
			break // it is the first next time
		}
		r.readings.CountAttempt(r.partition, &it, deliveries(a.Delivery)+a.tries)
		items = append(items, it)
	}
	return items, nil
}

// session is one channel on which one partition is read. What was read on it and not acknowledged goes back to the
// broker when it ends.
type session struct {
	conn  *connection
	ch    *amqp.Channel
	more  chan struct{}    // has an element if something has arrived
	ended chan struct{}    // closed when nothing will arrive any more
	why   chan *amqp.Error // has an element then, if the broker or the network is the reason

	mu   sync.Mutex
	held []arrival // what is not acknowledged, oldest first
}

// arrival is a message and how often it was handed over in this session.
type arrival struct {
	amqp.Delivery
	tries int
}

// open begins to read. If another instance still reads the partition, the broker keeps this one waiting.
func (r *reader) open(work context.Context) error {
	ctx, cancel := context.WithTimeout(work, opTimeout)
	defer cancel()
	if _, err := r.declare(ctx, r.partition); err != nil {
		return err
	}
	conn, err := r.readers[r.partition].get(ctx)
	if err != nil {
		return err
	}
	s := &session{conn: conn, more: make(chan struct{}, 1), ended: make(chan struct{}), why: make(chan *amqp.Error, 1)}
	err = conn.within(ctx, func() error {
		if s.ch, err = conn.Channel(); err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		s.ch.NotifyClose(s.why)
		if err := s.ch.Qos(prefetch, 0, false); err != nil {
			return fmt.Errorf("bound what is read: %w", err)
		}
		arriving, err := s.ch.Consume(r.names[r.partition], "gochat", false, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("read queue %s: %w", r.names[r.partition], err)
		}
		go s.take(arriving)
		return nil
	})
	if err != nil {
		r.readers[r.partition].hangUp()
		return err
	}
	r.session = s
	r.sessions[r.partition].Store(s)
	return nil
}

// take ends when the channel does, or the queue is deleted.
func (s *session) take(arriving <-chan amqp.Delivery) {
	defer close(s.ended)
	for d := range arriving {
		s.mu.Lock()
		s.held = append(s.held, arrival{Delivery: d})
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
	}
}

// close ends the session, if there is one. On the same channel, what was acknowledged before is so for good.
func (r *reader) close(work context.Context) {
	s := r.session
	if s == nil {
		return
	}
	r.session = nil
	r.sessions[r.partition].Store(nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), opTimeout)
	defer cancel()
	_ = s.conn.within(ctx, s.ch.Close) // one that is closed already closes again
	<-s.ended
}

// idleLimit is when a reader that gets nothing begins anew. If a queue is deleted and made again at once, RabbitMQ 3.10
// may keep the reader of the one before, tell it nothing, and hold for it what it never sends.
const idleLimit = 10 * time.Second

var (
	errEnded = errors.New("the broker has ended the reading")
	errIdle  = errors.New("nothing has come")
)

// await returns when something is held, with nil, or ctx has ended, with nil, or nothing can be read any more. It
// returns errIdle if nothing has come for long.
func (s *session) await(ctx context.Context) error {
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	for {
		select {
		case <-s.ended:
			if why := s.reason(); why != nil {
				return fmt.Errorf("%w: %w", errEnded, why)
			}
			return errEnded
		default:
		}
		if n, _ := s.holds(); n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.more:
		case <-s.ended:
		case <-idle.C:
			return errIdle
		}
	}
}

func (s *session) reason() error {
	select {
	case why := <-s.why:
		if why != nil { // it is when the channel was closed from here
			return why
		}
	default:
	}
	return nil
}

// oldest are at most n of what is held.
func (s *session) oldest(n int) []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.held[:min(n, len(s.held))]...)
}

// ack acknowledges the first done that are held, and notes that the first tried were handed over. The broker answers
// nothing: an acknowledgement that is lost with the connection was none.
func (s *session) ack(work context.Context, done, tried int) error {
	s.mu.Lock()
	for i := range tried {
		s.held[i].tries++
	}
	var last uint64
	if done > 0 {
		last = s.held[done-1].DeliveryTag
		s.held = append([]arrival(nil), s.held[done:]...)
	}
	s.mu.Unlock()
	if done == 0 {
		return nil
	}
	// A drain that has used up its time still says what it has done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), opTimeout)
	defer cancel()
	if err := s.conn.within(ctx, func() error { return s.ch.Ack(last, true) }); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// holds is how many are not acknowledged, and since when the oldest is in the queue.
func (s *session) holds() (n int, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 {
		since = enqueuedAt(s.held[0].Delivery)
	}
	return len(s.held), since
}
