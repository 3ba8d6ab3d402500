package connect

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/session"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// scripted is a Logic that answers what the test says. Its functions are set before the node starts.
type scripted struct {
	authenticate      func(context.Context, *contract.AuthenticateRequest) (*contract.Identity, error)
	checkSessions     func(context.Context, *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error)
	enterRoom         func(context.Context, *contract.RoomRequest) (*contract.Room, error)
	presenceChanged   func(context.Context, *contract.PresenceChangedRequest) (*contract.Empty, error)
	send              func(context.Context, *contract.SendRequest) (*contract.Receipt, error)
	history           func(context.Context, *contract.HistoryRequest) (*contract.HistoryReply, error)
	heads             func(context.Context, *contract.HeadsRequest) (*contract.HeadsReply, error)
	conversationHeads func(context.Context, *contract.ConversationHeadsRequest) (*contract.HeadsReply, error)
	directHeads       func(context.Context, *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error)
	deliveries        func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error)
	inbox             func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error)
	markRead          func(context.Context, *contract.MarkReadRequest) (*contract.MarkReadReply, error)
	typing            func(context.Context, *contract.TypingRequest) (*contract.Empty, error)
}

func (s *scripted) Authenticate(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
	return s.authenticate(ctx, r)
}
func (s *scripted) CheckSessions(ctx context.Context, r *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
	return s.checkSessions(ctx, r)
}
func (s *scripted) EnterRoom(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
	return s.enterRoom(ctx, r)
}
func (s *scripted) PresenceChanged(ctx context.Context, r *contract.PresenceChangedRequest) (*contract.Empty, error) {
	return s.presenceChanged(ctx, r)
}
func (s *scripted) Send(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
	return s.send(ctx, r)
}
func (s *scripted) History(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	return s.history(ctx, r)
}
func (s *scripted) Heads(ctx context.Context, r *contract.HeadsRequest) (*contract.HeadsReply, error) {
	return s.heads(ctx, r)
}
func (s *scripted) DirectHeads(ctx context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	return s.directHeads(ctx, r)
}
func (s *scripted) ConversationHeads(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	return s.conversationHeads(ctx, r)
}
func (s *scripted) Deliveries(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	return s.deliveries(ctx, r)
}
func (s *scripted) Inbox(ctx context.Context, r *contract.InboxRequest) (*contract.InboxReply, error) {
	return s.inbox(ctx, r)
}
func (s *scripted) MarkRead(ctx context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
	return s.markRead(ctx, r)
}
func (s *scripted) Typing(ctx context.Context, r *contract.TypingRequest) (*contract.Empty, error) {
	return s.typing(ctx, r)
}

// token is that of the user's session with the number. The scripted logic knows users up to maxUser.
func token(user contract.UserID, session int) string {
	return fmt.Sprintf("token-%d-%d", user, session)
}

// Rooms above maxRoom do not exist, and room privateRoom is nobody's.
const (
	maxUser     = 1100
	maxRoom     = 40
	privateRoom = 40
)

// obliging is a Logic that lets everybody in and has nothing to say.
func obliging() *scripted {
	return &scripted{
		authenticate: func(_ context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
			_, rest, _ := strings.Cut(r.Credential.Token, "-")
			digits, _, _ := strings.Cut(rest, "-")
			user, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || user < 1 || user > maxUser {
				return nil, contract.Errorf(contract.Unauthenticated, "no such session")
			}
			return &contract.Identity{
				User: contract.UserID(user), Name: "user" + digits, Session: contract.SessionOf(r.Credential.Token)}, nil
		},
		checkSessions: func(context.Context, *contract.CheckSessionsRequest) (*contract.CheckSessionsReply, error) {
			return &contract.CheckSessionsReply{}, nil
		},
		enterRoom: func(_ context.Context, r *contract.RoomRequest) (*contract.Room, error) {
			switch {
			case r.Room > maxRoom:
				return nil, contract.Errorf(contract.NotFound, "room %d does not exist", r.Room)
			case r.Room == privateRoom:
				return nil, contract.Errorf(contract.Forbidden, "room %d is private", r.Room)
			}
			return &contract.Room{ID: r.Room}, nil
		},
		presenceChanged: func(context.Context, *contract.PresenceChangedRequest) (*contract.Empty, error) {
			return &contract.Empty{}, nil
		},
		send: func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
			return &contract.Receipt{ID: 7, Conversation: contract.RoomConversation(r.Room), Seq: 1}, nil
		},
		history: func(context.Context, *contract.HistoryRequest) (*contract.HistoryReply, error) {
			return &contract.HistoryReply{}, nil
		},
		heads: func(context.Context, *contract.HeadsRequest) (*contract.HeadsReply, error) {
			return &contract.HeadsReply{}, nil
		},
		directHeads: func(context.Context, *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
			return &contract.DirectHeadsReply{}, nil
		},
		conversationHeads: func(context.Context, *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
			return &contract.HeadsReply{}, nil
		},
		deliveries: func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
			return &contract.DeliveriesReply{}, nil
		},
		inbox: func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error) {
			return &contract.InboxReply{}, nil
		},
		markRead: func(_ context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
			return &contract.MarkReadReply{Seq: r.Seq}, nil
		},
		typing: func(context.Context, *contract.TypingRequest) (*contract.Empty, error) { return &contract.Empty{}, nil },
	}
}

