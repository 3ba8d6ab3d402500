package bench

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gochat/layers/connect/wire"
)

type state uint8

const (
	fresh state = iota
	dialling
	upgrading      // a websocket awaits its 101
	authenticating // awaits the pong that follows authentication
	up
	closed
)

// conn is one connection. The loop owns it.
type conn struct {
	id     int // in loop.conns
	fd     int
	state  state
	silent bool   // does not read once it is up, and nobody counts what it is sent
	asked  bool   // has not answered a ping
	said   string // the code word, if the last frame was an error
	caught bool   // a silent one that reads after all, for the end of its connection
	inbox  inbox
	began  time.Duration
	peer   *peer
	rest   []byte // of a frame that has not come whole
	unsent []byte // what the kernel did not take yet
}

// peer is how a connection is made. Connections may share one but for greeting.
type peer struct {
	addr     unix.Sockaddr
	source   unix.Sockaddr // nil leaves it to the kernel
	upgrade  []byte        // request of a websocket
	greeting []byte        // first frames; an op 11 answers them
}

const silentReceiveBuffer = 4 << 10 // bytes, so that the kernel does not read for who does not

// add makes a connection that open will dial.
func (l *loop) add(p *peer) *conn {
	c := &conn{id: len(l.conns), fd: -1, inbox: inbox{group: -1, own: -1}, peer: p}
	l.conns = append(l.conns, c)
	return c
}

// open dials all that are fresh or closed until they are up or have failed; patience bounds the wait for the next.
func (l *loop) open(patience time.Duration, stop func() bool) error {
	for i := len(l.conns) - 1; i >= 0; i-- {
		if c := l.conns[i]; c.peer != nil && (c.state == fresh || c.state == closed) {
			c.state = fresh
			l.waiting = append(l.waiting, c)
		}
	}
	l.nextEach = l.now() + time.Second
	for len(l.waiting)+l.connecting > 0 && !stop() {
		before, deadline := len(l.waiting)+l.connecting, l.now()+patience
		err := l.run(deadline, func() bool { return len(l.waiting)+l.connecting < before || stop() })
		if err != nil {
			return err
		}
		if len(l.waiting)+l.connecting == before && !stop() {
			break
		}
	}
	l.waiting = nil
	for _, c := range l.conns {
		switch {
		case c.state == up || c.state == closed:
		case stop():
			l.drop(c)
		default:
			l.end(c, "not up in time")
		}
	}
	l.connecting = 0
	return nil
}

func (l *loop) dial(c *conn) {
	c.began, c.state, c.said, c.rest, c.unsent = l.now(), dialling, "", c.rest[:0], c.unsent[:0]
	l.connecting++
	if err := l.socket(c); err != nil {
		l.end(c, reasonOf(err))
	}
}

func (l *loop) socket(c *conn) error {
	family := unix.AF_INET
	if _, six := c.peer.addr.(*unix.SockaddrInet6); six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd = fd
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if c.silent {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, silentReceiveBuffer); err != nil {
			return err
		}
	}
	if c.peer.source != nil {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, c.peer.source); err != nil {
			return err
		}
	}
	if err := l.control(unix.EPOLL_CTL_ADD, fd, c.id, unix.EPOLLOUT); err != nil {
		return err
	}
	if err := unix.Connect(fd, c.peer.addr); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// deaf reports whether the connection does not read now.
func (c *conn) deaf() bool { return c.silent && c.state == up && !c.caught }

// interest is which events the connection waits for, when nothing is unsent.
func (c *conn) interest() uint32 {
	if c.deaf() {
		return 0 // errors are reported all the same
	}
	return unix.EPOLLIN
}

func (l *loop) handle(c *conn, events uint32) {
	if c.state == closed {
		return // by an event before this one
	}
	var err error
	if c.state == dialling {
		err = l.connected(c)
	} else if events&unix.EPOLLOUT != 0 {
		err = l.flush(c)
	}
	switch {
	case err != nil:
		l.end(c, reasonOf(err))
	case c.deaf():
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			l.end(c, "reset")
		}
	case events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0:
		l.read(c)
	}
}

// connected begins the handshake, if there is a connection.
func (l *loop) connected(c *conn) error {
	errno, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	if err := l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, unix.EPOLLIN); err != nil {
		return err
	}
	if len(c.peer.upgrade) > 0 {
		c.state = upgrading
		return l.write(c, c.peer.upgrade)
	}
	c.state = authenticating
	return l.write(c, c.peer.greeting)
}

// read takes what is there, once: if there is more, epoll says so again.
func (l *loop) read(c *conn) {
	n := copy(l.buf, c.rest)
	c.rest = c.rest[:0]
	got, err := unix.Read(c.fd, l.buf[n:])
	switch {
	case err == unix.EAGAIN:
		c.rest = append(c.rest, l.buf[:n]...)
		return
	case err != nil:
		l.end(c, reasonOf(err))
		return
	case got == 0:
		reason := "end of stream"
		if c.said != "" { // tcp has no other word for why
			reason += " after " + c.said
		}
		l.end(c, reason)
		return
	}
	if c.silent {
		l.caught += got
	}
	l.feed(c, l.buf[:n+got], l.now())
}

// feed acts on what the server has sent, however it is split or glued, and keeps what is not whole.
func (l *loop) feed(c *conn, b []byte, now time.Duration) {
	for len(b) > 0 && c.state != closed {
		if c.state == upgrading {
			n, err := cutUpgrade(b)
			if err != nil {
				l.end(c, err.Error())
				return
			}
			if n == 0 {
				break
			}
			b = b[n:]
			c.state = authenticating
			if err := l.write(c, c.peer.greeting); err != nil {
				l.end(c, reasonOf(err))
			}
			continue
		}
		f, n, err := cutFrame(l.transport, b)
		if err != nil {
			l.end(c, err.Error())
			return
		}
		if n == 0 {
			break
		}
		l.receive(c, f, b[:n], now)
		b = b[n:]
	}
	if c.state != closed {
		c.rest = append(c.rest[:0], b...)
	}
}

