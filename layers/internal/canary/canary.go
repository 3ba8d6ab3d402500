package canary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// Logic is what the canary asks of the logic layer.
type Logic interface {
	CanarySession(context.Context, *contract.CanarySessionRequest) (*contract.SessionGrant, error)
	Logout(context.Context, *contract.LogoutRequest) (*contract.Empty, error)
}

const (
	failuresAllowed = 1  // in a row
	staleAfter      = 3  // intervals
	waitFor         = 10 // timeouts, until a message that is late is given up
	leastPace       = time.Second
	logoutWithin    = 2 * time.Second
)

// Canary is that of one node.
type Canary struct {
	cfg    Config
	addrs  []string // by way
	logic  Logic
	self   func() (contract.NodeRef, bool)
	log    *slog.Logger
	m      *metrics
	prefix string // of the client ids of this life
	events chan func()

	goroutines sync.WaitGroup

	// Of the goroutine of Run:

	session   *contract.SessionGrant // nil while there is none
	node      contract.NodeID        // whose session it is
	asking    bool                   // for a session
	askAt     time.Time
	asks      int    // since a message was good
	noSession string // why there is none

	// By way:

	links    []*link // nil while there is none
	linkAt   []time.Time
	attempts []int    // since a message was good
	away     []string // why the last link ended

	pending map[string]*message // by client id
	number  int64               // of messages
	began   time.Time           // the last round; zero has the next one begin at once
	doubt   []time.Time         // by way: what was sent before does not show that a way is well
	down    bool                // it was said that it fails

	mu     sync.Mutex
	status []status // by way
}

// message is one that is on its way. It is decided once it is acknowledged and has arrived, or is given up.
type message struct {
	by          way
	sent        time.Time
	acked       bool
	awaited     []way  // by which it has not arrived yet
	overdue     bool   // it counts as a failure already
	id, trace   string // by which others know it; id is "" until it is acknowledged
	traceparent string // as it arrived
}

// status is how messages fare that are sent by one way.
type status struct {
	good     bool      // one was, ever
	failures int       // in a row
	since    time.Time // the first of them
	seen     string    // what the last of them was
	id       string    // of its message; "" if it is not known
	trace    string    // likewise
	came     time.Time // the last message
}

// New builds the canary of the node whose life self answers and that has bound the addresses, one of tcp at
// least. The configuration must be valid and On.
func New(cfg Config, logic Logic, self func() (contract.NodeRef, bool), websocketAddr string, tcpAddrs []string, tel observability.Telemetry) *Canary {
	addrs := append([]string{websocketAddr}, tcpAddrs...)
	c := &Canary{
		cfg: cfg, logic: logic, self: self, log: tel.Log,
		addrs:   addrs,
		prefix:  rand.Text()[:12] + "-",
		events:  make(chan func()),
		pending: make(map[string]*message),
		links:   make([]*link, len(addrs)), linkAt: make([]time.Time, len(addrs)), attempts: make([]int, len(addrs)), away: make([]string, len(addrs)),
		doubt: make([]time.Time, len(addrs)), status: make([]status, len(addrs)),
	}
	c.m = newMetrics(tel.Metrics, func(t transport) bool {
		for w := range c.ways() {
			if w.transport() == t && c.wrong(w) != "" {
				return false
			}
		}
		return true
	})
	return c
}

