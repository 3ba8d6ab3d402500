package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// member is a connection of the user in room 1.
func member(t *testing.T, n *testNode, user contract.UserID) *testclient.Conn {
	t.Helper()
	c := testclient.WebSocket(t, n.WebSocketAddr())
	enter(t, c, hello(t, n, c, user, 1), 1)
	time.Sleep(2 * time.Millisecond) // when users came and what follows is compared in whole milliseconds
	return c
}

// awaitSeqs waits until the connection has seen the last of the seqs, and checks that it has seen just these.
func awaitSeqs(t *testing.T, c *testclient.Conn, conversation contract.Conversation, want ...int64) {
	t.Helper()
	last := want[len(want)-1]
	eventually(t, fmt.Sprintf("%s is seen up to %d", conversation, last), func() bool {
		return slices.Contains(seqs(c, conversation), last)
	})
	settle(t, c)
	if got := seqs(c, conversation); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", conversation, got, want)
	}
}

func TestPushedOutOfOrder(t *testing.T) {
	for _, conversation := range []contract.Conversation{"room:1", "dm:1:2"} {
		for _, c := range []struct {
			name string
			push []int64 // of the five messages that are stored
			want []int64
		}{
			{"as it should be", []int64{1, 2, 3}, []int64{1, 2, 3}},
			{"twice", []int64{1, 1, 2, 1, 2, 3}, []int64{1, 2, 3}},
			{"a push was missed", []int64{1, 4, 5}, []int64{1, 2, 3, 4, 5}},
			{"several", []int64{1, 3, 5}, []int64{1, 2, 3, 4, 5}},
			{"overtaken", []int64{1, 3, 2, 5, 4}, []int64{1, 2, 3, 4, 5}},
		} {
			t.Run(string(conversation)+", "+c.name, func(t *testing.T) {
				logic, s := stocked(map[contract.Conversation]int{})
				n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
				conn := member(t, n, 2)
				var stored []contract.Delivery
				for range 5 {
					stored = append(stored, s.add(conversation, "x"))
				}
				for _, seq := range c.push {
					n.push(t, stored[seq-1])
				}
				awaitSeqs(t, conn, conversation, c.want...)
			})
		}
	}
}

// TestOvertakenFirst has the first message of a direct conversation that comes here overtake others: all go out, in order.
func TestOvertakenFirst(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 5})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn := member(t, n, 2)
	sixth, seventh, eighth := s.add("dm:1:2", "x"), s.add("dm:1:2", "x"), s.add("dm:1:2", "x")
	n.push(t, eighth)
	n.push(t, sixth, seventh)
	n.push(t, sixth, seventh, eighth)
	awaitSeqs(t, conn, "dm:1:2", 6, 7, 8)
}

// TestLateBeforeAll brings messages that were accepted before the user came: they go out, and what lies between them and
// the next is not missing here.
func TestLateBeforeAll(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{})
	first, second := s.add("dm:1:2", "x"), s.add("dm:1:2", "x")
	s.add("dm:1:2", "to somebody who was offline")
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = 20 * time.Millisecond })
	conn := member(t, n, 2)
	n.push(t, first, second)
	n.push(t, first)
	rounds := func() int {
		n.sequencer.mu.Lock()
		defer n.sequencer.mu.Unlock()
		return n.sequencer.round
	}
	before := rounds()
	eventually(t, "the heads are compared", func() bool { return rounds() > before+3 })
	n.push(t, s.add("dm:1:2", "live"))
	n.push(t, s.add("dm:1:2", "live"), second)
	awaitSeqs(t, conn, "dm:1:2", 1, 2, 4, 5)
	if got := n.metric(t, "gochat_repairs_total"); got != 0 {
		t.Errorf("%v repairs, want none", got)
	}
}

// TestFirstHeard has a direct conversation be heard of for the first time by a message whose predecessors since the user
// came were missed: they come, in order, and count as repaired. Without any missed it is no repair. Whoever has sent a
// message gets no copy of it.
func TestFirstHeard(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 5, "dm:2:3": 5})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn, origin := member(t, n, 2), testclient.TCP(t, n.TCPAddrs()[0])
	sender := hello(t, n, origin, 2, 1)
	n.pushDirect(t, 2, s.add("dm:1:2", "x"))
	if got := n.metric(t, "gochat_repairs_total"); got != 0 {
		t.Errorf("%v repairs, want none", got)
	}
	s.add("dm:2:3", "missed")
	last := s.add("dm:2:3", "x")
	last.Users, last.Except = []contract.UserID{2}, contract.ConnID(fmt.Sprint(n.instance, sender.number))
	n.pushDirect(t, 2, last)
	awaitSeqs(t, conn, "dm:1:2", 6)
	awaitSeqs(t, conn, "dm:2:3", 6, 7)
	awaitSeqs(t, origin, "dm:2:3", 6)
	if got := n.metric(t, "gochat_repairs_total"); got != 1 {
		t.Errorf("%v repairs, want one", got)
	}
}

