package connect

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	connections [2]prometheus.Gauge // by transport
	turnedAway  prometheus.Counter
	frames      *prometheus.CounterVec
	errors      *prometheus.CounterVec
	closes      *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	queueBytes  prometheus.Gauge
	seconds     prometheus.Histogram
	registered  prometheus.Counter
	replayed    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	vec := func(name, help, label string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	connections := with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gochat_connections", Help: "Open client connections, by transport."}, []string{"transport"})
	m := &metrics{
		turnedAway: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_connections_turned_away_total", Help: "Connections refused since the node was full."}),
		frames:     vec("gochat_frames_in_total", "Client frames read, by op.", "op"),
		errors:     vec("gochat_frames_refused_total", "Client frames answered with an error, by code word.", "code"),
		closes:     vec("gochat_connection_closes_total", "Connections closed by the server, by code word.", "code"),
		deliveries: vec("gochat_connect_deliveries_total", "Frames for connections, by what became of them.", "outcome"),
		queueBytes: with.NewGauge(prometheus.GaugeOpts{
			Name: "gochat_channel_queue_bytes", Help: "Bytes that wait for sockets, over all channels."}),
		seconds: with.NewHistogram(prometheus.HistogramOpts{
			Name: "gochat_message_end_to_end_seconds", Help: "From acceptance to the last socket write of a delivery on this node.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, NativeHistogramBucketFactor: 1.1}),
		registered: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_routes_registered_again_total", Help: "Times this node wrote all of its routes anew."}),
		replayed: with.NewCounter(prometheus.CounterOpts{
			Name: "gochat_messages_replayed_total", Help: "Messages sent again to connections that resumed."}),
	}
	for t := range m.connections {
		m.connections[t] = connections.WithLabelValues(transport(t).String())
	}
	return m
}
