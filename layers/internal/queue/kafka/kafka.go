package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

// group is the one consumer group.
const group = "gochat.task"

const (
	opTimeout  = 5 * time.Second       // of one operation with its retries, where the caller sets no bound
	minBackoff = 50 * time.Millisecond // between attempts; it doubles
	maxBackoff = time.Second
	// bufferBytes bounds what is produced and not yet answered. One Publish that is larger goes alone.
	bufferBytes = 64 << 20
	// maxItemBytes is what an item may have in key, headers and body together: Kafka takes batches of 1,000,012
	// bytes unless told otherwise, and an item is in one.
	maxItemBytes = 1_000_012 - 4096
)

// Queue is a queue.Queue.
type Queue struct {
	cfg      Config
	log      *slog.Logger
	readings *queue.Readings
	client   *kgo.Client // publishes and asks; each Consume has one more
	admin    *kadm.Client

	checked atomic.Bool // the topics are as they should be, as far as is known
	moved   atomic.Bool // the topics are not those that client has known

	buffer  *semaphore.Weighted
	asking  chan struct{} // holds one token while somebody asks how full the partitions are
	closing sync.Once
	closed  chan struct{}

	mu    sync.Mutex
	out   []outgoing // by partition
	asked time.Time  // when out was compared with what Kafka holds
}

var _ queue.Queue = (*Queue)(nil)

// New does not need Kafka to be up: what fails until it is, says so. Who reads which partition is for the consumer
// group to say, so there is no queue.Ownership. Metrics are registered, so a Registerer takes one Queue.
func New(cfg Config, tel observability.Telemetry) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("kafka queue: %w", err)
	}
	client, err := kgo.NewClient(append(cfg.access(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(opTimeout),
		// What is produced is bounded by buffer. Were it bounded here, a Publish could block beyond its ctx.
		kgo.MaxBufferedRecords(math.MaxInt32),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka queue: %w", err)
	}
	return &Queue{
		cfg:      cfg,
		log:      tel.Log,
		readings: queue.NewReadings(cfg.Config, tel),
		client:   client,
		admin:    kadm.NewClient(client),
		buffer:   semaphore.NewWeighted(bufferBytes),
		asking:   make(chan struct{}, 1),
		closed:   make(chan struct{}),
		out:      make([]outgoing, cfg.Partitions),
	}, nil
}

// System implements queue.Queue.
func (q *Queue) System() string { return "kafka" }

// Ping fails if Kafka does not answer, if the topics are not there and cannot be made, or have another number of
// partitions, or if a partition owned here could not be read or acknowledged at the last attempt.
func (q *Queue) Ping(ctx context.Context) error {
	if err := q.check(ctx); err != nil {
		return fmt.Errorf("ping kafka: %w", err)
	}
	return q.readings.Failing()
}

// ask tries again while what was asked cannot be connected to: each time it is another of the brokers, and the client
// itself goes no further than the next.
func (q *Queue) ask(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var err error
	for range len(q.cfg.Brokers) + 1 {
		var dial *net.OpError
		if err = question(ctx); !errors.As(err, &dial) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(minBackoff):
		}
	}
	return err
}

// Close implements queue.Queue.
func (q *Queue) Close() error {
	q.closing.Do(func() {
		close(q.closed)
		q.client.Close()
	})
	return nil
}
