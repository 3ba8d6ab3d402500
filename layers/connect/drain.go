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
	pause := c.cfg.Drain / time.Duration(len(all))
	start := time.Now()
	for i, ch := range all {
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

// Clients that are sent away come back each at its own moment, between these.
const (
	comeBackFirst = 200 * time.Millisecond
	comeBackLast  = 2 * time.Second
)

// comeBack spreads consecutive numbers over the whole span.
func comeBack(number uint64) time.Duration {
	const span = uint64((comeBackLast - comeBackFirst) / time.Millisecond)
	return comeBackFirst + time.Duration(number*7919%span)*time.Millisecond
}

// turnAway tells a connection that was not admitted why, and closes it. It does not wait for the peer.
func turnAway(conn net.Conn, t transport, number uint64) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a new socket takes this at once
	_, _ = conn.Write(t.lastFrame(contract.Unavailable, wire.CloseCode(contract.Unavailable), "the node takes no more connections", comeBack(number)))
	_ = conn.Close()
}
