package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

// Queue is a queue.Queue.
type Queue struct {
	cfg       Config
	ownership queue.Ownership
	log       *slog.Logger
	readings  *queue.Readings
	names     []string // of the queues, by partition

	// Connections of their own, so that a broker that takes no more items still gets acknowledgements, and what is not
	// answered costs no more than its own connection.
	readers []*link // by partition
	outlet  *outlet
	asker   *asker

	sessions []atomic.Pointer[session] // by partition: nil where nothing is read here
	asIs     []atomic.Bool             // by partition: the queue was declared with another bound, which stands
}

var _ queue.Queue = (*Queue)(nil)

// New does not need the broker to be up: what fails until it is, says so. ownership may be nil for an instance that
// only publishes. Metrics are registered, so a Registerer takes one Queue.
func New(cfg Config, ownership queue.Ownership, tel observability.Telemetry) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rabbitmq queue: %w", err)
	}
	urls, err := split(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq queue: %w", err)
	}
	q := &Queue{
		cfg: cfg, ownership: ownership, log: tel.Log, readings: queue.NewReadings(cfg.Config, tel),
		outlet:   newOutlet(newLink("publishes", urls, cfg.Heartbeat), cfg.Partitions),
		asker:    newAsker(newLink("asks", urls, cfg.Heartbeat)),
		sessions: make([]atomic.Pointer[session], cfg.Partitions),
		asIs:     make([]atomic.Bool, cfg.Partitions),
	}
	for p := range cfg.Partitions {
		q.names = append(q.names, cfg.Prefix+"."+strconv.Itoa(p))
		q.readers = append(q.readers, newLink("reads "+strconv.Itoa(p), urls, cfg.Heartbeat))
	}
	return q, nil
}

// System implements queue.Queue.
func (q *Queue) System() string { return "rabbitmq" }

// Ping fails if the broker does not answer, if it takes no items because it is short of memory or disk, or if a
// partition owned here could not be read at the last attempt.
func (q *Queue) Ping(ctx context.Context) error {
	if _, err := q.declare(ctx, 0); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if why := q.outlet.link.blockedBy(); why != "" {
		return fmt.Errorf("the broker takes no items: %s", why)
	}
	return q.readings.Failing()
}

// Close implements queue.Queue.
func (q *Queue) Close() error {
	var closing sync.WaitGroup
	for _, l := range append([]*link{q.outlet.link, q.asker.link}, q.readers...) {
		closing.Go(l.close)
	}
	closing.Wait()
	return nil
}

// asker puts questions to the broker, one after the other.
type asker struct {
	link *link
	turn chan struct{} // holds an element while somebody has the channel
	ch   *amqp.Channel // nil or closed when it must be made anew
}

func newAsker(l *link) *asker { return &asker{link: l, turn: make(chan struct{}, 1)} }

// ask calls f with a channel that f must leave without consumers and without unacknowledged messages.
func (a *asker) ask(ctx context.Context, f func(ch *amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := a.link.get(ctx)
	if err != nil {
		return err
	}
	return conn.within(ctx, func() error {
		if a.ch == nil || a.ch.IsClosed() { // as after every refusal
			if a.ch, err = conn.Channel(); err != nil {
				return fmt.Errorf("open channel: %w", err)
			}
		}
		return f(a.ch)
	})
}
