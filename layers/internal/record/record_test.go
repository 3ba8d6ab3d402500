package record

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

func ref(n int) contract.NodeRef {
	return contract.NodeRef{ID: contract.NodeID(fmt.Sprint("connect-", n)), Epoch: int64(1000 + n)}
}

func of(ids ...contract.MessageID) []contract.Delivery {
	list := make([]contract.Delivery, len(ids))
	for i, id := range ids {
		list[i].Message = id
	}
	return list
}

func (t *Task) known(id contract.MessageID) *contract.TaskWhereabouts {
	known, _ := t.Whereabouts(context.Background(), &contract.WhereaboutsRequest{Message: id}) // it never fails
	return known
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Messages: 0, Keep: time.Second}).Validate(); err != nil {
		t.Errorf("no records at all are refused: %v", err)
	}
	for _, c := range []Config{{-1, time.Hour}, {maxMessages + 1, time.Hour}, {1, 0}, {1, 25 * time.Hour}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func TestLogicRecord(t *testing.T) {
	l := NewLogic(Defaults(), observability.Discard())
	began := time.Now().UTC().Truncate(time.Millisecond)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	l.Committed(7, at(0), at(2), 8)
	l.Published(7, at(3), contract.PublishedAtOnce)
	l.Published(7, at(9), contract.PublishedBySweep)
	l.Published(8, at(5), contract.PublishedFromBox) // another node has accepted it
	l.Committed(0, at(0), at(0), 1)
	for id, want := range map[contract.MessageID]*contract.LogicRecord{
		7: {AcceptedAt: at(0), CommittedAt: at(2), Batch: 8, FirstPublishedAt: at(3), LastPublishedAt: at(9), Published: 2, By: contract.PublishedBySweep},
		8: {FirstPublishedAt: at(5), LastPublishedAt: at(5), Published: 1, By: contract.PublishedFromBox},
		9: nil, 0: nil,
	} {
		if got, _ := l.Find(id); !reflect.DeepEqual(got, want) {
			t.Errorf("message %d: got %+v, want %+v", id, got, want)
		}
	}
}

// TestHandedOverAgain has a message handed over twice: it has one record, to which each push adds what connections it
// has come to, while the rest is of the last answer.
func TestHandedOverAgain(t *testing.T) {
	r := NewTask(Defaults(), observability.Discard())
	begun := time.Now()
	r.Consumed(7, begun, 1)
	r.Bound(ref(1), of(7))
	r.Bound(ref(2), of(7))
	if got := r.known(7).Record; !got.DoneAt.IsZero() || len(got.Nodes) != 2 || !got.Nodes[0].PushedAt.IsZero() {
		t.Errorf("got %+v, want it under way to two nodes, pushed to none", got)
	}
	r.Pushing(ref(1), of(6, 7))
	r.Answered(ref(1), of(6, 7), []contract.PushResult{{Written: 99}, {Written: 3, Queued: 1, Slow: 2, Gone: 4}}, "")
	r.Pushing(ref(2), of(7))
	r.Answered(ref(2), of(7), nil, contract.Unavailable)
	r.Kept(ref(2), 7)
	r.Offline([]contract.MessageID{7})
	r.GivenUp([]contract.MessageID{7})
	r.LookedAgain(7)
	r.Done(7, begun, contract.Unavailable)
	got := r.known(7).Record
	if got.Failed != contract.Unavailable || !got.Offline || !got.GivenUp || got.Again != 1 || got.DoneAt.IsZero() {
		t.Errorf("got %+v", got)
	}
	if n := got.Nodes[1]; n.Code != contract.Unavailable || !n.Kept || n.AnsweredAt.IsZero() {
		t.Errorf("got %+v, want it kept for a node that was away", n)
	}
	r.Consumed(7, begun, 2)
	if got := r.known(7).Record; got.Failed != "" || got.Offline || got.GivenUp || !got.DoneAt.IsZero() {
		t.Errorf("got %+v, want nothing that the handover before has ended with", got)
	}
	r.Bound(ref(1), of(7))
	if n := r.known(7).Record.Nodes[0]; !n.AnsweredAt.IsZero() || n.Written != 3 {
		t.Errorf("got %+v, want it not answered, and what was counted kept", n)
	}
	for _, node := range []int{1, 2} {
		r.Pushing(ref(node), of(7))
		r.Answered(ref(node), of(7), []contract.PushResult{{Written: 2, Had: 1, Deferred: 1, Absent: []contract.UserID{5}}}, "")
	}
	r.Done(7, begun, "")
	got = r.known(7).Record
	if got.Attempt != 2 || got.Handovers != 2 || got.Failed != "" || len(got.Nodes) != 2 {
		t.Errorf("got %+v", got)
	}
	for i, want := range []contract.NodeRecord{
		{Node: ref(1), Ends: contract.Ends{Written: 5, Queued: 1, Slow: 2, Gone: 4}, Had: 1, Deferred: 1, Absent: 1},
		{Node: ref(2), Ends: contract.Ends{Written: 2}, Had: 1, Deferred: 1, Absent: 1},
	} {
		n := got.Nodes[i]
		if n.PushedAt.IsZero() || n.AnsweredAt.IsZero() {
			t.Errorf("got %+v, want times", n)
		}
		if n.PushedAt, n.AnsweredAt = want.PushedAt, want.AnsweredAt; n != want {
			t.Errorf("got %+v, want %+v", n, want)
		}
	}
}

// A later life of a node is another node.
func TestLivesAreTold(t *testing.T) {
	r := NewTask(Defaults(), observability.Discard())
	r.Consumed(1, time.Now(), 1)
	later := contract.NodeRef{ID: ref(1).ID, Epoch: 5000}
	r.Answered(ref(1), of(1), nil, contract.NotFound)
	r.Answered(later, of(1), []contract.PushResult{{Written: 1}}, "")
	if got := r.known(1).Record.Nodes; len(got) != 2 || got[0].Node != ref(1) || got[0].Code != contract.NotFound || got[1].Node != later || got[1].Written != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestManyNodes: those beyond the first are summed up, and none is lost in the sum.
func TestManyNodes(t *testing.T) {
	r := NewTask(Defaults(), observability.Discard())
	r.Consumed(1, time.Now(), 1)
	const nodes = maxNodes + 10
	for n := range nodes {
		r.Bound(ref(n), of(1))
	}
	if got := r.known(1).Record; got.Further.Bound != 10 || got.Further.Answers != 0 {
		t.Errorf("got %+v, want 10 that have not answered", got.Further)
	}
	for n := range nodes {
		r.Pushing(ref(n), of(1))
		if n == nodes-1 {
			r.Answered(ref(n), of(1), nil, contract.Unavailable)
			continue
		}
		r.Answered(ref(n), of(1), []contract.PushResult{{Written: 1000, Queued: 1, Slow: 2, Gone: 3, Had: 1, Deferred: 1, Absent: []contract.UserID{1}}}, "")
	}
	got := r.known(1).Record
	if want := (contract.FurtherNodes{Bound: 10, Answers: 10, Ends: contract.Ends{Written: 9000, Queued: 9, Slow: 18, Gone: 27}, Had: 9, Deferred: 9, Absent: 9, Errors: 1}); got.Further != want || len(got.Nodes) != maxNodes {
		t.Errorf("got %+v and %d nodes, want %+v and %d", got.Further, len(got.Nodes), want, maxNodes)
	}
}

// TestBounds has far more messages, each to several nodes, than there is room for: the latest are kept, the ring says from
// when on, and no more is held than was to be.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room, all = 100, 5000
		cfg := Config{Messages: room, Keep: time.Hour}
		l, r := NewLogic(cfg, observability.Discard()), NewTask(cfg, observability.Discard())
		began := time.Now()
		for id := contract.MessageID(1); id <= all; id++ {
			time.Sleep(time.Millisecond)
			l.Committed(id, time.Now(), time.Now(), 1)
			l.Published(id, time.Now(), contract.PublishedAtOnce)
			r.Consumed(id, time.Now(), 1)
			for n := range int(id % (2 * maxNodes)) {
				r.Answered(ref(n), of(id), []contract.PushResult{{Written: int(id)}}, "")
			}
		}
		check := func(what string, newest, records int, since time.Time, known func(contract.MessageID) bool) {
			t.Helper()
			n := 0
			for id := contract.MessageID(1); id <= all; id++ {
				at := began.Add(time.Duration(id) * time.Millisecond)
				switch {
				case known(id):
					n++
				case !at.Before(since):
					t.Fatalf("%s: message %d of %v is not known, though all since %v should be", what, id, at, since)
				}
			}
			if n == 0 || n > records || !known(contract.MessageID(newest)) {
				t.Errorf("%s: %d are known, want up to %d, the newest among them", what, n, records)
			}
		}
		_, since := l.Find(0)
		check("logic", all, room, since, func(id contract.MessageID) bool { r, _ := l.Find(id); return r != nil })
		if n := len(l.ring.index); n != room || l.ring.slots.taken != room {
			t.Errorf("logic holds %d records in %d places, want %d", n, l.ring.slots.taken, room)
		}
		check("task", all, room, r.known(0).Since, func(id contract.MessageID) bool { return r.known(id).Record != nil })
		if r.nodes.taken > r.nodes.max || r.more.taken > r.more.max || r.nodes.max > 2*room+maxNodes {
			t.Errorf("task holds %d nodes, and %d sums", r.nodes.taken, r.more.taken)
		}
		nodes := 0
		for id := range r.ring.index {
			got := r.known(id).Record
			if len(got.Nodes) != min(int(id)%(2*maxNodes), maxNodes) {
				t.Errorf("message %d has %d nodes", id, len(got.Nodes))
			}
			for _, n := range got.Nodes {
				if n.Written != int(id) {
					t.Fatalf("message %d has what was written of %d", id, n.Written)
				}
			}
			nodes += len(got.Nodes)
		}
		if used := r.nodes.taken - len(r.nodes.unused); used != nodes {
			t.Errorf("%d nodes are held, of which %d belong to a record", used, nodes)
		}
	})
}