// testNode is a Connect that runs, with its routes in a Redis of its own.
type testNode struct {
	*Connect
	routes  *session.Store
	self    contract.NodeRef
	metrics *prometheus.Registry
	stop    func() error // begins the drain and waits for the end of Run
}

// startNode runs a node. When the test ends it is drained, and must leave nothing: no goroutine, no byte, no
// connection, no route.
func startNode(t testing.TB, logic Logic, change func(*Connect)) *testNode {
	t.Helper()
	routes, err := session.Open(session.Config{Addrs: []string{testdeps.Redis(t).Addr()}}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = routes.Close() })
	cfg := Defaults()
	cfg.WebSocket.Listen, cfg.TCP.Listen = "127.0.0.1:0", []string{"127.0.0.1:0"}
	cfg.WebSocket.Compression = true // for who offers it
	cfg.Buckets, cfg.Drain = 4, 20*time.Millisecond
	n := &testNode{routes: routes, self: contract.NodeRef{ID: "connect-1", Epoch: 1}, metrics: prometheus.NewRegistry()}
	tel := observability.Discard()
	tel.Metrics = n.metrics
	self := func() (contract.NodeRef, bool) { return n.self, true }
	n.Connect, err = New(cfg, logic, routes, self, tel)
	if err != nil {
		t.Fatal(err)
	}
	n.timeouts.linger = 300 * time.Millisecond
	if change != nil {
		change(n.Connect)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		n.checkNothingLeft(t)
	})
	return n
}

func (n *testNode) checkNothingLeft(t testing.TB) {
	t.Helper()
	eventually(t, "no goroutine of the layer", func() bool { return len(ownGoroutines()) == 0 })
	for _, name := range []string{"gochat_connections", "gochat_channel_queue_bytes", "gochat_bucket_channels", "gochat_bucket_rooms"} {
		if got := n.metric(t, name); got != 0 {
			t.Errorf("%s: got %v, want 0 once the node has stopped", name, got)
		}
	}
	for _, b := range n.buckets {
		if len(b.users)+len(b.rooms)+len(b.channels) != 0 {
			t.Errorf("a bucket holds %d users, %d rooms, %d channels, want none", len(b.users), len(b.rooms), len(b.channels))
		}
	}
	if users, rooms := n.present(); len(users)+len(rooms) != 0 {
		t.Errorf("the registrar counts %v, %v, want nobody", users, rooms)
	}
	if got := storedRoutes(t, n.routes, n.self); len(got) != 0 {
		t.Errorf("routes left: %v", got)
	}
}

// present is whom the registrar counts, by user, and by room and user.
func (c *Connect) present() (map[contract.UserID]int, map[place]int) {
	c.registrar.mu.Lock()
	defer c.registrar.mu.Unlock()
	users, rooms := make(map[contract.UserID]int), make(map[place]int)
	for user, p := range c.registrar.users {
		users[user] = p.count
	}
	for room, people := range c.registrar.rooms {
		for user, p := range people {
			rooms[place{user, room}] = p.count
		}
	}
	return users, rooms
}

// storedRoutes is every route of the life that Redis holds, for the users and rooms that the scripted logic knows:
// one place for each user who is there at all, and one for each room and user. A room with a route and nobody
// present, or people and no route, is a place of user -1.
func storedRoutes(t testing.TB, s *session.Store, self contract.NodeRef) map[place]bool {
	t.Helper()
	var rooms []contract.RoomID
	var users []contract.UserID
	for id := range contract.RoomID(maxRoom) {
		rooms = append(rooms, id+1)
	}
	for id := range contract.UserID(maxUser) {
		users = append(users, id+1)
	}
	routes, err := s.Resolve(context.Background(), rooms, users)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[place]bool)
	for user, nodes := range routes.Users {
		if slices.Contains(nodes, self) {
			got[place{user: user}] = true
		}
	}
	only := func(ref contract.NodeRef) bool { return ref == self }
	for _, room := range rooms {
		count, people, err := s.Online(context.Background(), room, only, maxUser)
		if err != nil {
			t.Fatal(err)
		}
		if routed := slices.Contains(routes.Rooms[room], self); routed != (count > 0) {
			got[place{user: -1, room: room}] = true
		}
		for _, u := range people {
			got[place{u.ID, room}] = true
		}
	}
	return got
}

// ownGoroutines are the stacks of this layer's goroutines, tests left out.
func ownGoroutines() []string {
	buf := make([]byte, 4<<20)
	var own []string
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, of := range []string{"(*Connect)", "(*channel)", "(*bucket)", "(*registrar)"} {
			if strings.Contains(stack, "gochat/layers/connect."+of) && !strings.Contains(stack, "gochat/layers/connect.Test") {
				own = append(own, stack)
				break
			}
		}
	}
	return own
}

