package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/observability"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	tel := observability.Telemetry{Log: slog.New(slog.DiscardHandler), Metrics: registry, Traces: noop.NewTracerProvider()}
	q := open(t, start(t).config(), tel)
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
		eventually(t, c.name+" has its value", func() bool {
			got, _ := queuetest.Value(t, registry, c.name, c.label)
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
}