// Run sends and receives until ctx ends. Then it closes its connections, logs out, and returns nil; nothing it began runs on.
func (c *Canary) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.began = time.Now()
	for ctx.Err() == nil {
		timer.Reset(time.Until(c.tend(ctx, time.Now())))
		select {
		case do := <-c.events:
			do()
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	c.goroutines.Wait()
	if c.session != nil {
		c.logOut(ctx, c.session.Token)
	}
	return nil
}

func (c *Canary) ways() way { return way(len(c.addrs)) }

// name is the transport's, with the address if there are several.
func (c *Canary) name(w way) string {
	if w.transport() == tcp && len(c.addrs) > 2 {
		return tcp.String() + " " + c.addrs[w]
	}
	return w.transport().String()
}

// others are the ways by which a message comes that is sent by this one.
func (c *Canary) others(w way) []way {
	if w != firstWay {
		return []way{firstWay}
	}
	var others []way
	for o := firstWay + 1; o < c.ways(); o++ {
		others = append(others, o)
	}
	return others
}

// Check is nil if messages come through, and else says by which transport they were sent, since when they do not, and how far
// the last one came.
func (c *Canary) Check(context.Context) error {
	var faults []string
	for w := range c.ways() {
		if wrong := c.wrong(w); wrong != "" {
			faults = append(faults, wrong)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}

// wrong is "" if nothing is.
func (c *Canary) wrong(w way) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status[w]
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case s.failures > failuresAllowed, s.failures > 0 && !s.good:
		return fmt.Sprintf("sent by %s, failing since %s: %s", c.name(w), at(s.since), s.seen)
	case !s.good:
		return fmt.Sprintf("sent by %s: no message has come yet", c.name(w))
	case time.Since(s.came) > staleAfter*c.cfg.Interval:
		return fmt.Sprintf("sent by %s: no message has come since %s", c.name(w), at(s.came))
	}
	return ""
}

// post has Run do something, unless it has ended.
func (c *Canary) post(ctx context.Context, do func()) {
	select {
	case c.events <- do:
	case <-ctx.Done():
	}
}

// tend does what is due, and answers when something is the next time.
func (c *Canary) tend(ctx context.Context, now time.Time) time.Time {
	node, alive := c.self()
	if alive && c.session != nil && node.ID != c.node {
		token := c.session.Token
		c.forgetSession(now, "this node has become "+string(node.ID))
		c.goroutines.Go(func() { c.logOut(ctx, token) })
	}
	if c.session == nil && !c.asking && !now.Before(c.askAt) {
		c.ask(ctx, now, node.ID, alive)
	}
	for w := range c.ways() {
		if c.session != nil && c.links[w] == nil && !now.Before(c.linkAt[w]) {
			c.connect(ctx, w)
		}
	}
	for id, m := range c.pending {
		c.judge(now, id, m)
	}
	if !now.Before(c.began.Add(c.pace())) {
		c.round(now, alive)
	}
	c.tell()
	return c.next()
}

// next is when something is due that nobody else tells of.
func (c *Canary) next() time.Time {
	next := c.began.Add(c.pace())
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if c.session == nil && !c.asking {
		earlier(c.askAt)
	}
	for w := range c.ways() {
		if c.session != nil && c.links[w] == nil {
			earlier(c.linkAt[w])
		}
	}
	for _, m := range c.pending {
		if m.overdue {
			earlier(m.sent.Add(waitFor * c.cfg.Timeout))
		} else {
			earlier(m.sent.Add(c.cfg.Timeout))
		}
	}
	return next
}

// pace is the time between two rounds.
func (c *Canary) pace() time.Duration {
	if c.well() {
		return c.cfg.Interval
	}
	return min(c.cfg.Interval, max(c.cfg.Timeout, leastPace))
}

// well reports whether all ways were good the last time.
func (c *Canary) well() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.status {
		if !s.good || s.failures > 0 {
			return false
		}
	}
	return true
}

// ask asks logic for a session.
func (c *Canary) ask(ctx context.Context, now time.Time, node contract.NodeID, alive bool) {
	c.askAt = now.Add(backoff(c.asks)) // for the next time, should there be one
	if !alive {
		return
	}
	c.asks++
	c.asking = true
	c.goroutines.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, helloWithin)
		defer cancel()
		grant, err := c.logic.CanarySession(bounded, &contract.CanarySessionRequest{Node: node})
		c.post(ctx, func() { // a session that comes as Run ends is ended by the node's next one
			c.asking = false
			if err != nil {
				c.noSession = err.Error()
				return
			}
			c.session, c.node, c.noSession = grant, node, ""
		})
	})
}

// forgetSession closes the connections, which are the session's.
func (c *Canary) forgetSession(now time.Time, why string) {
	c.session, c.noSession = nil, why
	c.askAt = now.Add(backoff(c.asks))
	for _, l := range c.links {
		if l != nil {
			c.drop(l, now, why)
		}
	}
}

// logOut does not try twice: if the session stays, the next one of the node's canary ends it.
func (c *Canary) logOut(ctx context.Context, token string) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutWithin)
	defer cancel()
	_, _ = c.logic.Logout(bounded, &contract.LogoutRequest{Credential: contract.Credential{Token: token}})
}

// connect makes a link.
func (c *Canary) connect(ctx context.Context, w way) {
	linkCtx, cancel := context.WithCancel(ctx)
	l := &link{way: w, cancel: cancel}
	c.links[w] = l
	c.goroutines.Go(func() {
		defer cancel()
		opened := func(conn net.Conn) { c.post(ctx, func() { c.opened(l, conn) }) }
		take := func(f frame) { c.post(ctx, func() { c.take(l, f) }) }
		err := serve(linkCtx, w.transport(), c.addrs[w], opened, take)
		c.post(ctx, func() { c.lost(l, err) })
	})
}

