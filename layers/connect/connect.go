package connect

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-faster/city"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/httpd"
	"gochat/observability"
)

var _ contract.Connect = (*Connect)(nil)

// Logic is what connect asks of the logic layer.
type Logic interface {
	Authenticate(context.Context, *contract.AuthenticateRequest) (*contract.Identity, error)
	CheckSessions(context.Context, *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error)
	EnterRoom(context.Context, *contract.RoomRequest) (*contract.Room, error)
	PresenceChanged(context.Context, *contract.PresenceChangedRequest) (*contract.Empty, error)
	Send(context.Context, *contract.SendRequest) (*contract.Receipt, error)
	History(context.Context, *contract.HistoryRequest) (*contract.HistoryReply, error)
	Heads(context.Context, *contract.HeadsRequest) (*contract.HeadsReply, error)
	ConversationHeads(context.Context, *contract.ConversationHeadsRequest) (*contract.HeadsReply, error)
	DirectHeads(context.Context, *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error)
	Deliveries(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error)
	Inbox(context.Context, *contract.InboxRequest) (*contract.InboxReply, error)
	MarkRead(context.Context, *contract.MarkReadRequest) (*contract.MarkReadReply, error)
	Typing(context.Context, *contract.TypingRequest) (*contract.Empty, error)
}

// Connect is the layer on one node.
type Connect struct {
	cfg      Config
	logic    Logic
	tel      observability.Telemetry
	m        *metrics
	tracer   trace.Tracer
	timeouts timeouts
	instance string // begins every ConnID of this process's life
	start    time.Time

	buckets   []*bucket
	registrar *registrar
	sequencer *sequencer
	http      *httpd.Server
	tcp       []net.Listener
	poller    *poller
	polled    chan struct{} // closed when the poller tells nothing any more
	buffers   sync.Pool     // *[]byte of readBuffer, for connections while they are read
	deflate   wire.Deflate
	deflating atomic.Int64 // connections that agreed to compression

	unauthenticated, unfinished, ending *expiry

	// goroutines are the readers and writers of connections, and the handlers that shake hands. Handlers begin before the
	// node drains; of the others none begins once all connections have left. So waiting for all of them then is sound.
	goroutines sync.WaitGroup
	numbers    atomic.Uint64
	stopped    chan struct{} // closed when the buckets work no more

	mu       sync.Mutex
	channels [pingSlots]map[uint64]*channel // all, authenticated or not, by number; each in the slot of its number
	count    int                            // of channels
	draining bool
	empty    chan struct{}                       // closed when draining and nobody is left
	ended    map[contract.SessionID]endedSession // lately
}

