package connect

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/contract"
)

const (
	repairsAtOnce = 8                      // each asks logic for one page after another
	repairRetry   = 250 * time.Millisecond // after a page that could not be had, doubling
	repairRetries = 2 * time.Second        // at most
	repairBreath  = 20 * time.Millisecond  // between two pages, for sockets to take the first
	// A message that was pushed is in the database. One that is not there for so many looks is not waited for longer.
	repairLooks = 20

	activeRounds = 20 // a conversation is compared for so many rounds after its last delivery, a room also every so many
)

// repairMissed repairs whatever the sequencer finds missing, until ctx ends.
func (c *Connect) repairMissed(ctx context.Context) {
	var repairs errgroup.Group
	repairs.SetLimit(repairsAtOnce)
	defer func() { _ = repairs.Wait() }() // they have no error
	for {
		select {
		case <-c.sequencer.wake:
		case <-ctx.Done():
			return
		}
		for _, one := range c.sequencer.takeDue() {
			repairs.Go(func() error { c.repair(ctx, one); return nil })
		}
	}
}

// repair fetches what is missing of a conversation and pushes it, in order, until nothing is.
func (c *Connect) repair(ctx context.Context, one hole) {
	ctx, span := c.tracer.Start(ctx, "repair", trace.WithAttributes(attribute.String("gochat.conversation", string(one.conversation))))
	about := &traces{span: span}
	var total page
	defer func() {
		if span.IsRecording() {
			span.SetAttributes(attribute.Int("gochat.messages", total.messages), attribute.Int("gochat.missed", total.missed))
		}
		span.End()
	}()
	looks := 0
	for pause := repairRetry; ; {
		missing, going := c.missing(one)
		if !going {
			break
		}
		last := missing.After
		got, err := c.repairPage(ctx, one, missing, about)
		if total.missed == 0 && got.missed > 0 {
			c.m.repairs.Inc() // else it was only to find out from where on the conversation is due
		}
		total.messages += got.messages
		total.missed += got.missed
		if got.passed > 0 {
			c.tel.Log.ErrorContext(ctx, "missed messages are not in the database, what follows them is", "conversation", string(one.conversation), "after", got.after, "messages", got.passed)
			noteGivenUp(span)
		}
		switch {
		case err != nil:
			c.m.repairFailures.Inc()
			if contract.CodeOf(err) == contract.Internal {
				looks++ // the fault of what is asked for, perhaps
			}
			if !mayPass(err) || looks >= repairLooks {
				c.tel.Log.ErrorContext(ctx, "missed messages cannot be fetched", "conversation", string(one.conversation), "after", last, "err", err)
				noteGivenUp(span)
				c.giveUp(one)
				continue
			}
			c.tel.Log.WarnContext(ctx, "missed messages not fetched, trying again", "conversation", string(one.conversation), "err", err)
		case got.messages == 0 && !got.settled:
			if looks++; looks >= repairLooks {
				c.tel.Log.ErrorContext(ctx, "missed messages are not in the database", "conversation", string(one.conversation), "after", last)
				noteGivenUp(span)
				c.giveUp(one)
				continue
			}
		default:
			looks, pause = 0, repairRetry
			if !got.queued {
				continue
			}
			sleep(ctx, repairBreath)
			continue
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, repairRetries)
	}
}

