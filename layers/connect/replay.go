package connect

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Bounds of one resume.
const (
	replayPage  = contract.MaxPage // messages of one conversation
	replayTotal = 1000             // messages in all; further conversations are answered more:true
	maxReplays  = 5 * contract.MaxResume
)

// replay is where one conversation stands that is, or has just been, replayed to a channel.
type replay struct {
	done  bool
	seq   int64 // until done, the highest that was withheld, 0 if none; then, the last that was sent
	first int64 // the first that was withheld before it was known what is unread; 0 if none
}

// resume replays what followed the seq named for each conversation, or, with none named, what is unread in all of
// the user's. Each conversation's replay ends with an op 22. Until then, and until the client has asked for the last
// page, its live messages are withheld: the pages contain them.
func (c *channel) resume(ctx context.Context, from map[contract.Conversation]int64) (err error) {
	// A root of its own, linked to the frame's: it is about other messages, each with its own trace.
	asked := trace.SpanContextFromContext(ctx)
	ctx, span := c.srv.tracer.Start(observability.Follow(ctx, asked), "resume", trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: asked}))
	defer func() { noteError(span, err); span.End() }()
	about := &traces{span: span}
	if err := c.withhold(from); err != nil {
		return err
	}
	if len(from) == 0 {
		if from, err = c.unread(ctx); err != nil {
			c.stopWithholding()
			return err
		}
	}
	left := replayTotal
	defer func() {
		if span.IsRecording() {
			span.SetAttributes(attribute.Int("gochat.conversations", len(from)), attribute.Int("gochat.messages", replayTotal-left))
		}
	}()
	conversations := slices.Sorted(maps.Keys(from))
	for i, conversation := range conversations {
		if c.isEnded() {
			return nil
		}
		n, err := c.replayOne(ctx, conversation, from[conversation], left, about)
		switch contract.CodeOf(err) {
		case "":
			left -= n
		case contract.NotFound, contract.Forbidden:
			c.refuse(ctx, "", err) // of this conversation, whose replay ends with nothing; the others go on
			c.stopReplays(conversations[i : i+1])
			c.send(wire.AppendReplayDone(nil, conversation, from[conversation]+1, from[conversation], false))
		default:
			c.stopReplays(conversations[i:])
			for _, left := range conversations[i:] { // for the client to ask again
				c.send(wire.AppendReplayDone(nil, left, from[left]+1, from[left], true))
			}
			return err
		}
	}
	return nil
}

// withhold holds back the live messages of the conversations from now on, of all if none is named: they are to be
// replayed.
func (c *channel) withhold(from map[contract.Conversation]int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.replays)+len(from) > maxReplays {
		maps.DeleteFunc(c.replays, func(_ contract.Conversation, r replay) bool { return r.done })
		if len(c.replays)+len(from) > maxReplays {
			return contract.Errorf(contract.TooLarge, "want at most %d conversations of which pages are to come", maxReplays)
		}
	}
	if c.replays == nil {
		c.replays = make(map[contract.Conversation]replay)
	}
	c.withholdAll = len(from) == 0
	for conversation := range from {
		c.beginReplay(conversation)
	}
	return nil
}

// beginReplay is called with mu held.
func (c *channel) beginReplay(conversation contract.Conversation) {
	if r, found := c.replays[conversation]; !found || r.done {
		c.replays[conversation] = replay{}
	}
}

// unread asks for the conversations with unread messages and where they begin; those withheld meanwhile are added.
func (c *channel) unread(ctx context.Context) (map[contract.Conversation]int64, error) {
	inbox, err := c.srv.logic.Inbox(ctx, &contract.InboxRequest{Credential: c.credential(), Limit: contract.MaxResume})
	if err != nil {
		return nil, err
	}
	from := make(map[contract.Conversation]int64)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withholdAll = false
	for conversation, r := range c.replays {
		if r.first > 0 {
			from[conversation] = r.first - 1
		}
	}
	for _, entry := range inbox.Entries {
		if entry.Unread > 0 {
			from[entry.Conversation] = entry.ReadSeq
			c.beginReplay(entry.Conversation)
		}
	}
	if len(c.replays) == 0 {
		c.replays = nil
	}
	return from, nil
}

