package connect

import (
	"maps"
	"time"

	"gochat/layers/internal/contract"
)

// endedSession is what this node was told of a session's end.
type endedSession struct {
	code contract.Code
	at   time.Time
}

// noteEnded remembers the ends for as long as a connection may take to authenticate, twice over.
func (c *Connect) noteEnded(ids []contract.SessionID, code contract.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(c.ended, func(_ contract.SessionID, e endedSession) bool { return now.Sub(e.at) > 2*c.cfg.Timeout })
	for _, id := range ids {
		c.ended[id] = endedSession{code, now}
	}
}

// endedLately answers the code with which the session has ended while a connection authenticated, "" if it has not.
func (c *Connect) endedLately(id contract.SessionID) contract.Code {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[id].code
}
