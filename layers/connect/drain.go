package connect

import (
	"net"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// drain tells every client to come back later, a little after one another, and closes. It returns once all are told, or
// all have left.
func (c *Connect) drain() {
	c.mu.Lock()
	c.draining = true
	c.signalEmpty()
	c.mu.Unlock()
	all := c.all()
	if len(all) == 0 {
		return
	}
	c.tel.Log.Info("draining connections", "connections", len(all), "over", c.cfg.Drain.String())
	start := time.Now()
	c.m.drained.Set(float64(start.Add(c.cfg.Drain).UnixMilli()) / 1000)
	c.m.draining.Set(1)
	defer c.m.waiting.Set(0)
	pause := c.cfg.Drain / time.Duration(len(all))
	for i, ch := range all {
		c.m.waiting.Set(float64(len(all) - i))
		select {
		case <-time.After(time.Until(start.Add(pause * time.Duration(i)))):
		case <-c.empty:
			return
		}
		ch.end(contract.Unavailable, "the node is going away")
	}
}

// signalEmpty is called with mu held, whenever the last connection may have left: none comes while the node drains.
func (c *Connect) signalEmpty() {
	if c.draining && c.count == 0 {
		close(c.empty)
	}
}

// comeBack is after what time the client of the connection comes back that is sent away: each at its own moment, between a
// tenth of Config.ComeBack and all of it.
func (c *Connect) comeBack(number uint64) time.Duration {
	first := c.cfg.ComeBack / 10
	span := (c.cfg.ComeBack - first).Milliseconds()
	// Multiples of the golden ratio, as fractions of 2^32: wherever a row of numbers begins and ends, they are spread evenly.
	fraction := int64(number * 0x9E3779B97F4A7C15 >> 32)
	return first + time.Duration(span*fraction>>32)*time.Millisecond
}

// turnAway tells a connection that was not admitted why, and closes it. It does not wait for the peer.
func (c *Connect) turnAway(conn net.Conn, t transport, number uint64) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a new socket takes this at once
	_, _ = conn.Write(t.lastFrame(contract.Unavailable, wire.CloseCode(contract.Unavailable), "the node takes no more connections", c.comeBack(number)))
	_ = conn.Close()
}
