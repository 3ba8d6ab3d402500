package connect

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// shelf is what logic has stored. Like the store it keeps and compares times in whole milliseconds.
type shelf struct {
	mu       sync.Mutex
	messages map[contract.Conversation][]contract.Message
}

// add stores one more message and answers its delivery, as logic pushes it when it has just been accepted.
func (s *shelf) add(conversation contract.Conversation, text string) contract.Delivery {
	return s.addAt(conversation, text, time.Now())
}

func (s *shelf) addAt(conversation contract.Conversation, text string, accepted time.Time) contract.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := int64(len(s.messages[conversation]) + 1)
	s.messages[conversation] = append(s.messages[conversation], contract.Message{
		ID: contract.MessageID(seq), Conversation: conversation, Seq: seq, From: 1, Text: text, CreatedAt: time.UnixMilli(accepted.UnixMilli()).UTC()})
	return noteAt(conversation, seq, text, accepted)
}

// since reports whether the message was accepted at that time or later, as the store does.
func since(m *contract.Message, t time.Time) bool { return m.CreatedAt.UnixMilli() >= t.UnixMilli() }

func (s *shelf) history(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all, known := s.messages[r.Conversation]
	if !known {
		return nil, contract.Errorf(contract.NotFound, "conversation %s does not exist", r.Conversation)
	}
	rest := all[min(r.After, int64(len(all))):]
	n := min(r.Limit, len(rest))
	return &contract.HistoryReply{Messages: slices.Clone(rest[:n]), More: n < len(rest)}, nil
}

func (s *shelf) heads(_ context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := &contract.HeadsReply{Heads: make(map[contract.Conversation]int64)}
	for _, c := range r.Conversations {
		if n := len(s.messages[c]); n > 0 {
			reply.Heads[c] = int64(n)
		}
	}
	return reply, nil
}

func (s *shelf) directHeads(_ context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := &contract.DirectHeadsReply{}
	for _, u := range r.Users {
		for c, messages := range s.messages {
			parties, _ := c.Parse()
			if n := len(messages); n > 0 && (parties.Low == u.User || parties.High == u.User) && since(&messages[n-1], u.Since) {
				reply.Heads = append(reply.Heads, contract.UserHead{User: u.User, Conversation: c, Last: int64(n)})
			}
		}
	}
	return reply, nil
}

func (s *shelf) deliveries(_ context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := &contract.DeliveriesReply{}
	after := r.After
	if !r.Since.IsZero() {
		after = 0
		for _, m := range s.messages[r.Conversation] {
			if m.Seq < r.Before && !since(&m, r.Since) {
				after = m.Seq
			}
		}
	}
	for _, m := range s.messages[r.Conversation] {
		if m.Seq > after && len(reply.Deliveries) < r.Limit {
			reply.Deliveries = append(reply.Deliveries, noteAt(m.Conversation, m.Seq, m.Text, m.CreatedAt))
		}
	}
	return reply, nil
}

// pushDirect pushes a direct message, and returns when the user's bucket has done its part, though it was not known
// before from where on the conversation is due.
func (n *testNode) pushDirect(t testing.TB, user contract.UserID, d contract.Delivery) {
	t.Helper()
	n.push(t, d)
	eventually(t, "it went out", func() bool {
		n.sequencer.mu.Lock()
		defer n.sequencer.mu.Unlock()
		h := n.sequencer.users[user].heads[d.Conversation]
		return h.done.end() >= d.Seq || !h.unknown && h.last >= d.Seq
	})
	done := make(chan struct{}, 1)
	n.bucketOf(user).jobs <- &job{push: &push{Connect: n.Connect}, done: done}
	<-done
}

// stocked is a logic with so many messages in each conversation.
func stocked(stock map[contract.Conversation]int) (*scripted, *shelf) {
	s := &shelf{messages: make(map[contract.Conversation][]contract.Message)}
	for conversation, n := range stock {
		s.messages[conversation] = nil // it exists
		for i := range n {
			s.add(conversation, fmt.Sprint("stored ", i))
		}
	}
	logic := obliging()
	logic.history, logic.conversationHeads, logic.deliveries, logic.directHeads = s.history, s.heads, s.deliveries, s.directHeads
	return logic, s
}

