package queue

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Op is what was attempted, the label of gochat_queue_errors_total.
type Op string

// What drivers attempt.
const (
	OpPublish  Op = "publish"
	OpFull     Op = "full" // a publish was refused by a partition that is full
	OpRead     Op = "read"
	OpHandle   Op = "handle"
	OpAck      Op = "ack"
	OpDecode   Op = "decode"
	OpSetAside Op = "set_aside"
	OpStats    Op = "stats"
)

// Metrics are the same for every driver.
type Metrics struct {
	Published, Consumed prometheus.Counter

	depth, age, owned     *prometheus.GaugeVec
	redelivered, setAside prometheus.Counter
	errors                *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, partitions int) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		depth: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_queue_depth",
			Help: "Items of the partition that are not acknowledged, reported by the partition's owner while the broker tells it.",
		}, []string{"partition"}),
		age: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_queue_oldest_age_seconds",
			Help: "How long the oldest item of the partition has waited, reported by the partition's owner while the broker tells it.",
		}, []string{"partition"}),
		owned: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_queue_partition_owned",
			Help: "1 for a partition that this process reads.",
		}, []string{"partition"}),
		Published:   counter("gochat_queue_published_total", "Items the queue has accepted from this process."),
		Consumed:    counter("gochat_queue_consumed_total", "Items this process has handled."),
		redelivered: counter("gochat_queue_redelivered_total", "Items handed over that may have been handed over before."),
		setAside:    counter("gochat_queue_set_aside_total", "Items that could not be handled and were set aside."),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_queue_errors_total",
			Help: "Failures of the queue by what was attempted.",
		}, []string{"op"}),
	}
	f.NewGauge(prometheus.GaugeOpts{
		Name: "gochat_queue_partitions",
		Help: "Partitions of the queue, each of which is read by one process.",
	}).Set(float64(partitions))
	for _, op := range []Op{OpPublish, OpFull, OpRead, OpHandle, OpAck, OpDecode, OpSetAside, OpStats} {
		m.errors.WithLabelValues(string(op)) // a series from the start, so that the first failure is an increase
	}
	return m
}

// Failed counts a failure.
func (m *Metrics) Failed(op Op) { m.errors.WithLabelValues(string(op)).Inc() }

func (m *Metrics) set(p int, depth int64, ageSeconds float64) {
	label := strconv.Itoa(p)
	m.depth.WithLabelValues(label).Set(float64(depth))
	m.age.WithLabelValues(label).Set(ageSeconds)
}

func (m *Metrics) own(p int) { m.owned.WithLabelValues(strconv.Itoa(p)).Set(1) }

// unknown has what waits in the partition be said by nobody: what was so at last would look like what is.
func (m *Metrics) unknown(p int) {
	label := strconv.Itoa(p)
	m.depth.DeleteLabelValues(label)
	m.age.DeleteLabelValues(label)
}

func (m *Metrics) forget(p int) {
	m.unknown(p)
	m.owned.DeleteLabelValues(strconv.Itoa(p))
}