// opened says hello. The ping is answered once the authentication has been.
func (c *Canary) opened(l *link, conn net.Conn) {
	if c.links[l.way] != l {
		return
	}
	l.conn = conn
	l.send(request{Op: wire.OpAuth, AuthToken: c.session.Token, Device: "canary"})
	l.send(request{Op: wire.OpPing})
}

// lost follows the end of a link.
func (c *Canary) lost(l *link, err error) {
	if c.links[l.way] != l {
		return
	}
	now := time.Now()
	if l.last == nil {
		c.drop(l, now, err.Error())
		return
	}
	c.drop(l, now, l.last.Error())
	switch l.last.Code {
	case contract.SessionEnded, contract.Replaced, contract.Unauthenticated:
		c.forgetSession(now, l.last.Error())
	}
}

// drop closes a link and gives up what depends on it. Another is made after a while.
func (c *Canary) drop(l *link, now time.Time, why string) {
	w := l.way
	l.cancel()
	c.links[w], c.away[w] = nil, why
	c.linkAt[w] = now.Add(backoff(c.attempts[w]))
	c.attempts[w]++
	for id, m := range c.pending {
		if m.by == w && !m.acked || slices.Contains(m.awaited, w) {
			if !m.overdue {
				c.fail(now, m.by, m, fmt.Sprintf("the connection by %s ended: %s", c.name(w), why))
			}
			c.giveUp(now, id, m)
		}
	}
}

// take acts on one frame.
func (c *Canary) take(l *link, f frame) {
	if c.links[l.way] != l {
		return
	}
	now := time.Now()
	if f.ping != nil {
		if l.write(wire.OpcodePong, f.ping) != nil {
			l.cancel()
		}
		return
	}
	m := c.pending[f.ClientID]
	switch f.Op {
	case wire.OpPing:
		l.send(request{Op: wire.OpPong})
	case wire.OpPong:
		if !l.ready && l.last == nil {
			l.ready = true
			if c.allReady() && !c.well() {
				c.began = time.Time{}
			}
		}
	case wire.OpAck:
		if m != nil && m.by == l.way {
			m.acked, m.id = true, f.ID
			if f.TraceID != "" {
				m.trace = f.TraceID
			}
			c.complete(now, f.ClientID, m)
		}
	case wire.OpDirect:
		if i := slices.Index(m.awaits(), l.way); i >= 0 && f.FromUserID == c.session.User {
			m.awaited, m.traceparent = slices.Delete(m.awaited, i, i+1), f.Traceparent
			c.complete(now, f.ClientID, m)
		}
	case wire.OpError:
		refusal := &contract.Error{Code: f.Code, Message: f.Message}
		switch {
		case f.ClientID == "":
			l.last = refusal
			if !l.ready { // nor will it be
				l.cancel()
			}
		case m != nil && m.by == l.way:
			delete(c.pending, f.ClientID)
			c.m.messages[m.by.transport()][refused].Inc()
			if !m.overdue {
				c.fail(now, m.by, m, "refused: "+refusal.Error())
			}
		}
		return
	}
	if l.ready {
		l.last = nil // what was refused before did not end the connection
	}
}

// ready reports whether there is a connection that has authenticated.
func (c *Canary) ready(w way) bool { return c.links[w] != nil && c.links[w].ready }

func (c *Canary) allReady() bool {
	for w := range c.ways() {
		if !c.ready(w) {
			return false
		}
	}
	return true
}

// round sends one message by each way. They are recorded if the last ones failed: what is well is not looked at.
func (c *Canary) round(now time.Time, alive bool) {
	c.began = now
	sampled := c.failed(0)
	for w := range c.ways() {
		others := c.others(w)
		why := ""
		switch {
		case !alive:
			why = "this node is not in the cluster"
		case c.session == nil:
			why = "no session"
			if c.noSession != "" {
				why += ": " + c.noSession
			}
		default:
			for _, needed := range append([]way{w}, others...) {
				if why == "" && !c.ready(needed) {
					why = fmt.Sprintf("no connection by %s", c.name(needed))
					if c.away[needed] != "" {
						why += ": " + c.away[needed]
					}
				}
			}
		}
		if why != "" {
			c.m.messages[w.transport()][unsent].Inc()
			c.fail(now, w, &message{}, "not sent: "+why)
			continue
		}
		c.number++
		id := c.prefix + strconv.FormatInt(c.number, 10)
		traceparent := newTrace(sampled)
		c.pending[id] = &message{by: w, sent: now, awaited: others, trace: observability.SpanContext(traceparent).TraceID().String()}
		c.links[w].send(request{Op: wire.OpDirect, ToUserID: c.session.User, Msg: "canary", ClientID: id, Traceparent: traceparent})
	}
}

