package observability

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
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

// MaxLinks is how many stored traces the span of a resume or of a repair is linked to at most.
const MaxLinks = 32

const (
	traceparentLen = 55
	knownFlags     = 3 // sampled and random; of version 0 OpenTelemetry's propagator takes no others
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
	if span := SpanContext(traceparent); span.IsValid() {
		return trace.ContextWithRemoteSpanContext(ctx, span)
	}
	return ctx
}

// SpanContext is what the traceparent says, but for a tracestate; not valid if it is none. What a version that is not known
// yet has besides is left out (W3C Trace Context, 4.3).
func SpanContext(traceparent string) trace.SpanContext {
	if len(traceparent) < traceparentLen || traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' {
		return trace.SpanContext{}
	}
	var version, flags [1]byte
	if len(traceparent) > traceparentLen && (traceparent[:2] == "00" || traceparent[traceparentLen] != '-') {
		return trace.SpanContext{}
	}
	traceID, err := trace.TraceIDFromHex(traceparent[3:35])
	if err != nil {
		return trace.SpanContext{}
	}
	spanID, err := trace.SpanIDFromHex(traceparent[36:52])
	if err != nil || !lowerHex(traceparent[:2], &version) || version[0] == 0xff || !lowerHex(traceparent[53:traceparentLen], &flags) ||
		version[0] == 0 && flags[0] > knownFlags {
		return trace.SpanContext{}
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]) & knownFlags, Remote: true})
}

// lowerHex reads two lower-case hexadecimal digits.
func lowerHex(digits string, into *[1]byte) bool {
	_, err := hex.Decode(into[:], []byte(digits))
	return err == nil && digits == strings.ToLower(digits)
}

// Traceparent names the span of ctx, sampled or not; "" if ctx has none.
func Traceparent(ctx context.Context) string {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return ""
	}
	traceID, spanID := span.TraceID(), span.SpanID()
	b := make([]byte, 0, traceparentLen)
	b = hex.AppendEncode(append(b, "00-"...), traceID[:])
	b = hex.AppendEncode(append(b, '-'), spanID[:])
	return string(append(b, '-', '0', '0'+byte(span.TraceFlags()&knownFlags)))
}

type followKey struct{}

// Follow has a root that begins in ctx be recorded if the span of is, which is not its parent.
func Follow(ctx context.Context, of trace.SpanContext) context.Context {
	if !of.IsSampled() {
		return ctx
	}
	return context.WithValue(ctx, followKey{}, true)
}

// following is the sampler that does as Follow says, and else as another.
type following struct{ sdktrace.Sampler }

func (s following) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.ParentContext.Value(followKey{}) != nil {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return s.Sampler.ShouldSample(p)
}

// Observe has the observer take the value, with the trace as exemplar if it is recorded.
func Observe(o prometheus.Observer, value float64, span trace.SpanContext) {
	if span.IsSampled() {
		if with, ok := o.(prometheus.ExemplarObserver); ok {
			with.ObserveWithExemplar(value, prometheus.Labels{exemplarTrace: span.TraceID().String()})
			return
		}
	}
	o.Observe(value)
}

// exemplarTrace is the label of an exemplar that names its trace.
const exemplarTrace = "trace_id"

// ObserveIn is Observe for whoever has a traceparent, which must be one that Traceparent has made: it is not looked at again.
func ObserveIn(o prometheus.Observer, value float64, traceparent string) {
	if IsSampled(traceparent) {
		if with, ok := o.(prometheus.ExemplarObserver); ok {
			with.ObserveWithExemplar(value, prometheus.Labels{exemplarTrace: traceparent[3:35]})
			return
		}
	}
	o.Observe(value)
}
