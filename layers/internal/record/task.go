package record

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

var _ contract.Task = (*Task)(nil)

// Task is what one task node has done with its latest messages. Its methods may be called from any goroutine. Only
// Consumed makes a record: what comes to be known of a message that is forgotten is not kept.
type Task struct {
	mu    sync.Mutex
	ring  ring[taskRecord]
	nodes blocks[nodeRecord]
	more  blocks[furtherRecord]
}

// maxNodes of a message are kept one by one; those beyond are summed up.
const maxNodes = 16

// nodesEach is for how many nodes of each message there is room. One that goes to more takes the room of others: the
// oldest messages are forgotten for it.
const nodesEach = 2

type taskRecord struct {
	consumed, done int64 // unix microseconds; done is 0 while it is under way
	attempt        uint32
	handovers      uint32
	first          int32 // of its nodes, by 1 more than the index: 0 is none
	further        int32 // likewise
	again          uint16
	nodes          uint8 // that are kept one by one
	failed         codeByte
	offline        bool
	givenUp        bool
}

// nodeRecord is one life of a connect node, by its number: a name would be a pointer.
type nodeRecord struct {
	epoch                 int64
	pushed, answered      int64 // unix microseconds, 0 is not yet
	ends                  ends
	next                  int32 // as first
	number                int16
	had, deferred, absent uint16
	code                  codeByte
	owed                  bool
}

type ends struct{ written, queued, slow, gone uint32 }

func (e *ends) add(r *contract.PushResult) {
	e.written += uint32(r.Written)
	e.queued += uint32(r.Queued)
	e.slow += uint32(r.Slow)
	e.gone += uint32(r.Gone)
}

func (e ends) words() contract.Ends {
	return contract.Ends{Written: int(e.written), Queued: int(e.queued), Slow: int(e.slow), Gone: int(e.gone)}
}

// furtherRecord sums up the nodes of one message that are not kept one by one.
type furtherRecord struct {
	ends                  ends
	bound, answers        uint32
	had, deferred, absent uint32
	errors                uint32
}

// NewTask begins to know now.
func NewTask(cfg Config, tel observability.Telemetry) *Task {
	room := nodesEach*cfg.Messages + maxNodes
	t := &Task{nodes: blocks[nodeRecord]{max: room}, more: blocks[furtherRecord]{max: room / maxNodes}}
	t.ring = newRing(cfg, time.Now(), t.drop)
	newAge(tel.Metrics, &t.mu, t.ring.age)
	return t
}

// drop gives back the nodes of a record.
func (t *Task) drop(r *taskRecord) {
	for i := r.first; i != 0; {
		next := t.nodes.at(i - 1).next
		t.nodes.giveBack(i - 1)
		i = next
	}
	if r.further != 0 {
		t.more.giveBack(r.further - 1)
	}
}

// Consumed notes that a message was handed over to this node.
func (t *Task) Consumed(id contract.MessageID, at time.Time, attempt int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.ring.enter(id, at.UnixMicro()); r != nil {
		r.consumed, r.done, r.failed = at.UnixMicro(), 0, 0
		r.offline, r.givenUp = false, false
		r.attempt = uint32(attempt)
		r.handovers++
	}
}

// Bound notes that the deliveries are to go to the node.
func (t *Task) Bound(node contract.NodeRef, deliveries []contract.Delivery) {
	t.each(node, deliveries, func(_ int, n *nodeRecord, f *furtherRecord) {
		if n == nil {
			f.bound++
			return
		}
		n.pushed, n.answered, n.code = 0, 0, 0
	})
}

// Pushing notes that the first try of a push of the deliveries begins.
func (t *Task) Pushing(node contract.NodeRef, deliveries []contract.Delivery) {
	now := time.Now().UnixMicro()
	t.each(node, deliveries, func(_ int, n *nodeRecord, _ *furtherRecord) {
		if n != nil {
			n.pushed, n.answered, n.code = now, 0, 0
		}
	})
}

// Answered notes what the node has answered: results are those of the deliveries, or the code says why there are none.
func (t *Task) Answered(node contract.NodeRef, deliveries []contract.Delivery, results []contract.PushResult, code contract.Code) {
	now, failed := time.Now().UnixMicro(), byteOf(code)
	t.each(node, deliveries, func(i int, n *nodeRecord, f *furtherRecord) {
		switch {
		case n == nil && failed != 0:
			f.answers++
			f.errors++
		case n == nil:
			r := &results[i]
			f.ends.add(r)
			f.answers++
			f.had, f.deferred, f.absent = f.had+uint32(r.Had), f.deferred+uint32(r.Deferred), f.absent+uint32(len(r.Absent))
		case failed != 0:
			n.answered, n.code = now, failed
			n.owed = n.owed && code == contract.Unavailable
		default:
			r := &results[i]
			n.answered, n.code, n.owed = now, 0, false
			n.ends.add(r)
			n.had, n.deferred, n.absent = uint16(r.Had), uint16(r.Deferred), uint16(len(r.Absent))
		}
	})
}

