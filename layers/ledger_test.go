package layers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/connect"
	frames "gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/record"
	"gochat/layers/internal/session"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/layers/task"
	"gochat/observability"
)

// TestLedger adds up what task and connect have counted, after all that may happen to a push: every message has one end
// for everybody it was due to. Everybody has one connection at most, so that it is due to as many as people.
func TestLedger(t *testing.T) {
	t.Parallel()
	const staying, offline, mover = 6, 7, 8
	b := newBooks(t)
	room := contract.RoomConversation(1)
	conns := make(map[contract.UserID]*testclient.Conn)
	for user := contract.UserID(1); user <= staying; user++ {
		conns[user] = b.connect(t, user, int(user)%2, 1)
	}
	there := b.connect(t, mover, 1, 0)
	due := 0
	say := func() {
		b.accept(room)
		due += staying
		for user := contract.UserID(1); user <= mover; user++ {
			b.accept(contract.DirectConversation(user, 100))
			due++
		}
	}

	b.faults.Store(true)
	for range 60 {
		say()
	}
	b.settle(t, "pushes are refused, brought twice, and their answers lost")
	b.faults.Store(false)
	say()
	b.settle(t, "what was kept for the nodes is brought before the next")
	// What a node has written and not said so would be counted once more where its receiver goes; see package task.
	testwait.Eventually(t, "nothing is kept for a node", func() bool { return b.pending() == 0 })

	b.links[1].cut.Store(true)
	for range 5 {
		say()
	}
	b.settle(t, "a node is cut off, and passed over")
	b.leave(t, there, mover, 1)
	for range 5 {
		say()
	}
	b.settle(t, "the mover is between two nodes")
	there = b.connect(t, mover, 0, 0)
	time.Sleep(2 * time.Millisecond) // what comes in the millisecond of the user says nothing of what is due
	b.links[1].cut.Store(false)
	for i := range 20 {
		say()
		if i == 0 { // or a repair brings what is not pushed yet, which would be due on either node
			spoken := contract.DirectConversation(mover, 100)
			testwait.Eventually(t, "the mover hears", func() bool { return slices.Contains(seen(there, spoken), int64(len(b.stored[spoken]))) })
		}
		if i == 10 {
			b.leave(t, there, mover, 0)
			there = b.connect(t, mover, 1, 0)
		}
	}

	sum := func() (got int) {
		for _, outcome := range []string{"written", "queued", "slow", "gone", "lost"} {
			got += b.connectCount(outcome)
		}
		return got + b.taskCount("offline") + b.taskCount("error")
	}
	testwait.Eventually(t, fmt.Sprintf("all %d are counted", due), func() bool {
		return b.waiting.Load() == 0 && sum() >= due
	})
	testwait.Eventually(t, "nothing is pending", func() bool { return b.pending() == 0 })
	time.Sleep(200 * time.Millisecond) // for what is counted twice
	if got := sum(); got != due {
		t.Errorf("%d counted, want the %d that were due", got, due)
	}
	for _, outcome := range []string{"had", "deferred", "offline"} {
		if b.taskCount(outcome) == 0 {
			t.Errorf("nothing was %s: the test shows less than it should", outcome)
		}
	}
	if got := b.taskCount("error"); got != 0 {
		t.Errorf("%d counted as errors, want none", got)
	}
	for user, conn := range conns {
		for _, conversation := range []contract.Conversation{room, contract.DirectConversation(user, 100)} {
			want := int64(len(b.stored[conversation]))
			if got := seen(conn, conversation); int64(len(got)) != want || !slices.IsSorted(got) || got[want-1] != want {
				t.Errorf("user %d saw %v of %s, want 1 to %d", user, got, conversation, want)
			}
		}
	}
}

// books are a task and two connect nodes, with what lies around them. What is accepted goes to the task at once.
type books struct {
	routes     *session.Store
	nodes      [2]*connect.Connect
	registries [3]*prometheus.Registry // of the nodes, and of the task
	links      [2]link
	records    *record.Task
	faults     atomic.Bool  // pushes meet with them, and looks at the routes
	waiting    atomic.Int64 // items that are not acknowledged
	queues     [3]chan contract.Item

	connect.Logic // what is not defined below is not asked

	mu     sync.Mutex
	stored map[contract.Conversation][]contract.Delivery // accepted when the store says, in whole milliseconds
}

type link struct{ cut atomic.Bool }