// TestOneMessageToManyNodes: where there is room for one message, it may go everywhere.
func TestOneMessageToManyNodes(t *testing.T) {
	r := NewTask(Config{Messages: 1, Keep: time.Hour}, observability.Discard())
	for id := contract.MessageID(1); id <= 3; id++ {
		r.Consumed(id, time.Now(), 1)
		for n := range 3 * maxNodes {
			r.Answered(ref(n), of(id), []contract.PushResult{{Written: 1}}, "")
		}
		if got := r.known(id).Record; got == nil || len(got.Nodes) != maxNodes || got.Further.Written != 2*maxNodes {
			t.Fatalf("got %+v", got)
		}
	}
}

// TestExpiry: what is too old is not answered, whether or not its place was used again, and the ring says so.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Messages: 100, Keep: time.Minute}
		l, r := NewLogic(cfg, observability.Discard()), NewTask(cfg, observability.Discard())
		began := time.Now()
		if _, since := l.Find(1); !since.Equal(began) || !r.known(1).Since.Equal(began) {
			t.Errorf("a new ring knows since %v and %v, want %v", since, r.known(1).Since, began)
		}
		note := func(id contract.MessageID) {
			l.Committed(id, time.Now(), time.Now(), 1)
			r.Consumed(id, time.Now(), 1)
			r.Answered(ref(1), of(id), []contract.PushResult{{Written: 1}}, "")
		}
		note(1)
		time.Sleep(30 * time.Second)
		note(2)
		time.Sleep(30*time.Second + time.Millisecond)
		if one, _ := l.Find(1); one != nil || r.known(1).Record != nil {
			t.Error("a message is known for longer than is wanted")
		}
		two, since := l.Find(2)
		if two == nil || r.known(2).Record == nil {
			t.Error("a message is not known for as long as is wanted")
		}
		if want := time.Now().Add(-time.Minute); !since.Equal(want) || !r.known(2).Since.Equal(want) {
			t.Errorf("known since %v and %v, want %v", since, r.known(2).Since, want)
		}
		r.Answered(ref(1), of(1), []contract.PushResult{{Written: 1}}, "") // too late for its record
		if r.known(1).Record != nil || len(r.ring.index) != 1 {
			t.Error("what comes to be known of a forgotten message makes a record")
		}
		for id := contract.MessageID(10); id < 1000; id++ { // no more places are taken than are needed at a time
			time.Sleep(10 * time.Second)
			note(id)
		}
		if l.ring.slots.taken > 8 || r.ring.slots.taken > 8 || r.nodes.taken > 8 {
			t.Errorf("%d, %d and %d places are held for the 7 messages of a minute", l.ring.slots.taken, r.ring.slots.taken, r.nodes.taken)
		}
	})
}