// withheld reports whether a replay has sent, or will send, the message with the seq, and as what its push counts. It
// is called with mu held.
func (c *channel) withheld(conversation contract.Conversation, seq int64) (outcome, bool) {
	if c.replays == nil {
		return 0, false
	}
	r, found := c.replays[conversation]
	switch {
	case c.withholdAll && (!found || r.done):
		c.replays[conversation] = replay{seq: seq, first: seq}
		return queued, true
	case !found:
		return 0, false
	case !r.done:
		r.seq = max(r.seq, seq)
		c.replays[conversation] = r
		return queued, true
	case seq <= r.seq:
		return written, true
	}
	c.forgetReplay(conversation)
	return 0, false
}

// pushTail is how late the push of a message may come and still be known as one that a replay has sent. Later it is
// sent once more, and the client drops it by its seq.
const pushTail = time.Minute

// replayOne sends one page at most, and answers how many messages it had.
func (c *channel) replayOne(ctx context.Context, conversation contract.Conversation, after int64, left int, about *traces) (int, error) {
	sent, last := 0, after
	for {
		if left-sent <= 0 || sent >= replayPage {
			c.send(wire.AppendReplayDone(nil, conversation, after+1, last, true))
			return sent, nil
		}
		page, err := c.history(ctx, conversation, last, min(replayPage-sent, left-sent))
		if err != nil {
			return sent, err
		}
		var latest time.Time
		for i := range page.Messages {
			m := &page.Messages[i]
			c.waitDrained() // so that a page of long messages is no reason to call the client slow
			c.touch()       // it takes what it is sent, while nobody reads its pongs
			c.send(wire.AppendMessage(nil, m))
			about.link(m.Traceparent)
			last, latest = m.Seq, m.CreatedAt
		}
		sent += len(page.Messages)
		c.srv.m.replayed.Add(float64(len(page.Messages)))
		if page.More {
			continue
		}
		if c.goLive(conversation, last, latest, wire.AppendReplayDone(nil, conversation, after+1, last, false)) {
			return sent, nil
		}
		if len(page.Messages) == 0 {
			return sent, contract.RetryLater(contract.Unavailable, time.Second, "the latest of %s cannot be read yet", conversation)
		}
	}
}

// history reads under a deadline of its own: the whole replay takes as long as the client takes to read it.
func (c *channel) history(ctx context.Context, conversation contract.Conversation, after int64, limit int) (*contract.HistoryReply, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.srv.cfg.Timeout)
	defer cancel()
	return c.srv.logic.History(ctx, &contract.HistoryRequest{
		Credential: c.credential(), Conversation: conversation, After: after, Limit: limit})
}

// goLive ends the replay with the frame done, unless a live message beyond last, of the time latest, was withheld
// meanwhile.
func (c *channel) goLive(conversation contract.Conversation, last int64, latest time.Time, done []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, replaying := c.replays[conversation]
	if replaying && r.seq > last {
		return false
	}
	if replaying && time.Since(latest) < pushTail {
		c.replays[conversation] = replay{done: true, seq: last}
	} else {
		c.forgetReplay(conversation)
	}
	if !c.ended {
		c.write(c.transport.frame(done))
	}
	return true
}

// stopReplays lets the live messages of the conversations through again.
func (c *channel) stopReplays(conversations []contract.Conversation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conversation := range conversations {
		c.forgetReplay(conversation)
	}
}

// stopWithholding lets all live messages through again. What was withheld is for another resume to ask for.
func (c *channel) stopWithholding() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replays, c.withholdAll = nil, false
}

// forgetReplay is called with mu held.
func (c *channel) forgetReplay(conversation contract.Conversation) {
	delete(c.replays, conversation)
	if len(c.replays) == 0 && !c.withholdAll {
		c.replays = nil // push looks no further than this
	}
}
