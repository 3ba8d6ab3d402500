package rpc

import (
	"context"
	"errors"
	"sync"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Task calls task nodes, all of them at once.
type Task struct{ *caller }

// Task calls the task nodes that peers names.
func (c *Clients) Task(peers Peers) *Task { return &Task{c.caller(serviceTask, peers)} }

// ServeTask answers contract.Task with t.
func (srv *Server) ServeTask(t contract.Task, tel observability.Telemetry) error {
	s := &service{serviceTask, srv.rpcx, srv.workers, newTelemetry(tel, "server")}
	return errors.Join(handle(s, "Whereabouts", t.Whereabouts))
}

// Answer is what one node has answered, or why it has not.
type Answer[R any] struct {
	Node  contract.NodeRef
	Value *R
	Err   error
}

// Whereabouts asks every task node, and answers when each has answered or failed, in the order of the nodes.
func (t *Task) Whereabouts(ctx context.Context, r *contract.WhereaboutsRequest) []Answer[contract.TaskWhereabouts] {
	return askEach[contract.WhereaboutsRequest, contract.TaskWhereabouts](ctx, t.caller, "Whereabouts", r)
}

// Whereabouts asks every logic node, and answers when each has answered or failed, in the order of the nodes.
func (l *Logic) Whereabouts(ctx context.Context, r *contract.WhereaboutsRequest) []Answer[contract.LogicWhereabouts] {
	return askEach[contract.WhereaboutsRequest, contract.LogicWhereabouts](ctx, l.caller, "Whereabouts", r)
}

// askEach asks every node at once, each within what is left of ctx. It waits for them all.
func askEach[A, R any](ctx context.Context, c *caller, method string, arg *A) []Answer[R] {
	peers := c.peers()
	answers := make([]Answer[R], len(peers))
	var asking sync.WaitGroup
	for i, peer := range peers {
		asking.Go(func() {
			value, err := callPeer(ctx, c, peer, method, arg, alone[A, R](c, method))
			answers[i] = Answer[R]{peer.Ref, value, err}
		})
	}
	asking.Wait()
	return answers
}
