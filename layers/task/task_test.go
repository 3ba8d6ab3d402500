package task

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/record"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// Every node gets each conversation in its order, once; and while a push is in flight, what comes gathers for the
// next.
func TestOrderAndBatches(t *testing.T) {
	w := newWorld(t)
	const rooms, each = 12, 200
	for room := range contract.RoomID(rooms) {
		w.room(room+1, nodeA, nodeB)
	}
	release := make(chan struct{})
	var mixed atomic.Bool // a push has carried what two partitions had for it
	w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if node == nodeB {
			<-release
			first := queue.Partition(string(r.Deliveries[0].Conversation), partitions)
			for _, d := range r.Deliveries {
				if queue.Partition(string(d.Conversation), partitions) != first {
					mixed.Store(true)
				}
			}
		}
		return nil, nil
	})
	w.publish(toRoom(1, 1)) // alone, so that the push that hangs carries nothing of the other partitions
	eventually(t, "a push hangs", func() bool { return w.pushed(nodeB) == 1 && len(w.received(nodeA)) > 0 })
	for seq := range int64(each) {
		var batch []contract.Delivery
		for room := range contract.RoomID(rooms) {
			if room > 0 || seq > 0 {
				batch = append(batch, toRoom(room+1, seq+1))
			}
		}
		w.publish(batch...)
	}
	eventually(t, "what other partitions have gathers", func() bool {
		w.task.mu.Lock()
		defer w.task.mu.Unlock()
		return len(w.task.byNode[nodeB].parcels) >= 2 // of the three whose items are not in flight
	})
	if w.pushed(nodeB) != 1 {
		t.Error("a second push began while one was in flight")
	}
	if got := w.depth(); got != rooms*each {
		t.Errorf("%d items are left before a node has answered, want all %d", got, rooms*each)
	}
	close(release)
	for _, node := range []contract.NodeRef{nodeA, nodeB} {
		eventually(t, "all has come to "+node.String(), func() bool { return len(w.received(node)) >= rooms*each })
		next := make(map[contract.RoomID]int64)
		for _, d := range w.received(node) {
			if next[d.Room]++; d.Seq != next[d.Room] {
				t.Fatalf("%s: seq %d of room %d came as number %d", node, d.Seq, d.Room, next[d.Room])
			}
		}
	}
	if !mixed.Load() {
		t.Errorf("%d pushes, each for one partition: nothing was gathered", w.pushed(nodeB))
	}
	eventually(t, "all is acknowledged and counted", func() bool {
		return w.depth() == 0 && w.count("gochat_deliveries_total", "written") == 2*rooms*each
	})
	if got := w.count("gochat_messages_consumed_total"); got != rooms*each {
		t.Errorf("%d counted as consumed, want %d", got, rooms*each)
	}
}

// A node that is away for a moment loses nothing, and what comes later does not overtake.
func TestNodeAwayForAMoment(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PushWithin = patience })
	w.room(1, nodeA)
	var tries atomic.Int32
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		if tries.Add(1) <= 3 {
			return nil, fmt.Errorf("push: %w", contract.Errorf(contract.Unavailable, "away"))
		}
		return nil, nil
	})
	for seq := range int64(20) {
		w.publish(toRoom(1, seq+1))
	}
	eventually(t, "all has come", func() bool { return len(w.received(nodeA)) == 20 })
	for i, d := range w.received(nodeA) {
		if d.Seq != int64(i+1) {
			t.Fatalf("seq %d came as number %d", d.Seq, i+1)
		}
	}
	if got := w.count("gochat_pushes_total", "unavailable"); got != 3 {
		t.Errorf("%d pushes counted as unavailable, want 3", got)
	}
}

// A node that stays away is passed over, and from then on tried once for what comes, until it answers again. Others
// get everything meanwhile.
func TestNodeThatStaysAway(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA, nodeB)
	var away atomic.Bool
	away.Store(true)
	w.script(func(node contract.NodeRef, _ *contract.PushRequest) (*contract.PushReply, error) {
		if node == nodeB && away.Load() {
			return nil, contract.Errorf(contract.Unavailable, "away")
		}
		return nil, nil
	})
	bring := func(seq int64) (tries int) {
		before := w.pushed(nodeB)
		w.publish(toRoom(1, seq))
		eventually(t, "it is done", func() bool { return w.depth() == 0 })
		if got := w.received(nodeA); int64(len(got)) != seq || got[seq-1].Seq != seq {
			t.Errorf("the other node has %d deliveries, want %d", len(got), seq)
		}
		return w.pushed(nodeB) - before
	}
	deferred := func() int { return w.count("gochat_deliveries_total", "deferred") }
	if bring(1); deferred() != 0 {
		t.Error("it was waited for until it was passed over")
	}
	eventually(t, "it is passed over", func() bool { return deferred() == 1 })
	if tries := w.pushed(nodeB); tries < 2 {
		t.Errorf("tried %d times before it was passed over, want more", tries)
	}
	for seq := int64(2); seq < 5; seq++ {
		before := w.pushed(nodeB)
		bring(seq)
		eventually(t, "it is passed over", func() bool { return deferred() == int(seq) })
		if tries := w.pushed(nodeB) - before; tries != 1 {
			t.Errorf("a suspect node is tried %d times, want once", tries)
		}
	}
	away.Store(false)
	bring(5)
	eventually(t, "it is back again", func() bool { return len(w.received(nodeB)) == 1 })
	away.Store(true)
	before := w.pushed(nodeB)
	bring(6)
	eventually(t, "it is passed over", func() bool { return deferred() == 5 })
	if tries := w.pushed(nodeB) - before; tries < 2 {
		t.Errorf("away again after it answered, it is tried %d times, want more", tries)
	}
}

