package logic

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// outgoing is what goes to the queue: a stored message with its row of the outbox, or a notice, which has neither.
type outgoing struct {
	row     contract.OutboxPosition
	message contract.MessageID
	item    contract.Item
}

func outgoingOf(d *contract.Delivery, row contract.OutboxPosition) outgoing {
	o := outgoing{row: row, message: d.Message, item: contract.Item{Key: string(d.Conversation), Body: encode(d)}}
	if d.Traceparent != "" {
		o.item.Headers = map[string]string{contract.HeaderTraceparent: d.Traceparent}
	}
	return o
}

func encode(d *contract.Delivery) []byte {
	return d.Append(make([]byte, 0, 64+len(d.Frame)))
}

// entrance is the queue's. Whatever is sampled has a span of its own in its trace, in which task goes on.
type entrance struct {
	queue  Publisher
	tracer trace.Tracer
}

// send is Publisher.Publish.
func (e *entrance) send(ctx context.Context, batch []outgoing) error {
	items := make([]contract.Item, len(batch))
	var spans []trace.Span // as items, nil for those that are not sampled; nil if none is
	for i := range batch {
		items[i] = batch[i].item
		if parent := items[i].Headers[contract.HeaderTraceparent]; observability.IsSampled(parent) {
			if spans == nil {
				spans = make([]trace.Span, len(batch))
			}
			spans[i] = e.begin(parent, &batch[i], &items[i])
		}
	}
	err := e.queue.Publish(ctx, items)
	if spans == nil {
		return err
	}
	var partial *contract.PublishError
	whole := err != nil && !errors.As(err, &partial)
	for i, span := range spans {
		if span == nil {
			continue
		}
		if whole || partial != nil && slices.Contains(partial.Partitions, e.queue.Partition(items[i].Key)) {
			span.SetStatus(codes.Error, "the queue has not taken it")
		}
		span.End()
	}
	return err
}

// begin has the item continue in a span of its own. The one that is published again, should this fail, does not.
func (e *entrance) begin(parent string, o *outgoing, item *contract.Item) trace.Span {
	ctx, span := e.tracer.Start(observability.Remote(context.Background(), parent), "send "+contract.QueueDeliveries,
		trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		is := []attribute.KeyValue{
			attribute.String("messaging.system", e.queue.System()),
			attribute.String("messaging.destination.name", contract.QueueDeliveries),
			attribute.Int("messaging.destination.partition.id", e.queue.Partition(item.Key)),
			attribute.String("messaging.operation.name", "send"),
		}
		if o.message != 0 {
			id := o.message.String()
			is = append(is, attribute.String("messaging.message.id", id), observability.AttrMessageID.String(id))
		}
		span.SetAttributes(is...)
	}
	item.Headers = map[string]string{contract.HeaderTraceparent: observability.Traceparent(ctx)}
	return span
}