// TestNeverHeard has all pushes of direct conversations be missed: the comparison finds them, from when the user came.
func TestNeverHeard(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"dm:1:2": 5, "dm:2:3": 5})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = 10 * time.Millisecond })
	conn := member(t, n, 2)
	s.add("dm:1:2", "missed")
	s.add("dm:1:2", "missed")
	s.add("dm:2:4", "missed")
	awaitSeqs(t, conn, "dm:1:2", 6, 7)
	awaitSeqs(t, conn, "dm:2:4", 1)
	if got := seqs(conn, "dm:2:3"); len(got) > 0 {
		t.Errorf("got %v of a conversation in which nothing has happened since", got)
	}
	n.push(t, s.add("dm:1:2", "live"))
	awaitSeqs(t, conn, "dm:1:2", 6, 7, 8)
}

// TestNextLife has everybody leave and come back while a page is asked for: it was for those who were there, and nothing
// of it goes to those who are back. Nor is what these miss given up for what became of the others' repair.
func TestNextLife(t *testing.T) {
	for _, refused := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused is %v", refused), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic, s := stocked(map[contract.Conversation]int{dm: 5})
				answers := make(chan error)
				logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
					reply, _ := s.deliveries(ctx, r)
					return reply, <-answers // the first who asked first
				}
				n := startStill(t, logic, time.Hour)
				first := n.come(t, 2)
				time.Sleep(time.Second)
				s.add(dm, "missed")
				n.push(t, s.add(dm, "skips ahead"))
				synctest.Wait() // the page is asked for
				n.dismiss(first)
				n.checkCounted(t, map[outcome]int{gone: 1})
				time.Sleep(time.Second)
				again := n.come(t, 2)
				time.Sleep(time.Second)
				s.add(dm, "missed by who is back")
				n.push(t, s.add(dm, "skips ahead"))
				synctest.Wait()
				var answer error
				if refused {
					answer = contract.Errorf(contract.Forbidden, "refused by the test")
				}
				answers <- answer
				n.checkSent(t, again, dm)
				answers <- nil
				n.checkSent(t, again, dm, 8, 9)
				n.checkCounted(t, map[outcome]int{gone: 1, queued: 2})
			})
		})
	}
}

// TestDueByTheMillisecond has a message be accepted just before the user comes, in the same millisecond: more than that of
// when it was is not kept, and it is not due.
func TestDueByTheMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		n := startStill(t, logic, time.Second)
		time.Sleep(300 * time.Microsecond)
		s.add(dm, "before")
		time.Sleep(300 * time.Microsecond)
		conn := n.come(t, 2)
		time.Sleep(time.Minute)
		n.checkSent(t, conn, dm)
		n.push(t, s.add(dm, "due"))
		n.checkSent(t, conn, dm, 2)
	})
}

// TestForgottenByTheMillisecond has a conversation be forgotten, however its message came: that is not due again. Where all
// others are of the same moment, forgetting one of these does not hide it.
func TestForgottenByTheMillisecond(t *testing.T) {
	for _, c := range []struct {
		name   string
		at     time.Duration // within a millisecond
		missed bool
	}{
		{"pushed", 400 * time.Microsecond, false},
		{"pushed at a whole one", 0, false},
		{"repaired", 400 * time.Microsecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic, s := stocked(nil)
				n := startStill(t, logic, time.Second)
				conn := n.come(t, 2)
				time.Sleep(time.Second + c.at)
				accepted := time.Now()
				if d := s.add(dm, "x"); !c.missed {
					n.push(t, d)
				}
				time.Sleep(time.Minute)
				n.checkSent(t, conn, dm, 1)
				if c.missed {
					accepted = time.Now()
				}
				n.crowdOut(t, s, accepted, c.missed)
				n.sequencer.mu.Lock()
				known := n.sequencer.users[2].heads[dm] != nil
				n.sequencer.mu.Unlock()
				if known && !c.missed { // else it is noted again, to no effect
					t.Fatal("the conversation is not forgotten: this test shows nothing")
				}
				time.Sleep(5 * time.Minute)
				n.checkSent(t, conn, dm, 1)
			})
		})
	}
}

