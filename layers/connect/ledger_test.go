package connect

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
)

const dm = contract.Conversation("dm:1:2") // user 2 gets what user 1 says

// pushOne pushes one delivery and answers its result.
func (n *testNode) pushOne(t testing.TB, d contract.Delivery) contract.PushResult {
	t.Helper()
	reply, err := n.Push(t.Context(), &contract.PushRequest{Deliveries: []contract.Delivery{d}})
	if err != nil {
		t.Fatal(err)
	}
	return reply.Results[0]
}

func checkResult(t testing.TB, what string, got, want contract.PushResult) {
	t.Helper()
	if !slices.Equal(got.Absent, want.Absent) {
		t.Errorf("%s: absent are %v, want %v", what, got.Absent, want.Absent)
	}
	got.Absent, want.Absent = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

var nobodyThere = contract.PushResult{Absent: []contract.UserID{2}}

// slowRoutes are written, but whoever writes the first does not hear of it before release.
type slowRoutes struct {
	Routes
	once             sync.Once
	written, release chan struct{}
}

func (r *slowRoutes) wait(changes []contract.RouteChange) {
	if len(changes) > 0 {
		r.once.Do(func() { close(r.written); <-r.release })
	}
}

func (r *slowRoutes) Replace(ctx context.Context, node contract.NodeRef, present []contract.RouteChange) error {
	defer r.wait(present)
	return r.Routes.Replace(ctx, node, present)
}

func (r *slowRoutes) Apply(ctx context.Context, node contract.NodeRef, changes []contract.RouteChange) error {
	defer r.wait(changes)
	return r.Routes.Apply(ctx, node, changes)
}

// TestAbsentWhileArriving pushes to a user whose route is written, and whose bucket has no connection yet: the node
// says so, and takes the message when it comes again.
func TestAbsentWhileArriving(t *testing.T) {
	logic, s := stocked(nil)
	routes := &slowRoutes{written: make(chan struct{}), release: make(chan struct{})}
	n := startNode(t, logic, func(c *Connect) { routes.Routes, c.registrar.routes = c.registrar.routes, routes })
	c := testclient.WebSocket(t, n.WebSocketAddr())
	c.Send(t, object{"op": 6, "authToken": token(2, 1)})
	testwait.Receive(t, "the route", routes.written)
	d := s.add(dm, "x")
	checkResult(t, "on the way in", n.pushOne(t, d), nobodyThere)
	close(routes.release)
	eventually(t, "the user is here", func() bool {
		here := n.bucketOf(2).ofUser(2)
		return len(here) == 1 && here[0].authenticated.Load()
	})
	checkResult(t, "once more", n.pushOne(t, d), contract.PushResult{Written: 1})
	awaitSeqs(t, c, dm, 1)
}

// TestOnlyWhoIsInTheBucketIsHere keeps the bucket from taking a connection, and from letting go of it: for the sequencer
// the user is not here yet, and not any more.
func TestOnlyWhoIsInTheBucketIsHere(t *testing.T) {
	logic, s := stocked(nil)
	n := startNode(t, logic, nil)
	d := s.add(dm, "x")
	absent := func() bool { return len(n.pushOne(t, d).Absent) == 1 }
	b := n.bucketOf(2)

	c := testclient.WebSocket(t, n.WebSocketAddr())
	lock := func() (unlock func()) {
		b.mu.Lock()
		unlock = sync.OnceFunc(b.mu.Unlock)
		t.Cleanup(unlock) // else a test that fails does not end
		return unlock
	}
	unlock := lock()
	c.Send(t, object{"op": 6, "authToken": token(2, 1)})
	eventually(t, "the route is written", func() bool { return storedRoutes(t, n.routes, n.self)[place{user: 2}] })
	time.Sleep(50 * time.Millisecond) // enough to see it, if it does not wait for the bucket
	n.sequencer.mu.Lock()
	if n.sequencer.users[2] != nil {
		t.Error("the user is here before the bucket has them")
	}
	n.sequencer.mu.Unlock()
	unlock()
	eventually(t, "the user is here", func() bool { return !absent() })

	unlock = lock()
	c.Close()
	eventually(t, "the user is here no more", absent)
	unlock()
}

// hold keeps the user's bucket from working until release.
func (n *testNode) hold(t testing.TB, user contract.UserID) (release func()) {
	t.Helper()
	done := make(chan struct{})
	n.bucketOf(user).jobs <- &job{push: &push{Connect: n.Connect}, done: done}
	return func() { testwait.Receive(t, "the bucket", done) }
}

// TestAbsentWhileLeaving has the last connection of a user leave while a push waits for the bucket.
func TestAbsentWhileLeaving(t *testing.T) {
	for _, c := range []struct {
		name  string
		back  bool // before the push has its turn
		first contract.PushResult
		then  contract.PushResult // once more, when the user is back
	}{
		{"and come back later", false, nobodyThere, contract.PushResult{Written: 1}},
		{"and be back", true, contract.PushResult{Written: 1}, contract.PushResult{Had: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			logic, s := stocked(nil)
			n := startNode(t, logic, nil)
			conn := testclient.WebSocket(t, n.WebSocketAddr())
			first := hello(t, n, conn, 2, 1)
			release := n.hold(t, 2)
			d := s.add(dm, "x")
			result := make(chan contract.PushResult, 1)
			go func() {
				if reply, err := n.Push(context.Background(), &contract.PushRequest{Deliveries: []contract.Delivery{d}}); err == nil {
					result <- reply.Results[0]
				}
			}()
			eventually(t, "the push waits", func() bool { return len(n.bucketOf(2).jobs) == 1 })
			again := conn
			if c.back {
				again = testclient.WebSocket(t, n.WebSocketAddr())
				hello(t, n, again, 2, 2)
			}
			conn.Close()
			eventually(t, "the connection has left", func() bool { return !slices.Contains(n.all(), first) })
			release()
			checkResult(t, "while leaving", testwait.Receive(t, "the result", result), c.first)
			if !c.back {
				again = testclient.WebSocket(t, n.WebSocketAddr())
				hello(t, n, again, 2, 2)
			}
			checkResult(t, "once more", n.pushOne(t, d), c.then)
			awaitSeqs(t, again, dm, 1)
			if got := n.metric(t, "gochat_connect_deliveries_total"); got != 1 {
				t.Errorf("%v counted, want the one that was written", got)
			}
		})
	}
}

// TestEachIsCountedOnce pushes to one user whatever may happen to a message: each ends in one count.
func TestEachIsCountedOnce(t *testing.T) {
	for _, conversation := range []contract.Conversation{"room:1", dm} {
		t.Run(string(conversation), func(t *testing.T) {
			logic, s := stocked(nil)
			n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
			conn := member(t, n, 2)
			var all []contract.Delivery
			for range 4 {
				all = append(all, s.add(conversation, "x"))
			}
			checkResult(t, "the first", n.pushOne(t, all[0]), contract.PushResult{Written: 1})
			checkResult(t, "twice", n.pushOne(t, all[0]), contract.PushResult{Had: 1})
			checkResult(t, "what skips ahead", n.pushOne(t, all[3]), contract.PushResult{Deferred: 1})
			awaitSeqs(t, conn, conversation, 1, 2, 3, 4)
			checkResult(t, "what was overtaken", n.pushOne(t, all[1]), contract.PushResult{Had: 1})
			checkResult(t, "what was deferred", n.pushOne(t, all[3]), contract.PushResult{Had: 1})
			checkResult(t, "what follows", n.pushOne(t, s.add(conversation, "x")), contract.PushResult{Written: 1})
			checkResult(t, "a notice", n.pushOne(t, note(conversation, 0, "x")), contract.PushResult{Written: 1})
			if got := n.metric(t, "gochat_connect_deliveries_total", "written"); got != 5 {
				t.Errorf("%v counted as written, want 5 messages and no notice", got)
			}
			if got := n.metric(t, "gochat_connect_deliveries_total"); got != 5 {
				t.Errorf("%v counted, want 5", got)
			}
		})
	}
}

// TestCountedThoughNobodyWaits ends the context of a push before its bucket has done its part.
func TestCountedThoughNobodyWaits(t *testing.T) {
	logic, s := stocked(nil)
	n := startNode(t, logic, nil)
	conn := testclient.WebSocket(t, n.WebSocketAddr())
	hello(t, n, conn, 2, 1)
	release := n.hold(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := s.add(dm, "x")
	if _, err := n.Push(ctx, &contract.PushRequest{Deliveries: []contract.Delivery{d}}); err == nil {
		t.Error("a push that nobody waits for is answered")
	}
	release()
	checkResult(t, "tried again", n.pushOne(t, d), contract.PushResult{Had: 1})
	if got := n.metric(t, "gochat_connect_deliveries_total", "written"); got != 1 {
		t.Errorf("%v counted as written, want 1", got)
	}
}

// TestGoneWhileDeferred has a user leave to whom messages are deferred, which logic does not give yet.
func TestGoneWhileDeferred(t *testing.T) {
	logic, s := stocked(nil)
	logic.deliveries = func(ctx context.Context, _ *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.Timeout = 200 * time.Millisecond })
	conn := member(t, n, 2)
	for _, push := range []bool{true, false, true, true, true} {
		if d := s.add(dm, "x"); push {
			n.pushOne(t, d)
		}
	}
	checkResult(t, "twice", n.pushOne(t, note(dm, 5, "x")), contract.PushResult{Deferred: 1})
	conn.Close()
	eventually(t, "the deferred are counted", func() bool { return n.metric(t, "gochat_connect_deliveries_total", "gone") == 3 })
	if got := n.metric(t, "gochat_connect_deliveries_total"); got != 4 {
		t.Errorf("%v counted, want the one written and 3 gone", got)
	}
}

// TestGoneWhileRepaired has a user leave while a repair waits for the bucket: what was pushed is gone, what was not is for task
// to push, and to find its receiver.
func TestGoneWhileRepaired(t *testing.T) {
	logic, s := stocked(nil)
	n := startNode(t, logic, nil)
	conn := testclient.WebSocket(t, n.WebSocketAddr())
	first := hello(t, n, conn, 2, 1)
	n.pushOne(t, s.add(dm, "written"))
	missed := s.add(dm, "missed")
	release := n.hold(t, 2)
	checkResult(t, "what skips ahead", n.pushOne(t, s.add(dm, "pushed")), contract.PushResult{Deferred: 1})
	eventually(t, "the repair waits", func() bool { return len(n.bucketOf(2).jobs) == 1 })
	conn.Close()
	eventually(t, "the connection has left", func() bool { return !slices.Contains(n.all(), first) })
	release()
	eventually(t, "it is counted", func() bool { return n.metric(t, "gochat_connect_deliveries_total", "gone") > 0 })
	checkResult(t, "what was missed", n.pushOne(t, missed), nobodyThere)
	if got := n.metric(t, "gochat_connect_deliveries_total"); got != 2 {
		t.Errorf("%v counted, want the one written and the one that was pushed", got)
	}
}

// TestRepairRefused has logic refuse what is missing: the conversation goes on, and the slot is free.
func TestRepairRefused(t *testing.T) {
	for _, code := range []contract.Code{contract.NotFound, contract.Forbidden, contract.BadRequest} {
		for _, conversation := range []contract.Conversation{"room:1", dm} {
			t.Run(fmt.Sprint(code, " ", conversation), func(t *testing.T) {
				logic, s := stocked(nil)
				var asked atomic.Int32
				logic.deliveries = func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
					asked.Add(1)
					return nil, contract.Errorf(code, "refused by the test")
				}
				n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
				conn := member(t, n, 2)
				n.push(t, s.add(conversation, "pushed"))
				s.add(conversation, "missed")
				n.push(t, s.add(conversation, "skips ahead"))
				eventually(t, "the repair is given up", func() bool { return n.metric(t, "gochat_repairs_abandoned_total") == 1 })
				n.push(t, s.add(conversation, "goes on"))
				awaitSeqs(t, conn, conversation, 1, 4)
				if got := asked.Load(); got != 1 {
					t.Errorf("asked %d times, want once", got)
				}
				if got := n.metric(t, "gochat_connect_deliveries_total", "lost"); got != 2 {
					t.Errorf("%v counted as lost, want the missed and the deferred", got)
				}
			})
		}
	}
}