// awaitDone awaits the end of a page.
func awaitDone(t testing.TB, c *testclient.Conn, want object) {
	t.Helper()
	want["op"] = 22
	c.Await(t, fmt.Sprint(want), func(f testclient.Frame) bool { return has(f, want) })
}

// TestResume asks for what followed, in every way there is.
func TestResume(t *testing.T) {
	logic, _ := stocked(map[contract.Conversation]int{"room:1": 5, "dm:1:2": 3, "room:2": 0, "room:3": 450})
	logic.inbox = func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error) {
		return &contract.InboxReply{Entries: []contract.InboxEntry{
			{Conversation: "room:1", LastSeq: 5, ReadSeq: 3, Unread: 2}, {Conversation: "dm:1:2", LastSeq: 3, ReadSeq: 3}}}, nil
	}
	n := startNode(t, logic, nil)
	cases := []struct {
		name  string
		frame object
		want  []object // the ends of pages, in order
		seqs  map[contract.Conversation][]int64
	}{
		{"with auth", object{"op": 6, "authToken": token(2, 1), "resume": object{"room:1": 3}},
			[]object{{"conversation": "room:1", "from": 4, "to": 5, "more": false}}, map[contract.Conversation][]int64{"room:1": {4, 5}}},
		{"several", object{"op": 12, "resume": object{"room:1": 4, "dm:1:2": 0}},
			[]object{{"conversation": "dm:1:2", "from": 1, "to": 3, "more": false}, {"conversation": "room:1", "from": 5, "to": 5, "more": false}},
			map[contract.Conversation][]int64{"dm:1:2": {1, 2, 3}, "room:1": {5}}},
		{"nothing followed", object{"op": 12, "resume": object{"room:1": 5, "room:2": 0}},
			[]object{{"conversation": "room:1", "from": 6, "to": 5, "more": false}, {"conversation": "room:2", "from": 1, "to": 0, "more": false}}, nil},
		{"unread", object{"op": 12, "resume": object{}},
			[]object{{"conversation": "room:1", "from": 4, "to": 5, "more": false}}, map[contract.Conversation][]int64{"room:1": {4, 5}}},
		{"one page of more", object{"op": 12, "resume": object{"room:3": 10}},
			[]object{{"conversation": "room:3", "from": 11, "to": 210, "more": true}}, map[contract.Conversation][]int64{"room:3": upTo(11, 210)}},
		{"one that does not exist", object{"op": 12, "resume": object{"room:1": 4, "room:0x": 0}}, nil, nil},
		{"one that is not there", object{"op": 12, "resume": object{"dm:5:6": 0, "room:1": 4}},
			[]object{{"conversation": "dm:5:6", "from": 1, "to": 0, "more": false}, {"conversation": "room:1", "from": 5, "to": 5, "more": false}}, map[contract.Conversation][]int64{"room:1": {5}}},
	}
	for _, each := range cases {
		t.Run(each.name, func(t *testing.T) {
			eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
				c := dial(t, n)
				hello(t, n, c, 2, 1)
				c.Send(t, each.frame)
				settle(t, c)
				var ends []testclient.Frame
				for _, f := range c.Frames() {
					if f.Op() == 22 {
						ends = append(ends, f)
					}
				}
				if !slices.EqualFunc(ends, each.want, has) {
					t.Errorf("got %v, want %v", ends, each.want)
				}
				for conversation, want := range each.seqs {
					if got := seqs(c, conversation); !slices.Equal(got, want) {
						t.Errorf("%s: got %v, want %v", conversation, got, want)
					}
				}
				c.Close()
				eventually(t, "gone", func() bool { return len(n.bucketOf(2).ofUser(2)) == 0 })
			})
		})
	}
}