// crowdOut has so much happen in other conversations of user 2 that the one silent longest is forgotten, whether pushes
// bring it or all are missed.
func (n stillNode) crowdOut(t *testing.T, s *shelf, accepted time.Time, missed bool) {
	t.Helper()
	for other := range maxUserHeads {
		d := s.addAt(contract.DirectConversation(2, contract.UserID(other+3)), "x", accepted)
		if d.Users = []contract.UserID{2}; !missed {
			n.push(t, d)
		}
	}
	if missed {
		time.Sleep(30 * time.Second) // until a comparison finds it
	}
	synctest.Wait()
}

// TestLateWhileAsked brings a message late while a page is asked for that has it: it does not go out twice. That it is
// late comes of another conversation that was forgotten meanwhile.
func TestLateWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		answer := make(chan struct{})
		logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
			reply, err := s.deliveries(ctx, r)
			<-answer
			return reply, err
		}
		n := startStill(t, logic, time.Second)
		conn := n.come(t, 2)
		time.Sleep(time.Minute)
		delayed := s.add(dm, "is brought late")
		n.push(t, s.add(dm, "overtakes it"))
		synctest.Wait() // a page from the first on is asked for
		time.Sleep(time.Second)
		other := s.add("dm:2:1000", "x")
		other.Users = []contract.UserID{2}
		n.push(t, other)
		time.Sleep(time.Minute)
		n.crowdOut(t, s, time.Now(), false)
		n.push(t, delayed)
		n.checkSent(t, conn, dm, 1)
		close(answer)
		n.checkSent(t, conn, dm, 1, 2)
		checkResult(t, "once more", n.pushOne(t, delayed), contract.PushResult{Had: 1})
		n.checkCounted(t, map[outcome]int{queued: 2 + 1 + maxUserHeads})
	})
}

// TestRenewedAsksAgain has logic not say in which conversations of anybody something has happened, when the routes had to
// be written anew: at the next comparison it is asked again, of everybody.
func TestRenewedAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		var asked []int // of how many
		logic.directHeads = func(ctx context.Context, r *contract.DirectHeadsRequest) (*contract.DirectHeadsReply, error) {
			if asked = append(asked, len(r.Users)); len(asked) <= 2 {
				return nil, contract.Errorf(contract.Unavailable, "failed by the test")
			}
			return s.directHeads(ctx, r)
		}
		n := startStill(t, logic, time.Second)
		conn := n.come(t, 2)
		for _, turn := range []contract.UserID{12, 13} { // not soon, as user 2's is not
			n.come(t, turn)
		}
		time.Sleep(time.Millisecond)
		s.add(dm, "missed")
		time.Sleep(5500 * time.Millisecond)
		n.checkSent(t, conn, dm, 1)
		if want := []int{3, 3, 3}; !slices.Equal(asked, want) {
			t.Errorf("asked of so many: %v, want %v", asked, want)
		}
	})
}

// TestLostLast has nothing follow the push that was missed.
func TestLostLast(t *testing.T) {
	for _, conversation := range []contract.Conversation{"room:1", "dm:1:2"} {
		t.Run(string(conversation), func(t *testing.T) {
			logic, s := stocked(map[contract.Conversation]int{})
			n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = 20 * time.Millisecond })
			conn := member(t, n, 2)
			n.push(t, s.add(conversation, "pushed"))
			s.add(conversation, "missed")
			s.add(conversation, "missed too")
			awaitSeqs(t, conn, conversation, 1, 2, 3)
			if got := n.metric(t, "gochat_repairs_total"); got < 1 {
				t.Errorf("%v repairs counted, want one or more", got)
			}
			if got := n.metric(t, "gochat_messages_repaired_total"); got != 2 {
				t.Errorf("%v messages counted as repaired, want 2", got)
			}
			n.push(t, s.add(conversation, "live"))
			awaitSeqs(t, conn, conversation, 1, 2, 3, 4)
		})
	}
}

// TestHealthy repairs nothing where nothing was missed, however often the heads are compared.
func TestHealthy(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 7})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = 100 * time.Millisecond })
	conn := member(t, n, 2)
	for range 25 {
		n.push(t, s.add("room:1", "x"))
		time.Sleep(20 * time.Millisecond)
	}
	awaitSeqs(t, conn, "room:1", upTo(8, 32)...)
	if got := n.metric(t, "gochat_repairs_total"); got != 0 {
		t.Errorf("%v repairs, want none", got)
	}
}

