package api

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

	"gochat/observability"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	return metrics{
		requests: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_http_requests_total",
			Help: "Requests answered, by route template, method and status. For the seed's routes, which answer 200 to everything, the status that the same outcome has under /v1.",
		}, []string{"route", "method", "code"}),
		seconds: promauto.With(reg).NewHistogramVec(observability.LatencyOpts("gochat_http_request_seconds",
			"Time from the end of a request's header to the end of its answer."), []string{"route", "method"}),
	}
}

func (m metrics) answered(ctx context.Context, route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	observability.Observe(m.seconds.WithLabelValues(route, method), took.Seconds(), trace.SpanContextFromContext(ctx))
}