func TestOff(t *testing.T) {
	l, r := NewLogic(Config{Keep: time.Hour}, observability.Discard()), NewTask(Config{Keep: time.Hour}, observability.Discard())
	l.Committed(1, time.Now(), time.Now(), 1)
	l.Published(1, time.Now(), contract.PublishedAtOnce)
	r.Consumed(1, time.Now(), 1)
	r.Answered(ref(1), of(1), []contract.PushResult{{Written: 1}}, "")
	got, since := l.Find(1)
	if known := r.known(1); got != nil || known.Record != nil || !since.IsZero() || !known.Since.IsZero() {
		t.Errorf("got %v since %v, and %+v", got, since, known)
	}
}

func TestCodes(t *testing.T) {
	for _, code := range codes() {
		if got := byteOf(code).code(); got != code {
			t.Errorf("got %q, want %q", got, code)
		}
	}
	if got := byteOf("teapot").code(); got != contract.Internal {
		t.Errorf("a code that is not known is kept as %q", got)
	}
}

// TestConcurrent is for the race detector, and adds up.
func TestConcurrent(t *testing.T) {
	r, l := NewTask(Config{Messages: 64, Keep: time.Hour}, observability.Discard()), NewLogic(Config{Messages: 64, Keep: time.Hour}, observability.Discard())
	var running sync.WaitGroup
	for w := range 4 {
		running.Go(func() {
			for range 3000 {
				id := contract.MessageID(1 + rand.IntN(200))
				l.Committed(id, time.Now(), time.Now(), 1)
				l.Published(id, time.Now(), contract.PublishedAtOnce)
				l.Find(id)
				r.Consumed(id, time.Now(), 1)
				node := ref(rand.IntN(2 * maxNodes))
				r.Bound(node, of(id))
				r.Pushing(node, of(id))
				r.Answered(node, of(id), []contract.PushResult{{Written: w}}, "")
				r.Kept(node, id)
				r.Done(id, time.Now(), "")
				r.known(id)
			}
		})
	}
	running.Wait()
	if len(r.ring.index) > 64 || len(l.ring.index) > 64 {
		t.Errorf("%d and %d records are held, want 64", len(r.ring.index), len(l.ring.index))
	}
	nodes := 0
	for id := range r.ring.index {
		nodes += len(r.known(id).Record.Nodes)
	}
	if used := r.nodes.taken - len(r.nodes.unused); used != nodes {
		t.Errorf("%d nodes are held, of which %d belong to a record", used, nodes)
	}
}

