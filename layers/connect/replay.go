package connect

import (
	"context"
	"maps"
	"slices"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// Bounds of one resume.
const (
	replayPage  = contract.MaxPage // messages of one conversation
	replayTotal = 1000             // messages in all; further conversations are answered more:true
)

// resume replays what followed the seq named for each conversation, or, with none named, what is unread in all of
// the user's. Each conversation's replay ends with an op 22. While it is replayed, and until the client has asked
// for the last page, its live messages are withheld: the pages contain them.
func (c *channel) resume(ctx context.Context, from map[contract.Conversation]int64) error {
	if len(from) == 0 {
		inbox, err := c.srv.logic.Inbox(ctx, &contract.InboxRequest{Credential: c.credential(), Limit: contract.MaxResume})
		if err != nil {
			return err
		}
		from = make(map[contract.Conversation]int64)
		for _, entry := range inbox.Entries {
			if entry.Unread > 0 {
				from[entry.Conversation] = entry.ReadSeq
			}
		}
	}
	left := replayTotal
	for _, conversation := range slices.Sorted(maps.Keys(from)) {
		n, err := c.replayOne(ctx, conversation, from[conversation], left)
		if err != nil {
			c.stopReplay(conversation)
			switch contract.CodeOf(err) {
			case contract.NotFound, contract.Forbidden:
				c.refuse("", err) // of this conversation; the others go on
				continue
			}
			return err
		}
		left -= n
	}
	return nil
}

// replayOne sends one page at most, and answers how many messages it had.
func (c *channel) replayOne(ctx context.Context, conversation contract.Conversation, after int64, left int) (int, error) {
	c.mu.Lock()
	if c.replay == nil {
		c.replay = make(map[contract.Conversation]int64)
	}
	if _, replaying := c.replay[conversation]; !replaying {
		c.replay[conversation] = 0
	}
	c.mu.Unlock()

	sent, last := 0, after
	for {
		if left-sent <= 0 || sent >= replayPage {
			c.send(wire.AppendReplayDone(nil, conversation, after+1, last, true))
			return sent, nil
		}
		c.waitDrained()
		page, err := c.srv.logic.History(ctx, &contract.HistoryRequest{
			Credential: c.credential(), Conversation: conversation, After: last, Limit: min(replayPage-sent, left-sent)})
		if err != nil {
			return sent, err
		}
		var frame []byte
		for i := range page.Messages {
			frame = wire.AppendMessage(frame[:0:0], &page.Messages[i])
			c.send(frame)
			last = page.Messages[i].Seq
		}
		sent += len(page.Messages)
		c.srv.m.replayed.Add(float64(len(page.Messages)))
		if page.More {
			continue
		}
		if c.goLive(conversation, last, wire.AppendReplayDone(nil, conversation, after+1, last, false)) {
			return sent, nil
		}
	}
}

// goLive ends the replay with the frame done, unless a live message beyond last was withheld meanwhile.
func (c *channel) goLive(conversation contract.Conversation, last int64, done []byte) bool {
	w := c.srv.writers.Get().(*writer)
	defer c.srv.writers.Put(w)
	f := newFrame(done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replay[conversation] > last {
		return false
	}
	c.forgetReplay(conversation)
	if !c.ended {
		c.write(w, f[c.transport])
	}
	return true
}

func (c *channel) stopReplay(conversation contract.Conversation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetReplay(conversation)
}

// forgetReplay is called with mu held.
func (c *channel) forgetReplay(conversation contract.Conversation) {
	delete(c.replay, conversation)
	if len(c.replay) == 0 {
		c.replay = nil // push looks no further than this
	}
}

// jitter spreads what many do at once over comeBack milliseconds.
func jitter(number uint64) time.Duration {
	return time.Duration(200+number*7919%(comeBack-200)) * time.Millisecond
}
