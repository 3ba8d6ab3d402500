package task

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// beginProcess begins the span of an item whose trace is recorded, as a child of the one that sent it, and has the
// delivery go on in it.
func (t *Task) beginProcess(d *delivery, item *contract.Item, taken time.Time) {
	if !observability.IsSampled(d.Traceparent) {
		return
	}
	ctx := observability.Remote(context.Background(), d.Traceparent)
	ctx, d.span = t.tracer.Start(ctx, "process "+contract.QueueDeliveries, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(taken), trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(ctx)}))
	if d.span.IsRecording() {
		is := []attribute.KeyValue{
			attribute.String("messaging.system", t.queue.System()),
			attribute.String("messaging.destination.name", contract.QueueDeliveries),
			attribute.String("messaging.operation.name", "process"),
			attribute.String("messaging.consumer.group.name", contract.LayerTask),
			observability.AttrAttempt.Int(item.Attempt),
			attribute.Float64("gochat.queue.delay.seconds", taken.Sub(d.QueuedAt).Seconds()),
		}
		if d.Message != 0 {
			id := d.Message.String()
			is = append(is, attribute.String("messaging.message.id", id), observability.AttrMessageID.String(id))
		}
		d.span.SetAttributes(is...)
	}
	d.Traceparent = observability.Traceparent(ctx)
}

// endProcess ends the spans when the items are acknowledged, or handed back with an error. What goes to a late node after
// that joins them all the same.
func endProcess(deliveries []delivery, err error) {
	for i := range deliveries {
		span := deliveries[i].span
		if span == nil {
			continue
		}
		if err != nil {
			deliveries[i].is("handed back")
			span.SetStatus(codes.Error, "nothing is known of where it should go")
		}
		span.End()
	}
}

// goesTo notes how many nodes the delivery goes to.
func (d *delivery) goesTo(nodes int) {
	if d.span == nil {
		return
	}
	d.span.SetAttributes(attribute.Int("gochat.nodes", nodes))
	switch {
	case nodes > 0:
		d.is("pushed")
	case d.Room != 0:
		d.is("nobody here")
	}
}

// is notes what has become of the delivery; the last says it.
func (d *delivery) is(outcome string) {
	if d.span != nil {
		d.span.SetAttributes(observability.AttrOutcome.String(outcome))
	}
}