// TestSizes: a record with one node is no larger than promised, beside its entry of the index.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(slot[taskRecord]{}) + unsafe.Sizeof(nodeRecord{}); n > 120 {
		t.Errorf("a record of task has %d bytes", n)
	}
	if n := unsafe.Sizeof(slot[logicRecord]{}); n > 80 {
		t.Errorf("a record of logic has %d bytes", n)
	}
}

// BenchmarkLogic is what a message costs logic, full and at the steady rate.
func BenchmarkLogic(b *testing.B) {
	l := NewLogic(Defaults(), observability.Discard())
	now := time.Now()
	for id := range contract.MessageID(Defaults().Messages) {
		l.Committed(id+1, now, now, 1)
	}
	b.ReportAllocs()
	id := contract.MessageID(1 << 40)
	for b.Loop() {
		id++
		l.Committed(id, now, now, 1)
		l.Published(id, now, contract.PublishedAtOnce)
	}
}

// BenchmarkTask is what a message to one node costs task, full, in batches of fifty.
func BenchmarkTask(b *testing.B) {
	const batch = 50
	r := NewTask(Defaults(), observability.Discard())
	now := time.Now()
	node := ref(1)
	deliveries, results := make([]contract.Delivery, batch), make([]contract.PushResult, batch)
	id := contract.MessageID(1)
	round := func() {
		for i := range deliveries {
			id++
			deliveries[i].Message = id
			r.Consumed(id, now, 1)
		}
		r.Bound(node, deliveries)
		r.Pushing(node, deliveries)
		r.Answered(node, deliveries, results, "")
		for i := range deliveries {
			r.Done(deliveries[i].Message, now, "")
		}
	}
	for range Defaults().Messages / batch {
		round()
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%batch == 0 { // so that an operation is a message
			round()
		}
	}
}

// TestAge: the gauge tells how far back the oldest record goes, and what it is asked of a message says when the records
// began.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cfg := Config{Messages: 2, Keep: time.Minute}
		logicTel, taskTel := observability.Discard(), observability.Discard()
		logicTel.Metrics, taskTel.Metrics = prometheus.NewRegistry(), prometheus.NewRegistry()
		l, r := NewLogic(cfg, logicTel), NewTask(cfg, taskTel)
		want := func(when string, seconds float64) {
			t.Helper()
			for layer, tel := range map[string]observability.Telemetry{"logic": logicTel, "task": taskTel} {
				families, err := tel.Metrics.(*prometheus.Registry).Gather()
				if err != nil || len(families) != 1 || families[0].GetName() != "gochat_record_oldest_age_seconds" {
					t.Fatalf("%s: got %v, %v", layer, families, err)
				}
				if got := families[0].GetMetric()[0].GetGauge().GetValue(); got != seconds {
					t.Errorf("%s, %s: the oldest is %v s old, want %v", when, layer, got, seconds)
				}
			}
		}
		add := func(id contract.MessageID) {
			l.Committed(id, time.Now(), time.Now(), 1)
			r.Consumed(id, time.Now(), 1)
		}
		want("empty", 0)
		add(1)
		time.Sleep(10 * time.Second)
		add(2)
		want("with two", 10)
		add(3)
		want("with the first pushed out", 0)
		time.Sleep(50 * time.Second)
		want("later", 50)
		if known := r.known(1); !known.Began.Equal(began) || !known.End.Equal(began) || !known.Since.After(began) {
			t.Errorf("began %v, end %v, since %v; want %v, the same, and later", known.Began, known.End, known.Since, began)
		}
		time.Sleep(11 * time.Second)
		want("when all are too old", 0)
	})
}
