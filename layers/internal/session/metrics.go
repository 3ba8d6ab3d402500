package session

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"gochat/observability"
)

// operations is the closed set of values of the label op.
func operations() []string {
	return []string{"ping", "create", "get", "touch", "end", "list",
		"apply", "replace", "registered", "resolve", "online", "forget", "lives"}
}

type operation struct {
	seconds prometheus.Observer
	errors  prometheus.Counter
}

// metrics has the children made beforehand, so that a call looks up one map that never changes.
type metrics map[string]operation

func newMetrics(reg prometheus.Registerer, client redis.UniversalClient) metrics {
	with := promauto.With(reg)
	seconds := with.NewHistogramVec(observability.LatencyOpts("gochat_session_store_seconds",
		"Time that an operation on sessions, routes or presence took in Redis."), []string{"op"})
	failed := with.NewCounterVec(prometheus.CounterOpts{
		Name: "gochat_session_store_errors_total",
		Help: "Operations on sessions, routes or presence that failed for want of Redis or of time.",
	}, []string{"op"})
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gochat_session_store_connections",
		Help: "Open connections to Redis.",
	}, func() float64 { return float64(client.PoolStats().TotalConns) })
	with.NewCounterFunc(prometheus.CounterOpts{
		Name: "gochat_session_store_pool_timeouts_total",
		Help: "Operations that waited in vain for a connection to Redis.",
	}, func() float64 { return float64(client.PoolStats().Timeouts) })

	m := make(metrics)
	for _, op := range operations() {
		m[op] = operation{seconds.WithLabelValues(op), failed.WithLabelValues(op)}
	}
	return m
}

func (m metrics) observe(op string, started time.Time, err error) {
	m[op].seconds.Observe(time.Since(started).Seconds())
	if err != nil && !errors.Is(err, context.Canceled) { // a caller who hangs up is no failure of Redis
		m[op].errors.Inc()
	}
}
