package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smallnest/rpcx/client"
	"github.com/smallnest/rpcx/share"
	"github.com/vmihailenco/msgpack/v5"

	"gochat/layers/internal/contract"
)

var (
	errClosed  = errors.New("connection is closed")
	errNotSent = errors.New("not sent") // the peer has not seen the call
	errBroken  = errors.New("connection broke")
)

const (
	connectTimeout = time.Second // short: peers are near, and one that does not accept is down
	writeTimeout   = 5 * time.Second
	keepAlive      = 5 * time.Second
)

// conn is the way to one life of a node: a link, made when first used and again after it broke.
type conn struct {
	addr  string
	owned *sync.WaitGroup // those that dial, for which the caller waits

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
	l, err := dialLink(c.addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		d.err = fmt.Errorf("dial: %w", err)
	case c.closed:
		l.close()
		d.err = errClosed
	default:
		d.link, c.link = l, l
	}
	c.dialing = nil
	close(d.done)
}

// idle reports whether nobody waits for an answer over it.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialing == nil && (c.link == nil || c.link.calls.Load() == 0)
}

// close fails the calls in flight and every later one.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link != nil {
		c.link.close()
	}
}

// link is one tcp connection under rpcx's Client, which any number of calls share; answers come in any order.
//
// The Client is never closed by its Close, nor is the error of a call read once the Client has shut down: there it
// writes to calls that their callers already have. Closing its socket ends it cleanly.
type link struct {
	rpcx  *client.Client
	calls atomic.Int64 // in flight, with those whose callers still wait
}

// dialLink connects, for connectTimeout at most.
func dialLink(addr string) (*link, error) {
	option := client.DefaultOption
	option.ConnectTimeout = connectTimeout
	option.TCPKeepAlivePeriod = keepAlive
	l := &link{rpcx: client.NewClient(option)}
	l.rpcx.Plugins = client.NewPluginContainer()
	l.rpcx.Plugins.Add(boundedWrites{})
	if err := l.rpcx.Connect("tcp", addr); err != nil {
		return nil, err
	}
	return l, nil
}

// boundedWrites gives up a peer that takes nothing for writeTimeout, since a message may be in it by half; without it
// each call to a peer that hangs would hold a goroutine for good.
type boundedWrites struct{}

// ConnCreated implements rpcx's client.ConnCreatedPlugin.
func (boundedWrites) ConnCreated(conn net.Conn) (net.Conn, error) { return boundedConn{conn}, nil }

type boundedConn struct{ net.Conn }

func (c boundedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close() // what follows would be read as the rest of this
	}
	return n, err
}

// close fails the calls in flight.
func (l *link) close() { _ = l.rpcx.GetConn().Close() } // whatever it says, it is over

func (l *link) isBroken() bool { return l.rpcx.IsShutdown() }

// do sends one call and waits for its answer, for the end of the link or of ctx. An answer that comes later goes into
// a reply that nobody reads.
func (l *link) do(ctx context.Context, service, method string, metadata map[string]string, arg, reply any) error {
	payload, err := codec.Encode(arg)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(payload) > maxPayload {
		return contract.Errorf(contract.TooLarge, "the request is over %d bytes", maxPayload)
	}
	l.calls.Add(1)
	defer l.calls.Add(-1)
	// rpcx sees a context that never ends: its own waiting for one races with its sending.
	calling := context.WithValue(context.Background(), share.ReqMetaDataKey, metadata)
	pending := l.rpcx.Go(calling, service, method, msgpack.RawMessage(payload), reply, make(chan *client.Call, 1))
	select {
	case <-pending.Done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.isBroken() {
		return errBroken
	}
	return pending.Error
}
