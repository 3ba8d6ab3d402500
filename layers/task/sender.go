package task

import (
	"context"
	"runtime"
	"time"

	"gochat/layers/internal/contract"
)

// sender brings parcels to one life of a node, in order, with one push in flight. Its goroutine lives while there is
// something to bring; so does the sender itself, unless it is suspect. Task.mu guards it, but for owed.
type sender struct {
	parcels []*parcel
	running bool
	suspect bool          // the node was passed over: try it once until it answers again
	wake    chan struct{} // there are parcels

	// owed are direct messages that the node was passed over with. They go before whatever comes next: the people
	// they are for are connected and know nothing of them, while rooms a node repairs by itself. The goroutine's own.
	owed []delivery
}

// parcel is what one handover of a partition has for one node.
type parcel struct {
	deliveries []contract.Delivery
	of         []int                 // for each, which one it is of those handed over
	addressees []contract.UserID     // for each
	results    []contract.PushResult // as deliveries, once done is closed, unless err
	err        error
	done       chan struct{}
}

const (
	maxPush   = 500 // deliveries in one push; a single parcel may have more
	pushPause = 100 * time.Millisecond
	// A node that was passed over is given this long to show that it answers again: what is bound for others waits.
	suspectTimeout = 250 * time.Millisecond

	maxOwed   = 5000 // of one node; the latest beyond are left to the receivers' resumes
	owedPause = time.Second
)

// send hands the parcel to the node's sender. It does not wait.
func (t *Task) send(node contract.NodeRef, p *parcel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byNode[node]
	if s == nil {
		s = &sender{wake: make(chan struct{}, 1)}
		t.byNode[node] = s
	}
	s.parcels = append(s.parcels, p)
	if !s.running {
		s.running = true
		t.senders.Go(func() { t.runSender(node, s) })
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// runSender pushes until nothing is left to bring.
func (t *Task) runSender(node contract.NodeRef, s *sender) {
	for {
		runtime.Gosched() // others are about to bring theirs
		batch, suspect, ended := t.take(node, s)
		if ended {
			return
		}
		if len(batch) == 0 && !t.pauseOwing(s) {
			t.m.deliveries.WithLabelValues("error").Add(float64(len(s.owed)))
			s.owed = nil
			continue
		}
		err := t.pushOwed(node, s, suspect)
		if err == nil && len(batch) > 0 {
			err = t.push(node, batch, suspect)
		}
		t.mu.Lock()
		s.suspect = err != nil && contract.CodeOf(err) != contract.NotFound // a life that has ended is nothing to suspect
		t.mu.Unlock()
		for _, p := range batch {
			p.err = err
			if contract.CodeOf(err) == contract.Unavailable {
				t.owe(s, p)
			}
			close(p.done)
		}
	}
}

// pauseOwing waits until it is time to try again what is owed. It is false if that time will not come.
func (t *Task) pauseOwing(s *sender) bool {
	select {
	case <-s.wake:
	case <-time.After(owedPause):
	case <-t.stopping:
		return false
	}
	return true
}

// owe keeps what the node was passed over with.
func (t *Task) owe(s *sender, p *parcel) {
	for i := range p.deliveries {
		if d := &p.deliveries[i]; d.Room == 0 && d.Seq > 0 && len(s.owed) < maxOwed {
			s.owed = append(s.owed, delivery{*d, p.addressees[i]})
			p.deliveries[i].Seq = 0 // counted when it is brought after all
		}
	}
}

// take is what the next push carries; if nothing is left, the sender has ended.
func (t *Task) take(node contract.NodeRef, s *sender) (batch []*parcel, suspect, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, deliveries := 0, 0
	for n < len(s.parcels) && (n == 0 || deliveries+len(s.parcels[n].deliveries) <= maxPush) {
		deliveries += len(s.parcels[n].deliveries)
		n++
	}
	batch, s.parcels = s.parcels[:n:n], s.parcels[n:]
	if n == 0 && len(s.owed) == 0 {
		s.parcels, s.running = nil, false
		if !s.suspect {
			delete(t.byNode, node)
		}
		return nil, false, true
	}
	return batch, s.suspect, false
}

// pushOwed brings what the node is owed, a part at a time.
func (t *Task) pushOwed(node contract.NodeRef, s *sender, once bool) error {
	for len(s.owed) > 0 {
		some := s.owed[:min(len(s.owed), maxPush)]
		p := &parcel{}
		for i := range some {
			p.deliveries = append(p.deliveries, some[i].Delivery)
		}
		err := t.push(node, []*parcel{p}, once)
		switch contract.CodeOf(err) {
		case "":
			t.count(p.deliveries, p.results)
			for i := range some {
				t.offline(&some[i], p.results[i].Absent)
			}
		case contract.NotFound: // its people are gone, or somewhere else, and resume
			for i := range s.owed {
				t.offline(&s.owed[i], s.owed[i].Users)
			}
			s.owed = nil
			return err
		case contract.Unavailable:
			return err
		default: // the node lives, and will not take these
			t.m.deliveries.WithLabelValues("error").Add(float64(len(some)))
		}
		s.owed = s.owed[len(some):]
	}
	return nil
}

// push tries until the node answers, has died, or has been tried for long enough.
func (t *Task) push(node contract.NodeRef, batch []*parcel, once bool) error {
	request := &contract.PushRequest{}
	for _, p := range batch {
		request.Deliveries = append(request.Deliveries, p.deliveries...)
	}
	n := len(request.Deliveries)
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
