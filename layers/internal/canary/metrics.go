package canary

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gochat/observability"
)

// outcome is what became of one message. Each has exactly one.
type outcome int

const (
	received       outcome = iota // acknowledged, and there within Config.Timeout
	late                          // later
	lost                          // acknowledged, and it never came
	unacknowledged                // no answer
	refused                       // answered with an error
	unsent                        // it could not be sent: there was no connection, or no session
	outcomes
)

func (o outcome) String() string {
	return [...]string{"received", "late", "lost", "unacknowledged", "refused", "unsent"}[o]
}

// metrics are labelled by the transport that a message is sent through; it comes by the other.
type metrics struct {
	messages [transports][outcomes]prometheus.Counter
	seconds  [transports]prometheus.Observer
	last     [transports]prometheus.Gauge
}

// newMetrics has up answer whether messages sent through the transport come through now.
func newMetrics(reg prometheus.Registerer, up func(transport) bool) *metrics {
	with := promauto.With(reg)
	messages := with.NewCounterVec(prometheus.CounterOpts{
		Name: "gochat_canary_messages_total",
		Help: "Messages that this node sent to itself, by the transport that they were sent through, to come by the other, and what became of them.",
	}, []string{"transport", "outcome"})
	seconds := with.NewHistogramVec(observability.LatencyOpts("gochat_canary_seconds",
		"From the sending of a canary's message until it was acknowledged and there, by the transport that it was sent through."), []string{"transport"})
	last := with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gochat_canary_last_received_timestamp_seconds",
		Help: "When a canary's message sent through the transport last came, in Unix time; 0 if none has.",
	}, []string{"transport"})
	m := &metrics{}
	for t := range transports {
		for o := range outcomes {
			m.messages[t][o] = messages.WithLabelValues(t.String(), o.String())
		}
		m.seconds[t], m.last[t] = seconds.WithLabelValues(t.String()), last.WithLabelValues(t.String())
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "gochat_canary_up",
			Help:        "1 while messages that the canary sends through the transport come by the other, else 0.",
			ConstLabels: prometheus.Labels{"transport": t.String()},
		}, func() float64 {
			if up(t) {
				return 1
			}
			return 0
		})
	}
	return m
}