// Kept notes that the message is kept for the node until that answers again.
func (t *Task) Kept(node contract.NodeRef, id contract.MessageID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, _ := t.node(id, number(node.ID), node.Epoch); n != nil {
		n.owed = true
	}
}

// LookedAgain notes that users of the message whom no node had any more are looked for once again.
func (t *Task) LookedAgain(id contract.MessageID) {
	t.change(id, func(r *taskRecord) { r.again++ })
}

// Offline notes that the addressee of each has no connection.
func (t *Task) Offline(ids []contract.MessageID) {
	for _, id := range ids {
		t.change(id, func(r *taskRecord) { r.offline = true })
	}
}

// GivenUp notes that each was given up without knowing.
func (t *Task) GivenUp(ids []contract.MessageID) {
	for _, id := range ids {
		t.change(id, func(r *taskRecord) { r.givenUp = true })
	}
}

// Done notes that the message is acknowledged or, with a code, handed back to the queue.
func (t *Task) Done(id contract.MessageID, at time.Time, code contract.Code) {
	t.change(id, func(r *taskRecord) { r.done, r.failed = at.UnixMicro(), byteOf(code) })
}

func (t *Task) change(id contract.MessageID, change func(*taskRecord)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.ring.find(id); r != nil {
		change(r)
	}
}

// each changes what is kept of the node for each delivery that has a record: n, or f if that is summed up.
func (t *Task) each(node contract.NodeRef, deliveries []contract.Delivery, change func(i int, n *nodeRecord, f *furtherRecord)) {
	of := number(node.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range deliveries {
		if n, f := t.node(deliveries[i].Message, of, node.Epoch); n != nil || f != nil {
			change(i, n, f)
		}
	}
}

// node is what a message's record has of a node: n, or f if that is summed up, or neither if there is no record.
func (t *Task) node(id contract.MessageID, number int16, epoch int64) (n *nodeRecord, f *furtherRecord) {
	r := t.ring.find(id)
	if r == nil {
		return nil, nil
	}
	for i := r.first; i != 0; i = n.next {
		if n = t.nodes.at(i - 1); n.epoch == epoch && n.number == number {
			return n, nil
		}
	}
	if r.nodes == maxNodes {
		if r.further == 0 {
			i := place(t, &t.more, id)
			if i == none {
				return nil, nil
			}
			r.further = i + 1
		}
		return nil, t.more.at(r.further - 1)
	}
	i := place(t, &t.nodes, id)
	if i == none {
		return nil, nil
	}
	n = t.nodes.at(i)
	n.number, n.epoch, n.next = number, epoch, r.first
	r.first = i + 1
	r.nodes++
	return n, nil
}

// place takes a value for the message's record, and forgets the oldest messages for it; none if that one is among them.
func place[T any](t *Task, from *blocks[T], id contract.MessageID) int32 {
	for {
		if i, ok := from.take(); ok {
			return i
		}
		t.ring.forgetOldest()
		if t.ring.find(id) == nil {
			return none
		}
	}
}

// number is that of "connect-17", -1 for another name.
func number(id contract.NodeID) int16 {
	digits, ok := strings.CutPrefix(string(id), contract.LayerConnect+"-")
	n, err := strconv.ParseInt(digits, 10, 16)
	if !ok || err != nil {
		return -1
	}
	return int16(n)
}

func name(number int16) contract.NodeID {
	return contract.NodeID(contract.LayerConnect + "-" + strconv.Itoa(int(number)))
}

// Whereabouts implements contract.Task.
func (t *Task) Whereabouts(_ context.Context, request *contract.WhereaboutsRequest) (*contract.TaskWhereabouts, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now().UnixMicro()
	known := &contract.TaskWhereabouts{Since: t.ring.covers(now), Began: moment(t.ring.began), End: moment(t.ring.end(now))}
	r := t.ring.find(request.Message)
	if r == nil {
		return known, nil
	}
	known.Record = &contract.TaskRecord{
		ConsumedAt: moment(r.consumed), Attempt: int(r.attempt), Handovers: int(r.handovers), DoneAt: moment(r.done), Failed: r.failed.code(),
		Again: int(r.again), Offline: r.offline, GivenUp: r.givenUp,
	}
	for i := r.first; i != 0; {
		n := t.nodes.at(i - 1)
		known.Record.Nodes = append(known.Record.Nodes, contract.NodeRecord{
			Node: contract.NodeRef{ID: name(n.number), Epoch: n.epoch}, PushedAt: moment(n.pushed), AnsweredAt: moment(n.answered),
			Ends: n.ends.words(), Had: int(n.had), Deferred: int(n.deferred), Absent: int(n.absent), Code: n.code.code(), Kept: n.owed,
		})
		i = n.next
	}
	slices.Reverse(known.Record.Nodes) // by the order in which they came
	if r.further != 0 {
		f := t.more.at(r.further - 1)
		known.Record.Further = contract.FurtherNodes{
			Bound: int(f.bound), Answers: int(f.answers), Ends: f.ends.words(),
			Had: int(f.had), Deferred: int(f.deferred), Absent: int(f.absent), Errors: int(f.errors),
		}
	}
	return known, nil
}
