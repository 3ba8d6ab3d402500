package connect

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// startFrame begins the span of a client's frame, in the trace that it names. A ping that asks for nothing, and a pong,
// have none: they are too many, and say too little.
func (c *channel) startFrame(ctx context.Context, r *wire.Request) (context.Context, trace.Span) {
	if r.Op == wire.OpPong || r.Op == wire.OpPing && r.Have == nil {
		return ctx, noop.Span{}
	}
	ctx, span := c.srv.tracer.Start(observability.Remote(ctx, r.Traceparent), "receive frame", trace.WithSpanKind(trace.SpanKindServer))
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("gochat.op", int(r.Op)), observability.AttrTransport.String(c.transport.String()))
	}
	return ctx, span
}

// noteError notes why something was not done, if it was not. What the client has asked wrongly is no failure of ours.
func noteError(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	code := contract.CodeOf(err)
	span.SetAttributes(attribute.String("error.type", string(code)))
	if code == contract.Internal || code == contract.Unavailable {
		span.SetStatus(codes.Error, string(code))
	}
}

// noteGivenUp is for a repair of which something cannot be had.
func noteGivenUp(span trace.Span) {
	span.SetAttributes(observability.AttrOutcome.String("given up"))
	span.SetStatus(codes.Error, "given up")
}

// traces are the stored messages that a resume or a repair is about, as links of its span.
type traces struct {
	span  trace.Span
	links int
}

func (t *traces) link(traceparent string) {
	if t.links < observability.MaxLinks && observability.IsSampled(traceparent) && t.span.IsRecording() {
		t.links++
		t.span.AddLink(trace.Link{SpanContext: observability.SpanContext(traceparent)})
	}
}

// wrote notes that some of the delivery was written between these times.
func (d *delivery) wrote(began, ended time.Time) {
	from, to := began.UnixNano(), ended.UnixNano()
	for {
		if first := d.first.Load(); first != 0 && first <= from || d.first.CompareAndSwap(first, from) {
			break
		}
	}
	for {
		if last := d.last.Load(); last >= to || d.last.CompareAndSwap(last, to) {
			break
		}
	}
}

// share is one bucket's part in the fan-out of work that goes to the same receivers.
type share struct {
	bucket  int
	began   time.Time
	ended   time.Time
	waited  time.Duration // for the bucket's lock
	members int
}

// note has the deliveries of work that went to the same receivers know when it did, and adds a span to the trace of each
// that has one. counts are of the work.
func (f *share) note(tracer trace.Tracer, all []work, counts [][outcomes]int) {
	for i := range all {
		d := all[i].delivery
		if counts[i][written] > 0 {
			d.wrote(f.began, f.ended)
		}
		if d.trace == nil {
			continue
		}
		_, span := tracer.Start(d.trace, "fan-out bucket", trace.WithTimestamp(f.began))
		if span.IsRecording() {
			n := &counts[i]
			is := make([]attribute.KeyValue, 0, 8)
			is = append(is, observability.AttrMessageID.String(d.Message.String()), attribute.Int("gochat.bucket", f.bucket),
				attribute.Int("gochat.members", f.members), observability.AttrWritten.Int(n[written]))
			if n[queued] > 0 {
				is = append(is, observability.AttrQueued.Int(n[queued]))
			}
			if n[slow]+n[gone] > 0 {
				is = append(is, observability.AttrSlow.Int(n[slow]), observability.AttrGone.Int(n[gone]))
			}
			if f.waited > 0 {
				is = append(is, attribute.Float64("gochat.lock.wait.seconds", f.waited.Seconds()))
			}
			span.SetAttributes(is...)
		}
		span.End(trace.WithTimestamp(f.ended))
	}
}
