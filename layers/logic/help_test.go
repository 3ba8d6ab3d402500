package logic

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/ids"
	"gochat/layers/internal/record"
	"gochat/layers/internal/session"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

const patience = testwait.Patience

var eventually = testwait.Eventually

func wantCode(t testing.TB, err error, want contract.Code) {
	t.Helper()
	if got := contract.CodeOf(err); got != want {
		t.Errorf("got %v, want code %q", err, want)
	}
}

// aWhile is how long a test waits to see that something does not happen. Too short, it sees less; it never fails.
const aWhile = 50 * time.Millisecond

// house is what one Logic of a test works with. All but Store and Sessions is scripted by the test.
type house struct {
	store    *store.Store
	sessions *session.Store
	queue    *recordedQueue
	nodes    *scriptedNodes
	told     *recordedPeers
	records  *record.Logic
	deps     Dependencies
}

// newHouse has an empty SQLite database and a Redis of its own.
func newHouse(t *testing.T) *house {
	t.Helper()
	return houseOn(t, store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "gochat.db")}, testdeps.Redis(t).Addr())
}

// houseOn migrates the database. Several houses may share one, as processes do.
func houseOn(t *testing.T, cfg store.Config, redis string) *house {
	t.Helper()
	if _, err := store.MigrateUp(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	h := &house{queue: &recordedQueue{}, nodes: newScriptedNodes(), told: &recordedPeers{}, records: record.NewLogic(record.Defaults(), observability.Discard())}
	var err error
	if h.store, err = store.Open(cfg, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.store.Close() })
	if h.sessions, err = session.Open(session.Config{Addrs: []string{redis}}, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.sessions.Close() })
	number := int(houses.Add(1))
	h.deps = Dependencies{
		Store: h.store, Sessions: h.sessions, Presence: h.sessions, Publisher: h.queue,
		IDs:   ids.New(func() (int, bool) { return number, true }),
		Nodes: h.nodes, Peers: h.told, Connects: h.told, Singleton: nobody{},
		Records: h.records,
	}
	return h
}

// houses numbers the sources of ids.
var houses atomic.Int32

// testConfig has cheap passwords, no limit of what one may send, and commits that wait as long as a test lets them.
func testConfig() (Config, AuthConfig) {
	cfg, auth := Defaults(), AuthDefaults()
	cfg.Rate = RateConfig{PerSecond: 1e6, Burst: 1e6}
	cfg.Commit.Timeout = patience
	auth.Argon2 = Argon2Config{MemoryKiB: 8, Time: 1}
	return cfg, auth
}

// logic makes a Logic and does not run it.
func (h *house) logic(t *testing.T, change ...func(*Config, *AuthConfig)) *Logic {
	t.Helper()
	cfg, auth := testConfig()
	for _, f := range change {
		f(&cfg, &auth)
	}
	l, err := New(cfg, auth, h.deps, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	h.told.send = l.Send
	return l
}

// running is a Logic that runs until stop, or the end of the test.
func (h *house) running(t *testing.T, change ...func(*Config, *AuthConfig)) *Logic {
	t.Helper()
	l := h.logic(t, change...)
	run(t, l)
	return l
}

// run answers what ends it and waits for it.
func run(t *testing.T, l *Logic) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := testwait.Receive(t, "the logic ends", done); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// person is a user with a session.
type person struct {
	contract.SessionGrant
	by contract.Credential
}

func register(t testing.TB, l *Logic, name string) person {
	t.Helper()
	g, err := l.Register(t.Context(), &contract.RegisterRequest{Name: name, Password: "password of " + name})
	if err != nil {
		t.Fatal(err)
	}
	return person{*g, contract.Credential{Token: g.Token}}
}

// send sends a text to a room.
func (p person) send(ctx context.Context, l *Logic, room contract.RoomID, text string) (*contract.Receipt, error) {
	return l.Send(ctx, &contract.SendRequest{Credential: p.by, Room: room, Text: text})
}

// say is send that must succeed.
func (p person) say(t testing.TB, l *Logic, room contract.RoomID, text string) *contract.Receipt {
	t.Helper()
	r, err := p.send(t.Context(), l, room, text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// recordedQueue keeps what is published; fail, if set, decides: with a contract.PublishError, what the other partitions get
// is kept.
type recordedQueue struct {
	mu    sync.Mutex
	items []contract.Item
	fail  func([]contract.Item) error
}

func (q *recordedQueue) Publish(_ context.Context, items []contract.Item) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var err error
	if q.fail != nil {
		err = q.fail(items)
	}
	var partial *contract.PublishError
	for _, item := range items {
		if err == nil || errors.As(err, &partial) && !slices.Contains(partial.Partitions, q.Partition(item.Key)) {
			q.items = append(q.items, item)
		}
	}
	return err
}

func (*recordedQueue) System() string { return "recorded" }

func untraced() trace.Tracer { return observability.Discard().Traces.Tracer("test") }

func entranceOf(q Publisher) *entrance { return &entrance{q, untraced()} }

// Partition implements Publisher: a hundred of them, the room's number or that of the direct conversation's first user.
func (q *recordedQueue) Partition(key string) int {
	parties, _ := contract.Conversation(key).Parse()
	return int(int64(parties.Room)+int64(parties.Low)) % 100
}

func (q *recordedQueue) failing(fail func([]contract.Item) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail = fail
}

// deliveries are those published so far: stored messages, or else notices.
func (q *recordedQueue) deliveries(t testing.TB, stored bool) []contract.Delivery {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []contract.Delivery
	for _, item := range q.items {
		var d contract.Delivery
		if err := d.Decode(item.Body); err != nil {
			t.Fatal(err)
		}
		if item.Key != string(d.Conversation) {
			t.Errorf("a delivery of %s has the key %s", d.Conversation, item.Key)
		}
		d.Traceparent = item.Headers[contract.HeaderTraceparent]
		if (d.Seq > 0) == stored {
			list = append(list, d)
		}
	}
	return list
}

// scriptedNodes is a picture of connect nodes that the test changes.
type scriptedNodes struct {
	mu      sync.Mutex
	dead    map[contract.NodeRef]bool
	changed chan struct{}
}

func newScriptedNodes() *scriptedNodes {
	return &scriptedNodes{dead: make(map[contract.NodeRef]bool), changed: make(chan struct{})}
}

func (n *scriptedNodes) Alive(_ context.Context, ref contract.NodeRef) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.dead[ref]
}

func (n *scriptedNodes) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *scriptedNodes) die(ref contract.NodeRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[ref] = true
	close(n.changed)
	n.changed = make(chan struct{})
}