// TestLateCopies brings what was accepted before the user came, in any order: what may not go out any more, and never has,
// is answered as absent, and what has as had.
func TestLateCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		var late []contract.Delivery
		for range 5 {
			late = append(late, s.add(dm, "before"))
		}
		time.Sleep(time.Second)
		n := startStill(t, logic, time.Hour)
		conn := n.come(t, 2)
		time.Sleep(time.Second)
		push := func(seq int, want contract.PushResult) {
			t.Helper()
			checkResult(t, fmt.Sprint("late ", seq), n.pushOne(t, late[seq-1]), want)
		}
		hadIt, goesOut := contract.PushResult{Had: 1}, contract.PushResult{Queued: 1}
		push(2, goesOut)
		push(1, nobodyThere)
		push(4, goesOut)
		for range 2 { // before anything is known of what is due, and after
			push(2, hadIt)
			push(3, nobodyThere)
			push(4, hadIt)
			push(1, nobodyThere)
			n.pushOne(t, s.add(dm, "due"))
			synctest.Wait()
		}
		push(5, nobodyThere)
		n.checkSent(t, conn, dm, 2, 4, 6, 7)
		n.checkCounted(t, map[outcome]int{queued: 4})
	})
}

// TestLateAboveWhatIsDue brings late what follows a message that is due, as of logics whose clocks differ: it comes after
// that one, and neither is left out.
func TestLateAboveWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		answer := make(chan struct{})
		logic.deliveries = func(ctx context.Context, r *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
			<-answer
			return s.deliveries(ctx, r)
		}
		time.Sleep(time.Second)
		n := startStill(t, logic, time.Hour)
		conn := n.come(t, 2)
		time.Sleep(time.Second)
		second := time.Now().Add(-2 * time.Second)
		lateBelow := s.addAt(dm, "late", second)
		due := s.add(dm, "due")
		lateAbove := s.addAt(dm, "late", second)
		checkResult(t, "what is due", n.pushOne(t, due), contract.PushResult{Deferred: 1})
		checkResult(t, "late, above it", n.pushOne(t, lateAbove), contract.PushResult{Deferred: 1})
		checkResult(t, "late, below it", n.pushOne(t, lateBelow), contract.PushResult{Queued: 1})
		close(answer)
		n.checkSent(t, conn, dm, 1, 2, 3)
		n.checkCounted(t, map[outcome]int{queued: 3})
	})
}

