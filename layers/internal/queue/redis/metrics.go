package redis

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What went wrong, the label of gochat_queue_errors_total.
const (
	opPublish = "publish"
	opFull    = "full" // a publish was refused by a partition that is full
	opRead    = "read"
	opHandle  = "handle"
	opAck     = "ack"
	opDecode  = "decode"
	opStats   = "stats"
)

type metrics struct {
	depth, age                       *prometheus.GaugeVec
	published, consumed, redelivered prometheus.Counter
	errors                           *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		depth: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_queue_depth",
			Help: "Items of the partition that are not acknowledged, reported by the partition's owner.",
		}, []string{"partition"}),
		age: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_queue_oldest_age_seconds",
			Help: "How long the oldest item of the partition has waited, reported by the partition's owner.",
		}, []string{"partition"}),
		published:   counter("gochat_queue_published_total", "Items the queue has accepted from this process."),
		consumed:    counter("gochat_queue_consumed_total", "Items this process has handled."),
		redelivered: counter("gochat_queue_redelivered_total", "Items handed over that may have been handed over before."),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_queue_errors_total",
			Help: "Failures of the queue by what was attempted.",
		}, []string{"op"}),
	}
	for _, op := range []string{opPublish, opFull, opRead, opHandle, opAck, opDecode, opStats} {
		m.errors.WithLabelValues(op) // a series from the start, so that the first failure is an increase
	}
	return m
}

func (m *metrics) failed(op string) { m.errors.WithLabelValues(op).Inc() }

func (m *metrics) set(p int, depth int64, ageSeconds float64) {
	label := strconv.Itoa(p)
	m.depth.WithLabelValues(label).Set(float64(depth))
	m.age.WithLabelValues(label).Set(ageSeconds)
}

func (m *metrics) forget(p int) {
	label := strconv.Itoa(p)
	m.depth.DeleteLabelValues(label)
	m.age.DeleteLabelValues(label)
}
