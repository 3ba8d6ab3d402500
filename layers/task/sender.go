package task

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// sender brings parcels to one life of a node, in order, with one push in flight. It and its goroutine live while there
// is something to bring, or the node is suspect. Task.mu guards it, but for owed.
type sender struct {
	parcels     []*parcel
	outstanding int           // deliveries in parcels and in the push in flight
	late        int           // parcels among these that nobody waits for any more
	suspect     bool          // the node was passed over: try it once until it answers again, or has died
	wake        chan struct{} // there are parcels
	next        time.Time     // no push begins before; the goroutine's own

	// owed are direct messages that the node was passed over with. They go before whatever comes next: the people
	// they are for are connected and know nothing of them, while rooms a node repairs by itself. The goroutine's own.
	owed []delivery
}

// parcel is what one handover of a partition has for one node.
type parcel struct {
	taken      time.Time // from the queue
	deliveries []contract.Delivery
	of         []int                 // for each, which one it is of those handed over
	addressees []contract.UserID     // for each
	spans      []*processing         // for each
	results    []contract.PushResult // as deliveries, once done is closed, unless err
	err        error
	done       chan struct{}

	late, finished bool // Task.mu guards them: nobody waits for it; done is closed, or about to be
}

const (
	maxPush   = 500 // deliveries in one push; a single parcel may have more
	pushPause = 100 * time.Millisecond
	// A node that was passed over is given this long to show that it answers again: what is bound for others waits.
	suspectTimeout = 250 * time.Millisecond

	suspectPause = time.Second // between two tries for which nothing new came

	maxOwed = 5000 // of one node; the latest beyond are left to the receivers' resumes

	// A node that answers later is waited for no longer: it gets what is bound for it when it will, in order, up to maxLate
	// deliveries, and the others get what comes next.
	overdue = 250 * time.Millisecond
	maxLate = 5000

	// Several messages for one connection are written by one call, which costs about as much as for one message. So the
	// next push to a node begins so much later than the last one, for each connection that it has written to.
	gatherEach = 20 * time.Microsecond
	gatherMost = 24 * time.Millisecond
)

