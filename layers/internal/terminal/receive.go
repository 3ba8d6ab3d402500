package terminal

import (
	"context"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// receive acts on one frame.
func (t *Terminal) receive(ctx context.Context, l *link, frame any) {
	if t.link != l {
		return
	}
	now := time.Now()
	l.heardAt = now
	if _, isRefusal := frame.(refusal); !isRefusal {
		l.last = nil // what was refused before did not end the connection
	}
	switch f := frame.(type) {
	case wire.Message:
		t.message(now, f)
	case ack:
		t.acknowledged(now, f)
	case refusal:
		t.refused(now, l, f)
	case replayDone:
		if c := t.logs[f.Conversation]; c != nil {
			t.show(c.settle(now, f.To)...)
			if f.More {
				t.replay(now, f.Conversation)
			}
		}
	case pong:
		if !l.ready {
			t.greet(ctx)
		}
		for name, head := range f.Heads {
			if c := t.logs[name]; c != nil && head > c.printed && c.mayAsk(now) {
				t.replay(now, name)
			}
		}
	case roomInfo:
		if f.RoomID == t.room {
			if line := t.people.changed(f); line != "" {
				t.say("* %s", line)
			}
		}
	case goingAway:
		l.backAt = now.Add(time.Duration(f.ReconnectAfterMs) * time.Millisecond)
	case wire.Op:
		if f == wire.OpPing {
			t.send(request{Op: wire.OpPong})
		}
	}
}

// message takes a message frame. That of one's own line may come before its ack, or in its place.
func (t *Terminal) message(now time.Time, m wire.Message) {
	waited := m.FromUserID == t.me && t.taken(m.ClientID) != nil
	t.stored(now, m, waited)
}

// acknowledged makes a line the message that it has become.
func (t *Terminal) acknowledged(now time.Time, a ack) {
	line := t.taken(a.ClientID)
	if line == nil {
		return
	}
	m := wire.Message{
		Op: wire.OpRoom, Msg: line.text, FromUserID: t.me, FromUserName: t.name, RoomID: line.room,
		ToUserID: line.to.ID, ToUserName: line.to.Name,
		ID: a.ID, Conversation: a.Conversation, Seq: a.Seq, ClientID: a.ClientID, TraceID: a.TraceID,
		CreatedAt: now.UTC().Format(time.RFC3339),
	}
	if line.to.ID != 0 {
		m.Op = wire.OpDirect
	}
	t.stored(now, m, true)
}

// stored prints a message when it is its turn. One that was waited for, a line of this outbox, is printed in any
// case: its room may have been left, or its conversation learned of with the message in it.
func (t *Terminal) stored(now time.Time, m wire.Message, waited bool) {
	c := t.logs[m.Conversation]
	if c == nil && m.Op == wire.OpDirect {
		after := m.Seq - 1
		if t.allKnown {
			after = 0 // it began after the start: what precedes this message has been missed
		}
		c = newConversation(after)
		t.logs[m.Conversation] = c
	}
	switch {
	case waited && (c == nil || m.Seq <= c.printed):
		t.show(m)
	case c != nil: // else of a room that was left
		t.show(c.add(now, m)...)
	}
	t.sendNext(now)
}

// refused acts on an error frame.
func (t *Terminal) refused(now time.Time, l *link, r refusal) {
	e := &contract.Error{Code: r.Code, Message: r.Message, RetryAfter: time.Duration(r.RetryAfterMs) * time.Millisecond}
	passes := e.Code == contract.RateLimited || e.Code == contract.Unavailable || e.Code == contract.Internal
	switch {
	case r.ClientID != "" && passes:
		if t.outbox.postpone(r.ClientID, now, e.RetryAfter) {
			t.say("* still sending: %s (%s)", e.Message, e.Code)
		}
	case r.ClientID != "":
		if line := t.taken(r.ClientID); line != nil {
			t.say("* not sent: %s", line.text)
			t.complain(e)
		}
		t.sendNext(now)
	case !l.ready && passes: // not authenticated, and nobody will try again but a new connection
		l.last = e
		t.lost(l, e)
	default:
		l.last = e
		switch e.Code {
		case contract.SessionEnded, contract.Replaced, contract.Unauthenticated, contract.SlowConsumer, contract.Unavailable:
			// The end follows, and is told then.
		default:
			t.complain(e)
		}
	}
}

// learn takes over the direct conversations that are not known yet, and asks for what others have that is new.
func (t *Terminal) learn(entries []entry) {
	now := time.Now()
	for _, e := range entries {
		parties, err := e.Conversation.Parse()
		if err != nil || parties.Room != 0 {
			continue
		}
		c := t.logs[e.Conversation]
		if c == nil {
			after := e.LastSeq
			switch {
			case t.allKnown: // it began after the start: nothing of it has been printed
				after = 0
			case e.Unread > 0:
				after = e.ReadSeq
			}
			c = newConversation(after)
			t.logs[e.Conversation] = c
		}
		if t.link != nil && e.LastSeq > c.printed && c.mayAsk(now) {
			t.replay(now, e.Conversation)
		}
	}
}

// replay asks for what follows the last message printed.
func (t *Terminal) replay(now time.Time, name contract.Conversation) {
	c := t.logs[name]
	c.askedAt = now
	t.send(request{Op: wire.OpReplay, Resume: seqs{name: c.printed}})
}

// mark tells the server that what was printed is read. Only direct conversations are: they alone are printed at the
// next start if they are not.
func (t *Terminal) mark(ctx context.Context, now time.Time, name contract.Conversation) {
	c := t.logs[name]
	c.markAt = now
	seq := c.printed
	t.fetch(ctx, func(ctx context.Context) func() {
		err := t.rest.markRead(ctx, name, seq)
		return func() {
			if err == nil {
				c.marked = max(c.marked, seq)
			}
		}
	})
}
