package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
)

// on is what is on record of a message, nil if nothing is.
func (w *world) on(id contract.MessageID) *contract.TaskRecord {
	w.t.Helper()
	known, err := w.records.Whereabouts(context.Background(), &contract.WhereaboutsRequest{Message: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return known.Record
}

// settled waits until the message is on record as done, and nobody is waited for.
func (w *world) settled(id contract.MessageID, ok func(*contract.TaskRecord) bool) *contract.TaskRecord {
	w.t.Helper()
	var r *contract.TaskRecord
	eventually(w.t, "the message's record says it", func() bool {
		r = w.on(id)
		return r != nil && !r.DoneAt.IsZero() && ok(r)
	})
	return r
}

// at is what a record has of a node.
func at(r *contract.TaskRecord, node contract.NodeRef) contract.NodeRecord {
	i := slices.IndexFunc(r.Nodes, func(n contract.NodeRecord) bool { return n.Node == node })
	if i < 0 {
		return contract.NodeRecord{}
	}
	return r.Nodes[i]
}

func always(*contract.TaskRecord) bool { return true }

// TestRecordOfSeveralNodes: each node's answer is on record as it came, whatever travelled with it.
func TestRecordOfSeveralNodes(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA, nodeB)
	w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		reply := &contract.PushReply{}
		for _, d := range r.Deliveries {
			result := contract.PushResult{Written: int(d.Seq), Queued: 1, Slow: 2, Gone: 3}
			if node == nodeB {
				result = contract.PushResult{Had: 1, Deferred: 1}
			}
			reply.Results = append(reply.Results, result)
		}
		return reply, nil
	})
	first, second := toRoom(1, 1), toRoom(1, 2)
	w.publish(first, second)
	for _, d := range []contract.Delivery{first, second} {
		r := w.settled(d.Message, always)
		if a, b := at(r, nodeA), at(r, nodeB); len(r.Nodes) != 2 || a.Ends != (contract.Ends{Written: int(d.Seq), Queued: 1, Slow: 2, Gone: 3}) || b.Had != 1 || b.Deferred != 1 ||
			a.PushedAt.IsZero() || a.AnsweredAt.IsZero() || r.ConsumedAt.IsZero() || r.Attempt != 1 || r.Handovers != 1 || r.Failed != "" || r.Offline || r.GivenUp {
			t.Errorf("seq %d: got %+v", d.Seq, r)
		}
	}
}

// TestRecordOfSomebodyOffline: offline is only whoever it is addressed to, whatever the sender's other connections got.
func TestRecordOfSomebodyOffline(t *testing.T) {
	w := newWorld(t)
	w.user(1, nodeA)
	w.publish(toUser(1))
	if r := w.settled(1, always); !r.Offline || len(r.Nodes) != 1 || at(r, nodeA).Written != 1 {
		t.Errorf("got %+v, want it offline, and with the sender's other connection", r)
	}
	w.user(2, nodeA)
	w.publish(toUser(2))
	if r := w.settled(2, always); r.Offline {
		t.Errorf("got %+v, want it not offline", r)
	}
}

// TestRecordOfSomebodyMoved: who left while the push was under way is absent there, and looked for again.
func TestRecordOfSomebodyMoved(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if node == nodeB {
			return written(r), nil
		}
		w.user(2, nodeB)
		return written(r, 2), nil
	})
	w.publish(toUser(1))
	r := w.settled(1, always)
	if a, b := at(r, nodeA), at(r, nodeB); r.Again != 1 || a.Absent != 1 || a.Written != 0 || b.Written != 1 || r.Offline {
		t.Errorf("got %+v", r)
	}
}

// TestRecordOfSecondAttempt: a handover that fails says why, and the next goes on with the same record.
func TestRecordOfSecondAttempt(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.mu.Lock()
	w.lost = errors.New("routes are away")
	w.mu.Unlock()
	d := toRoom(1, 1)
	w.publish(d)
	if r := w.settled(d.Message, func(r *contract.TaskRecord) bool { return r.Failed != "" }); r.Failed != contract.Internal || len(r.Nodes) != 0 {
		t.Errorf("got %+v, want it handed back", r)
	}
	w.mu.Lock()
	w.lost = nil
	w.mu.Unlock()
	eventually(t, "it is done", func() bool { return w.depth() == 0 })
	if r := w.settled(d.Message, always); r.Failed != "" || r.Handovers < 2 || r.Attempt != r.Handovers || at(r, nodeA).Written != 1 {
		t.Errorf("got %+v, want it done after another attempt", r)
	}
}

