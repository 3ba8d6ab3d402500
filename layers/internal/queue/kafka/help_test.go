package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue/kafka"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

const (
	patience   = testwait.Patience
	partitions = 4
	bound      = 2500
	topic      = "gochat.deliveries"
)

type received = queuetest.Received

var (
	must       = queuetest.Must
	items      = queuetest.Items
	consume    = queuetest.Consume
	eventually = testwait.Eventually
)

// broker is franz-go's imitation of a cluster. In every other of its lives it is at other addresses.
type broker struct{ *testdeps.KafkaCluster }

func start(t testing.TB, options ...kfake.Opt) *broker {
	return &broker{testdeps.Kafka(t, append(options, kfake.GroupMinSessionTimeout(100*time.Millisecond))...)}
}

func (b *broker) config() kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.Partitions, cfg.MaxItems, cfg.Batch = b.Addrs(), partitions, bound, 32
	cfg.Drain, cfg.Session = 3*time.Second, time.Second
	return cfg
}

// open is a queue on the broker that is closed at the end of the test.
func (b *broker) open(t testing.TB) *kafka.Queue {
	return open(t, b.config(), observability.Discard())
}

func open(t testing.TB, cfg kafka.Config, tel observability.Telemetry) *kafka.Queue {
	t.Helper()
	q, err := kafka.New(cfg, tel)
	must(t, err)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// beside is a client to look at what the queue does and to interfere with it.
func (b *broker) beside(t testing.TB) (*kgo.Client, *kadm.Client) {
	c, err := kgo.NewClient(kgo.SeedBrokers(b.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(t, err)
	t.Cleanup(c.Close)
	return c, kadm.NewClient(c)
}

// keyIn is a key of the partition.
func keyIn(p int) string { return queuetest.KeyIn(p, partitions) }