// recordedPeers is all logic and connect nodes: it keeps what they are told.
type recordedPeers struct {
	mu     sync.Mutex
	forgot []contract.SessionID
	closed map[contract.SessionID]contract.Code
	left   []contract.NodeLeaveRoomRequest
	lost   error                      // of LeaveRoom: what is told does not arrive
	forget func([]contract.SessionID) // also called, if set
	send   func(context.Context, *contract.SendRequest) (*contract.Receipt, error)
}

// Send is what rpc does for the only node of the system: it calls that node, with what the caller knows.
func (p *recordedPeers) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return p.send(ctx, r)
}

func (p *recordedPeers) ForgetSessions(_ context.Context, r *contract.ForgetSessionsRequest) (*contract.Empty, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgot = append(p.forgot, r.Sessions...)
	if p.forget != nil {
		p.forget(r.Sessions)
	}
	return &contract.Empty{}, nil
}

func (p *recordedPeers) CloseSessions(_ context.Context, r *contract.CloseSessionsRequest) (*contract.Empty, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.closed = make(map[contract.SessionID]contract.Code)
	}
	for _, s := range r.Sessions {
		p.closed[s] = r.Code
	}
	return &contract.Empty{}, nil
}

func (p *recordedPeers) LeaveRoom(_ context.Context, r *contract.NodeLeaveRoomRequest) (*contract.Empty, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil {
		return nil, p.lost
	}
	p.left = append(p.left, *r)
	return &contract.Empty{}, nil
}

// wasClosed reports whether every node was told that the session ended so.
func (p *recordedPeers) wasClosed(id contract.SessionID, code contract.Code) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed[id] == code && slices.Contains(p.forgot, id)
}

// nobody holds a job elsewhere; everybody holds every job at once.
type (
	nobody    struct{}
	everybody struct{}
)

func (nobody) Hold(ctx context.Context, _ string, _ func(context.Context) error) error {
	<-ctx.Done()
	return nil
}

func (everybody) Hold(ctx context.Context, _ string, do func(context.Context) error) error {
	return do(ctx)
}

// gatedStore is a Store whose commits wait for leave to begin, and fail as told.
type gatedStore struct {
	*store.Store
	entered chan int      // the size of each batch, before it waits
	enter   chan struct{} // closed: none waits
	err     atomic.Pointer[error]
}

func gate(s *store.Store) *gatedStore {
	return &gatedStore{Store: s, entered: make(chan int, 10_000), enter: make(chan struct{})}
}

func (s *gatedStore) Commit(ctx context.Context, batch []contract.Message, published []contract.OutboxPosition) ([]contract.CommitResult, error) {
	s.entered <- len(batch)
	select {
	case <-s.enter:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.err.Load(); err != nil {
		return nil, *err
	}
	return s.Store.Commit(ctx, batch, published)
}

var errAway = errors.New("the database is away, and its password is hunter2")

// texts are the numbers from 1 to n as texts.
func texts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i + 1)
	}
	return list
}
