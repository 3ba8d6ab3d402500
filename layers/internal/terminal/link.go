package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const (
	dialWithin   = 5 * time.Second
	writeWithin  = 5 * time.Second
	pingEvery    = 25 * time.Second
	answerWithin = 10 * time.Second // of silence after a ping the connection is dead, whatever the kernel thinks
	stableAfter  = 10 * time.Second // a connection that lived this long was good: the backoff starts anew
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 30 * time.Second
)

// device is what the user knows these sessions by.
const device = "terminal"

// link is one connection, from the dialing to the end. What comes from a link that is not t.link any more is ignored.
type link struct {
	cancel  context.CancelFunc // closes it
	conn    net.Conn           // nil while it is being dialed
	ready   bool               // authenticated, in the room, and all that was missed has come
	readyAt time.Time
	heardAt time.Time
	pingAt  time.Time       // of the last ping
	backAt  time.Time       // when a server that goes away wants this client back; zero if it does not
	last    *contract.Error // set if the last frame was a refusal that names no line: then it is why the link ends, if it does
}

// connect makes the next link.
func (t *Terminal) connect(ctx context.Context) {
	linkCtx, cancel := context.WithCancel(ctx)
	l := &link{cancel: cancel}
	t.link = l
	t.goroutines.Go(func() {
		defer cancel()
		err := t.serve(ctx, linkCtx, l)
		t.post(ctx, func() { t.lost(l, err) })
	})
}

// serve dials, then hands over frames until the connection ends.
func (t *Terminal) serve(ctx, linkCtx context.Context, l *link) error {
	dialer := net.Dialer{Timeout: dialWithin}
	conn, err := dialer.DialContext(linkCtx, "tcp", t.options.TCP)
	if err != nil {
		return err
	}
	closing := func() { _ = conn.Close() }
	defer closing()
	defer context.AfterFunc(linkCtx, closing)()
	t.post(ctx, func() { t.opened(l, conn) })
	packets := wire.NewPacketReader(conn)
	for {
		payload, err := packets.Next()
		if err != nil {
			return err
		}
		frame, err := decode(payload)
		if err != nil {
			return fmt.Errorf("decode frame: %w", err)
		}
		t.post(ctx, func() { t.receive(ctx, l, frame) })
	}
}

// opened says hello on a connection that has just been made.
func (t *Terminal) opened(l *link, conn net.Conn) {
	if t.link != l {
		return
	}
	now := time.Now()
	l.conn, l.heardAt = conn, now
	have := t.have()
	for name := range have {
		t.logs[name].askedAt = now
	}
	t.send(request{Op: wire.OpAuth, AuthToken: t.rest.token, RoomID: t.room, Device: device, Resume: have})
	l.pingAt = now
	t.send(request{Op: wire.OpPing}) // without seqs, since it is answered even if authentication was not
}

// have is the last seq of as many conversations as one frame may name, the room's among them.
func (t *Terminal) have() seqs {
	room := contract.RoomConversation(t.room)
	have := seqs{room: t.logs[room].printed}
	for name, c := range t.logs {
		if len(have) == contract.MaxResume {
			break
		}
		have[name] = c.printed
	}
	return have
}

// greet follows the first pong.
func (t *Terminal) greet(ctx context.Context) {
	now := time.Now()
	t.link.ready, t.link.readyAt = true, now
	switch {
	case !t.greeted:
		t.say("* connected as %s; /help lists the commands", t.name)
	case t.loss:
		t.say("* connected again")
	}
	t.greeted, t.loss = true, false
	t.outbox.again()
	t.sendNext(now)
	// Conversations that others have begun meanwhile are in no resume.
	t.fetch(ctx, func(ctx context.Context) func() {
		entries, err := t.rest.inbox(ctx)
		return func() {
			if err == nil { // else a message or the next connection will tell
				t.learn(entries)
			}
		}
	})
}

// send writes one frame. A link that does not take it ends, which its reader tells.
func (t *Terminal) send(frame request) {
	l := t.link
	if l == nil || l.conn == nil {
		return
	}
	packet, err := encode(frame)
	if err == nil {
		_ = l.conn.SetWriteDeadline(time.Now().Add(writeWithin)) // fails if it is closed, which Write tells
		_, err = l.conn.Write(packet)
	}
	if err != nil {
		l.cancel()
	}
}

func encode(frame request) ([]byte, error) {
	payload, err := json.Marshal(frame)
	if err != nil {
		return nil, err
	}
	return wire.AppendTCP(nil, payload)
}

// tendLink connects when it is time, asks whether the peer lives, and gives up one that does not.
func (t *Terminal) tendLink(ctx context.Context, now time.Time) {
	l := t.link
	switch {
	case l == nil:
		if !now.Before(t.connectAt) {
			t.connect(ctx)
		}
	case l.conn == nil:
	case !l.backAt.IsZero() && now.After(l.backAt): // it should have closed by itself
		t.lost(l, errors.New("the server went away"))
	case l.heardAt.Before(l.pingAt) && now.Sub(l.pingAt) >= answerWithin:
		t.lost(l, errors.New("no answer"))
	case l.ready && now.Sub(l.pingAt) >= pingEvery:
		l.pingAt = now
		t.send(request{Op: wire.OpPing, Have: t.have()})
	}
}

// lost follows the end of a link, or brings it about. Another is made after a while unless the session is over.
func (t *Terminal) lost(l *link, err error) {
	if t.link != l {
		return
	}
	l.cancel()
	t.link = nil
	if why := ending(l.last); why != nil {
		t.end(why)
		return
	}
	now := time.Now()
	if l.ready && now.Sub(l.readyAt) >= stableAfter {
		t.attempt = 0
	}
	wait := backoff(t.attempt)
	if t.paced = !l.backAt.IsZero(); t.paced {
		wait = max(l.backAt.Sub(now), 0)
	}
	t.attempt++
	t.connectAt = now.Add(wait)
	if t.loss { // said already
		return
	}
	t.loss = true
	why := err.Error()
	switch {
	case l.last != nil:
		why = fmt.Sprintf("%s, %s", l.last.Message, l.last.Code)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		why = "closed by the other side"
	}
	t.say("* not connected (%s): trying again", why)
}

// hurry has the next link made soon, however long the backoff has become: somebody waits for it. When the server has
// said when to come back, that stands.
func (t *Terminal) hurry(now time.Time) {
	if soon := now.Add(backoff(0)); t.link == nil && !t.paced && soon.Before(t.connectAt) {
		t.connectAt = soon
	}
}

// ending is why there must be no other connection; nil if there may be one.
func ending(last *contract.Error) error {
	if last == nil {
		return nil
	}
	switch last.Code {
	case contract.SessionEnded:
		return fmt.Errorf("this session was ended elsewhere (%s)", last.Code)
	case contract.Replaced:
		return fmt.Errorf("this user has logged in elsewhere, and may be logged in once (%s)", last.Code)
	case contract.Unauthenticated:
		return fmt.Errorf("the server does not accept this session any more: %s (%s)", clean(last.Message), last.Code)
	}
	return nil
}

// backoff doubles up to lastBackoff. Its second half is random, so that clients who lost the same node do not
// return as one.
func backoff(attempt int) time.Duration {
	ceiling := min(firstBackoff<<min(attempt, 10), lastBackoff)
	return ceiling/2 + rand.N(ceiling/2)
}