// metric is the sum of a counter or gauge over its children, with a label over those that have the value, or of a
// histogram's observations.
func (n *testNode) metric(t testing.TB, name string, label ...string) float64 {
	t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) > 0 && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != label[0]) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// transports connect to a node and record what it sends.
var transports = []struct {
	name string
	dial func(testing.TB, *testNode) *testclient.Conn
}{
	{"websocket", func(t testing.TB, n *testNode) *testclient.Conn { return testclient.WebSocket(t, n.WebSocketAddr()) }},
	{"tcp", func(t testing.TB, n *testNode) *testclient.Conn { return testclient.TCP(t, n.TCPAddrs()[0]) }},
	{"deflated", func(t testing.TB, n *testNode) *testclient.Conn { return testclient.Deflated(t, n.WebSocketAddr()) }},
}

// hello authenticates the connection as the user's session and waits until it is done.
func hello(t testing.TB, n *testNode, c *testclient.Conn, user contract.UserID, session int) *channel {
	t.Helper()
	known := n.bucketOf(user).ofUser(user)
	c.Send(t, object{"op": 6, "authToken": token(user, session)})
	var mine *channel
	eventually(t, "authenticated", func() bool {
		for _, ch := range n.bucketOf(user).ofUser(user) {
			if !slices.Contains(known, ch) {
				mine = ch
			}
		}
		return mine != nil && mine.authenticated.Load()
	})
	return mine
}

// enter has the connection enter a room and waits until it is in it.
func enter(t testing.TB, c *testclient.Conn, ch *channel, room contract.RoomID) {
	t.Helper()
	c.Send(t, object{"op": 15, "roomId": room})
	eventually(t, fmt.Sprintf("in room %d", room), func() bool { return slices.Contains(ch.roomIDs(), room) })
}

// roomIDs are the rooms that the channel is in.
func (c *channel) roomIDs() []contract.RoomID {
	c.bucket.mu.Lock()
	defer c.bucket.mu.Unlock()
	var ids []contract.RoomID
	for _, m := range c.memberships {
		ids = append(ids, m.room.id)
	}
	return ids
}

type object = map[string]any

// settle returns once the node has acted on every frame sent before.
func settle(t testing.TB, c *testclient.Conn) {
	t.Helper()
	pongs := func() int {
		n := 0
		for _, f := range c.Frames() {
			if f.Op() == int(wire.OpPong) {
				n++
			}
		}
		return n
	}
	before := pongs()
	c.Send(t, object{"op": 10})
	eventually(t, "pong", func() bool { return pongs() > before })
}

// note is a delivery of a frame that says which it is, of a conversation or, with seq 0, of none.
func note(conversation contract.Conversation, seq int64, text string) contract.Delivery {
	return noteAt(conversation, seq, text, nextMilli(time.Now())) // due to whoever has come until now, see servedUser.since
}

func noteAt(conversation contract.Conversation, seq int64, text string, accepted time.Time) contract.Delivery {
	m := contract.Message{ID: contract.MessageID(seq), Conversation: conversation, Seq: seq, From: 1, FromName: "user1", Text: text, CreatedAt: accepted.UTC()}
	d := contract.Delivery{Conversation: conversation, Seq: seq, Message: m.ID, AcceptedAt: m.CreatedAt}
	parties, err := conversation.Parse()
	if err != nil {
		panic(err)
	}
	m.Room, d.Room = parties.Room, parties.Room
	if parties.Room == 0 {
		m.To, d.Users = parties.High, []contract.UserID{parties.High}
	}
	d.Frame = wire.AppendMessage(nil, &m)
	return d
}

// push pushes and answers the sum of the results.
func (n *testNode) push(t testing.TB, deliveries ...contract.Delivery) contract.PushResult {
	t.Helper()
	sum, err := n.tryPush(deliveries...)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// tryPush is push for goroutines that may not fail the test.
func (n *testNode) tryPush(deliveries ...contract.Delivery) (contract.PushResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testclient.Patience)
	defer cancel()
	var sum contract.PushResult
	reply, err := n.Push(ctx, &contract.PushRequest{Deliveries: deliveries})
	if err != nil {
		return sum, err
	}
	for _, r := range reply.Results {
		sum.Written, sum.Queued, sum.Slow, sum.Gone = sum.Written+r.Written, sum.Queued+r.Queued, sum.Slow+r.Slow, sum.Gone+r.Gone
	}
	return sum, nil
}

// seqs are the seqs of a conversation's messages in the order in which they came.
func seqs(c *testclient.Conn, conversation contract.Conversation) []int64 {
	var got []int64
	for _, f := range c.Frames() {
		if op := f.Op(); (op == 2 || op == 3) && f.Str("conversation") == string(conversation) {
			got = append(got, int64(f.Int("seq")))
		}
	}
	return got
}

// upTo is from, …, to.
func upTo(from, to int64) []int64 {
	var all []int64
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

var eventually = testwait.Eventually