var (
	headerEnd = []byte("\r\n\r\n")
	switching = []byte("HTTP/1.1 101 ")
)

const maxHeader = 8 << 10

// cutUpgrade reads the answer to the upgrade; n is 0 if it is not whole.
func cutUpgrade(b []byte) (n int, err error) {
	end := bytes.Index(b, headerEnd)
	switch {
	case end < 0 && len(b) > maxHeader:
		return 0, errors.New("the answer to the upgrade does not end")
	case end < 0:
		return 0, nil
	case !bytes.HasPrefix(b, switching):
		line, _, _ := bytes.Cut(b[:min(end, 80)], headerEnd[:2])
		return 0, fmt.Errorf("upgrade refused: %q", line)
	}
	return end + len(headerEnd), nil
}

// receive acts on one frame; whole is the frame with its header.
func (l *loop) receive(c *conn, f frame, whole []byte, now time.Duration) {
	switch f.opcode {
	case opcodeText:
		l.text(c, f.payload, whole, now)
	case opcodePing:
		l.answer(c, opcodePong, f.payload)
	case opcodeClose:
		l.end(c, fmt.Sprint("close ", closeCode(f.payload)))
	case opcodePong:
	default:
		l.end(c, errFrame.Error())
	}
}

var ping, pong = []byte(`{"op":10}`), []byte(`{"op":11}`)

func (l *loop) text(c *conn, payload, whole []byte, now time.Duration) {
	if c.silent && c.state == up {
		return
	}
	c.said = ""
	switch opOf(payload) {
	case wire.OpDirect, wire.OpRoom:
		m := l.meter
		if m == nil {
			return
		}
		k, ok := findMarker(payload, m.prefix)
		if !ok {
			return // of another run
		}
		if m.sample == nil {
			m.sample = bytes.Clone(whole)
		}
		m.deliver(&c.inbox, k, now)
	case wire.OpAck:
		if m := l.meter; m != nil {
			if k, ok := findMarker(payload, m.prefix); ok {
				m.acknowledge(k, now)
			}
		}
	case wire.OpError:
		c.said = codeOf(payload)
		l.totals.errors[c.said]++
		if m := l.meter; m != nil {
			if k, ok := findMarker(payload, m.prefix); ok {
				m.refuse(k)
			}
		}
		if c.state == authenticating {
			l.end(c, "authentication: "+c.said)
		}
	case wire.OpPing:
		l.answer(c, opcodeText, pong)
	case wire.OpPong:
		if c.state == authenticating {
			l.isUp(c, now)
		} else {
			l.answered(c)
		}
	case wire.OpGoingAway:
		l.totals.errors["going away"]++
	}
}

func (l *loop) isUp(c *conn, now time.Duration) {
	c.state = up
	l.connecting--
	l.up++
	l.dials.record(now - c.began)
	if c.silent {
		_ = l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest())
	}
}

// answered has nobody wait for the connection's answer to a ping.
func (l *loop) answered(c *conn) {
	if c.asked {
		c.asked = false
		l.asked--
	}
}

// end closes a connection that the server, or a fault, has ended, and counts why.
func (l *loop) end(c *conn, reason string) {
	switch c.state {
	case closed:
		return
	case up:
	case fresh:
		l.totals.failed++
	default:
		l.totals.failed++
		l.connecting--
	}
	if !c.silent || c.state != up {
		l.totals.closes[reason]++
	}
	l.drop(c)
}

// drop closes a connection without counting it as anybody's fault.
func (l *loop) drop(c *conn) {
	if c.state == up {
		l.up--
	}
	l.answered(c)
	c.state = closed
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// closeAll closes every connection at once.
func (l *loop) closeAll() {
	for _, c := range l.conns {
		if c.state != closed {
			l.drop(c)
		}
	}
}

// hum has the silent ones say that they are there, since they answer no pings: they are to be slow, not dead.
func (l *loop) hum() {
	for _, c := range l.conns {
		if c.deaf() && l.transport == WebSocket { // nobody pings by tcp for an answer
			l.emit(c, opcodePong, nil)
		}
	}
}

// catchUp has the silent ones read what waits for them until hardly anything comes any more, and answers how many find
// that the server has ended their connection. Before, it cannot be known: the end is behind what they did not read.
func (l *loop) catchUp(silent []*conn, patience time.Duration, stop func() bool) (ended int, err error) {
	const (
		quiet = 300 * time.Millisecond
		pings = 64 // bytes a connection that come then to one who has caught up
	)
	for _, c := range silent {
		if c.deaf() {
			c.caught = true
			_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, readSize) // or it takes long
			if err := l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest()); err != nil {
				return 0, fmt.Errorf("watch connection: %w", err)
			}
		}
	}
	open := func(c *conn) bool { return c.state != closed }
	for end, before := l.now()+patience, -1; (before < 0 || l.caught-before > pings*len(silent)) && l.now() < end && !stop(); {
		before = l.caught
		if err := l.run(min(end, l.now()+quiet), func() bool { return stop() || !slices.ContainsFunc(silent, open) }); err != nil {
			return 0, err
		}
	}
	for _, c := range silent {
		if !open(c) {
			ended++
		}
	}
	return ended, nil
}

// reasonOf is a word for why a connection ended.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return "reset"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ENOBUFS):
		return "takes nothing"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "no free port (--sources)"
	}
	return err.Error()
}
