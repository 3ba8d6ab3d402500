package connect

import (
	"maps"
	"math"
	"net"
	"slices"
	"syscall"
)

// openFiles is how many files the process may open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return limit.Cur
}

// affordable is how many connections there may be of so many files: what the process itself needs, to reach logic and to be
// looked at, is not for those that are let in.
func affordable(files uint64) int {
	return int(min(files, math.MaxInt) - min(files/2, 256))
}

// begin counts a handler in, whose end Run waits for. It is false if the node is full or draining.
func (c *Connect) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusing() {
		return false
	}
	c.goroutines.Add(1)
	return true
}

// refusing is called with mu held.
func (c *Connect) refusing() bool {
	if !c.draining && c.count < c.cfg.MaxConns {
		return false
	}
	c.m.turnedAway.Inc()
	return true
}

// admit counts a connection in, to be served until its end, or turns it away if the node is full or draining.
func (c *Connect) admit(conn net.Conn, t transport) {
	fd, err := descriptor(conn)
	if err != nil {
		c.tel.Log.Error("connection is no socket", "err", err)
		_ = conn.Close()
		return
	}
	ch := &channel{srv: c, conn: conn, fd: fd, transport: t, number: c.numbers.Add(1)}
	ch.touch()
	ch.parked.Store(true)
	if !c.enlist(ch) {
		c.turnAway(conn, t, ch.number)
		return
	}
	c.unauthenticated.add(ch)
	if err := c.poller.add(ch); err != nil {
		c.tel.Log.Error("connection cannot be waited for", "err", err)
		c.dismissParked(ch)
	}
}

// enlist is false if the node is full or draining.
func (c *Connect) enlist(ch *channel) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusing() {
		return false
	}
	c.channels[ch.number%pingSlots][ch.number] = ch
	c.count++
	c.m.connections[ch.transport].Inc()
	if ch.transport == deflated {
		c.deflating.Add(1)
	}
	return true
}

// numbered is the channel with the number, nil if it has ended.
func (c *Connect) numbered(number uint64) *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.channels[number%pingSlots][number]
}

// readable has a channel read that is parked: the poller tells of it once.
func (c *Connect) readable(number uint64) {
	if ch := c.numbered(number); ch != nil && ch.parked.CompareAndSwap(true, false) {
		c.goroutines.Go(ch.read)
	}
}

// dismissParked dismisses a channel unless somebody holds it.
func (c *Connect) dismissParked(ch *channel) {
	if ch.parked.CompareAndSwap(true, false) {
		c.dismiss(ch)
	}
}

// dismiss is the end of every admitted connection, called by whoever holds it.
func (c *Connect) dismiss(ch *channel) {
	ch.mu.Lock()
	ch.ended = true
	ch.signalDrained()
	ch.mu.Unlock()
	if ch.bucket != nil {
		c.m.deliveries[gone].Add(float64(c.sequencer.departUser(ch.who.user, ch.id())))
		for _, room := range ch.bucket.remove(ch) {
			c.depart(ch.who, room)
		}
		c.registrar.depart(ch.who, 0)
	}
	_ = ch.conn.Close()
	c.mu.Lock()
	delete(c.channels[ch.number%pingSlots], ch.number)
	c.count--
	c.signalEmpty()
	c.mu.Unlock()
	c.m.connections[ch.transport].Dec()
	if ch.transport == deflated {
		c.deflating.Add(-1)
	}
}

func (c *Connect) all() []*channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*channel, 0, c.count)
	for _, slot := range c.channels {
		all = slices.AppendSeq(all, maps.Values(slot))
	}
	return all
}