// New binds the listeners, so that the addresses are known; connections wait until Run serves them. self is this
// node's present life in the cluster, false between two lives.
func New(cfg Config, logic Logic, routes Routes, self func() (contract.NodeRef, bool), tel observability.Telemetry) (*Connect, error) {
	c := &Connect{
		cfg: cfg, logic: logic, tel: tel,
		m:        newMetrics(tel.Metrics, cfg.Buckets),
		tracer:   tel.Traces.Tracer("gochat/layers/connect"),
		instance: rand.Text()[:12] + "-",
		stopped:  make(chan struct{}),
		polled:   make(chan struct{}),
		start:    time.Now(),
		empty:    make(chan struct{}),
		ended:    make(map[contract.SessionID]endedSession),
		timeouts: timeouts{write: 30 * time.Second, linger: 2 * time.Second, packet: 30 * time.Second},
	}
	if most := affordable(openFiles()); most < cfg.MaxConns {
		tel.Log.Info("connections are bounded by the files that the process may open", "connections", most, "max_connections", cfg.MaxConns)
		c.cfg.MaxConns = most
	}
	c.m.limit.Set(float64(c.cfg.MaxConns))
	c.buffers.New = func() any { b := make([]byte, readBuffer); return &b }
	for i := range c.channels {
		c.channels[i] = make(map[uint64]*channel)
	}
	for i, m := range c.m.buckets {
		c.buckets = append(c.buckets, newBucket(i, m, c.tracer))
	}
	tell := func(ctx context.Context, rooms []contract.RoomID) error {
		_, err := logic.PresenceChanged(ctx, &contract.PresenceChangedRequest{Rooms: rooms})
		return err
	}
	head := func(ctx context.Context, conversation contract.Conversation) (int64, error) {
		reply, err := logic.ConversationHeads(ctx, &contract.ConversationHeadsRequest{Conversations: []contract.Conversation{conversation}})
		if err != nil {
			return 0, err
		}
		return reply.Heads[conversation], nil
	}
	c.sequencer = newSequencer(head)
	c.registrar = newRegistrar(cfg, routes, self, tell, c.m, tel.Log)
	c.unauthenticated = newExpiry(func() time.Duration { return c.cfg.AuthWithin }, c.notAuthenticated)
	c.unfinished = newExpiry(func() time.Duration { return c.timeouts.packet }, c.notFinished)
	c.ending = newExpiry(func() time.Duration { return 2 * c.timeouts.linger }, c.notGone)
	var err error
	if c.poller, err = newPoller(c.readable); err != nil {
		return nil, err
	}
	if err := c.listen(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Connect) listen() error {
	var err error
	if c.http, err = httpd.New(c.cfg.WebSocket.Listen, c.handler(), httpd.Limits{}, c.tel.Log); err != nil {
		return fmt.Errorf("websocket: %w", err)
	}
	for _, addr := range c.cfg.TCP.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("tcp: listen: %w", err)
		}
		c.tcp = append(c.tcp, l)
	}
	return nil
}