// judge has a message that is overdue count as a failure, and gives it up in the end.
func (c *Canary) judge(now time.Time, id string, m *message) {
	if !m.overdue && !now.Before(m.sent.Add(c.cfg.Timeout)) {
		m.overdue = true
		c.doubt[m.by] = now
		c.fail(now, m.by, m, c.missing(m))
	}
	if !now.Before(m.sent.Add(waitFor * c.cfg.Timeout)) {
		c.giveUp(now, id, m)
	}
}

// awaits are the ways by which the message has yet to come; none of no message.
func (m *message) awaits() []way {
	if m == nil {
		return nil
	}
	return m.awaited
}

// missing says how far the message came, and with that where to look.
func (c *Canary) missing(m *message) string {
	within := c.cfg.Timeout
	names := func(ways []way) string {
		var names []string
		for _, w := range ways {
			names = append(names, c.name(w))
		}
		return strings.Join(names, ", ")
	}
	switch {
	case m.acked:
		return fmt.Sprintf("acknowledged (trace %s, message %s), but not received by %s within %v: see queue, task, push", m.trace, m.id, names(m.awaited), within)
	case len(m.awaited) == 0:
		return fmt.Sprintf("received by %s, but not acknowledged within %v", names(c.others(m.by)), within)
	}
	return fmt.Sprintf("not acknowledged within %v: see logic, database", within)
}

// giveUp is the end of a message that does not come.
func (c *Canary) giveUp(now time.Time, id string, m *message) {
	delete(c.pending, id)
	c.doubt[m.by] = now
	if m.acked {
		c.m.messages[m.by.transport()][lost].Inc()
	} else {
		c.m.messages[m.by.transport()][unacknowledged].Inc()
	}
}

// fail counts a failure of the way, of a message if it could be sent.
func (c *Canary) fail(now time.Time, by way, m *message, seen string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status[by]
	if s.failures == 0 {
		s.since = now
	}
	s.failures++
	s.seen, s.id, s.trace = seen, m.id, m.trace
}

// complete decides a message that is acknowledged and has arrived.
func (c *Canary) complete(now time.Time, id string, m *message) {
	if !m.acked || len(m.awaited) > 0 {
		return
	}
	delete(c.pending, id)
	observability.ObserveIn(c.m.seconds[m.by.transport()], now.Sub(m.sent).Seconds(), m.traceparent)
	c.m.last[m.by.transport()].Set(float64(now.UnixMilli()) / 1000)
	overdue := m.overdue || now.Sub(m.sent) >= c.cfg.Timeout
	if overdue {
		c.m.messages[m.by.transport()][late].Inc()
		c.doubt[m.by] = now
		if !m.overdue {
			c.fail(now, m.by, m, fmt.Sprintf("received after %v", now.Sub(m.sent).Round(time.Millisecond)))
		}
	} else {
		c.m.messages[m.by.transport()][received].Inc()
	}
	good := !overdue && !m.sent.Before(c.doubt[m.by])
	if good {
		c.asks = 0
		clear(c.attempts)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status[m.by]
	s.came = now
	if good {
		s.good, s.failures, s.seen = true, 0, ""
	}
}

// tell logs that messages come through no more, and that they do again.
func (c *Canary) tell() {
	err := c.Check(context.Background())
	switch {
	case err == nil && c.down:
		c.down = false
		c.log.Info("the canary's messages come through again")
	case err != nil && !c.down && c.failed(failuresAllowed):
		c.down = true
		id, trace := c.lastFailed()
		c.log.Warn("the canary's messages do not come through", "err", err, "msg_id", id, "trace_id", trace)
	}
}

// lastFailed names the message of a way that fails oftener than it may: the one known best.
func (c *Canary) lastFailed() (id, trace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.status {
		if s.failures > failuresAllowed && (id == "" && s.id != "" || trace == "") {
			id, trace = s.id, s.trace
		}
	}
	return id, trace
}

// failed reports whether the last messages of one way have failed, more in a row than so many.
func (c *Canary) failed(allowed int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.status {
		if s.failures > allowed {
			return true
		}
	}
	return false
}
