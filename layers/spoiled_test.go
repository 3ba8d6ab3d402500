package layers

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	"gochat/layers/task"
)

// hung is a task that takes messages from the queue and never pushes them.
const hung = "hung"

// spoiled are what tests put between the parts of a process: hung, and the hops at which the propagation of traces can be cut.
func spoiled() map[string]seams {
	return map[string]seams{
		"":               {},
		hung:             {toConnect: func(c task.Connects) task.Connects { return hungPushes{c} }},
		"caller-logic":   {toLogic: func(l contract.Logic) contract.Logic { return cutCalls{l} }},
		"logic-commit":   {logic: func(l contract.LogicService) contract.LogicService { return cutLogic{l} }},
		"logic-queue":    {queue: func(q queue.Queue) queue.Queue { return cutQueue{q} }},
		"task-connect":   {toConnect: func(c task.Connects) task.Connects { return cutPushes{c} }},
		"connect-bucket": {connect: func(c contract.Connect) contract.Connect { return cutConnect{c} }},
	}
}

type hungPushes struct{ task.Connects }

func (hungPushes) Push(context.Context, contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
	select {} // until the process is killed
}

// outside is ctx outside of any trace.
func outside(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.SpanContext{})
}

type cutCalls struct{ contract.Logic }

func (l cutCalls) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return l.Logic.Send(outside(ctx), r)
}

type cutLogic struct{ contract.LogicService }

func (l cutLogic) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return l.LogicService.Send(outside(ctx), r)
}

type cutQueue struct{ queue.Queue }

func (q cutQueue) Publish(ctx context.Context, items []contract.Item) error {
	items = slices.Clone(items)
	for i := range items {
		items[i].Headers = nil
	}
	return q.Queue.Publish(ctx, items)
}

type cutPushes struct{ task.Connects }

func (c cutPushes) Push(ctx context.Context, node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
	return c.Connects.Push(ctx, node, untracedPush(r))
}

type cutConnect struct{ contract.Connect }

func (c cutConnect) Push(ctx context.Context, r *contract.PushRequest) (*contract.PushReply, error) {
	return c.Connect.Push(ctx, untracedPush(r))
}

func untracedPush(r *contract.PushRequest) *contract.PushRequest {
	r = &contract.PushRequest{Deliveries: slices.Clone(r.Deliveries)}
	for i := range r.Deliveries {
		r.Deliveries[i].Traceparent = ""
	}
	return r
}
