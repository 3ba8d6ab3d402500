package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/smallnest/rpcx/protocol"

	"gochat/layers/internal/contract"
)

var (
	errClosed  = errors.New("connection is closed")
	errNotSent = errors.New("not sent") // the peer has not seen the call
)

const (
	connectTimeout = time.Second // short: peers are near, and one that does not accept is down
	writeTimeout   = 5 * time.Second
	queuedCalls    = 64 // frames that wait for the socket; the callers of more wait with them
)

// conn is the way to one life of a node: a link, made when first used and again after it broke.
type conn struct {
	addr  string
	owned *sync.WaitGroup // the goroutines, for which the caller waits

	mu      sync.Mutex
	link    *link
	dialing *dial // nil if none is in flight
	closed  bool
}

// dial is one attempt, whose outcome everyone shares who came meanwhile.
type dial struct {
	done chan struct{}
	link *link
	err  error
}

// get is the link that works. It waits for a dial, for as long as ctx allows.
func (c *conn) get(ctx context.Context) (*link, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errClosed
	}
	if c.link != nil && !c.link.isBroken() {
		defer c.mu.Unlock()
		return c.link, nil
	}
	d := c.dialing
	if d == nil {
		d = &dial{done: make(chan struct{})}
		c.dialing = d
		c.owned.Go(func() { c.dial(d) })
	}
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *conn) dial(d *dial) {
	dialer := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 5}}
	tcp, err := dialer.Dial("tcp", c.addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		d.err = fmt.Errorf("dial: %w", err)
	case c.closed:
		_ = tcp.Close() // nothing was sent over it
		d.err = errClosed
	default:
		d.link = newLink(tcp, c.owned)
		c.link = d.link
	}
	c.dialing = nil
	close(d.done)
}

// idle reports whether nobody waits for an answer over it.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialing == nil && (c.link == nil || c.link.waiting() == 0)
}

// close fails the calls in flight and every later one.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link != nil {
		c.link.fail(errClosed)
	}
}

// link is one tcp connection that any number of calls share; answers come in any order. Two goroutines, one that
// writes and one that reads, live until it fails.
type link struct {
	tcp    net.Conn
	out    chan []byte
	broken chan struct{} // closed once no answers come any more, for the reason in err

	mu      sync.Mutex
	pending map[uint64]chan answer
	seq     uint64
	err     error
}

// answer is the payload of a reply, or why the peer did not make one.
type answer struct {
	payload []byte
	err     error
}

func newLink(tcp net.Conn, owned *sync.WaitGroup) *link {
	l := &link{tcp: tcp, out: make(chan []byte, queuedCalls), broken: make(chan struct{}), pending: make(map[uint64]chan answer)}
	owned.Go(l.write)
	owned.Go(l.read)
	return l
}

// fail ends the link for the first reason given.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.broken)
		_ = l.tcp.Close() // whatever it says, it is over
	}
}

func (l *link) isBroken() bool {
	select {
	case <-l.broken:
		return true
	default:
		return false
	}
}

func (l *link) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}

// write sends what is queued. A peer that takes nothing for writeTimeout is given up, since a frame may be in it by
// half.
func (l *link) write() {
	for {
		select {
		case frame := <-l.out:
			err := l.tcp.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err == nil {
				_, err = l.tcp.Write(frame)
			}
			if err != nil {
				l.fail(fmt.Errorf("write: %w", err))
				return
			}
		case <-l.broken:
			return
		}
	}
}

// read hands answers to those who wait for them. An answer that nobody waits for any more is dropped.
func (l *link) read() {
	r := bufio.NewReaderSize(l.tcp, 16<<10)
	for {
		message := protocol.NewMessage()
		if err := message.Decode(r); err != nil {
			l.fail(fmt.Errorf("read: %w", err))
			return
		}
		l.mu.Lock()
		waits := l.pending[message.Seq()]
		delete(l.pending, message.Seq())
		l.mu.Unlock()
		if waits == nil {
			continue
		}
		a := answer{payload: message.Payload}
		if message.MessageStatusType() == protocol.Error {
			a = answer{err: fmt.Errorf("refused: %s", message.Metadata[protocol.ServiceError])}
		}
		waits <- a // has room: an answer comes once
	}
}

// do sends one call and waits for its answer, for the end of the link or of ctx. The message is not used after it
// returned.
func (l *link) do(ctx context.Context, message *protocol.Message) ([]byte, error) {
	if len(message.Payload) > maxPayload {
		return nil, contract.Errorf(contract.TooLarge, "the request is over %d bytes", maxPayload)
	}
	waits := make(chan answer, 1)
	l.mu.Lock()
	l.seq++
	seq := l.seq
	l.pending[seq] = waits
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pending, seq)
	}()
	message.SetSeq(seq)
	select {
	case l.out <- message.Encode():
	case <-l.broken:
		return nil, fmt.Errorf("%w: %w", errNotSent, l.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-waits:
		return a.payload, a.err
	case <-l.broken:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-waits: // the last that came
		return a.payload, a.err
	default:
		return nil, l.err
	}
}