func nodeRef(i int) contract.NodeRef {
	return contract.NodeRef{ID: contract.NodeID(fmt.Sprint("connect-", i)), Epoch: 1}
}

func newBooks(t *testing.T) *books {
	t.Helper()
	b := &books{stored: make(map[contract.Conversation][]contract.Delivery)}
	var err error
	if b.routes, err = session.Open(session.Config{Addrs: []string{testdeps.Redis(t).Addr()}}, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.routes.Close() })
	telemetry := func(i int) observability.Telemetry {
		b.registries[i] = prometheus.NewRegistry()
		tel := observability.Discard()
		tel.Metrics = b.registries[i]
		return tel
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	run := func(what string, f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for i := range b.nodes {
		cfg := connect.Defaults()
		cfg.WebSocket.Listen, cfg.TCP.Listen = "127.0.0.1:0", []string{"127.0.0.1:0"}
		cfg.Drain, cfg.Repair = 0, time.Hour // what skips ahead is repaired; that is enough here
		self := func() (contract.NodeRef, bool) { return nodeRef(i), true }
		if b.nodes[i], err = connect.New(cfg, b, b.routes, self, telemetry(i)); err != nil {
			t.Fatal(err)
		}
		run("connect", b.nodes[i].Run)
	}
	for i := range b.queues {
		b.queues[i] = make(chan contract.Item, 1000)
	}
	b.records = record.NewTask(record.Defaults(), observability.Discard())
	cfg := task.Defaults()
	cfg.PushWithin = 0
	run("task", task.New(cfg, b, b, b, b.records, telemetry(2)).Run)
	return b
}

// connect has the user on the node, in the room if it is not 0.
func (b *books) connect(t *testing.T, user contract.UserID, node int, room contract.RoomID) *testclient.Conn {
	t.Helper()
	c := testclient.TCP(t, b.nodes[node].TCPAddrs()[0])
	c.Send(t, map[string]any{"op": 6, "authToken": fmt.Sprint(user), "roomId": room})
	c.Send(t, map[string]any{"op": 10}) // is answered when all before it is done
	c.AwaitOp(t, 11)
	return c
}

// leave returns when the user's route is gone.
func (b *books) leave(t *testing.T, c *testclient.Conn, user contract.UserID, node int) {
	t.Helper()
	c.Close()
	testwait.Eventually(t, "the user has left", func() bool {
		routes, err := b.routes.Resolve(t.Context(), nil, []contract.UserID{user})
		return err == nil && !slices.Contains(routes.Users[user], nodeRef(node))
	})
}

// accept stores the next message of the conversation, from user 100, and hands it to the task.
func (b *books) accept(conversation contract.Conversation) {
	parties, err := conversation.Parse()
	if err != nil {
		panic(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	accepted := time.Now()
	m := contract.Message{Conversation: conversation, Seq: int64(len(b.stored[conversation]) + 1), From: 100, Room: parties.Room,
		CreatedAt: time.UnixMilli(accepted.UnixMilli()).UTC()}
	d := contract.Delivery{Conversation: conversation, Seq: m.Seq, Room: m.Room, AcceptedAt: m.CreatedAt}
	if d.Room == 0 {
		m.To, d.Users = parties.Low, []contract.UserID{parties.Low}
	}
	d.Frame = frames.AppendMessage(nil, &m)
	b.stored[conversation] = append(b.stored[conversation], d)
	d.AcceptedAt = accepted
	b.waiting.Add(1)
	b.queues[len(conversation)%len(b.queues)] <- contract.Item{Key: string(conversation), Body: d.Append(nil)}
}

// settle waits until the task has done with all that was accepted.
func (b *books) settle(t *testing.T, what string) {
	t.Helper()
	testwait.Eventually(t, what, func() bool { return b.waiting.Load() == 0 })
	if n := b.pending(); n < 0 {
		t.Errorf("%s: %v are pending", what, n)
	}
}

func (b *books) chance(percent int) bool { return b.faults.Load() && rand.IntN(100) < percent }

// System implements task.Queue.
func (*books) System() string { return "books" }

// Consume implements task.Queue. What fails is handed over again, and now and then what did not.
func (b *books) Consume(ctx context.Context, h contract.Handler) error {
	var consuming sync.WaitGroup
	for _, queue := range b.queues {
		consuming.Go(func() {
			for {
				select {
				case item := <-queue:
					for h(ctx, []contract.Item{item}) != nil && ctx.Err() == nil {
					}
					if strings.HasPrefix(item.Key, "room:") && b.chance(10) {
						_ = h(ctx, []contract.Item{item})
					}
					b.waiting.Add(-1)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	consuming.Wait()
	return nil
}

// Resolve implements task.Routes.
func (b *books) Resolve(ctx context.Context, rooms []contract.RoomID, users []contract.UserID) (contract.Routes, error) {
	if b.chance(10) {
		return contract.Routes{}, errors.New("routes are away")
	}
	return b.routes.Resolve(ctx, rooms, users)
}

// Push implements task.Connects.
func (b *books) Push(ctx context.Context, ref contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
	i := slices.IndexFunc([]contract.NodeRef{nodeRef(0), nodeRef(1)}, func(n contract.NodeRef) bool { return n == ref })
	away := contract.Errorf(contract.Unavailable, "away")
	if b.links[i].cut.Load() || b.chance(10) {
		return nil, away
	}
	reply, err := b.nodes[i].Push(ctx, r)
	switch {
	case b.chance(10):
		return nil, away
	case b.chance(10):
		return b.nodes[i].Push(ctx, r)
	}
	return reply, err
}

func (b *books) Authenticate(_ context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	var user contract.UserID
	if _, err := fmt.Sscan(r.Credential.Token, &user); err != nil {
		return nil, contract.Errorf(contract.Unauthenticated, "no such session")
	}
	return &contract.Identity{User: user, Name: "user", Session: contract.SessionOf(r.Credential.Token)}, nil
}

func (b *books) EnterRoom(_ context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return &contract.Room{ID: r.Room}, nil
}

func (b *books) PresenceChanged(context.Context, *contract.PresenceChangedRequest) (*contract.Empty, error) {
	return &contract.Empty{}, nil
}

func (b *books) CheckSessions(context.Context, *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	return &contract.CheckSessionsReply{}, nil
}

func (b *books) ConversationHeads(_ context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reply := &contract.HeadsReply{Heads: make(map[contract.Conversation]int64)}
	for _, conversation := range r.Conversations {
		reply.Heads[conversation] = int64(len(b.stored[conversation]))
	}
	return reply, nil
}

// before reports whether the message was accepted before the time, as the store does.
func before(stored *contract.Delivery, t time.Time) bool {
	return stored.AcceptedAt.UnixMilli() < t.UnixMilli()
}

func (b *books) DirectHeads(_ context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reply := &contract.DirectHeadsReply{}
	for _, u := range r.Users {
		for conversation, stored := range b.stored {
			parties, _ := conversation.Parse()
			if n := len(stored); n > 0 && (parties.Low == u.User || parties.High == u.User) && !before(&stored[n-1], u.Since) {
				reply.Heads = append(reply.Heads, contract.UserHead{User: u.User, Conversation: conversation, Last: int64(n)})
			}
		}
	}
	return reply, nil
}

func (b *books) Deliveries(_ context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stored := b.stored[r.Conversation]
	after := r.After
	if !r.Since.IsZero() {
		after = 0 // Since stands for it
	}
	for i := range stored {
		if !r.Since.IsZero() && stored[i].Seq < r.Before && before(&stored[i], r.Since) {
			after = stored[i].Seq
		}
	}
	stored = stored[after:]
	return &contract.DeliveriesReply{Deliveries: slices.Clone(stored[:min(len(stored), r.Limit)])}, nil
}

func (b *books) connectCount(outcome string) int {
	return counted(b.registries[0], "gochat_connect_deliveries_total", outcome) + counted(b.registries[1], "gochat_connect_deliveries_total", outcome)
}

func (b *books) taskCount(outcome string) int {
	return counted(b.registries[2], "gochat_deliveries_total", outcome)
}

// pending are the messages that task has under way.
func (b *books) pending() float64 {
	families, err := b.registries[2].Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "gochat_deliveries_pending" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	panic("there is no such metric")
}

// counted is a counter's value with the one label that it has.
func counted(from prometheus.Gatherer, name, label string) int {
	families, err := from.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// seen are the seqs of a conversation that a connection was sent.
func seen(c *testclient.Conn, conversation contract.Conversation) (seqs []int64) {
	for _, f := range c.Frames() {
		if (f.Op() == 2 || f.Op() == 3) && f.Str("conversation") == string(conversation) {
			seqs = append(seqs, int64(f.Int("seq")))
		}
	}
	return seqs
}