// pushFunc is connect nodes that a function answers for.
type pushFunc func(context.Context, contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error)

func (f pushFunc) Push(ctx context.Context, node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
	return f(ctx, node, r)
}

// A node that hangs holds up what is bound for others once, for a moment. What comes meanwhile it gets, in order, when it
// goes on; from then on it is waited for again. Time is not real.
func TestLateNodeDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		routes := &world{routes: contract.Routes{Rooms: map[contract.RoomID][]contract.NodeRef{1: {nodeA, nodeB}}}}
		goesOn := make(chan struct{})
		var mu sync.Mutex // guards goesOn too
		got := make(map[contract.NodeRef][]int64)
		task := New(Config{Timeout: time.Hour}, nil, routes, pushFunc(func(ctx context.Context, node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
			mu.Lock()
			hangs := goesOn
			mu.Unlock()
			if node == nodeB {
				<-hangs
			}
			mu.Lock()
			defer mu.Unlock()
			reply := &contract.PushReply{}
			for _, d := range r.Deliveries {
				got[node] = append(got[node], d.Seq)
				reply.Results = append(reply.Results, contract.PushResult{Written: 1})
			}
			return reply, nil
		}), record.NewTask(record.Defaults(), observability.Discard()), observability.Discard())
		seq := int64(0)
		bring := func(want time.Duration) {
			t.Helper()
			seq++
			d := toRoom(1, seq)
			begun := time.Now()
			if err := task.handle(t.Context(), []contract.Item{{Key: "room:1", Body: d.Append(nil)}}); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took < want || took > want+gatherMost {
				t.Errorf("message %d took %v, want %v", seq, took, want)
			}
		}
		bring(overdue)
		for range 20 {
			bring(0)
		}
		mu.Lock()
		if len(got[nodeA]) != 21 || len(got[nodeB]) != 0 {
			t.Errorf("got %v, want all for the one and none for the other", got)
		}
		mu.Unlock()
		close(goesOn)
		synctest.Wait()
		time.Sleep(2 * gatherEach)
		synctest.Wait() // it has answered, and its sender gathers
		mu.Lock()
		goesOn = make(chan struct{})
		mu.Unlock()
		bring(overdue) // it is waited for again
		bring(0)
		close(goesOn)
		close(task.stopping)
		task.senders.Wait()
		for node, seqs := range got {
			for i, s := range seqs {
				if s != int64(i+1) || len(seqs) != 23 {
					t.Fatalf("%v got %v, want 1 to 23", node, seqs)
				}
			}
		}
	})
}

// What waits for a node that hangs is bounded: then everybody waits for it.
func TestTooMuchIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		routes := &world{routes: contract.Routes{Rooms: map[contract.RoomID][]contract.NodeRef{1: {nodeB}}}}
		const hangs = time.Minute
		task := New(Config{Timeout: hangs}, nil, routes, pushFunc(func(ctx context.Context, _ contract.NodeRef, _ *contract.PushRequest) (*contract.PushReply, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}), record.NewTask(record.Defaults(), observability.Discard()), observability.Discard())
		d := toRoom(1, 1)
		items := make([]contract.Item, maxLate)
		for i := range items {
			items[i] = contract.Item{Key: "room:1", Body: d.Append(nil)}
		}
		begun := time.Now()
		for i, want := range []time.Duration{overdue, hangs} {
			if err := task.handle(t.Context(), items); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took < want || want == overdue && took != want {
				t.Errorf("after part %d: %v, want %v", i+1, took, want)
			}
		}
		time.Sleep(10 * hangs) // all of it has been given up
		begun = time.Now()
		if err := task.handle(t.Context(), items[:1]); err != nil || time.Since(begun) > 0 {
			t.Errorf("with nothing else waiting it took %v, %v, want no time", time.Since(begun), err)
		}
		close(task.stopping)
		task.senders.Wait()
	})
}

