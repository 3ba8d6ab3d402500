package connect

import (
	"errors"
	"runtime"
	"syscall"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const (
	readBuffer = 4 << 10 // shared by the connections: only those that are being read have one
	restBuffer = 512     // the least that is kept for the beginning of a message, unless all of it is shorter
)

// partial is what has come of a message that is not whole.
type partial struct {
	rest       []byte // of a packet or a frame; its capacity is for what may come next
	message    []byte // the payloads of the frames before
	inParts    bool   // the first frame of a message has come, and the last has not
	compressed bool   // that message
}

// read acts on what has come, until no more is there, and parks the connection, or dismisses it if that was its end. It is
// called when the socket can be read, by one goroutine at a time, that which holds the connection until it parks it.
func (c *channel) read() {
	pooled := c.srv.buffers.Get().(*[]byte)
	defer c.srv.buffers.Put(pooled)
	buf, have := *pooled, 0
	if c.partial != nil && len(c.partial.rest) > 0 {
		buf, have = c.partial.rest[:cap(c.partial.rest)], len(c.partial.rest)
	}
	for {
		n, err := readNow(c.fd, buf[have:])
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if n <= 0 || c.cut.Load() {
			c.srv.dismiss(c)
			return
		}
		c.touch()
		all := have+n < len(buf) // what there was; more comes with another event
		used, want, closed := c.consume(buf[:have+n])
		if closed {
			c.srv.dismiss(c)
			return
		}
		rest := buf[used : have+n]
		if have = len(rest); have == 0 {
			buf = *pooled
		} else {
			into := buf
			if want > len(buf) {
				into = make([]byte, min(want, max(restBuffer, 2*have)))
			}
			copy(into, rest)
			buf = into
		}
		c.watchUnfinished(have > 0)
		if all {
			break
		}
		runtime.Gosched() // whoever sends without end takes turns with the others
	}
	if have > 0 && &buf[0] == &(*pooled)[0] {
		buf = append(make([]byte, 0, max(restBuffer, 2*have)), buf[:have]...)
	}
	c.park(buf[:have])
}

// readNow reads without waiting.
func readNow(fd int, into []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, into)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// park gives the connection up until more comes. rest is what is kept of a packet or frame that has begun.
func (c *channel) park(rest []byte) {
	switch {
	case len(rest) > 0:
		if c.partial == nil {
			c.partial = &partial{}
		}
		c.partial.rest = rest
	case c.partial != nil && c.partial.inParts:
		c.partial.rest = nil
	default:
		c.partial = nil
	}
	c.parked.Store(true)
	if err := c.srv.poller.wait(c); err != nil {
		c.srv.tel.Log.Error("connection cannot be waited for", "err", err)
		c.srv.dismissParked(c)
		return
	}
	select {
	case <-c.srv.polled: // nobody tells of it any more
		c.srv.dismissParked(c)
	default:
	}
}

// watchUnfinished gives whoever has begun a message, or goes on with one, so long for the rest of it. It is called whenever
// something has been read, with whether there is a part of a packet or frame.
func (c *channel) watchUnfinished(part bool) {
	switch begun := c.begunAt.Load(); {
	case !part && (c.partial == nil || !c.partial.inParts):
		c.begunAt.Store(0)
	case begun == 0:
		c.begunAt.Store(c.srv.unfinished.add(c))
	}
}

// consume acts on each whole message in b. It answers how much of b that was, how much there must be from there on to go on,
// and whether the client has closed the connection.
func (c *channel) consume(b []byte) (used, want int, closed bool) {
	for !c.isEnded() {
		rest := b[used:]
		size, closed, err := c.next(rest)
		switch {
		case err != nil:
			c.endFor(err)
		case closed:
			return used, 0, true
		case size > len(rest):
			return used, size, false
		default:
			used += size
		}
	}
	return len(b), 0, false // nobody wants what comes after the end
}

// next acts on the packet or frame that b begins with, if all of it is there.
func (c *channel) next(b []byte) (size int, closed bool, err error) {
	if c.transport == tcp {
		payload, size, err := wire.NextPacket(b)
		if payload != nil {
			c.begunAt.Store(0)
			c.handle(payload)
		}
		return size, false, err
	}
	f, size, err := wire.NextFrame(b)
	if err != nil || size > len(b) {
		return size, false, err
	}
	if f.Control() && (c.partial == nil || !c.partial.inParts) {
		c.begunAt.Store(0) // what begins behind it has its own time
	}
	closed, err = c.onFrame(&f)
	return size, closed, err
}

// endFor ends the connection for what its client has sent.
func (c *channel) endFor(err error) {
	var violation *wire.ViolationError
	var bad *contract.Error
	switch {
	case errors.As(err, &violation):
		c.endWith(contract.BadRequest, wire.CloseViolation, violation.What)
	case errors.As(err, &bad):
		c.end(bad.Code, bad.Message)
	default:
		c.end(contract.Internal, "the message could not be read")
	}
}
