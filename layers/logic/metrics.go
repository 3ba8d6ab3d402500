package logic

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

type metrics struct {
	accepted      prometheus.Counter
	duplicates    prometheus.Counter
	refused       *prometheus.CounterVec
	published     prometheus.Counter
	left          prometheus.Counter
	swept         prometheus.Counter
	waiting       *prometheus.GaugeVec // without labels: a series only while it is known
	oldest        *prometheus.GaugeVec
	batch         prometheus.Histogram
	commitSeconds prometheus.Histogram
	stage         prometheus.Histogram
	announcements prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		accepted:   counter("gochat_messages_accepted_total", "Messages stored and acknowledged."),
		duplicates: counter("gochat_messages_duplicate_total", "Sends answered with the receipt of an earlier one with the same clientId."),
		refused: with.NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_messages_refused_total", Help: "Sends that were not accepted, by code word."}, []string{"code"}),
		published: counter("gochat_messages_published_total", "Messages handed to the queue; one that is published again counts again."),
		left:      counter("gochat_outbox_left_total", "Messages left in the outbox since the queue did not take them when they were committed."),
		swept:     counter("gochat_outbox_swept_total", "Messages published from the outbox."),
		waiting: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_outbox_messages", Help: "Messages in the outbox, reported by the node that sweeps it while it knows."}, nil),
		oldest: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gochat_outbox_oldest_age_seconds", Help: "Age of the oldest message in the outbox, reported by the node that sweeps it while it knows; 0 if there is none."}, nil),
		batch: with.NewHistogram(prometheus.HistogramOpts{
			Name: "gochat_commit_batch_messages", Help: "Messages in one commit.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}}),
		commitSeconds: with.NewHistogram(observability.LatencyOpts("gochat_commit_seconds", "Duration of one commit.")),
		stage:         observability.NewStage(reg, observability.StageCommit),
		announcements: counter("gochat_presence_announcements_total", "Frames that told a room who is online."),
	}
	for _, code := range contract.Codes() { // series from the start, so that the first is an increase
		m.refused.WithLabelValues(string(code))
	}
	return m
}