// After a push that wrote to many connections the next one gathers, the longer the more they were; after one that wrote to
// few it comes at once. Time is not real.
func TestPushesGather(t *testing.T) {
	for _, c := range []struct {
		written int
		want    time.Duration
	}{{0, 0}, {10, 200 * time.Microsecond}, {1000, 20 * time.Millisecond}, {100_000, gatherMost}} {
		t.Run(fmt.Sprint(c.written), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				routes := &world{routes: contract.Routes{Rooms: map[contract.RoomID][]contract.NodeRef{1: {nodeA}}}}
				begun := time.Now()
				var pushed []time.Duration
				task := New(Defaults(), nil, routes, pushFunc(func(_ context.Context, _ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
					pushed = append(pushed, time.Since(begun))
					results := make([]contract.PushResult, len(r.Deliveries))
					results[0].Written = c.written
					return &contract.PushReply{Results: results}, nil
				}), record.NewTask(record.Defaults(), observability.Discard()), observability.Discard())
				for seq := range int64(2) {
					d := toRoom(1, seq+1)
					if err := task.handle(t.Context(), []contract.Item{{Key: "room:1", Body: d.Append(nil)}}); err != nil {
						t.Fatal(err)
					}
				}
				if len(pushed) != 2 || pushed[0] != 0 || pushed[1] != c.want {
					t.Errorf("pushed after %v, want at once and after %v", pushed, c.want)
				}
				task.senders.Wait()
			})
		})
	}
}

// A life that has ended is not tried again, and nothing is kept of it; nor is anything of one that answers.
func TestEndedLife(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA, nodeB)
	w.script(func(node contract.NodeRef, _ *contract.PushRequest) (*contract.PushReply, error) {
		if node == nodeB {
			return nil, contract.Errorf(contract.NotFound, "node %s is gone", node)
		}
		return nil, nil
	})
	for seq := range int64(3) {
		w.publish(toRoom(1, seq+1))
		eventually(t, "it is done", func() bool { return w.depth() == 0 })
		if got := w.pushed(nodeB); got != int(seq+1) {
			t.Errorf("tried %d times for %d deliveries", got, seq+1)
		}
	}
	w.keepsNothing()
}

// A node that answers for less than it was asked is not believed.
func TestShortAnswer(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		return &contract.PushReply{}, nil
	})
	w.publish(toRoom(1, 1))
	eventually(t, "it is done", func() bool { return w.depth() == 0 && w.count("gochat_deliveries_total", "error") == 1 })
}

// Users are asked for where they are, each on each node; who is nowhere is offline, the sender's own places aside.
func TestUsers(t *testing.T) {
	w := newWorld(t)
	w.user(1, nodeA)
	w.user(2, nodeA, nodeB)
	direct := func(message contract.MessageID, users ...contract.UserID) contract.Delivery {
		return contract.Delivery{Conversation: "dm:1:2", Seq: int64(message), Message: message, Users: users, Except: "c1",
			AcceptedAt: time.Now().UTC().Truncate(time.Microsecond), Frame: []byte(`{"op":2}`), Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	}
	notice := contract.Delivery{Conversation: "dm:1:2", Users: []contract.UserID{9}, Frame: []byte(`{"op":14}`), AcceptedAt: time.Now()}
	w.publish(direct(1, 2, 1), direct(2, 1, 2), direct(3, 9, 1), direct(4, 1, 9), direct(5, 9), notice)
	eventually(t, "all is done", func() bool { return w.depth() == 0 })
	for _, c := range []struct {
		node contract.NodeRef
		want string
	}{
		{nodeA, "1:[2 1] 2:[1 2] 3:[1] 4:[1]"},
		{nodeB, "1:[2] 2:[2]"},
	} {
		var got []string
		for _, d := range w.received(c.node) {
			got = append(got, fmt.Sprintf("%d:%v", d.Message, d.Users))
			if want := direct(d.Message); d.Conversation != want.Conversation || d.Except != want.Except || string(d.Frame) != string(want.Frame) ||
				d.Traceparent != want.Traceparent || d.AcceptedAt.IsZero() {
				t.Errorf("%s got %+v", c.node, d)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s got %v, want %s", c.node, got, c.want)
		}
	}
	eventually(t, "all is counted", func() bool { return w.count("gochat_deliveries_total", "written") == 6 })
	if got := w.count("gochat_deliveries_total", "offline"); got != 2 {
		t.Errorf("%d counted as offline, want the 2 addressees who are nowhere", got)
	}
	if got := w.count("gochat_messages_consumed_total"); got != 5 {
		t.Errorf("%d counted as consumed, want the 5 messages and no notice", got)
	}
}

// What became of receivers is counted as nodes tell it.
func TestOutcomes(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		reply := &contract.PushReply{}
		for range r.Deliveries {
			reply.Results = append(reply.Results, contract.PushResult{Written: 10, Queued: 5, Slow: 2, Gone: 1, Had: 3, Deferred: 4})
		}
		return reply, nil
	})
	notice := toRoom(1, 0)
	w.publish(toRoom(1, 1), notice, toRoom(1, 2))
	for outcome, want := range map[string]int{"written": 30, "slow": 4, "gone": 2, "had": 6, "deferred": 8} {
		eventually(t, "it is counted", func() bool { return w.count("gochat_deliveries_total", outcome) >= want })
		if got := w.count("gochat_deliveries_total", outcome); got != want {
			t.Errorf("%s: %d, want %d", outcome, got, want)
		}
	}
}

