package layers

import (
	"context"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/rpc"
)

// peers is a view as rpc asks for it.
func peers(view *discovery.View) rpc.Peers {
	return func() []rpc.Peer {
		nodes := view.Nodes()
		list := make([]rpc.Peer, len(nodes))
		for i, n := range nodes {
			list[i] = rpc.Peer{Ref: n.Ref, Addr: n.Addr}
		}
		return list
	}
}

// connectNodes is the view of the connect nodes as logic and task ask for it.
type connectNodes struct {
	view   *discovery.View
	client *rpc.Connect
}

// Alive implements logic.Nodes. While the view has not seen etcd once, every life is held to go on: taking back
// the routes of the living would cut them off.
func (c connectNodes) Alive(ctx context.Context, ref contract.NodeRef) bool {
	if !c.view.Synced() {
		return true
	}
	_, alive := c.view.Lookup(ctx, ref)
	return alive
}

// Changed implements logic.Nodes.
func (c connectNodes) Changed() <-chan struct{} { return c.view.Changed() }

// Push implements task.Connects.
func (c connectNodes) Push(ctx context.Context, ref contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
	node, alive := c.view.Lookup(ctx, ref)
	if !alive {
		return nil, contract.Errorf(contract.NotFound, "node %s is gone", ref)
	}
	return c.client.Push(ctx, rpc.Peer{Ref: node.Ref, Addr: node.Addr}, r)
}
