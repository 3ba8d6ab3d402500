package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

type telemetry struct {
	seconds   *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	retries   prometheus.Counter
	uncertain prometheus.Counter
	tracer    trace.Tracer
	system    attribute.KeyValue
}

func newTelemetry(tel observability.Telemetry, d dialect) telemetry {
	metrics := promauto.With(tel.Metrics)
	system := "postgresql" // the names that the semantic conventions give
	if d == sqliteFile {
		system = "sqlite"
	}
	return telemetry{
		seconds: metrics.NewHistogramVec(observability.LatencyOpts("gochat_store_seconds",
			"Time of one store operation, waiting for a connection and retries included."), []string{"operation"}),
		errors: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_store_errors_total",
			Help: "Store operations that failed; an answer such as not found is none.",
		}, []string{"operation"}),
		retries: metrics.NewCounter(prometheus.CounterOpts{
			Name: "gochat_store_retries_total",
			Help: "Transactions tried again because a concurrent one made them fail.",
		}),
		uncertain: metrics.NewCounter(prometheus.CounterOpts{
			Name: "gochat_store_uncertain_commits_total",
			Help: "Commits whose answer got lost, so that the database was asked what became of them.",
		}),
		tracer: tel.Traces.Tracer("gochat/layers/internal/store"),
		system: attribute.String("db.system.name", system),
	}
}

// begin opens a span, if ctx is in a sampled one, and starts the clock. The function it returns ends both and wraps
// the error with the operation, which is the attempt in words.
func (s *Store) begin(ctx context.Context, operation string) (context.Context, func(*error)) {
	start := time.Now()
	var span trace.Span
	if trace.SpanContextFromContext(ctx).IsSampled() {
		ctx, span = s.telemetry.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(s.telemetry.system, attribute.String("db.operation.name", operation)))
	}
	return ctx, func(err *error) {
		observability.Observe(s.telemetry.seconds.WithLabelValues(operation), time.Since(start).Seconds(), trace.SpanContextFromContext(ctx))
		var answer *contract.Error
		failed := *err != nil && (!errors.As(*err, &answer) || errors.Is(*err, errAway))
		if failed {
			s.telemetry.errors.WithLabelValues(operation).Inc()
			*err = fmt.Errorf("%s: %w", operation, orAway(*err))
		}
		if span == nil {
			return
		}
		if failed {
			span.SetStatus(codes.Error, operation) // what the database says of it may hold what people wrote
		}
		span.End()
	}
}
