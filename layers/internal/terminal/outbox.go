package terminal

import (
	"cmp"
	"crypto/rand"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const (
	maxWaiting = 100         // lines that wait; no more are read then
	retryAfter = time.Second // where a refusal that passes does not say
	lateAfter  = 2 * time.Second
)

// line is what was written to a room or, with to, to a user.
type line struct {
	clientID  string
	text      string
	room      contract.RoomID
	to        contract.User
	sentAt    time.Time // on the present link; zero if it was not
	notBefore time.Time
	told      bool // that it is late
}

// outbox holds the lines that are not known to be stored. Only the first is ever on its way, so that they are stored
// in the order in which they were written.
type outbox struct{ waiting []*line }

func (o *outbox) empty() bool { return len(o.waiting) == 0 }

func (o *outbox) full() bool { return len(o.waiting) >= maxWaiting }

func (o *outbox) add(l line) {
	l.clientID = rand.Text()
	o.waiting = append(o.waiting, &l)
}

// done takes out the line with the client id if it is the first, and answers it; nil if it is not.
func (o *outbox) done(clientID string) *line {
	if o.empty() || o.waiting[0].clientID != clientID {
		return nil
	}
	first := o.waiting[0]
	o.waiting = o.waiting[1:]
	return first
}

// again has the first line sent once more, since nobody knows what became of it.
func (o *outbox) again() {
	if !o.empty() {
		o.waiting[0].sentAt = time.Time{}
	}
}

// postpone has the line sent once more after a while. It answers whether that should be told: once for each.
func (o *outbox) postpone(clientID string, now time.Time, after time.Duration) bool {
	if o.empty() || o.waiting[0].clientID != clientID {
		return false
	}
	first := o.waiting[0]
	first.sentAt, first.notBefore = time.Time{}, now.Add(cmp.Or(after, retryAfter))
	told := first.told
	first.told = true
	return !told
}

// late answers the line that has had no answer for long, once; nil if there is none.
func (o *outbox) late(now time.Time) *line {
	if o.empty() || o.waiting[0].told || o.waiting[0].sentAt.IsZero() || now.Sub(o.waiting[0].sentAt) < lateAfter {
		return nil
	}
	o.waiting[0].told = true
	return o.waiting[0]
}

// due answers the line to be sent now, nil if there is none.
func (o *outbox) due(now time.Time) *line {
	if o.empty() || !o.waiting[0].sentAt.IsZero() || now.Before(o.waiting[0].notBefore) {
		return nil
	}
	return o.waiting[0]
}

// write puts a line into the outbox unless no server would take it.
func (t *Terminal) write(l line) {
	if err := wire.CheckText(l.text); err != nil {
		t.complain(err)
		return
	}
	now := time.Now()
	t.outbox.add(l)
	if t.link == nil || !t.link.ready {
		t.say("* kept until connected: %s", l.text)
		t.hurry(now)
	}
	t.sendNext(now)
}

// taken takes out the line with the client id, whose way has ended, and answers it; nil if it does not wait.
func (t *Terminal) taken(clientID string) *line {
	l := t.outbox.done(clientID)
	if l != nil && !t.leaveBy.IsZero() {
		t.leaveBy = time.Now().Add(t.patience())
	}
	return l
}

// sendNext sends the first line if it is due.
func (t *Terminal) sendNext(now time.Time) {
	if t.link == nil || !t.link.ready {
		return
	}
	l := t.outbox.due(now)
	if l == nil {
		return
	}
	l.sentAt = now
	frame := request{Op: wire.OpRoom, RoomID: l.room, Msg: l.text, ClientID: l.clientID}
	if l.to.ID != 0 {
		frame.Op, frame.ToUserID = wire.OpDirect, l.to.ID
	}
	t.send(frame)
}
