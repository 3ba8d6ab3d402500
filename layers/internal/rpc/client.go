package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-faster/city"
	"github.com/smallnest/rpcx/share"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Peer is a node that can be called.
type Peer struct {
	Ref  contract.NodeRef
	Addr string
}

// Peers is the present picture of the nodes of one layer. It is asked for each call, so it must be cheap.
type Peers func() []Peer

// errTransport marks a call that may not have reached its peer, or whose answer was lost; errNotSent beside it, one
// that surely has not.
var errTransport = errors.New("call failed on its way")

// caller calls the nodes of one service.
type caller struct {
	service string
	peers   Peers
	secret  string
	timeout time.Duration
	turn    atomic.Uint64
	telemetry

	goroutines sync.WaitGroup // that dial, and that carry batches

	mu      sync.Mutex
	conns   map[contract.NodeRef]*conn
	closed  bool
	sweepAt time.Time
}

// Clients makes the clients of one layer, which are seen by its telemetry.
type Clients struct {
	cfg Config
	telemetry
}

// NewClients is called once for each telemetry.
func NewClients(cfg Config, tel observability.Telemetry) *Clients {
	return &Clients{cfg: cfg, telemetry: newTelemetry(tel, "client")}
}

func (c *Clients) caller(service string, peers Peers) *caller {
	return &caller{
		service: service, peers: peers, secret: c.cfg.Secret, timeout: c.cfg.Timeout,
		telemetry: c.telemetry, conns: make(map[contract.NodeRef]*conn),
	}
}

// Close closes the connections and waits for those that are being dialled, a second at most. Calls in flight
// fail, and so does every later one.
func (c *caller) Close() error {
	c.mu.Lock()
	conns := c.conns
	c.conns, c.closed = nil, true
	c.mu.Unlock()
	for _, conn := range conns {
		conn.close()
	}
	c.goroutines.Wait()
	return nil
}

// start runs f in a goroutine that Close waits for. It is false if the caller is closed.
func (c *caller) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.goroutines.Go(f)
	return true
}

// attempts a call that may be repeated gets, each on another node while there are others.
const attempts = 3

// call asks one node: the one that the key's hash prefers, or with an empty key each in turn. It tries further
// nodes if the peer has not seen the call and, with again, also if that is not known.
func call[A, R any](ctx context.Context, c *caller, method, key string, again bool, arg *A) (*R, error) {
	return callBy(ctx, c, method, key, again, arg, alone[A, R](c, method))
}

// carry brings one call to one peer and its reply back.
type carry[A, R any] func(ctx context.Context, peer Peer, arg *A) (*Reply[R], error)

// alone carries each call in a message of its own.
func alone[A, R any](c *caller, method string) carry[A, R] {
	return func(ctx context.Context, peer Peer, arg *A) (*Reply[R], error) {
		return exchange[R](ctx, c, peer, method, arg)
	}
}

func callBy[A, R any](ctx context.Context, c *caller, method, key string, again bool, arg *A, by carry[A, R]) (*R, error) {
	peers := c.order(key)
	if len(peers) == 0 {
		return nil, contract.RetryLater(contract.Unavailable, time.Second, "no %s node is up", c.service)
	}
	var err error
	for i := range attempts {
		var value *R
		value, err = callPeer(ctx, c, peers[i%len(peers)], method, arg, by)
		if !errors.Is(err, errTransport) || ctx.Err() != nil || !again && !errors.Is(err, errNotSent) {
			return value, err
		}
	}
	return nil, err
}

// callPeer asks one node once. An error that is errTransport is also an Unavailable. So is that of a ctx that has ended,
// which is not errTransport: no other node is tried then.
func callPeer[A, R any](ctx context.Context, c *caller, peer Peer, method string, arg *A, by carry[A, R]) (_ *R, err error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	ctx, span := c.startSpan(ctx, c.service+"/"+method, trace.SpanKindClient)
	defer func() { endSpan(span, err) }()
	return callUntraced(ctx, c, peer, method, arg, by)
}

