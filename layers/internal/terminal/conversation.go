package terminal

import (
	"maps"
	"slices"
	"time"

	"gochat/layers/connect/wire"
)

const (
	maxHeld   = 500             // messages beyond a hole; a replay brings the others again
	holeLimit = time.Second     // a hole that lasts longer is asked for: acks overtake the messages of others
	askAgain  = 5 * time.Second // a replay that has not closed the hole by then is asked for once more
	markEvery = time.Second
)

// conversation puts the messages of one conversation into order. What it answers is to be printed, now, by whoever
// called: every seq once, ascending, without a hole but those that the store has.
type conversation struct {
	first   int64 // the lowest seq that has been printed, or will be next: what precedes it is history
	printed int64 // the highest seq that has been printed
	held    map[int64]wire.Message
	holeAt  time.Time // since when messages are held; zero if none are
	askedAt time.Time // when a replay was asked for last
	marked  int64     // up to where the server knows it as read
	markAt  time.Time // when it was told last
}

// newConversation begins after the seq.
func newConversation(after int64) *conversation {
	return &conversation{first: after + 1, printed: after, marked: after, held: make(map[int64]wire.Message)}
}

// add takes a message that came at now and answers those that it makes printable.
func (c *conversation) add(now time.Time, m wire.Message) []wire.Message {
	if m.Seq > c.printed && len(c.held) < maxHeld || m.Seq == c.printed+1 {
		c.held[m.Seq] = m
	}
	return c.release(now)
}

// settle takes the store's word that everything up to the seq has been sent: what is missing does not exist.
func (c *conversation) settle(now time.Time, seq int64) []wire.Message {
	var ready []wire.Message
	for _, held := range slices.Sorted(maps.Keys(c.held)) {
		if held <= seq {
			ready = append(ready, c.held[held])
			delete(c.held, held)
		}
	}
	c.printed = max(c.printed, seq)
	return append(ready, c.release(now)...)
}

func (c *conversation) release(now time.Time) []wire.Message {
	var ready []wire.Message
	for {
		m, ok := c.held[c.printed+1]
		if !ok {
			break
		}
		ready = append(ready, m)
		c.printed++
		delete(c.held, c.printed)
	}
	switch {
	case len(c.held) == 0:
		c.holeAt = time.Time{}
	case c.holeAt.IsZero() || len(ready) > 0:
		c.holeAt = now
	}
	return ready
}

// holeLasts reports whether a replay should be asked for.
func (c *conversation) holeLasts(now time.Time) bool {
	return !c.holeAt.IsZero() && now.Sub(c.holeAt) >= holeLimit && c.mayAsk(now)
}

func (c *conversation) mayAsk(now time.Time) bool { return now.Sub(c.askedAt) >= askAgain }

func (c *conversation) unmarked() bool { return c.printed > c.marked }

func (c *conversation) markDue(now time.Time) bool {
	return c.unmarked() && now.Sub(c.markAt) >= markEvery
}
