package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/kafka"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

const (
	patience   = 60 * time.Second
	partitions = 4
	bound      = 2500
	topic      = "gochat.deliveries"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

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

func items(key string, bodies ...string) []queue.Item {
	var all []queue.Item
	for _, b := range bodies {
		all = append(all, queue.Item{Key: key, Body: []byte(b)})
	}
	return all
}

// keyIn is a key of the partition.
func keyIn(p int) string {
	for key := "a"; ; key += "a" {
		if queue.Partition(key, partitions) == p {
			return key
		}
	}
}

// consume runs until the end of the test, or until stop is called, which waits for the end.
func consume(t *testing.T, q queue.Queue, h queue.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Consume(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Consume: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Consume has not returned within %s", patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

// received keeps what handlers have acknowledged.
type received struct {
	mu    sync.Mutex
	items []queue.Item
}

func (r *received) handle(_ context.Context, items []queue.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items = append(r.items, items...)
	return nil
}

func (r *received) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, it := range r.items {
		all = append(all, string(it.Body))
	}
	return all
}

// wait ends the test unless exactly want has come, in this order, items that come again counted once.
func (r *received) wait(t *testing.T, want ...string) {
	t.Helper()
	distinct := func() []string {
		var all []string
		for _, b := range r.bodies() {
			if !slices.Contains(all, b) {
				all = append(all, b)
			}
		}
		return all
	}
	eventually(t, fmt.Sprintf("%q arrive", want), func() bool { return len(distinct()) >= len(want) })
	if got := distinct(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}