// TestDueFromEntering stores messages between the look at the room's head and the first push.
func TestDueFromEntering(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 5})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn := member(t, n, 2)
	s.add("room:1", "no route yet")
	n.push(t, s.add("room:1", "pushed"))
	awaitSeqs(t, conn, "room:1", 6, 7)

	// Who enters a room that is served already is in it from where it stands.
	second := member(t, n, 3)
	n.push(t, s.add("room:1", "pushed to both"))
	awaitSeqs(t, conn, "room:1", 6, 7, 8)
	awaitSeqs(t, second, "room:1", 8)

	// A room in which nobody was for a while is served from where it is then.
	conn.Close()
	second.Close()
	eventually(t, "all have left", func() bool { return n.metric(t, "gochat_connections") == 0 })
	s.add("room:1", "to nobody")
	again := member(t, n, 2)
	n.push(t, s.add("room:1", "pushed"))
	awaitSeqs(t, again, "room:1", 10)
}

// TestPushWhileEntering pushes while the first member's node asks how far the room has come: the room goes on.
func TestPushWhileEntering(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 3})
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	logic.conversationHeads = func(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
		reply, err := s.heads(ctx, r)
		once.Do(func() { close(asked); <-answer })
		return reply, err
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	c := testclient.WebSocket(t, n.WebSocketAddr())
	hello(t, n, c, 2, 1)
	c.Send(t, object{"op": 15, "roomId": 1})
	<-asked
	n.push(t, s.add("room:1", "while it asks"))
	close(answer)
	settle(t, c)
	n.push(t, s.add("room:1", "after"))
	awaitSeqs(t, c, "room:1", 4, 5)
}

// TestHeadAway has logic not answer where the room stands: the client may enter later, and nothing is left.
func TestHeadAway(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{"room:1": 5})
	var away atomic.Bool
	away.Store(true)
	logic.conversationHeads = func(ctx context.Context, r *contract.ConversationHeadsRequest) (*contract.HeadsReply, error) {
		if away.Load() {
			return nil, contract.RetryLater(contract.Unavailable, time.Second, "away")
		}
		return s.heads(ctx, r)
	}
	n := startNode(t, logic, nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	ch := hello(t, n, c, 2, 1)
	c.Send(t, object{"op": 15, "roomId": 1})
	c.AwaitError(t, "unavailable")
	away.Store(false)
	enter(t, c, ch, 1)
	n.push(t, s.add("room:1", "x"))
	awaitSeqs(t, c, "room:1", 6)
}

// TestRepairFails has logic fail while missed messages are fetched: they come when it answers again, before what
// was pushed meanwhile.
func TestRepairFails(t *testing.T) {
	logic, s := stocked(map[contract.Conversation]int{})
	var failures atomic.Int32
	failures.Store(3)
	logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
		if failures.Add(-1) >= 0 {
			return nil, errors.New("failed by the test")
		}
		return s.deliveries(ctx, r)
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn := member(t, n, 2)
	n.push(t, s.add("room:1", "pushed"))
	s.add("room:1", "missed")
	for range 3 {
		n.push(t, s.add("room:1", "pushed"))
	}
	awaitSeqs(t, conn, "room:1", 1, 2, 3, 4, 5)
	if got := n.metric(t, "gochat_repair_failures_total"); got != 3 {
		t.Errorf("%v failures counted, want 3", got)
	}
}

// TestRepairFailsAlways has logic answer nothing else, from the second message on. What may be the fault of what is asked
// for is asked for 20 times, and then given up; what is logic's own goes on being asked for.
func TestRepairFailsAlways(t *testing.T) {
	for _, c := range []struct {
		code  contract.Code
		asked func(times int) bool
		want  []int64
		lost  int
	}{
		{contract.Internal, func(times int) bool { return times == repairLooks }, []int64{1, 4}, 2},
		{contract.Unavailable, func(times int) bool { return times > 50*repairLooks }, []int64{1}, 0},
	} {
		for _, conversation := range []contract.Conversation{"room:1", dm} {
			t.Run(fmt.Sprint(c.code, " ", conversation), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					logic, s := stocked(nil)
					asked := 0 // by one repair
					logic.deliveries = func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
						asked++
						return nil, contract.Errorf(c.code, "failed by the test")
					}
					n := startStill(t, logic, 24*time.Hour)
					conn := n.come(t, 2)
					if err := conn.enterRoom(t.Context(), 1); err != nil {
						t.Fatal(err)
					}
					n.push(t, s.add(conversation, "pushed"))
					s.add(conversation, "missed")
					n.push(t, s.add(conversation, "skips ahead"))
					time.Sleep(time.Hour)
					n.push(t, s.add(conversation, "goes on, or waits"))
					n.checkSent(t, conn, conversation, c.want...)
					if !c.asked(asked) {
						t.Errorf("asked %d times", asked)
					}
					if got := n.metric(t, "gochat_repair_failures_total"); got != float64(asked) {
						t.Errorf("%v failures counted, want %d", got, asked)
					}
					n.checkCounted(t, map[outcome]int{queued: len(c.want), lost: c.lost})
				})
			})
		}
	}
}