// Close releases the ports of a Connect that will not be run.
func (c *Connect) Close() error {
	errs := []error{c.poller.close()}
	if c.http != nil {
		errs = append(errs, c.http.Close())
	}
	for _, l := range c.tcp {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// WebSocketAddr is the address that was bound for websockets.
func (c *Connect) WebSocketAddr() string { return c.http.Addr() }

// TCPAddrs are the addresses that were bound for tcp.
func (c *Connect) TCPAddrs() []string {
	addrs := make([]string, len(c.tcp))
	for i, l := range c.tcp {
		addrs[i] = l.Addr().String()
	}
	return addrs
}

// Run serves until ctx ends. Then it accepts no more, tells clients to go, spread over Config.Drain, and returns
// when all have left and their routes are taken back. Pushes are answered until then, and refused from then on. It
// is called once.
func (c *Connect) Run(ctx context.Context) error {
	// Not derived from ctx: its end starts the drain, during which buckets and registrar work on.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var inner sync.WaitGroup
	for _, b := range c.buckets {
		inner.Go(func() { b.run(working) })
	}
	for _, e := range []*expiry{c.unauthenticated, c.unfinished, c.ending} {
		inner.Go(func() { e.run(working) })
	}
	var pollErr error
	inner.Go(func() {
		defer close(c.polled)
		pollErr = c.poller.run(working)
	})
	inner.Go(func() { c.registrar.run(working) })
	inner.Go(func() { c.keepAlive(working) })
	inner.Go(func() { c.checkSessions(working) })
	inner.Go(func() { c.repairMissed(working) })
	inner.Go(func() { c.compareHeads(working) })
	defer func() {
		stop()
		close(c.stopped) // before the wait: a push that waits for a bucket holds up others
		inner.Wait()
		_ = c.poller.close()
	}()

	accepting, ctx := errgroup.WithContext(ctx)
	accepting.Go(func() error { return c.http.Run(ctx) })
	for _, l := range c.tcp {
		accepting.Go(func() error { return c.acceptTCP(ctx, l) })
	}
	accepting.Go(func() error {
		select {
		case <-c.polled:
			return pollErr
		case <-ctx.Done():
			return nil
		}
	})
	err := accepting.Wait()
	c.drain()
	select {
	case <-c.empty:
	case <-c.polled: // nobody is told of any more: who is read now finds that out, the others go when the last frames are out
		c.goroutines.Wait()
		for _, ch := range c.all() {
			c.dismissParked(ch)
		}
	}
	c.goroutines.Wait()
	return err
}

func (c *Connect) bucketOf(user contract.UserID) *bucket { return c.buckets[c.bucketNumber(user)] }

// bucketNumber is the bucket of a user: by cityhash of the id's decimal digits.
func (c *Connect) bucketNumber(user contract.UserID) int {
	var digits [20]byte
	h := city.Hash64(strconv.AppendInt(digits[:0], int64(user), 10))
	return int(h & uint64(len(c.buckets)-1))
}

var errStopped = contract.Errorf(contract.Unavailable, "the node has stopped")

// Push implements contract.Connect: it returns once every bucket has done its part, or ctx has ended, or the node
// has stopped. After an error the frames may still go out.
func (c *Connect) Push(ctx context.Context, r *contract.PushRequest) (*contract.PushReply, error) {
	results, err := c.deliver(ctx, r.Deliveries, func(p *push) {
		for _, d := range p.deliveries {
			if d.Seq > 0 {
				c.sequencer.noteDelay(d.Delivery)
			}
			if d.Room != 0 {
				if d.note(c.sequencer.admitRoom(d.Delivery)) {
					p.toRoom(d)
				}
				continue
			}
			for _, user := range d.Users {
				v := c.sequencer.admitUser(d.Delivery, user)
				if d.note(v) {
					p.toUser(d, user)
				}
				if v == absent {
					d.absent = append(d.absent, user)
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &contract.PushReply{Results: results}, nil
}

// push is deliveries on their way into the buckets.
type push struct {
	*Connect
	deliveries []*delivery
	perBucket  [][]work
	began      time.Time
	repair     bool         // it brings what no push has brought
	left       atomic.Int32 // buckets that have not done their part
}

func (p *push) toRoom(d *delivery) {
	for b := range p.perBucket {
		p.perBucket[b] = append(p.perBucket[b], work{delivery: d})
	}
}

func (p *push) toUser(d *delivery, user contract.UserID) {
	b := p.bucketNumber(user)
	p.perBucket[b] = append(p.perBucket[b], work{delivery: d, user: user})
}

// noteGone has the users absent whose last connection went while the push waited for its bucket. It is called once the
// buckets have done their part.
func (p *push) noteGone() {
	for _, part := range p.perBucket {
		for _, w := range part {
			if w.nobody {
				w.delivery.absent = append(w.delivery.absent, w.user)
			}
		}
	}
}

// deliver lets admit say which deliveries go where, hands them to the buckets before any other deliveries, and
// answers what became of each once the buckets have done their part. After an error the frames may still go out.
func (c *Connect) deliver(ctx context.Context, deliveries []contract.Delivery, admit func(*push)) ([]contract.PushResult, error) {
	select {
	case <-c.stopped:
		return nil, errStopped
	default:
	}
	p := &push{Connect: c, began: time.Now(), deliveries: make([]*delivery, len(deliveries)), perBucket: make([][]work, len(c.buckets))}
	for i := range deliveries {
		d := &delivery{Delivery: &deliveries[i], frame: c.frame(deliveries[i].Frame)}
		d.except = c.excepted(d.Except)
		if observability.IsSampled(d.Traceparent) {
			d.trace = observability.Remote(context.Background(), d.Traceparent)
		}
		p.deliveries[i] = d
	}
	done := make(chan struct{}, len(c.buckets))
	jobs, err := c.admitAndHand(p, admit, done)
	for err == nil && jobs > 0 {
		select {
		case <-done:
			jobs--
		case <-c.stopped:
			err = errStopped
		case <-ctx.Done():
			err = fmt.Errorf("wait for bucket: %w", ctx.Err())
		}
	}
	if err != nil {
		return nil, err
	}
	p.noteGone()
	results := make([]contract.PushResult, len(deliveries))
	for i, d := range p.deliveries {
		n := func(o outcome) int { return int(d.counts[o].Load()) }
		results[i] = contract.PushResult{Written: n(written), Queued: n(queued), Slow: n(slow), Gone: n(gone),
			Had: d.had, Deferred: d.deferred, Absent: d.absent}
	}
	return results, nil
}

// observe has what the fan-out of each message was like. It is called when the last bucket has done its part, whether or not
// anybody still waits for that.
func (p *push) observe() {
	for _, d := range p.deliveries {
		members := 0
		for o := range d.counts {
			members += int(d.counts[o].Load())
		}
		if d.Seq == 0 || members == 0 {
			continue
		}
		first, last := time.Unix(0, d.first.Load()), time.Unix(0, d.last.Load())
		p.m.fanOut.members.Observe(float64(members))
		if d.Room != 0 {
			p.m.hot.add(d.Room, members, last.Sub(first), p.began)
		}
		if d.last.Load() == 0 {
			continue
		}
		observability.ObserveIn(p.m.seconds, last.Sub(d.AcceptedAt).Seconds(), d.Traceparent)
		observability.ObserveIn(p.m.fanOut.seconds, last.Sub(first).Seconds(), d.Traceparent)
		if !p.repair {
			observability.ObserveIn(p.m.stage, last.Sub(p.began).Seconds(), d.Traceparent)
		}
	}
}

// admitAndHand does both under the sequencer's lock: what is let through is in the buckets in that order.
func (c *Connect) admitAndHand(p *push, admit func(*push), done chan<- struct{}) (jobs int, err error) {
	c.sequencer.mu.Lock()
	defer c.sequencer.mu.Unlock()
	admit(p)
	return c.hand(p, done)
}

// excepted is the number of the connection, 0 if it is none of this node.
func (c *Connect) excepted(id contract.ConnID) (number uint64) {
	if digits, own := strings.CutPrefix(string(id), c.instance); own {
		number, _ = strconv.ParseUint(digits, 10, 64) // no number excepts nobody
	}
	return number
}

// hand gives each bucket its part, and answers how many have one. It waits for buckets that are behind, whatever
// the caller's patience: what was let through counts as pushed from then on.
func (c *Connect) hand(p *push, done chan<- struct{}) (int, error) {
	for _, w := range p.perBucket {
		if len(w) > 0 {
			p.left.Add(1)
		}
	}
	jobs := 0
	for b, w := range p.perBucket {
		if len(w) == 0 {
			continue
		}
		select {
		case c.buckets[b].jobs <- &job{w, p, done}:
			jobs++
		case <-c.stopped:
			return jobs, errStopped
		}
	}
	return jobs, nil
}

// arrive and depart bracket the time that a connection of the user is in the room.
func (c *Connect) arrive(ctx context.Context, w *who, room contract.RoomID) error {
	if err := c.sequencer.arrive(ctx, room); err != nil {
		return err
	}
	if err := c.registrar.arrive(ctx, w, room); err != nil {
		c.sequencer.depart(room)
		return err
	}
	return nil
}

func (c *Connect) depart(w *who, room contract.RoomID) {
	c.registrar.depart(w, room)
	c.sequencer.depart(room)
}

// CloseSessions implements contract.Connect.
func (c *Connect) CloseSessions(_ context.Context, r *contract.CloseSessionsRequest) (*contract.Empty, error) {
	ended := make(map[contract.SessionID]struct{}, len(r.Sessions))
	for _, id := range r.Sessions {
		ended[id] = struct{}{}
	}
	c.noteEnded(r.Sessions, r.Code) // before the look: a connection that is just authenticating is in no bucket yet
	for _, b := range c.buckets {
		for _, ch := range b.all() {
			if _, ok := ended[ch.who.session]; ok {
				ch.end(r.Code, endMessage(r.Code))
			}
		}
	}
	return &contract.Empty{}, nil
}

func endMessage(code contract.Code) string {
	if code == contract.Replaced {
		return "logged in elsewhere"
	}
	return "the session has ended"
}

// LeaveRoom implements contract.Connect.
func (c *Connect) LeaveRoom(_ context.Context, r *contract.NodeLeaveRoomRequest) (*contract.Empty, error) {
	for _, ch := range c.bucketOf(r.User).ofUser(r.User) {
		ch.leaveRoom(r.Room)
	}
	return &contract.Empty{}, nil
}
