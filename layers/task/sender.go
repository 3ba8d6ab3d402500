package task

import (
	"context"
	"time"

	"gochat/layers/internal/contract"
)

// sender brings parcels to one life of a node, in order, with one push in flight. Its goroutine lives while there is
// something to bring; so does the sender itself, unless it is suspect. Task.mu guards it.
type sender struct {
	parcels []*parcel
	running bool
	suspect bool // the node was passed over: try it once until it answers again
}

// parcel is what one handover of a partition has for one node.
type parcel struct {
	deliveries []contract.Delivery
	results    []contract.PushResult // as deliveries, once done is closed, unless err
	err        error
	done       chan struct{}
}

const (
	maxPush   = 500 // deliveries in one push; a single parcel may have more
	pushPause = 100 * time.Millisecond
	// A node that was passed over is given this long to show that it answers again: what is bound for others waits.
	suspectTimeout = 250 * time.Millisecond
)

// send hands the parcel to the node's sender. It does not wait.
func (t *Task) send(node contract.NodeRef, p *parcel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byNode[node]
	if s == nil {
		s = &sender{}
		t.byNode[node] = s
	}
	s.parcels = append(s.parcels, p)
	if !s.running {
		s.running = true
		t.senders.Go(func() { t.runSender(node, s) })
	}
}

// runSender pushes until nothing is left to bring.
func (t *Task) runSender(node contract.NodeRef, s *sender) {
	for {
		batch, deliveries, suspect := t.take(node, s)
		if len(batch) == 0 {
			return
		}
		err := t.push(node, batch, deliveries, suspect)
		t.mu.Lock()
		s.suspect = err != nil && contract.CodeOf(err) != contract.NotFound // a life that has ended is nothing to suspect
		t.mu.Unlock()
		for _, p := range batch {
			p.err = err
			close(p.done)
		}
	}
}

// take is what the next push carries; if nothing is left, the sender has ended.
func (t *Task) take(node contract.NodeRef, s *sender) (batch []*parcel, deliveries int, suspect bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(s.parcels) && (n == 0 || deliveries+len(s.parcels[n].deliveries) <= maxPush) {
		deliveries += len(s.parcels[n].deliveries)
		n++
	}
	batch, s.parcels = s.parcels[:n:n], s.parcels[n:]
	if n == 0 {
		s.parcels, s.running = nil, false
		if !s.suspect {
			delete(t.byNode, node)
		}
	}
	return batch, deliveries, s.suspect
}

// push tries until the node answers, has died, or has been tried for long enough.
func (t *Task) push(node contract.NodeRef, batch []*parcel, n int, once bool) error {
	request := &contract.PushRequest{Deliveries: make([]contract.Delivery, 0, n)}
	for _, p := range batch {
		request.Deliveries = append(request.Deliveries, p.deliveries...)
	}
	t.m.batch.Observe(float64(n))
	timeout := t.cfg.Timeout
	if once {
		timeout = min(timeout, suspectTimeout)
	}
	for start := time.Now(); ; time.Sleep(pushPause) {
		// Not the handler's context: what is in flight is finished though the consumer drains.
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		reply, err := t.connects.Push(ctx, node, request)
		cancel()
		if err == nil && len(reply.Results) != n {
			err = errShort
		}
		if err == nil {
			t.m.pushes.WithLabelValues("ok").Inc()
			results := reply.Results
			for _, p := range batch {
				p.results, results = results[:len(p.deliveries)], results[len(p.deliveries):]
			}
			return nil
		}
		t.m.pushes.WithLabelValues(string(contract.CodeOf(err))).Inc()
		if once || contract.CodeOf(err) != contract.Unavailable || time.Since(start) > t.cfg.PushWithin {
			return err
		}
	}
}
