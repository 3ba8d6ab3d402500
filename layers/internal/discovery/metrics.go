package discovery

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are labelled by layer, and by the fixed names of what is owned.
type metrics struct {
	lives   prometheus.Counter
	number  prometheus.Gauge
	renewed *prometheus.CounterVec
	resyncs *prometheus.CounterVec
	nodes   *prometheus.GaugeVec
	owned   *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	m := &metrics{
		lives: f.NewCounter(prometheus.CounterOpts{
			Name: "gochat_discovery_lives_total",
			Help: "Leases this process has lived under. More than one: a lease was lost.",
		}),
		number: f.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_discovery_node_number",
			Help: "The node number this process holds; -1 while it holds none.",
		}),
		renewed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_discovery_lease_renewals_total",
			Help: "Attempts to renew the lease, by outcome: ok, error, lost.",
		}, []string{"outcome"}),
		resyncs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_discovery_resyncs_total",
			Help: "Times a picture was read anew from etcd: once at the start, then after each loss of the watch.",
		}, []string{"picture"}),
		nodes: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_discovery_nodes",
			Help: "Nodes in this process's view of a layer.",
		}, []string{"of"}),
		owned: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_discovery_owned",
			Help: "Partitions, or exclusive jobs, that this process owns and runs at this moment.",
		}, []string{"name"}),
	}
	for _, outcome := range []string{"ok", "error", "lost"} {
		m.renewed.WithLabelValues(outcome) // a series from the start, so that the first is an increase
	}
	return m
}
