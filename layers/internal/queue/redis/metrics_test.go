package redis_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/redis"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

func TestMetrics(t *testing.T) {
	server := testdeps.Redis(t)
	registry := prometheus.NewRegistry()
	tel := observability.Telemetry{Log: slog.New(slog.DiscardHandler), Metrics: registry, Traces: noop.NewTracerProvider()}
	q := open(t, config(server.Addr()), queuetest.NewOwners(), tel)
	t.Cleanup(func() { _ = q.Close() })

	refuse, release := true, make(chan struct{})
	defer close(release)
	must(t, q.Publish(t.Context(), items("k", "1", "2", "3")))
	stop := consume(t, q, func(context.Context, []queue.Item) error {
		if refuse {
			refuse = false // one partition, so calls do not overlap
			return errors.New("refused by the test")
		}
		<-release
		return nil
	})
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"gochat_queue_published_total", "", 3},
		{"gochat_queue_redelivered_total", "", 3},
		{"gochat_queue_errors_total", "handle", 1},
		{"gochat_queue_depth", "", 3},
		{"gochat_queue_consumed_total", "", 0},
	} {
		var got float64
		eventually(t, c.name+" has its value", func() bool {
			got, _ = queuetest.Value(t, registry, c.name, c.label)
			return got == c.want
		})
	}
	eventually(t, "the age is that of the items", func() bool {
		age, series := queuetest.Value(t, registry, "gochat_queue_oldest_age_seconds", "")
		return age > 0 && age < patience.Seconds() && series == partitions
	})
	release <- struct{}{}
	eventually(t, "they are consumed", func() bool {
		got, _ := queuetest.Value(t, registry, "gochat_queue_consumed_total", "")
		return got == 3
	})
	stop()
	if _, series := queuetest.Value(t, registry, "gochat_queue_depth", ""); series != 0 {
		t.Errorf("%d partitions have a depth after they were given up", series)
	}
	if _, series := queuetest.Value(t, registry, "gochat_queue_errors_total", ""); series < 2 {
		t.Error("errors have no series before the first of them")
	}
}

func TestConfig(t *testing.T) {
	valid := redis.DefaultConfig()
	valid.Addrs = []string{"127.0.0.1:6379"}
	for _, c := range []struct {
		name   string
		change func(*redis.Config)
		ok     bool
	}{
		{"defaults and an address", func(*redis.Config) {}, true},
		{"no address", func(c *redis.Config) { c.Addrs = nil }, false},
		{"no partitions", func(c *redis.Config) { c.Partitions = 0 }, false},
		{"too many partitions", func(c *redis.Config) { c.Partitions = 1025 }, false},
		{"no items", func(c *redis.Config) { c.MaxItems = 0 }, false},
		{"no batch", func(c *redis.Config) { c.Batch = -1 }, false},
		{"no drain", func(c *redis.Config) { c.Drain = 0 }, false},
		{"negative database", func(c *redis.Config) { c.DB = -1 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := valid
			c.change(&cfg)
			q, err := redis.New(cfg, nil, observability.Discard())
			if (err == nil) != c.ok {
				t.Fatalf("New: %v, want success %v", err, c.ok)
			}
			if err == nil {
				must(t, q.Close())
			}
		})
	}
}

func TestConsumeNeedsOwnership(t *testing.T) {
	q := open(t, config("127.0.0.1:1"), nil, observability.Discard())
	t.Cleanup(func() { _ = q.Close() })
	if err := q.Consume(t.Context(), (&received{}).Handle); err == nil {
		t.Error("Consume without ownership succeeded")
	}
}