// What is no delivery is set aside; what stands around it arrives.
func TestMalformedItems(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	first, second := toRoom(1, 1), toRoom(1, 2)
	newer := first.Append(nil)
	newer[0]++
	for _, body := range [][]byte{nil, []byte("garbage"), newer, first.Append(nil)[:5]} {
		if err := w.queue.Publish(t.Context(), []contract.Item{{Key: "room:1", Body: body}}); err != nil {
			t.Fatal(err)
		}
	}
	w.publish(first)
	if err := w.queue.Publish(t.Context(), []contract.Item{{Key: "room:1", Body: []byte("garbage")}}); err != nil {
		t.Fatal(err)
	}
	w.publish(second)
	eventually(t, "both have come", func() bool { return len(w.received(nodeA)) == 2 && w.depth() == 0 })
	aside, err := w.queue.SetAside(t.Context(), 100)
	if err != nil || len(aside) != 5 {
		t.Errorf("%d set aside (%v), want 5", len(aside), err)
	}
}

// While nobody knows where people are, nothing is acknowledged; then it is brought, in order.
func TestRoutesAway(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.mu.Lock()
	w.lost = errors.New("routes are away")
	w.mu.Unlock()
	for seq := range int64(20) {
		w.publish(toRoom(1, seq+1))
	}
	eventually(t, "it has been tried", func() bool { return w.count("gochat_messages_consumed_total") > 0 })
	if w.depth() != 20 || w.pushed(nodeA) != 0 {
		t.Errorf("%d items are left and %d pushes were made", w.depth(), w.pushed(nodeA))
	}
	w.mu.Lock()
	w.lost = nil
	w.mu.Unlock()
	eventually(t, "all has come", func() bool { return len(w.received(nodeA)) == 20 })
	for i, d := range w.received(nodeA) {
		if d.Seq != int64(i+1) {
			t.Fatalf("seq %d came as number %d", d.Seq, i+1)
		}
	}
}

// The end waits for the push in flight, acknowledges what it brought, and leaves no goroutine.
func TestEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t)
	w.room(1, nodeA)
	inside, release := make(chan struct{}), make(chan struct{})
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		close(inside)
		<-release
		return nil, nil
	})
	w.publish(toRoom(1, 1))
	testwait.Receive(t, "the push", inside)
	ended := make(chan struct{})
	go func() { w.stop(); close(ended) }()
	select {
	case <-ended:
		t.Error("the task ended with a push in flight")
	case <-time.After(50 * time.Millisecond): // enough to see it, if it does
	}
	close(release)
	testwait.Receive(t, "the task ends", ended)
	if got := w.received(nodeA); len(got) != 1 || w.depth() != 0 {
		t.Errorf("%d brought and %d left in the queue, want 1 and 0", len(got), w.depth())
	}
	_ = w.queue.Close()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 }) // those that wait for redis-server
}

// A push that outlasts the queue's drain is waited for all the same; what it brought is handed over again to the
// next consumer.
func TestEndOutlastsTheDrain(t *testing.T) {
	w := drainingWorld(t, 10*time.Millisecond)
	w.room(1, nodeA)
	inside, release := make(chan struct{}), make(chan struct{})
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		close(inside)
		<-release
		return nil, nil
	})
	w.publish(toRoom(1, 1))
	testwait.Receive(t, "the push", inside)
	ended := make(chan struct{})
	go func() { w.stop(); close(ended) }()
	select {
	case <-ended:
		t.Error("the task ended with a push in flight")
	case <-time.After(time.Second): // enough for the drain to be over
	}
	close(release)
	testwait.Receive(t, "the task ends", ended)
	if w.depth() != 1 {
		t.Errorf("%d items are left, want the one whose handler did not return in time", w.depth())
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg Config
		ok  bool
	}{
		"defaults":        {Defaults(), true},
		"never again":     {Config{Timeout: time.Second}, true},
		"no timeout":      {Config{PushWithin: time.Second}, false},
		"negative period": {Config{Timeout: time.Second, PushWithin: -1}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