// TestRecordOfLateNode: while a node has not answered, the record says that it is pushed there; that the others wait no
// longer for it, too; and what it answers when it does.
func TestRecordOfLateNode(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA, nodeB)
	release := make(chan struct{})
	w.script(func(node contract.NodeRef, _ *contract.PushRequest) (*contract.PushReply, error) {
		if node == nodeB {
			<-release
		}
		return nil, nil
	})
	d := toRoom(1, 1)
	w.publish(d)
	eventually(t, "it is on its way to the node", func() bool { r := w.on(d.Message); return r != nil && !at(r, nodeB).PushedAt.IsZero() })
	r := w.settled(d.Message, func(r *contract.TaskRecord) bool { return !at(r, nodeA).AnsweredAt.IsZero() })
	if b := at(r, nodeB); !b.AnsweredAt.IsZero() || r.Failed != "" || at(r, nodeA).Written != 1 {
		t.Errorf("got %+v, want it acknowledged, and a node that has not answered", r)
	}
	close(release)
	w.settled(d.Message, func(r *contract.TaskRecord) bool { return at(r, nodeB).Written == 1 })
}

// TestRecordOfNodePassedOver: a room's message is given up there with the reason, a direct one is kept, and comes.
func TestRecordOfNodePassedOver(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.user(2, nodeA)
	var away atomic.Bool
	away.Store(true)
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		if away.Load() {
			return nil, fmt.Errorf("push: %w", contract.Errorf(contract.Unavailable, "away"))
		}
		return nil, nil
	})
	room := toRoom(1, 1)
	w.publish(room, toUser(1))
	eventually(t, "they are passed over", w.passedOver)
	if r := w.settled(room.Message, func(r *contract.TaskRecord) bool { return !at(r, nodeA).AnsweredAt.IsZero() }); at(r, nodeA).Code != contract.Unavailable || at(r, nodeA).Kept || r.GivenUp {
		t.Errorf("room: got %+v", r)
	}
	kept := func(r *contract.TaskRecord) bool {
		return at(r, nodeA).Kept && at(r, nodeA).Code == contract.Unavailable
	}
	if r := w.settled(1, kept); r.GivenUp {
		t.Errorf("direct: got %+v", r)
	}
	next := toRoom(1, 2) // before it comes what is kept, which cannot be pushed
	w.publish(next)
	if r := w.settled(next.Message, func(r *contract.TaskRecord) bool { return at(r, nodeA).Code != "" }); at(r, nodeA).Code != contract.Unavailable || !at(r, nodeA).PushedAt.IsZero() {
		t.Errorf("behind what is kept: got %+v", r)
	}
	w.settled(1, kept)
	away.Store(false)
	w.settled(1, func(r *contract.TaskRecord) bool {
		return !at(r, nodeA).Kept && at(r, nodeA).Written == 1 && at(r, nodeA).Code == ""
	})
	away.Store(true)
	w.publish(toUser(2))
	eventually(t, "it is passed over", w.passedOver)
	w.stop()
	if r := w.on(2); !r.GivenUp {
		t.Errorf("got %+v, want it given up with the process", r)
	}
}

// TestRecordOfKeptForNodeThatDied: nothing is kept for a node that has died, of however much was.
func TestRecordOfKeptForNodeThatDied(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	const many = maxPush + 10
	var dead atomic.Bool
	w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		switch {
		case node == nodeB:
			return written(r), nil
		case dead.Load():
			return nil, contract.Errorf(contract.NotFound, "node %s is gone", node)
		}
		return nil, contract.Errorf(contract.Unavailable, "away")
	})
	for seq := range int64(many) {
		w.publish(toUser(seq + 1))
	}
	eventually(t, "they are passed over", w.passedOver)
	w.user(2, nodeB)
	dead.Store(true)
	for id := range contract.MessageID(many) {
		r := w.settled(id+1, func(r *contract.TaskRecord) bool { return at(r, nodeB).Written == 1 })
		if a := at(r, nodeA); a.Kept || a.Code != contract.NotFound || r.Again != 1 {
			t.Fatalf("message %d: got %+v", id+1, r)
		}
	}
}

// TestRecordOfRefusal: what a node will not take is given up with its word.
func TestRecordOfRefusal(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		return nil, contract.Errorf(contract.TooLarge, "no")
	})
	d := toRoom(1, 1)
	w.publish(d)
	if r := w.settled(d.Message, always); at(r, nodeA).Code != contract.TooLarge || !r.GivenUp {
		t.Errorf("got %+v", r)
	}
}

// TestNoRecordOfNotices: what passes and is not stored leaves nothing.
func TestNoRecordOfNotices(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.publish(contract.Delivery{Conversation: "room:1", Room: 1, Frame: []byte("{}")})
	testwait.Eventually(t, "it has come", func() bool { return len(w.received(nodeA)) == 1 && w.depth() == 0 })
	if r := w.on(0); r != nil {
		t.Errorf("got %+v", r)
	}
}
