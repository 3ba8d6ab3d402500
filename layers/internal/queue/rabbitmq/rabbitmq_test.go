package rabbitmq_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/rabbitmq"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

const partitions, bound = 4, 2500

// broker is one RabbitMQ for all tests of the package, since it takes seconds to start. Each test has queues of its
// own, and leaves none behind.
type broker struct {
	*testdeps.RabbitMQServer
	prefixes []string // of queues that are there and not in use
	starts   int
}

func startBroker(t *testing.T) *broker {
	b := &broker{RabbitMQServer: testdeps.RabbitMQ(t)}
	for i := range 29 {
		b.prefixes = append(b.prefixes, fmt.Sprintf("test%d", i))
		q := open(t, b.with(b.prefixes[i]), nil)
		if _, err := q.Stats(t.Context()); err != nil {
			t.Fatalf("make queues: %v", err)
		}
		_ = q.Close()
	}
	// RabbitMQ 3.10 does not find a queue again if it is killed within half a second of having made it.
	time.Sleep(time.Second)
	return b
}

func (b *broker) with(prefix string) rabbitmq.Config {
	cfg := rabbitmq.DefaultConfig()
	cfg.URL, cfg.Partitions, cfg.MaxItems, cfg.Batch = b.URL(), partitions, bound, 32
	cfg.Drain = 3 * time.Second
	cfg.Prefix = prefix
	return cfg
}

// config has queues that nobody else uses. They are deleted when the test ends.
func (b *broker) config(t *testing.T) rabbitmq.Config {
	if len(b.prefixes) == 0 {
		t.Fatal("make queues for more tests")
	}
	cfg := b.with(b.prefixes[0])
	b.prefixes = b.prefixes[1:]
	t.Cleanup(func() { b.clean(t, cfg) })
	return cfg
}

func open(t testing.TB, cfg rabbitmq.Config, owners queue.Ownership) *rabbitmq.Queue {
	t.Helper()
	tel := observability.Discard()
	tel.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := rabbitmq.New(cfg, owners, tel)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func (b *broker) harness(t *testing.T) queuetest.Harness {
	cfg, owners := b.config(t), queuetest.NewOwners()
	return queuetest.Harness{
		Partitions: cfg.Partitions, Bound: cfg.MaxItems, ReaderKnows: true, ReadsAhead: true,
		New:  func(t *testing.T) queue.Queue { return open(t, cfg, owners) },
		Stop: func(*testing.T) { b.Kill() },
		Start: func(*testing.T) {
			if b.starts++; b.starts%2 == 0 {
				b.StartElsewhere()
			} else {
				b.Start()
			}
		},
	}
}

func TestRabbitMQ(t *testing.T) {
	b := startBroker(t)
	t.Run("suite", func(t *testing.T) { queuetest.Exercise(t, b.harness) })
	for _, c := range []struct {
		name string
		test func(*testing.T, *broker)
	}{
		{"deleted queues are made again", testDeletedQueues},
		{"an item without a queue", testUnroutable},
		{"the broker's own bound", testFence},
		{"one reader at a time", testFencedReader},
		{"many deaths", testManyDeaths},
		{"foreign messages", testForeignMessages},
		{"a hung broker", testHungBroker},
		{"a blocked broker", testBlockedBroker},
		{"layout", testLayout},
		{"too long", testTooLong},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}
