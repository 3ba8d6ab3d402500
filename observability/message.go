package observability

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Attributes of the spans of messages, beside those of OpenTelemetry's semantic conventions.
const (
	AttrMessageID    = attribute.Key("gochat.message.id") // in decimal, a string: it exceeds what JSON's numbers hold
	AttrConversation = attribute.Key("gochat.conversation")
	AttrSeq          = attribute.Key("gochat.seq")
	AttrNode         = attribute.Key("gochat.node")
	AttrOutcome      = attribute.Key("gochat.outcome")
	AttrAttempt      = attribute.Key("gochat.attempt")
	AttrTransport    = attribute.Key("gochat.transport")

	// Receivers by what became of the delivery: connections, but for had, deferred and absent, which are users or a room.
	AttrRecipients = attribute.Key("gochat.recipients")
	AttrWritten    = attribute.Key("gochat.written")
	AttrQueued     = attribute.Key("gochat.queued")
	AttrSlow       = attribute.Key("gochat.slow")
	AttrGone       = attribute.Key("gochat.gone")
	AttrHad        = attribute.Key("gochat.had")
	AttrDeferred   = attribute.Key("gochat.deferred")
	AttrAbsent     = attribute.Key("gochat.absent")
)

// The stages of a message's way, in order; each ends where the next begins.
const (
	StageCommit   = "commit"   // accepted until stored
	StageQueue    = "queue"    // until task has taken it from the queue
	StageDispatch = "dispatch" // until task pushes it to a node: routes are looked up, pushes gather
	StagePush     = "push"     // until the node has answered
	StageWrite    = "write"    // within the push: until the node has given it to the last socket
)

// NewStage is the histogram of one stage. The clocks of two machines are compared for the stage queue.
func NewStage(metrics prometheus.Registerer, stage string) prometheus.Histogram {
	opts := LatencyOpts("gochat_message_stage_seconds", "How long a message took for one stage of its way.")
	opts.ConstLabels = prometheus.Labels{"stage": stage}
	return promauto.With(metrics).NewHistogram(opts)
}

// LatencyOpts are those of a histogram of seconds, as all of gochat's are: native, and classic for who reads no other.
func LatencyOpts(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// MaxLinks is how many links a span has at most: more tell nobody anything, and each costs.
const MaxLinks = 32

const (
	traceparentLen  = 55
	traceparentName = "traceparent"
)

// IsSampled reports whether a W3C traceparent says that its trace is recorded. It costs next to nothing, so it is asked
// before anything is done for a trace.
func IsSampled(traceparent string) bool {
	if len(traceparent) < traceparentLen {
		return false
	}
	switch traceparent[traceparentLen-1] { // the lowest bit of the flags
	case '1', '3', '5', '7', '9', 'b', 'd', 'f':
		return true
	}
	return false
}

// Remote is ctx in the span that the traceparent names, or ctx if it is none.
func Remote(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparentName: traceparent})
}

// SpanContext is what the traceparent says; not valid if it is none.
func SpanContext(traceparent string) trace.SpanContext {
	return trace.SpanContextFromContext(Remote(context.Background(), traceparent))
}

// Traceparent names the span of ctx, sampled or not; "" if ctx has none.
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparentName]
}

// LinksTo are links to the spans that the traceparents name and that are recorded, but for the one that is except, up to
// MaxLinks.
func LinksTo(traceparents []string, except string) []trace.Link {
	var links []trace.Link
	for _, one := range traceparents {
		if len(links) == MaxLinks {
			break
		}
		if one != except && IsSampled(one) {
			links = append(links, trace.Link{SpanContext: SpanContext(one)})
		}
	}
	return links
}

// Observe has the observer take the value, with the trace as exemplar if it is recorded.
func Observe(o prometheus.Observer, value float64, span trace.SpanContext) {
	if span.IsSampled() {
		if with, ok := o.(prometheus.ExemplarObserver); ok {
			with.ObserveWithExemplar(value, prometheus.Labels{"trace_id": span.TraceID().String()})
			return
		}
	}
	o.Observe(value)
}

// ObserveIn is Observe for whoever has a traceparent.
func ObserveIn(o prometheus.Observer, value float64, traceparent string) {
	if !IsSampled(traceparent) {
		o.Observe(value)
		return
	}
	Observe(o, value, SpanContext(traceparent))
}
