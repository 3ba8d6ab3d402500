package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"gochat/layers/internal/contract"
)

// methodSends carries what several callers send to one node: a call costs much the same for one message as for many.
// Each message keeps its own deadline and trace; what becomes of one says nothing of the others.
const methodSends = "Sends"

const (
	sendsFlying = 4   // calls on their way to one node at once; what is sent meanwhile gathers for the next
	maxSends    = 200 // messages in one call
)

// SendsRequest is the argument of methodSends.
type SendsRequest struct{ Items []SendItem }

// SendItem is one message.
type SendItem struct {
	Request      contract.SendRequest
	Trace        map[string]string // W3C trace context
	Milliseconds int64             // until the caller's deadline
}

// SendsReply has an answer for each, in order.
type SendsReply struct{ Replies []Reply[contract.Receipt] }

// sends gathers messages for one life of a logic node.
type sends struct {
	mu      sync.Mutex
	waiting []*sending
	flying  int
}

// sending is a message whose caller waits.
type sending struct {
	item     SendItem
	deadline time.Time
	reply    *Reply[contract.Receipt] // once done is closed, unless err
	err      error
	done     chan struct{}
}

// exchangeSend is exchange for a message: it goes at once, or with others when one of those on their way is back.
func exchangeSend(ctx context.Context, c *caller, peer Peer, _ string, arg *contract.SendRequest) (*Reply[contract.Receipt], error) {
	conn, err := c.conn(peer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	deadline, _ := ctx.Deadline() // callPeer has set one
	s := &sending{
		item:     SendItem{Request: *arg, Trace: make(map[string]string, 2), Milliseconds: max(time.Until(deadline).Milliseconds(), 1)},
		deadline: deadline, done: make(chan struct{}),
	}
	c.propagator.Inject(ctx, propagation.MapCarrier(s.item.Trace))
	conn.sends.mu.Lock()
	conn.sends.waiting = append(conn.sends.waiting, s)
	fly := conn.sends.flying < sendsFlying
	if fly {
		conn.sends.flying++
	}
	conn.sends.mu.Unlock()
	if fly && !c.fly(peer, &conn.sends) {
		return nil, fmt.Errorf("%w: %w", errNotSent, errClosed)
	}
	select {
	case <-s.done:
		return s.reply, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly has what has gathered sent until nothing has. It is false if the caller is closed.
func (c *caller) fly(peer Peer, of *sends) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.goroutines.Go(func() {
		for {
			of.mu.Lock()
			n := min(len(of.waiting), maxSends)
			batch := of.waiting[:n:n]
			of.waiting = of.waiting[n:]
			if n == 0 {
				of.waiting = nil
				of.flying--
			}
			of.mu.Unlock()
			if n == 0 {
				return
			}
			c.sendBatch(peer, batch)
		}
	})
	return true
}

func (c *caller) sendBatch(peer Peer, batch []*sending) {
	request, latest := &SendsRequest{Items: make([]SendItem, len(batch))}, batch[0].deadline
	for i, s := range batch {
		request.Items[i] = s.item
		if s.deadline.After(latest) {
			latest = s.deadline
		}
	}
	// Not one of the callers' contexts: each of them may give up without the others.
	ctx, cancel := context.WithDeadline(context.Background(), latest)
	defer cancel()
	reply, err := exchange[SendsRequest, SendsReply](ctx, c, peer, methodSends, request)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if err == nil && (reply.Value == nil || len(reply.Value.Replies) != len(batch)) {
		err = errBroken
	}
	for i, s := range batch {
		if s.err = err; err == nil {
			s.reply = &reply.Value.Replies[i]
		}
		close(s.done)
	}
}

// sends answers methodSends with send, all messages of a call at once.
func (s *service) sends(send func(context.Context, *contract.SendRequest) (*contract.Receipt, error)) any {
	return func(ctx context.Context, r *SendsRequest, reply *Reply[SendsReply]) error {
		replies := make([]Reply[contract.Receipt], len(r.Items))
		one := func(i int) {
			item := &r.Items[i]
			ctx := s.propagator.Extract(ctx, propagation.MapCarrier(item.Trace))
			ctx, cancel := context.WithTimeout(ctx, time.Duration(item.Milliseconds)*time.Millisecond)
			defer cancel()
			replies[i].Value, replies[i].Err = answer(ctx, s, "Send", &item.Request, send)
		}
		var all sync.WaitGroup
		for i := range r.Items[min(1, len(r.Items)):] {
			all.Go(func() { one(i + 1) })
		}
		if len(r.Items) > 0 {
			one(0)
		}
		all.Wait()
		reply.Value = &SendsReply{replies}
		return nil
	}
}