// send hands the parcel to the node's sender. It does not wait.
func (t *Task) send(node contract.NodeRef, p *parcel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byNode[node]
	if s == nil {
		s = &sender{wake: make(chan struct{}, 1)}
		t.byNode[node] = s
		t.senders.Go(func() { t.runSender(node, s) })
	}
	s.parcels = append(s.parcels, p)
	s.outstanding += len(p.deliveries)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait waits for the parcels, but not for those of nodes that are late, which it answers: late are who has not answered
// within overdue, from then on until they have answered all that is bound for them.
func (t *Task) wait(ctx context.Context, parcels map[contract.NodeRef]*parcel) (late map[contract.NodeRef]*parcel, err error) {
	patience, cancel := context.WithTimeout(ctx, overdue)
	defer cancel()
	late = make(map[contract.NodeRef]*parcel)
	for node, p := range parcels {
		if t.leave(node, p, false) {
			late[node] = p
			continue
		}
		select {
		case <-p.done:
			continue
		case <-patience.Done():
		}
		if err := ctx.Err(); err != nil {
			return late, fmt.Errorf("wait for %s: %w", node, err)
		}
		if t.leave(node, p, true) {
			late[node] = p
			continue
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return late, fmt.Errorf("wait for %s: %w", node, ctx.Err())
		}
	}
	return late, nil
}

// leave reports whether the parcel, which is not done, is left to its sender: that of a node that is late, or becomes it now,
// unless too much waits for that already.
func (t *Task) leave(node contract.NodeRef, p *parcel, now bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byNode[node]
	if p.finished || s.outstanding > maxLate || !now && s.late == 0 && !s.suspect {
		return false
	}
	p.late = true
	s.late++
	return true
}

// runSender pushes until nothing is left to bring.
func (t *Task) runSender(node contract.NodeRef, s *sender) {
	for {
		time.Sleep(time.Until(s.next))
		runtime.Gosched() // others are about to bring theirs
		batch, suspect, ended := t.take(node, s)
		if ended {
			return
		}
		if len(batch) == 0 {
			again, stopping := t.pause(s)
			if stopping {
				t.abandon(s)
			}
			if !again {
				continue
			}
		}
		asks := suspect && len(batch) == 0 && len(s.owed) == 0
		began := time.Now()
		err := t.pushOwed(node, s, suspect)
		if err == nil && (len(batch) > 0 || asks) {
			err = t.push(node, batch, suspect) // with nothing in it, it asks whether the node answers again
		}
		t.mu.Lock()
		s.suspect = err != nil && contract.CodeOf(err) != contract.NotFound // a life that has ended is nothing to suspect
		for _, p := range batch {
			s.outstanding -= len(p.deliveries)
			p.finished = true
			if p.late {
				s.late--
			}
		}
		t.mu.Unlock()
		s.next = began.Add(gatherTime(batch))
		for _, p := range batch {
			p.err = err
			t.noteFailed(node, p.deliveries, err) // also of what was never pushed, since what is owed could not be
			if contract.CodeOf(err) == contract.Unavailable {
				t.owe(node, s, p)
			}
			close(p.done)
		}
	}
}

// gatherTime is how long after the push of the batch the next one gathers.
func gatherTime(batch []*parcel) time.Duration {
	writes := 0
	for _, p := range batch {
		for i := range p.results {
			writes += p.results[i].Written
		}
	}
	return min(time.Duration(writes)*gatherEach, gatherMost)
}

// pause waits until it is time to try the node again, unless there are parcels before, or that time will not come.
func (t *Task) pause(s *sender) (again, stopping bool) {
	select {
	case <-s.wake:
		return false, false
	case <-time.After(suspectPause):
		return true, false
	case <-t.stopping:
		return false, true
	}
}

// abandon ends the wait for a node.
func (t *Task) abandon(s *sender) {
	var e ends
	for i := range s.owed {
		e.noteFailed(&s.owed[i].Delivery, s.owed[i].addressee)
	}
	t.end(e)
	t.m.pending.Sub(float64(len(s.owed)))
	s.owed = nil
	t.mu.Lock()
	s.suspect = false
	t.mu.Unlock()
}

// owe keeps what the node was passed over with.
func (t *Task) owe(node contract.NodeRef, s *sender, p *parcel) {
	for i := range p.deliveries {
		if d := &p.deliveries[i]; d.Room == 0 && d.Seq > 0 && len(s.owed) < maxOwed {
			t.m.pending.Inc()
			s.owed = append(s.owed, delivery{Delivery: *d, addressee: p.addressees[i], taken: p.taken})
			t.records.Kept(node, d.Message)
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
	if n == 0 && len(s.owed) == 0 && !s.suspect {
		delete(t.byNode, node)
		return nil, false, true
	}
	return batch, s.suspect, false
}

// pushOwed brings what the node is owed, a part at a time.
func (t *Task) pushOwed(node contract.NodeRef, s *sender, once bool) error {
	for len(s.owed) > 0 {
		some := s.owed[:min(len(s.owed), maxPush)]
		p := &parcel{taken: some[0].taken}
		for i := range some {
			p.deliveries = append(p.deliveries, some[i].Delivery)
		}
		err := t.push(node, []*parcel{p}, once)
		t.noteFailed(node, p.deliveries, err)
		switch contract.CodeOf(err) {
		case "":
			t.count(p.deliveries, p.results)
			t.follow(some, func(i int) []contract.UserID { return p.results[i].Absent })
		case contract.NotFound:
			t.noteOwedFailed(node, s.owed[len(some):], err)
			t.follow(s.owed, func(i int) []contract.UserID { return s.owed[i].Users })
			t.m.pending.Sub(float64(len(s.owed)))
			s.owed = nil
			return err
		case contract.Unavailable:
			return err
		default: // the node lives, and will not take these
			var e ends
			for i := range some {
				e.noteFailed(&some[i].Delivery, some[i].addressee)
			}
			t.end(e)
		}
		t.m.pending.Sub(float64(len(some)))
		s.owed = s.owed[len(some):]
	}
	return nil
}

// follow looks once again for the users of owed messages whom the node has no more. It does not wait, since they may
// be under way to this very node.
func (t *Task) follow(owed []delivery, absent func(i int) []contract.UserID) {
	var moved []delivery
	for i := range owed {
		d := owed[i]
		if d.Users, d.again = absent(i), true; len(d.Users) > 0 {
			moved = append(moved, d)
		}
	}
	if len(moved) == 0 {
		return
	}
	t.m.pending.Add(messages(moved))
	t.senders.Go(func() {
		defer t.m.pending.Sub(messages(moved))
		var e ends
		t.bringMoved(moved, &e)
		t.end(e)
	})
}

// bringMoved is bringAgain for what nobody waits for any more.
func (t *Task) bringMoved(moved []delivery, e *ends) {
	// No handler's context: these were handed over long ago. Senders end every parcel in time.
	if err := t.bringAgain(context.Background(), moved, e); err != nil {
		t.tel.Log.Warn("receivers of messages that a node has no more not found", "messages", len(moved), "err", err)
		for i := range moved {
			e.noteFailed(&moved[i].Delivery, moved[i].addressee)
		}
	}
}

// push tries until the node answers, has died, or has been tried for long enough.
func (t *Task) push(node contract.NodeRef, batch []*parcel, once bool) error {
	request := &contract.PushRequest{}
	for _, p := range batch {
		request.Deliveries = append(request.Deliveries, p.deliveries...)
	}
	n := len(request.Deliveries)
	if n > 0 {
		t.m.batch.Observe(float64(n))
	}
	t.records.Pushing(node, request.Deliveries)
	timeout := t.cfg.Timeout
	if once {
		timeout = min(timeout, suspectTimeout)
	}
	for start := time.Now(); ; time.Sleep(pushPause) {
		// Not the handler's context: what is in flight is finished though the consumer drains.
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		began := time.Now()
		reply, err := t.connects.Push(ctx, node, request)
		cancel()
		if err == nil && len(reply.Results) != n {
			err = errShort
		}
		if err == nil {
			t.m.pushes.WithLabelValues("ok").Inc()
			t.observe(batch, began, time.Now())
			t.records.Answered(node, request.Deliveries, reply.Results, "")
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

// observe has the stages of the messages of a push that went well.
func (t *Task) observe(batch []*parcel, began, answered time.Time) {
	for _, p := range batch {
		for i := range p.deliveries {
			if d := &p.deliveries[i]; d.Seq > 0 && !p.taken.IsZero() {
				observability.ObserveIn(t.m.dispatchStage, began.Sub(p.taken).Seconds(), d.Traceparent)
				observability.ObserveIn(t.m.pushStage, answered.Sub(began).Seconds(), d.Traceparent)
			}
		}
	}
}
