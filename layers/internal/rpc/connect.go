package rpc

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Connect calls connect nodes, each by its name.
type Connect struct{ *caller }

// Connect calls the connect nodes that peers names.
func (c *Clients) Connect(peers Peers) *Connect { return &Connect{c.caller(serviceConnect, peers)} }

// Push hands deliveries to one node. It is tried once: the caller knows whether the node still lives.
func (c *Connect) Push(ctx context.Context, node Peer, r *contract.PushRequest) (reply *contract.PushReply, err error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if slices.ContainsFunc(r.Deliveries, func(d contract.Delivery) bool { return observability.IsSampled(d.Traceparent) }) {
		traced := &contract.PushRequest{Deliveries: slices.Clone(r.Deliveries)} // the caller may push its own again
		spans := c.startPush(c.service, trace.SpanKindClient, traced.Deliveries, node.Ref.String())
		defer func() { spans.end(reply, err) }()
		ctx, r = spans.within(ctx), traced
	}
	return callUntraced(ctx, c.caller, node, methodPush, r, alone[contract.PushRequest, contract.PushReply](c.caller, methodPush))
}

// CloseSessions has every connect node close the sessions' connections. A node that cannot be reached is passed
// over: it finds ended sessions by its own checks.
func (c *Connect) CloseSessions(ctx context.Context, r *contract.CloseSessionsRequest) (*contract.Empty, error) {
	return broadcast[contract.CloseSessionsRequest](ctx, c.caller, "CloseSessions", r)
}

// LeaveRoom has every connect node take the user's connections out of the room.
func (c *Connect) LeaveRoom(ctx context.Context, r *contract.NodeLeaveRoomRequest) (*contract.Empty, error) {
	return broadcast[contract.NodeLeaveRoomRequest](ctx, c.caller, "LeaveRoom", r)
}

// broadcast asks every node at once and answers when each has answered or failed, which is logged; one of the
// failures is answered.
func broadcast[A any](ctx context.Context, c *caller, method string, arg *A) (*contract.Empty, error) {
	var g errgroup.Group
	for _, peer := range c.peers() {
		g.Go(func() error {
			_, err := callPeer(ctx, c, peer, method, arg, alone[A, contract.Empty](c, method))
			if err != nil {
				c.log.WarnContext(ctx, "node not told", "method", method, "node", peer.Ref.String(), "err", err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return &contract.Empty{}, nil
}
