package rpc

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// startSpan begins the span of a call. It is named as the semantic conventions for RPC have it: by the method alone.
func (t *telemetry) startSpan(ctx context.Context, method string, kind trace.SpanKind) (context.Context, trace.Span) {
	ctx, span := t.tracer.Start(ctx, method, trace.WithSpanKind(kind))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("rpc.system.name", "rpcx"), attribute.String("rpc.method", method))
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
		ctx, span := t.startSpan(observability.Remote(context.Background(), d.Traceparent), service+"/"+methodPush, kind)
		if span.IsRecording() {
			span.SetAttributes(observability.AttrMessageID.String(d.Message.String()), attribute.Int("gochat.batch.deliveries", len(deliveries)))
			if node != "" {
				span.SetAttributes(observability.AttrNode.String(node))
			}
		}
		d.Traceparent = observability.Traceparent(ctx)
		spans = append(spans, pushSpan{i, span})
	}
	return spans
}

// end ends the spans with what became of their deliveries.
func (spans pushSpans) end(reply *contract.PushReply, err error) {
	for _, s := range spans {
		if reply != nil && s.at < len(reply.Results) {
			r := &reply.Results[s.at]
			s.span.SetAttributes(
				observability.AttrRecipients.Int(r.Receivers()),
				observability.AttrWritten.Int(r.Written), observability.AttrQueued.Int(r.Queued))
			for _, rare := range []attribute.KeyValue{
				observability.AttrSlow.Int(r.Slow), observability.AttrGone.Int(r.Gone), observability.AttrHad.Int(r.Had),
				observability.AttrDeferred.Int(r.Deferred), observability.AttrAbsent.Int(len(r.Absent)),
			} {
				if rare.Value.AsInt64() > 0 {
					s.span.SetAttributes(rare)
				}
			}
		}
		endSpan(s.span, err)
	}
}