// mayPass reports whether another try may succeed: what logic refuses today, it refuses tomorrow.
func mayPass(err error) bool {
	switch contract.CodeOf(err) {
	case contract.Unavailable, contract.RateLimited, contract.Internal:
		return true
	}
	return false
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// missing is what to ask logic for, false if nothing is missing or those are not there any more who were to get it.
func (c *Connect) missing(one hole) (contract.DeliveriesRequest, bool) {
	s := c.sequencer
	s.mu.Lock()
	defer s.mu.Unlock()
	h, _ := s.headOf(one.subject)
	if h != one.head || !h.repairing() {
		return contract.DeliveriesRequest{}, false
	}
	r := contract.DeliveriesRequest{Conversation: one.conversation, After: h.last, Limit: contract.MaxPage}
	if h.unknown {
		// What was pushed is due, though it may have been accepted before the user came.
		if r.Since, r.Before = s.users[one.user].since, h.least; r.Before == 0 {
			r.Before = h.want + 1
		}
	}
	return r, true
}

// giveUp goes on after what cannot be had.
func (c *Connect) giveUp(one hole) {
	own := c.connectionsOf(one.user)
	c.sequencer.mu.Lock()
	defer c.sequencer.mu.Unlock()
	h, connections := c.sequencer.headOf(one.subject)
	if h != one.head || !h.repairing() {
		return
	}
	missing := int(h.want - h.last)
	if h.unknown {
		missing = len(h.held) // what else was due is not known
		for _, seq := range slices.Sorted(maps.Keys(h.held)) {
			h.done.add(seq)
		}
		h.startAt(h.want + 1)
	}
	c.passOver(h, h.want, missing, connections, own)
}

// passOver counts so many messages up to the seq as lost to each connection, and goes on after it. own are the connections of a
// direct conversation's user. It is called with the sequencer's mu held.
func (c *Connect) passOver(h *head, upTo int64, missing, connections int, own []contract.ConnID) {
	if missing > 0 {
		c.m.abandoned.Inc()
	}
	copies := missing * connections
	for seq, except := range h.held {
		if seq > upTo {
			continue
		}
		if slices.Contains(own, except) {
			copies-- // it has sent the message
		}
		delete(h.held, seq)
	}
	c.m.deliveries[lost].Add(float64(copies))
	h.last = upTo
}

// connectionsOf are those of the user here.
func (c *Connect) connectionsOf(user contract.UserID) (own []contract.ConnID) {
	for _, ch := range c.bucketOf(user).ofUser(user) {
		own = append(own, ch.id())
	}
	return own
}

// page is what came of one page of a repair.
type page struct {
	messages int   // that went out
	missed   int   // of these, had not been pushed by task
	passed   int   // over, since the database has what follows them, and not them
	after    int64 // the seq after which the first of those is missing
	queued   bool  // a socket has yet to take some
	settled  bool  // nothing was missing, or those have gone who missed it
}

// repairPage pushes one page of what is missing.
func (c *Connect) repairPage(ctx context.Context, one hole, missing contract.DeliveriesRequest, about *traces) (got page, err error) {
	asking, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	reply, err := c.logic.Deliveries(asking, &missing)
	cancel()
	if err != nil {
		return page{}, err
	}
	if one.user != 0 {
		for i := range reply.Deliveries {
			reply.Deliveries[i].Users = []contract.UserID{one.user}
		}
	}
	own := c.connectionsOf(one.user)
	admit := func(p *push) {
		p.repair = true
		h, connections := c.sequencer.headOf(one.subject)
		if h != one.head {
			got.settled = true // its people have gone: if they are back, what is due is another matter
			return
		}
		if h.unknown {
			got.settled = !h.beginWith(p.deliveries)
		}
		before := missing.After
		switch {
		case missing.Since.IsZero() || len(p.deliveries) == 0:
		case h.unknown && missing.Before == h.least: // which was pushed and is due, and is not there any more
			h.startAt(h.least)
			before = h.last
		default:
			before = p.deliveries[0].Seq - 1 // logic has looked where to begin
		}
		for _, d := range p.deliveries {
			if h.unknown || h.last != before {
				break // meanwhile it has become known that it is due from an earlier one on
			}
			// Messages of a conversation are committed in the order of their seq: what is not there before one that is will not come.
			if gap := d.Seq - 1; gap > before {
				n := int(max(0, gap-max(before, h.done.end())))
				if got.passed == 0 {
					got.after = before
				}
				got.passed += n
				c.passOver(h, gap, n, connections, own)
			}
			before = d.Seq
			h.last = d.Seq
			h.cameTo(d.Delivery)
			got.messages++
			if d.Seq <= h.done.end() {
				continue // it came late while this page was asked for, or what followed it did
			}
			if except, pushed := h.held[d.Seq]; pushed {
				d.except = c.excepted(except)
				d.note(deferred)
				delete(h.held, d.Seq)
			} else {
				got.missed++
			}
			about.link(d.Traceparent)
			if one.room != 0 {
				p.toRoom(d)
			} else {
				p.toUser(d, one.user)
			}
		}
	}
	results, err := c.deliver(ctx, reply.Deliveries, admit)
	if err != nil {
		return got, err
	}
	c.m.repaired.Add(float64(got.missed))
	for i := range results {
		if results[i].Deferred > 0 { // what task has not pushed yet it finds absent itself
			c.m.deliveries[gone].Add(float64(len(results[i].Absent)))
		}
	}
	got.queued = slices.ContainsFunc(results, func(r contract.PushResult) bool { return r.Queued > 0 })
	return got, nil
}

// beginWith makes known from where on the conversation is due: from the first of the page, which has whatever was pushed.
// It is false if nothing is due.
func (h *head) beginWith(found []*delivery) bool {
	switch {
	case len(found) > 0 && (h.least == 0 || found[0].Seq <= h.least):
		h.startAt(found[0].Seq)
	case len(found) == 0 && h.least == 0:
		h.startAt(h.want + 1)
		return false
	}
	return true
}

// compareHeads asks logic, every Config.Repair, how far the conversations have come that are served here, so that a
// lost last message is found too.
func (c *Connect) compareHeads(ctx context.Context) {
	tick := time.NewTicker(c.cfg.Repair)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		c.lookForUnheard(ctx, round)
		served := c.sequencer.recent(round%activeRounds == 0)
		for some := range slices.Chunk(slices.Collect(maps.Keys(served)), contract.MaxHeads) {
			asking, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
			reply, err := c.logic.ConversationHeads(asking, &contract.ConversationHeadsRequest{Conversations: some})
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					c.tel.Log.Warn("heads not compared", "err", err)
				}
				break
			}
			for conversation, ahead := range reply.Heads {
				for _, of := range served[conversation] {
					if c.sequencer.compare(of, ahead, time.Now()) {
						c.m.putOff.Inc()
					}
				}
			}
		}
	}
}

// lookForUnheard asks logic in which direct conversations of users here something has happened since they came, and
// compares those: each user's in turn, once in activeRounds, or everybody's when pushes may have missed this node. So a
// conversation of which no push has come is found as well.
func (c *Connect) lookForUnheard(ctx context.Context, round int) {
	renewed := c.registrar.takeRenewed()
	for some := range slices.Chunk(c.sequencer.someUsers(round, renewed), contract.MaxHeads) {
		asking, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		reply, err := c.logic.DirectHeads(asking, &contract.DirectHeadsRequest{Users: some})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				c.tel.Log.Warn("heads of users not compared", "err", err)
			}
			c.registrar.returnRenewed(renewed)
			return
		}
		for _, h := range reply.Heads {
			of := subject{conversation: h.Conversation, user: h.User}
			c.sequencer.note(of)
			if c.sequencer.compare(of, h.Last, time.Now()) {
				c.m.putOff.Inc()
			}
		}
	}
}
