package rpc

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// startSpan begins the span of a call. It is named as the semantic conventions for RPC have it: by the method alone. In a
// trace that is not recorded there is none: the caller's goes on.
func (t *telemetry) startSpan(ctx context.Context, method string, kind trace.SpanKind, more ...attribute.KeyValue) (context.Context, trace.Span) {
	if of := trace.SpanContextFromContext(ctx); of.IsValid() && !of.IsSampled() {
		return ctx, noop.Span{}
	}
	ctx, span := t.tracer.Start(ctx, method, trace.WithSpanKind(kind))
	if span.IsRecording() {
		span.SetAttributes(append(more, attribute.String("rpc.system.name", "rpcx"), attribute.String("rpc.method", method))...)
	}
	return ctx, span
}

// endSpan ends the span of a call with its outcome. What the caller has asked wrongly is no failure of the call's.
func endSpan(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		code := contract.CodeOf(err)
		span.SetAttributes(attribute.String("error.type", string(code)))
		if code == contract.Internal || code == contract.Unavailable {
			span.SetStatus(codes.Error, string(code))
		}
	}
	span.End()
}

// methodPush is the one method whose call belongs to no trace: each delivery that it carries has a span in its own.
const methodPush = "Push"

// pushSpans are those of the sampled ones of the deliveries, each with its place.
type pushSpans []pushSpan

type pushSpan struct {
	at   int
	span trace.Span
}

// startPush begins a span for each sampled delivery, and has the delivery continue in it.
func (t *telemetry) startPush(service string, kind trace.SpanKind, deliveries []contract.Delivery, node string) pushSpans {
	var spans pushSpans
	for i := range deliveries {
		d := &deliveries[i]
		if !observability.IsSampled(d.Traceparent) {
			continue
		}
		more := make([]attribute.KeyValue, 0, 5)
		more = append(more, observability.AttrMessageID.String(d.Message.String()), attribute.Int("gochat.batch.deliveries", len(deliveries)))
		if node != "" {
			more = append(more, observability.AttrNode.String(node))
		}
		ctx, span := t.startSpan(observability.Remote(context.Background(), d.Traceparent), service+"/"+methodPush, kind, more...)
		d.Traceparent = observability.Traceparent(ctx)
		spans = append(spans, pushSpan{i, span})
	}
	return spans
}

// within is ctx in the first of them, for exemplars and logs.
func (spans pushSpans) within(ctx context.Context) context.Context {
	if len(spans) == 0 {
		return ctx
	}
	return trace.ContextWithSpan(ctx, spans[0].span)
}

// end ends the spans with what became of their deliveries.
func (spans pushSpans) end(reply *contract.PushReply, err error) {
	for _, s := range spans {
		if reply != nil && s.at < len(reply.Results) {
			r := &reply.Results[s.at]
			became := []attribute.KeyValue{observability.AttrRecipients.Int(r.Receivers()), observability.AttrWritten.Int(r.Written)}
			rare := func(key attribute.Key, n int) {
				if n > 0 {
					became = append(became, key.Int(n))
				}
			}
			rare(observability.AttrQueued, r.Queued)
			rare(observability.AttrSlow, r.Slow)
			rare(observability.AttrGone, r.Gone)
			rare(observability.AttrHad, r.Had)
			rare(observability.AttrDeferred, r.Deferred)
			rare(observability.AttrAbsent, len(r.Absent))
			s.span.SetAttributes(became...)
		}
		endSpan(s.span, err)
	}
}
