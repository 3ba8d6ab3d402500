package task

import (
	"context"
	"sync"
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
	ctx, span := t.tracer.Start(ctx, "process "+contract.QueueDeliveries, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(taken), trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(ctx)}))
	if span.IsRecording() {
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
		span.SetAttributes(is...)
	}
	d.span = &processing{Span: span}
	d.Traceparent = observability.Traceparent(ctx)
}

// processing is the span of an item until it is done, and what has become of it so far. Nil is one of no trace.
type processing struct {
	trace.Span

	mu      sync.Mutex // late nodes are settled by others
	outcome outcome
}

// outcome is what has become of an item, the graver the higher.
type outcome int

const (
	pushed   outcome = iota + 1
	nobody           // the room has no member anywhere
	lateNode         // a node has not answered yet; what it will answer shows in its push
	offline          // whom it is addressed to has no connection
	failed           // given up, not knowing
	again            // nothing is known of where it should go: it is handed over again
)

func (o outcome) String() string {
	return [...]string{"", "pushed", "nobody", "late", "offline", "failed", "again"}[o]
}

// is notes what has become of the item, unless something graver has.
func (p *processing) is(o outcome) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outcome = max(p.outcome, o)
}

// goesTo notes how many nodes the item goes to.
func (p *processing) goesTo(nodes int, room bool) {
	if p == nil {
		return
	}
	p.SetAttributes(attribute.Int("gochat.nodes", nodes))
	switch {
	case nodes > 0:
		p.is(pushed)
	case room:
		p.is(nobody)
	}
}

// endProcess ends the spans when the items are acknowledged, or handed back with an error. What goes to a late node after
// that joins them all the same.
func endProcess(deliveries []delivery, err error) {
	for i := range deliveries {
		p := deliveries[i].span
		if p == nil {
			continue
		}
		if err != nil {
			p.is(again)
		}
		p.mu.Lock()
		p.SetAttributes(observability.AttrOutcome.String(p.outcome.String()))
		if p.outcome >= failed {
			p.SetStatus(codes.Error, p.outcome.String())
		}
		p.mu.Unlock()
		p.End()
	}
}