// TestResumeTotal asks for more than one resume answers in all.
func TestResumeTotal(t *testing.T) {
	stock, resume := make(map[contract.Conversation]int), object{}
	for room := range 7 {
		stock[contract.RoomConversation(contract.RoomID(room+1))] = 180
		resume[fmt.Sprintf("room:%d", room+1)] = 0
	}
	logic, _ := stocked(stock)
	n := startNode(t, logic, func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
	c := testclient.TCP(t, n.TCPAddrs()[0])
	hello(t, n, c, 2, 1)
	c.Send(t, object{"op": 12, "resume": resume})
	awaitDone(t, c, object{"conversation": "room:5", "from": 1, "to": 180, "more": false})
	awaitDone(t, c, object{"conversation": "room:6", "from": 1, "to": 100, "more": true})
	awaitDone(t, c, object{"conversation": "room:7", "from": 1, "to": 0, "more": true})
	if got := n.metric(t, "gochat_messages_replayed_total"); got != replayTotal {
		t.Errorf("got %v counted, want %d", got, replayTotal)
	}
}

// TestWithheld pushes live messages between two pages: they come with the pages, once, and live ones follow.
func TestWithheld(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 300})
	n := startNode(t, logic, nil)
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
		s.mu.Lock()
		s.messages["room:1"] = s.messages["room:1"][:300]
		s.mu.Unlock()
		c := dial(t, n)
		enter(t, c, hello(t, n, c, 2, 1), 1)
		c.Send(t, object{"op": 12, "resume": object{"room:1": 0}})
		awaitDone(t, c, object{"from": 1, "to": 200, "more": true})
		for range 10 {
			if got := n.push(t, s.add("room:1", "meanwhile")); got.Queued != 1 {
				t.Fatalf("got %+v, want it to wait", got)
			}
		}
		n.push(t, note("room:1", 0, "notice")) // not a part of the conversation: not withheld
		c.AwaitText(t, "notice")
		c.Send(t, object{"op": 12, "resume": object{"room:1": 200}})
		awaitDone(t, c, object{"from": 201, "to": 310, "more": false})
		for range 2 { // the push of what a replay has sent may come late, or twice
			n.push(t, note("room:1", 310, "late"))
		}
		n.push(t, s.add("room:1", "live"))
		c.AwaitText(t, "live")
		want := upTo(1, 311)
		if got := slices.DeleteFunc(seqs(c, "room:1"), func(seq int64) bool { return seq == 0 }); !slices.Equal(got, want) {
			t.Errorf("got %v, want 1 to 311", got)
		}
		c.Close()
		eventually(t, "gone", func() bool { return n.metric(t, "gochat_connections") == 0 })
	})
}

// TestLeftWhileReplayed leaves a room of which pages are still to come, and enters it again without asking for them.
func TestLeftWhileReplayed(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 300})
	n := startNode(t, logic, nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	ch := hello(t, n, c, 2, 1)
	enter(t, c, ch, 1)
	c.Send(t, object{"op": 12, "resume": object{"room:1": 0}})
	awaitDone(t, c, object{"more": true})
	c.Send(t, object{"op": 16, "roomId": 1})
	enter(t, c, ch, 1)
	settle(t, c)
	n.push(t, s.add("room:1", "live"))
	c.AwaitText(t, "live")
}

// TestReplayFails has logic fail in the middle: the client is told, and live messages flow again.
func TestReplayFails(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 5})
	logic.history = func(context.Context, *contract.HistoryRequest) (*contract.HistoryReply, error) {
		return nil, contract.RetryLater(contract.Unavailable, time.Second, "away")
	}
	n := startNode(t, logic, nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	enter(t, c, hello(t, n, c, 2, 1), 1)
	c.Send(t, object{"op": 12, "resume": object{"room:1": 0}})
	c.AwaitError(t, "unavailable")
	n.push(t, s.add("room:1", "live"))
	c.AwaitText(t, "live")
}

