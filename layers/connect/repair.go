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
		for _, of := range c.sequencer.takeDue() {
			repairs.Go(func() error { c.repair(ctx, of); return nil })
		}
	}
}

// repair fetches what is missing of a conversation and pushes it, in order, until nothing is.
func (c *Connect) repair(ctx context.Context, of subject) {
	ctx, span := c.tracer.Start(ctx, "repair", trace.WithAttributes(attribute.String("gochat.conversation", string(of.conversation))))
	defer span.End()
	c.m.repairs.Inc()
	total, looks := 0, 0
	for pause := repairRetry; ; {
		last, going := c.missingAfter(of)
		if !going {
			break
		}
		n, queued, err := c.repairPage(ctx, of, last)
		total += n
		switch {
		case err != nil:
			c.m.repairFailures.Inc()
			if !mayPass(err) {
				c.tel.Log.ErrorContext(ctx, "missed messages cannot be fetched", "conversation", string(of.conversation), "after", last, "err", err)
				c.giveUp(of)
				continue
			}
			c.tel.Log.WarnContext(ctx, "missed messages not fetched, trying again", "conversation", string(of.conversation), "err", err)
		case n == 0:
			if looks++; looks >= repairLooks {
				c.tel.Log.ErrorContext(ctx, "missed messages are not in the database", "conversation", string(of.conversation), "after", last)
				c.giveUp(of)
				continue
			}
		default:
			looks, pause = 0, repairRetry
			if !queued {
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
	span.SetAttributes(attribute.Int("gochat.messages", total))
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

// missingAfter is after which seq something is missing, false if nothing is, or nobody is there to get it.
func (c *Connect) missingAfter(of subject) (int64, bool) {
	c.sequencer.mu.Lock()
	defer c.sequencer.mu.Unlock()
	h, _ := c.sequencer.headOf(of)
	if h == nil || !h.repairing() {
		return 0, false
	}
	return h.last, true
}

// giveUp goes on after what cannot be had.
func (c *Connect) giveUp(of subject) {
	c.sequencer.mu.Lock()
	defer c.sequencer.mu.Unlock()
	h, connections := c.sequencer.headOf(of)
	if h == nil || !h.repairing() {
		return
	}
	c.m.abandoned.Inc()
	c.m.deliveries[lost].Add(float64(h.want-h.last) * float64(connections))
	h.last, h.held = h.want, nil
}

// repairPage pushes one page of what follows last, and answers how many messages it had and whether a socket has yet
// to take some.
func (c *Connect) repairPage(ctx context.Context, of subject, last int64) (n int, queuedSome bool, err error) {
	asking, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	reply, err := c.logic.Deliveries(asking, &contract.DeliveriesRequest{Conversation: of.conversation, After: last, Limit: contract.MaxPage})
	cancel()
	if err != nil {
		return 0, false, err
	}
	if of.user != 0 {
		for i := range reply.Deliveries {
			reply.Deliveries[i].Users = []contract.UserID{of.user}
		}
	}
	admit := func(p *push) {
		h, _ := c.sequencer.headOf(of)
		for _, d := range p.deliveries {
			if h == nil || d.Seq != h.last+1 {
				break // its people have gone and come back meanwhile: what is due then is another matter
			}
			h.last = d.Seq
			delete(h.held, d.Seq)
			n++
			if of.room != 0 {
				p.toRoom(d)
			} else {
				p.toUser(d, of.user)
			}
		}
	}
	results, err := c.deliver(ctx, reply.Deliveries, admit)
	if err != nil {
		return n, false, err
	}
	c.m.repaired.Add(float64(n))
	for i := range results {
		c.m.deliveries[gone].Add(float64(len(results[i].Absent)))
	}
	return n, slices.ContainsFunc(results, func(r contract.PushResult) bool { return r.Queued > 0 }), nil
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