// TestLateInRoom brings a message to a room that was accepted before anybody entered: nobody here is to get it.
func TestLateInRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic, s := stocked(nil)
		late := s.add("room:1", "before")
		n := startStill(t, logic, time.Hour)
		if err := n.come(t, 2).enterRoom(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		checkResult(t, "late", n.pushOne(t, late), contract.PushResult{})
		due := s.add("room:1", "due")
		checkResult(t, "due", n.pushOne(t, due), contract.PushResult{Queued: 1})
		checkResult(t, "late", n.pushOne(t, late), contract.PushResult{})
		checkResult(t, "once more", n.pushOne(t, due), contract.PushResult{Had: 1})
	})
}

// TestLostOfUnknown gives up what is missing of a conversation of which it is not known yet from where on it is due: of each
// message that was pushed, the copies are lost that connections here were to get.
func TestLostOfUnknown(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  func(n stillNode, first, second *channel) *channel
		leave bool // the first does, once all is pushed
		lost  int
	}{
		{"from elsewhere", func(stillNode, *channel, *channel) *channel { return nil }, false, 4},
		{"from one of the user's", func(_ stillNode, first, _ *channel) *channel { return first }, false, 3},
		{"from one that has left", func(_ stillNode, first, _ *channel) *channel { return first }, true, 2},
		{"from the one that stays", func(_ stillNode, _, second *channel) *channel { return second }, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic, s := stocked(map[contract.Conversation]int{dm: 5})
				answer := make(chan struct{})
				logic.deliveries = func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
					<-answer
					return nil, contract.Errorf(contract.Forbidden, "refused by the test")
				}
				time.Sleep(time.Second)
				n := startStill(t, logic, time.Hour)
				first, second, other := n.come(t, 2), n.come(t, 2), n.come(t, 1)
				time.Sleep(time.Second)
				missed := s.add(dm, "missed")
				pushed, delayed, own := fromHere(s.add(dm, "x"), other), s.add(dm, "x"), s.add(dm, "x")
				if sender := c.from(n, first, second); sender != nil {
					own = fromHere(own, sender)
				}
				for _, d := range []contract.Delivery{pushed, own} {
					checkResult(t, "what skips ahead", n.pushOne(t, d), contract.PushResult{Deferred: 1})
				}
				if c.leave {
					n.dismiss(first)
				}
				close(answer)
				n.checkCounted(t, map[outcome]int{lost: c.lost})
				for _, d := range []contract.Delivery{pushed, own} {
					checkResult(t, "lost", n.pushOne(t, d), contract.PushResult{Had: 1})
				}
				for _, d := range []contract.Delivery{missed, delayed} {
					checkResult(t, "not known of", n.pushOne(t, d), nobodyThere)
				}
				n.pushOne(t, s.add(dm, "goes on"))
				n.checkSent(t, second, dm, 10)
			})
		})
	}
}

// TestSenderIsNotGone has the last connections of a user leave to whom a message of their own is deferred, and another.
func TestSenderIsNotGone(t *testing.T) {
	for _, c := range []struct {
		name         string
		further      bool // another connection of the user is there
		furtherFirst bool // and leaves first
		gone         int
	}{
		{"alone", false, false, 1},
		{"before another", true, false, 2},
		{"after another", true, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic, s := stocked(nil)
				logic.deliveries = func(context.Context, *contract.DeliveriesRequest) (*contract.DeliveriesReply, error) {
					return nil, contract.Errorf(contract.Unavailable, "failed by the test")
				}
				n := startStill(t, logic, time.Hour)
				leaving := []*channel{n.come(t, 2)}
				sender := leaving[0]
				if c.further {
					leaving = append(leaving, n.come(t, 2))
				}
				if c.furtherFirst {
					slices.Reverse(leaving)
				}
				time.Sleep(time.Second)
				s.add(dm, "missed")
				n.pushOne(t, s.add(dm, "x"))
				n.pushOne(t, fromHere(s.add(dm, "own"), sender))
				for _, conn := range leaving {
					n.dismiss(conn)
				}
				n.checkCounted(t, map[outcome]int{gone: c.gone})
			})
		})
	}
}