// TestReplayLags has logic not find a message that has been pushed already: the client is told to ask again.
func TestReplayLags(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	logic := obliging()
	logic.history = func(context.Context, *contract.HistoryRequest) (*contract.HistoryReply, error) {
		asked <- struct{}{}
		<-answer
		return &contract.HistoryReply{}, nil
	}
	n := startNode(t, logic, nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	enter(t, c, hello(t, n, c, 2, 1), 1)
	c.Send(t, object{"op": 12, "resume": object{"room:1": 0}})
	<-asked
	n.push(t, note("room:1", 1, "withheld"))
	close(answer)
	c.AwaitError(t, "unavailable")
}

// TestReplayPaced replays far more bytes than may wait to somebody who reads slowly: that is no slow consumer.
func TestReplayPaced(t *testing.T) {
	eachTransport(t, func(t *testing.T, tr transport) {
		logic, s := stocked(map[contract.Conversation]int{"room:1": 0, "room:2": 0})
		for range 30 {
			s.add("room:1", strings.Repeat("r", 12_000))
		}
		n := startNode(t, logic, func(c *Connect) {
			c.cfg.QueueBytes, c.cfg.Timeout = 64<<10, 200*time.Millisecond // of one call, not of the replay
		})
		p, _ := dialPeer(t, n, tr, 2)
		p.send(t, `{"op":12,"resume":{"room:1":0,"room:2":0}}`)
		time.Sleep(300 * time.Millisecond)
		for seq := 1; seq <= 30; seq++ {
			if f, err := p.next(); err != nil || f.Int("seq") != seq {
				t.Fatalf("got seq %d, %v, want %d", f.Int("seq"), err, seq)
			}
		}
		if f, err := p.next(); err != nil || !has(f, object{"op": 22, "to": 30, "more": false}) {
			t.Errorf("got %v, %v, want the end of the replay", f, err)
		}
		if f, err := p.next(); err != nil || !has(f, object{"op": 22, "to": 0, "more": false}) {
			t.Errorf("got %v, %v, want the end of the second replay", f, err)
		}
	})
}

// TestReplayRacesPushes lets connections come, naming where they are or asking for what is unread, while messages are
// stored and pushed. Each gets every message that followed, once and in order.
func TestReplayRacesPushes(t *testing.T) {
	const rounds, before, messages = 10, 30, 150
	resumes := map[string]func(contract.Conversation) object{
		"named":  func(c contract.Conversation) object { return object{string(c): 10} },
		"unread": func(contract.Conversation) object { return object{} },
	}
	for name, resume := range resumes {
		t.Run(name, func(t *testing.T) {
			logic, s := stocked(nil)
			var user contract.UserID // of the round
			var conversation contract.Conversation
			logic.inbox = func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				last := int64(len(s.messages[conversation]))
				return &contract.InboxReply{Entries: []contract.InboxEntry{
					{Conversation: conversation, LastSeq: last, ReadSeq: 10, Unread: last - 10}}}, nil
			}
			n := startNode(t, logic, func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
			for round := range rounds {
				s.mu.Lock()
				user = contract.UserID(2 + round) // nobody of the last round, who may not have gone yet
				conversation = contract.DirectConversation(1, user)
				s.mu.Unlock()
				for range before {
					s.add(conversation, "x")
				}
				var racing sync.WaitGroup
				pushes := make(chan contract.Delivery, messages)
				racing.Go(func() {
					for range messages {
						pushes <- s.add(conversation, "x")
						time.Sleep(100 * time.Microsecond) // so that some come after who asks
					}
					close(pushes)
				})
				racing.Go(func() { // some time after they are stored
					for d := range pushes {
						if _, err := n.tryPush(d); err != nil {
							t.Error(err)
						}
					}
				})
				var conns []*testclient.Conn
				for i := range 4 {
					c := transports[(round+i)%len(transports)].dial(t, n)
					c.Send(t, object{"op": 6, "authToken": token(user, i), "resume": resume(conversation)})
					conns = append(conns, c)
				}
				racing.Wait()
				for _, c := range conns {
					awaitSeqs(t, c, conversation, upTo(11, before+messages)...)
					c.Close()
				}
			}
		})
	}
}

// TestUnreadMeanwhile has a message come that was not unread when logic looked.
func TestUnreadMeanwhile(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 4})
	logic.inbox = func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error) {
		asked <- struct{}{}
		<-answer
		return &contract.InboxReply{}, nil
	}
	n := startNode(t, logic, nil)
	c := testclient.TCP(t, n.TCPAddrs()[0])
	c.Send(t, object{"op": 6, "authToken": token(2, 1), "resume": object{}})
	<-asked
	for range 3 {
		n.pushDirect(t, 2, s.add("dm:1:2", "meanwhile"))
	}
	close(answer)
	awaitDone(t, c, object{"conversation": "dm:1:2", "from": 5, "to": 7, "more": false})
	n.push(t, s.add("dm:1:2", "live"))
	c.AwaitText(t, "live")
	if got := seqs(c, "dm:1:2"); !slices.Equal(got, upTo(5, 8)) {
		t.Errorf("got %v, want 5 to 8", got)
	}
}

