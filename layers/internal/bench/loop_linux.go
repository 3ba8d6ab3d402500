package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// loop is one goroutine's connections. Its methods are for that goroutine.
type loop struct {
	transport string
	start     time.Time // of its clock
	epoll     int
	timer     int // timerfd, so that messages are due to the microsecond
	wake      int // eventfd, written when ctx ends
	armed     time.Duration
	spec      unix.ItimerSpec
	events    []unix.EpollEvent
	conns     []*conn
	scratch   []byte // of one frame that is sent
	buf       []byte // of one read, with what was left of the last before it
	random    *rand.PCG

	meter  *meter // of the phase that runs; nil between phases
	totals tally
	dials  distribution // from the first packet of a connection until it is authenticated

	waiting    []*conn // to be dialled
	connecting int
	up         int
	asked      int // who have not answered a ping
	caught     int // bytes that silent ones have read
	eager      int // handshakes at once

	each     func() // called once a second
	nextEach time.Duration
}

// tally counts what connections met.
type tally struct {
	failed int // have ended before they were up
	pings  int // answered
	errors map[string]int
	closes map[string]int
}

const (
	timerID = -1
	wakeID  = -2

	eventsAtOnce = 512
	readSize     = 256 << 10
	maxUnsent    = 1 << 20 // bytes that may wait for one socket
)

func newLoop(ctx context.Context, transport string, connecting int) (*loop, error) {
	l := &loop{
		transport: transport, start: time.Now(), epoll: -1, timer: -1, wake: -1, eager: connecting, armed: -1,
		events: make([]unix.EpollEvent, eventsAtOnce), buf: make([]byte, maxFrame+readSize), dials: newDistribution(),
		random: rand.NewPCG(rand.Uint64(), rand.Uint64()), totals: tally{errors: make(map[string]int), closes: make(map[string]int)},
	}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err == nil {
		err = l.control(unix.EPOLL_CTL_ADD, l.timer, timerID, unix.EPOLLIN)
	}
	if err == nil {
		if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
			err = l.control(unix.EPOLL_CTL_ADD, l.wake, wakeID, unix.EPOLLIN)
		}
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("make timer: %w", err)
	}
	return l, nil
}

// wakeOn ends a wait when ctx ends, until it is stopped.
func (l *loop) wakeOn(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	woken := context.AfterFunc(ctx, func() {
		defer close(done)
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	return func() {
		if !woken() {
			<-done
		}
	}
}

func (l *loop) close() {
	l.closeAll()
	for _, fd := range []int{l.epoll, l.timer, l.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// now is the loop's clock, which is monotonic.
func (l *loop) now() time.Duration { return time.Since(l.start) }

func (l *loop) control(op, fd, id int, events uint32) error {
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// step waits for events until the moment at most, and handles those that are there.
func (l *loop) step(until time.Duration) error {
	for l.connecting < l.eager && len(l.waiting) > 0 {
		c := l.waiting[len(l.waiting)-1]
		l.waiting = l.waiting[:len(l.waiting)-1]
		l.dial(c)
	}
	if l.each != nil && l.now() >= l.nextEach {
		l.nextEach = l.now() + time.Second
		l.each()
	}
	if l.each != nil {
		until = min(until, l.nextEach)
	}
	wait := 0
	if left := until - l.now(); left > 0 {
		wait = -1
		if until != l.armed {
			l.armed = until
			l.spec.Value = unix.NsecToTimespec(int64(left))
			if err := unix.TimerfdSettime(l.timer, 0, &l.spec, nil); err != nil {
				return fmt.Errorf("set timer: %w", err)
			}
		}
	}
	n, err := unix.EpollWait(l.epoll, l.events, wait)
	if err == unix.EINTR {
		return nil
	} else if err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	for i := range l.events[:n] {
		switch e := &l.events[i]; e.Fd {
		case timerID:
			_, _ = unix.Read(l.timer, l.buf[:8])
			l.armed = -1
		case wakeID:
			_, _ = unix.Read(l.wake, l.buf[:8])
		default:
			l.handle(l.conns[e.Fd], e.Events)
		}
	}
	return nil
}

// run steps until the moment, or until done.
func (l *loop) run(until time.Duration, done func() bool) error {
	for !done() && l.now() < until {
		if err := l.step(until); err != nil {
			return err
		}
	}
	return nil
}

// write sends b, or what the kernel does not take of it when it will.
func (l *loop) write(c *conn, b []byte) error {
	if c.state == closed {
		return unix.EPIPE
	}
	if len(c.unsent) > 0 {
		if len(c.unsent)+len(b) > maxUnsent {
			return unix.ENOBUFS
		}
		c.unsent = append(c.unsent, b...)
		return nil
	}
	n, err := unix.Write(c.fd, b)
	if err == unix.EAGAIN {
		n, err = 0, nil
	}
	if err != nil {
		return err
	}
	if n < len(b) {
		c.unsent = append(c.unsent, b[n:]...)
		return l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest()|unix.EPOLLOUT)
	}
	return nil
}

// flush sends what waits.
func (l *loop) flush(c *conn) error {
	for len(c.unsent) > 0 {
		n, err := unix.Write(c.fd, c.unsent)
		if err == unix.EAGAIN {
			return nil
		} else if err != nil {
			return err
		}
		c.unsent = append(c.unsent[:0], c.unsent[n:]...)
	}
	return l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest())
}

// send sends the next message of a group from the connection, or fails and it was none.
func (l *loop) send(c *conn, t *template, group int, due time.Duration) error {
	m := l.meter
	l.scratch = t.render(l.scratch, marker{m.run, group, m.groups[group].sent, int64(due)}, uint32(l.random.Uint64()))
	if err := l.write(c, l.scratch); err != nil {
		return err
	}
	m.send(group, l.now()-due)
	return nil
}

// answer sends a frame that the server has asked for.
func (l *loop) answer(c *conn, opcode byte, payload []byte) {
	if l.emit(c, opcode, payload) {
		l.totals.pings++
	}
}

// emit sends a frame, or ends the connection.
func (l *loop) emit(c *conn, opcode byte, payload []byte) bool {
	l.scratch, _ = appendFrame(l.scratch[:0], l.transport, opcode, payload, uint32(l.random.Uint64()))
	err := l.write(c, l.scratch)
	if err != nil {
		l.end(c, reasonOf(err))
	}
	return err == nil
}

// ask pings all who are up and answers how many of them are still there and have not answered within patience.
func (l *loop) ask(patience time.Duration, stop func() bool) (mute int, err error) {
	for _, c := range l.conns {
		if c.state == up && l.emit(c, opcodeText, ping) {
			c.asked = true
			l.asked++
		}
	}
	err = l.run(l.now()+patience, func() bool { return l.asked == 0 || stop() })
	return l.asked, err
}

// closeCode is the code in the payload of a close frame, 1005 if there is none (RFC 6455, 7.1.5).
func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16(payload))
}