// TestRepairOfManyPages misses more than one page has.
func TestRepairOfManyPages(t *testing.T) {
	const missed = 3*contract.MaxPage + 7
	logic, s := stocked(map[contract.Conversation]int{})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour; c.cfg.QueueBytes = 64 << 20 })
	conn := member(t, n, 2)
	n.push(t, s.add("room:1", "pushed"))
	for range missed {
		s.add("room:1", "missed")
	}
	n.push(t, s.add("room:1", "pushed"))
	awaitSeqs(t, conn, "room:1", upTo(1, missed+2)...)
}

// TestAbsent pushes to users of whom the node has no connection.
func TestAbsent(t *testing.T) {
	n := startNode(t, obliging(), nil)
	c := testclient.WebSocket(t, n.WebSocketAddr())
	hello(t, n, c, 2, 1)
	d := note("dm:1:2", 1, "x")
	d.Users = []contract.UserID{1, 2}
	reply, err := n.Push(t.Context(), &contract.PushRequest{Deliveries: []contract.Delivery{d, note("room:1", 1, "y")}})
	if err != nil {
		t.Fatal(err)
	}
	if r := reply.Results[0]; !slices.Equal(r.Absent, []contract.UserID{1}) || r.Written != 1 {
		t.Errorf("got %+v, want user 1 absent and one written", r)
	}
	if r := reply.Results[1]; len(r.Absent) != 0 {
		t.Errorf("got %+v for a room, want nobody absent", r)
	}
}

// TestSequence is the property that all of it is for: whatever is pushed in whatever order, twice or not at all, by
// several tasks at once, while people come and go, every connection sees a room without a hole, in order, once.
func TestSequence(t *testing.T) {
	const rooms, messages, pushers, people = 3, 400, 3, 6
	logic, s := stocked(map[contract.Conversation]int{})
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = 30 * time.Millisecond; c.cfg.QueueBytes = 64 << 20 })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var staying []*testclient.Conn
	for user := range people {
		c := testclient.WebSocket(t, n.WebSocketAddr())
		ch := hello(t, n, c, contract.UserID(user+1), 1)
		for room := range rooms {
			enter(t, c, ch, contract.RoomID(room+1))
		}
		staying = append(staying, c)
	}
	var pushing, coming sync.WaitGroup
	stop := make(chan struct{})
	coming.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			c := testclient.WebSocket(t, n.WebSocketAddr())
			c.Send(t, object{"op": 6, "authToken": token(contract.UserID(people+1), i), "roomId": i%rooms + 1})
			time.Sleep(3 * time.Millisecond)
			c.Close()
		}
	})
	for p := range pushers {
		pushing.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(p)))
			var late []contract.Delivery
			for range rooms * messages / pushers {
				d := s.add(contract.RoomConversation(contract.RoomID(random.IntN(rooms)+1)), "x")
				switch random.IntN(10) {
				case 0: // lost
				case 1: // late
					late = append(late, d)
				case 2: // twice
					_, _ = n.tryPush(d, d)
				default:
					if _, err := n.tryPush(d); err != nil {
						t.Errorf("push: %v", err)
					}
				}
				if len(late) > 3 {
					_, _ = n.tryPush(late...)
					late = nil
				}
			}
		})
	}
	pushing.Wait()
	close(stop)
	coming.Wait()
	for room := range rooms {
		conversation := contract.RoomConversation(contract.RoomID(room + 1))
		heads, err := s.heads(t.Context(), &contract.ConversationHeadsRequest{Conversations: []contract.Conversation{conversation}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range staying {
			awaitSeqs(t, c, conversation, upTo(1, heads.Heads[conversation])...)
		}
	}
}
