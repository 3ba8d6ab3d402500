package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	dialTimeout = 2 * time.Second        // of one address, the handshake included
	opTimeout   = 5 * time.Second        // of one operation, where the caller sets no bound
	grace       = 250 * time.Millisecond // how long an operation may outlast its context before its connection is cut
)

var errClosed = errors.New("the queue is closed")

// link is one connection to the broker, made when it is needed and made anew when it was lost.
type link struct {
	name      string
	urls      []string
	heartbeat time.Duration

	current  atomic.Pointer[connection] // nil before the first; changed by who has the turn
	attempts atomic.Int64               // at dialling, so far
	turn     chan struct{}              // holds an element while somebody has what follows
	failure  error                      // of the last attempt, nil if it succeeded
	first    int                        // which of the urls is tried first
	closed   bool
}

func newLink(name string, urls []string, heartbeat time.Duration) *link {
	return &link{name: name, urls: urls, heartbeat: heartbeat, turn: make(chan struct{}, 1)}
}

// connection knows what amqp.Connection keeps to itself.
type connection struct {
	*amqp.Connection
	socket  net.Conn
	blocked atomic.Pointer[string] // why the broker takes nothing now, nil if it does
}

// get answers the connection that is, or a new one.
func (l *link) get(ctx context.Context) (*connection, error) {
	before := l.attempts.Load()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := l.open(); c != nil {
		return c, nil
	}
	switch {
	case l.closed:
		return nil, errClosed
	case l.failure != nil && l.attempts.Load() != before: // somebody has just tried
		return nil, l.failure
	}
	var errs []error
	for i := range l.urls {
		at := (l.first + i) % len(l.urls)
		c, err := l.dial(ctx, l.urls[at])
		if err == nil {
			l.current.Store(c)
			l.failure, l.first = nil, at
			return c, nil
		}
		errs = append(errs, err)
	}
	err := fmt.Errorf("connect to RabbitMQ: %w", errors.Join(errs...))
	if ctx.Err() == nil { // else it says nothing of the broker
		l.failure = err
		l.attempts.Add(1)
	}
	return nil, err
}

func (l *link) dial(ctx context.Context, url string) (*connection, error) {
	host, _ := os.Hostname() // for people who look at the broker: without it they see the address
	c := &connection{}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("gochat " + l.name + " " + host)
	conn, err := amqp.DialConfig(url, amqp.Config{
		Heartbeat: l.heartbeat, Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			var dialer net.Dialer
			socket, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c.socket = socket
			until, _ := ctx.Deadline()
			return socket, socket.SetDeadline(until) // of the handshake, which takes it away
		},
	})
	if err != nil {
		if c.socket != nil {
			_ = c.socket.Close()
		}
		return nil, err
	}
	c.Connection = conn
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	go func() { // ends with the connection
		for b := range blocked {
			if b.Active {
				c.blocked.Store(&b.Reason)
			} else {
				c.blocked.Store(nil)
			}
		}
	}()
	return c, nil
}

// cut ends the connection without a word. Whoever waits for the broker on it returns.
func (c *connection) cut() { _ = c.socket.Close() }

// within calls f, which waits for the broker, and cuts the connection if f outlasts ctx: nothing else ends such a wait.
func (c *connection) within(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			c.cut()
		case <-done:
		}
	})
	defer stop()
	defer close(done)
	err := f()
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// hangUp ends the connection, if there is one, and waits for the broker's word.
func (l *link) hangUp() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.end()
}

// close ends the connection and lets none be made. What was read and not acknowledged goes back to the broker.
func (l *link) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.closed = true
	l.end()
}

func (l *link) end() {
	if c := l.current.Swap(nil); c != nil && c.CloseDeadline(time.Now().Add(time.Second)) != nil {
		c.cut() // it was lost already, or the broker hangs
	}
}

// open is the connection if there is one, nil if not.
func (l *link) open() *connection {
	if c := l.current.Load(); c != nil && !c.IsClosed() {
		return c
	}
	return nil
}

// blockedBy is why the broker takes nothing now, "" if it does.
func (l *link) blockedBy() string {
	if c := l.open(); c != nil {
		if why := c.blocked.Load(); why != nil {
			return *why
		}
	}
	return ""
}
