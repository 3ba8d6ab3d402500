package connect

import (
	"context"
	"maps"
	"slices"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// pingSlots is over how many moments the pings of one interval are spread.
const pingSlots = 16

// touch notes that the peer lives.
func (c *channel) touch() { c.lastRead.Store(int64(time.Since(c.srv.start) / time.Second)) }

// notAuthenticated ends a connection that has not authenticated in time.
func (c *Connect) notAuthenticated(number uint64, _ int64) {
	ch := c.numbered(number)
	switch {
	case ch == nil || ch.authenticated.Load():
	case ch.asked.Load():
		ch.end(contract.Unavailable, "authentication is not possible now") // not the client's fault: it may come again
	default:
		ch.end(contract.Unauthenticated, "not authenticated in time")
	}
}

// notFinished ends a connection of which the message that began then is not whole yet: half of one holds memory.
func (c *Connect) notFinished(number uint64, began int64) {
	if ch := c.numbered(number); ch != nil && ch.begunAt.Load() == began {
		ch.end(contract.BadRequest, "the rest of the message did not come in time")
	}
}

// notGone shuts a connection that was ended and whose peer has not closed its side.
func (c *Connect) notGone(number uint64, began int64) {
	if ch := c.numbered(number); ch != nil && ch.endingAt.Load() == began {
		if !ch.cut.Load() {
			c.m.forced.Inc()
		}
		ch.shut()
	}
}

// keepAlive pings every connection once in Config.Ping and ends websockets that have not been heard of when two pings had
// time to be answered. The seed's tcp clients do not answer: of those the kernel's keep-alive finds the dead.
func (c *Connect) keepAlive(ctx context.Context) {
	tick := time.NewTicker(c.cfg.Ping / pingSlots)
	defer tick.Stop()
	control := wire.AppendControl(nil, wire.OpcodePing, nil)
	ping := frame{webSocket: control, tcp: tcp.frame(wire.AppendPing(nil)), deflated: control}
	for slot := 0; ; slot = (slot + 1) % pingSlots {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		dead := int64((time.Since(c.start) - c.cfg.Ping*5/2) / time.Second)
		for _, ch := range c.inSlot(slot) {
			if ch.transport != tcp && ch.lastRead.Load() < dead {
				ch.end(contract.Unavailable, "no pong")
			} else {
				ch.sendRaw(ping[ch.transport])
			}
		}
	}
}

func (c *Connect) inSlot(slot int) []*channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.channels[slot]))
}

// checkBatch is how many sessions are asked for in one call.
const checkBatch = 500

// checkSessions extends the sessions of all connections and ends the connections of those that are over, of which
// this node may not have been told.
func (c *Connect) checkSessions(ctx context.Context) {
	tick := time.NewTicker(c.cfg.Check)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		seen := make(map[contract.SessionID]struct{})
		var ids []contract.SessionID
		for _, b := range c.buckets {
			for _, ch := range b.all() {
				if _, known := seen[ch.who.session]; !known {
					seen[ch.who.session] = struct{}{}
					ids = append(ids, ch.who.session)
				}
			}
		}
		for len(ids) > 0 && ctx.Err() == nil {
			n := min(len(ids), checkBatch)
			if err := c.checkSome(ctx, ids[:n]); err != nil {
				c.tel.Log.Warn("sessions not checked", "err", err)
			}
			ids = ids[n:]
		}
	}
}

func (c *Connect) checkSome(ctx context.Context, ids []contract.SessionID) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	reply, err := c.logic.CheckSessions(ctx, &contract.CheckSessionsRequest{Sessions: ids})
	if err != nil || len(reply.Ended) == 0 {
		return err
	}
	_, err = c.CloseSessions(ctx, &contract.CloseSessionsRequest{Sessions: reply.Ended, Code: contract.SessionEnded})
	return err
}