// TestComesBeforeResume has a message come when the connection is known, and its resume has not begun.
func TestComesBeforeResume(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 4})
	asked, answer := make(chan struct{}), make(chan struct{})
	logic.enterRoom = func(context.Context, *contract.RoomRequest) (*contract.Room, error) {
		asked <- struct{}{}
		<-answer
		return &contract.Room{}, nil
	}
	logic.inbox = func(context.Context, *contract.InboxRequest) (*contract.InboxReply, error) {
		return &contract.InboxReply{Entries: []contract.InboxEntry{{Conversation: "dm:1:2", Unread: 5}}}, nil
	}
	n := startNode(t, logic, nil)
	for i, resume := range []object{{"dm:1:2": 0}, {}} {
		c := testclient.WebSocket(t, n.WebSocketAddr())
		c.Send(t, object{"op": 6, "authToken": token(2, 1), "roomId": 1, "resume": resume})
		<-asked
		n.pushDirect(t, 2, s.add("dm:1:2", "meanwhile"))
		answer <- struct{}{}
		settle(t, c)
		if got := seqs(c, "dm:1:2"); !slices.Equal(got, upTo(1, int64(5+i))) {
			t.Errorf("%v: got %v, want 1 to %d", resume, got, 5+i)
		}
		c.Close()
		eventually(t, "gone", func() bool { return len(n.bucketOf(2).ofUser(2)) == 0 })
	}
}

// TestComesAfterPage has a message come after the last page was read and before it is sent.
func TestComesAfterPage(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 4})
	read, proceed := make(chan struct{}), make(chan struct{})
	logic.history = func(ctx context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
		page, err := s.history(ctx, r)
		read <- struct{}{}
		<-proceed
		return page, err
	}
	n := startNode(t, logic, nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	c.Send(t, object{"op": 6, "authToken": token(2, 1), "resume": object{"dm:1:2": 0}})
	<-read
	n.pushDirect(t, 2, s.add("dm:1:2", "meanwhile"))
	proceed <- struct{}{}
	<-read
	proceed <- struct{}{}
	awaitDone(t, c, object{"from": 1, "to": 5, "more": false})
	if got := seqs(c, "dm:1:2"); !slices.Equal(got, upTo(1, 5)) {
		t.Errorf("got %v, want 1 to 5", got)
	}
}

// TestRefusedResume is refused with its auth frame: live messages flow all the same.
func TestRefusedResume(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 4})
	n := startNode(t, logic, nil)
	c := testclient.TCP(t, n.TCPAddrs()[0])
	c.Send(t, object{"op": 6, "authToken": token(2, 1), "roomId": privateRoom, "resume": object{"dm:1:2": 0}})
	c.AwaitError(t, "forbidden")
	n.push(t, s.add("dm:1:2", "live"))
	c.AwaitText(t, "live")
}

// TestTooManyReplays asks for more and more conversations without asking for the pages to come.
func TestTooManyReplays(t *testing.T) {
	logic := obliging()
	logic.history = func(_ context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
		return &contract.HistoryReply{Messages: make([]contract.Message, r.Limit), More: true}, nil
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
	c := testclient.TCP(t, n.TCPAddrs()[0])
	hello(t, n, c, 2, 1)
	for page := range 6 {
		resume := object{}
		for i := range contract.MaxResume {
			resume[fmt.Sprintf("room:%d", page*contract.MaxResume+i+1)] = 0
		}
		c.Send(t, object{"op": 12, "resume": resume})
	}
	c.AwaitError(t, "too_large")
}