// callUntraced is callPeer without a span, for a ctx that has a deadline.
func callUntraced[A, R any](ctx context.Context, c *caller, peer Peer, method string, arg *A, by carry[A, R]) (_ *R, err error) {
	start := time.Now()
	defer func() {
		observability.Observe(c.seconds.WithLabelValues(c.service, method, codeLabel(err)), time.Since(start).Seconds(),
			trace.SpanContextFromContext(ctx))
	}()

	reply, err := by(ctx, peer, arg)
	switch {
	case contract.CodeOf(err) == contract.TooLarge:
		return nil, err
	case err != nil && ctx.Err() != nil:
		// The first is what clients see, the rest is for the log.
		return nil, fmt.Errorf("%w: %s at %s: %w",
			contract.RetryLater(contract.Unavailable, time.Second, "%s did not answer in time", c.service), peer.Ref, peer.Addr, err)
	case err != nil:
		return nil, c.lost(peer, err)
	case reply.Err != nil:
		return nil, reply.Err
	case reply.Value == nil:
		return new(R), nil
	}
	return reply.Value, nil
}

// bounded is ctx with a deadline.
func (c *caller) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// exchange sends the argument and reads the reply.
func exchange[R any](ctx context.Context, c *caller, peer Peer, method string, arg any) (*Reply[R], error) {
	conn, err := c.conn(peer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	link, err := conn.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	deadline, _ := ctx.Deadline()
	// A map of its own for each call: rpcx encodes it in another goroutine.
	metadata := map[string]string{
		share.AuthKey:       c.secret,
		share.ServerTimeout: strconv.FormatInt(left(deadline), 10),
	}
	if traceparent := observability.Traceparent(ctx); traceparent != "" {
		metadata[contract.HeaderTraceparent] = traceparent
	}
	reply := new(Reply[R])
	if err := link.do(ctx, c.service, method, metadata, arg, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// left is how many milliseconds there are until the deadline, at least one.
func left(deadline time.Time) int64 { return max(time.Until(deadline).Milliseconds(), 1) }

func (c *caller) lost(peer Peer, cause error) error {
	return fmt.Errorf("%w: %s at %s: %w: %w", errTransport, peer.Ref, peer.Addr, cause,
		contract.RetryLater(contract.Unavailable, time.Second, "%s could not be reached", c.service))
}

// order is the peers in the order of preference: for a key by rendezvous hashing, so that a node that comes or
// goes moves only its own share of the keys; without one by turns.
func (c *caller) order(key string) []Peer {
	peers := c.peers()
	if len(peers) < 2 {
		return peers
	}
	ordered := slices.Clone(peers)
	if key == "" {
		turn := int(c.turn.Add(1) % uint64(len(peers)))
		return append(append(ordered[:0], peers[turn:]...), peers[:turn]...)
	}
	weight := func(p Peer) uint64 { return city.Hash64([]byte(key + "|" + p.Ref.String())) }
	slices.SortFunc(ordered, func(a, b Peer) int {
		if weight(a) > weight(b) {
			return -1
		}
		return 1
	})
	return ordered
}

// sweepEvery bounds how long a connection to a node that left is kept.
const sweepEvery = time.Second

// conn is the connection to the peer. Those of nodes that have left are closed once nobody waits for an answer over
// them: a node that drains leaves first and then finishes the calls in flight.
func (c *caller) conn(peer Peer) (*conn, error) {
	var gone []*conn
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errClosed
	}
	if now := time.Now(); now.After(c.sweepAt) {
		c.sweepAt = now.Add(sweepEvery)
		live := c.peers()
		for ref, conn := range c.conns {
			if ref != peer.Ref && !slices.ContainsFunc(live, func(p Peer) bool { return p.Ref == ref }) && conn.idle() {
				delete(c.conns, ref)
				gone = append(gone, conn)
			}
		}
	}
	found := c.conns[peer.Ref]
	if found == nil {
		found = &conn{addr: peer.Addr, owned: &c.goroutines}
		c.conns[peer.Ref] = found
	}
	c.mu.Unlock()
	for _, conn := range gone {
		conn.close()
	}
	return found, nil
}
