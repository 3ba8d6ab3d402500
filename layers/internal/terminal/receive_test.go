package terminal

import (
	"strings"
	"testing"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// newClient is a client in room 1, as user 7, that has no connection and prints into a buffer.
func newClient(t *testing.T) (*Terminal, *strings.Builder) {
	t.Helper()
	var out strings.Builder
	c, err := New(Options{API: "http://127.0.0.1:1", TCP: "127.0.0.1:1", User: "me", Room: 1}, strings.NewReader(""), &out)
	if err != nil {
		t.Fatal(err)
	}
	if c.console, err = openConsole(c.in, c.out); err != nil {
		t.Fatal(err)
	}
	c.me, c.name = 7, "me"
	c.learn(nil)
	c.allKnown = true
	c.moveTo(&room{ID: 1, Name: "lobby"}, 0)
	return c, &out
}

// TestOwnLineIsPrintedOnce has a line become known as stored in every way, and in every order, that may be.
func TestOwnLineIsPrintedOnce(t *testing.T) {
	const toRoom, toUser = contract.Conversation("room:1"), contract.Conversation("dm:3:7")
	type step func(c *Terminal, conversation contract.Conversation, clientID string)
	acked := func(c *Terminal, conversation contract.Conversation, clientID string) {
		c.acknowledged(time.Now(), ack{ClientID: clientID, Conversation: conversation, Seq: 1})
	}
	pushed := func(c *Terminal, conversation contract.Conversation, clientID string) {
		m := wire.Message{Op: wire.OpRoom, RoomID: 1, FromUserID: 7, FromUserName: "me", Msg: "hello", ClientID: clientID, Conversation: conversation, Seq: 1}
		if conversation == toUser {
			m.Op, m.RoomID, m.ToUserID = wire.OpDirect, 0, 3
		}
		c.message(time.Now(), m)
	}
	inInbox := func(c *Terminal, conversation contract.Conversation, _ string) {
		c.learn([]entry{{Conversation: conversation, LastSeq: 1}})
	}
	away := func(c *Terminal, _ contract.Conversation, _ string) { c.moveTo(&room{ID: 2, Name: "other"}, 0) }
	back := func(c *Terminal, _ contract.Conversation, _ string) { c.moveTo(&room{ID: 1, Name: "lobby"}, 1) }
	for name, test := range map[string]struct {
		conversation contract.Conversation
		steps        []step
	}{
		"acked":                         {toRoom, []step{acked}},
		"acked, pushed":                 {toRoom, []step{acked, pushed}},
		"pushed, acked":                 {toRoom, []step{pushed, acked}},
		"acked after leaving":           {toRoom, []step{away, acked}},
		"pushed, acked after leaving":   {toRoom, []step{away, pushed, acked}},
		"acked after coming back":       {toRoom, []step{away, back, acked, pushed}},
		"privately, acked":              {toUser, []step{acked}},
		"privately, replayed":           {toUser, []step{pushed, acked}},
		"privately, in the inbox first": {toUser, []step{inInbox, acked, pushed}},
		"privately, in the inbox later": {toUser, []step{acked, inInbox, pushed}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, allKnown := range []bool{true, false} {
				c, out := newClient(t)
				c.allKnown = allKnown
				l := line{text: "hello", room: 1}
				if test.conversation == toUser {
					l.room, l.to = 0, contract.User{ID: 3, Name: "other"}
				}
				c.outbox.add(l)
				clientID := c.outbox.waiting[0].clientID
				for _, step := range test.steps {
					step(c, test.conversation, clientID)
				}
				if got := strings.Count(out.String(), ": hello\n"); got != 1 {
					t.Errorf("all conversations known: %v: printed %d times, want once:\n%s", allKnown, got, out)
				}
				if !c.outbox.empty() {
					t.Error("the line still waits")
				}
			}
		})
	}
}

// TestRefusals has a refusal that passes keep the line for another try, and one that does not give it up.
func TestRefusals(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		code  contract.Code
		keeps bool
	}{
		"rate limited": {contract.RateLimited, true},
		"unavailable":  {contract.Unavailable, true},
		"internal":     {contract.Internal, true},
		"forbidden":    {contract.Forbidden, false},
		"not found":    {contract.NotFound, false},
		"too large":    {contract.TooLarge, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, out := newClient(t)
			c.outbox.add(line{text: "hello", room: 1})
			first := c.outbox.due(now)
			first.sentAt = now
			c.refused(now, &link{ready: true}, refusal{Code: test.code, Message: "no", ClientID: first.clientID, RetryAfterMs: 800})
			if got := !c.outbox.empty(); got != test.keeps {
				t.Fatalf("line kept: %v, want %v", got, test.keeps)
			}
			if !strings.Contains(out.String(), "no ("+string(test.code)+")") {
				t.Errorf("not told why:\n%s", out)
			}
			if !test.keeps {
				return
			}
			if c.outbox.due(now.Add(799*time.Millisecond)) != nil || c.outbox.due(now.Add(800*time.Millisecond)) != first {
				t.Error("not due again after what the server said")
			}
		})
	}
}

// TestSentAgainUnderTheSameClientID has the connection break while a line is on its way: the server tells the second
// one from a new message by the id alone.
func TestSentAgainUnderTheSameClientID(t *testing.T) {
	now := time.Now()
	var o outbox
	o.add(line{text: "one"})
	o.add(line{text: "two"})
	first := o.due(now)
	id := first.clientID
	first.sentAt = now
	if o.due(now) != nil {
		t.Error("the second goes out before the first is acknowledged")
	}
	o.again()
	if next := o.due(now); next != first || next.clientID != id || next.text != "one" {
		t.Errorf("got %+v, want the first with id %s", next, id)
	}
	if o.done(id) != first || o.done(id) != nil {
		t.Error("not done once")
	}
	if next := o.due(now); next == nil || next.text != "two" || next.clientID == id {
		t.Errorf("got %+v, want the second under another id", next)
	}
}

// TestHurry has a line written during a long wait for the next connection.
func TestHurry(t *testing.T) {
	for name, test := range map[string]struct {
		paced, link bool
		want        bool
	}{
		"backing off":         {false, false, true},
		"asked by the server": {true, false, false},
		"being connected":     {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newClient(t)
			now := time.Now()
			later := now.Add(lastBackoff)
			c.connectAt, c.paced = later, test.paced
			if test.link {
				c.link = &link{}
			}
			c.hurry(now)
			if got := c.connectAt.Before(later); got != test.want {
				t.Errorf("connects sooner: %v, want %v", got, test.want)
			}
			if c.connectAt.Before(now.Add(firstBackoff / 2)) {
				t.Error("connects without any wait")
			}
		})
	}
}
