package task

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/contract"
)

// written is what a node answers that has a connection of each user but those absent.
func written(r *contract.PushRequest, absent ...contract.UserID) *contract.PushReply {
	reply := &contract.PushReply{Results: make([]contract.PushResult, len(r.Deliveries))}
	for i, d := range r.Deliveries {
		for _, user := range d.Users {
			if slices.Contains(absent, user) {
				reply.Results[i].Absent = append(reply.Results[i].Absent, user)
			} else {
				reply.Results[i].Written++
			}
		}
	}
	return reply
}

// A user who has gone elsewhere while the push was on its way is found there; who is nowhere is offline.
func TestMoved(t *testing.T) {
	gone := func(contract.NodeRef) error { return nil }
	for _, c := range []struct {
		name    string
		to      []contract.NodeRef // where the second look finds user 2
		answer  func(contract.NodeRef) error
		wantB   int
		written int
		offline int
	}{
		{"to another node", []contract.NodeRef{nodeB}, gone, 1, 2, 0},
		{"to another node, the old route still there", []contract.NodeRef{nodeA, nodeB}, gone, 1, 2, 0},
		{"nowhere", nil, gone, 0, 1, 1},
		{"nowhere, the old route still there", []contract.NodeRef{nodeA}, gone, 0, 1, 1},
		{"from a node that has died", []contract.NodeRef{nodeB}, func(node contract.NodeRef) error {
			if node == nodeA {
				return contract.Errorf(contract.NotFound, "node %s is gone", node)
			}
			return nil
		}, 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.user(1, nodeA)
			w.user(2, nodeA)
			w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
				if node == nodeB {
					return written(r), nil
				}
				w.user(2, c.to...)
				if err := c.answer(node); err != nil {
					w.user(1)
					return nil, err
				}
				return written(r, 2), nil
			})
			w.publish(toUser(1))
			eventually(t, "it is done", func() bool { return w.depth() == 0 })
			got := w.received(nodeB)
			if len(got) != c.wantB || len(got) > 0 && !slices.Equal(got[0].Users, []contract.UserID{2}) {
				t.Errorf("the other node got %v, want %d, for user 2", got, c.wantB)
			}
			if n := w.pushed(nodeA); n != 1 {
				t.Errorf("the node that has the user no more was pushed to %d times, want once", n)
			}
			if n := w.count("gochat_deliveries_total", "written"); n != c.written {
				t.Errorf("%d counted as written, want %d", n, c.written)
			}
			if n := w.count("gochat_deliveries_total", "offline"); n != c.offline {
				t.Errorf("%d counted as offline, want %d", n, c.offline)
			}
		})
	}
}

// The sender's own further connections are a courtesy: the message is not offline without them.
func TestOnlyTheAddresseeIsOffline(t *testing.T) {
	w := newWorld(t)
	w.user(1, nodeA)
	w.user(2, nodeA)
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		return written(r, 1), nil
	})
	w.publish(toUser(1))
	eventually(t, "it is done", func() bool { return w.depth() == 0 })
	if n := w.count("gochat_deliveries_total", "offline"); n != 0 {
		t.Errorf("%d counted as offline, want none", n)
	}
}

// Direct messages with which a node was passed over come when it answers again, in order, though nothing new does;
// room messages do not: those it fetches by itself.
func TestOwed(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	w.user(2, nodeA)
	var away atomic.Bool
	away.Store(true)
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if away.Load() {
			return nil, contract.Errorf(contract.Unavailable, "away")
		}
		return written(r), nil
	})
	for seq := range int64(3) {
		w.publish(toUser(seq+1), toRoom(1, seq+1))
		eventually(t, "it is passed over", func() bool { return w.depth() == 0 })
	}
	away.Store(false)
	eventually(t, "they come", func() bool { return len(w.received(nodeA)) == 3 })
	w.publish(toUser(4))
	eventually(t, "the next comes", func() bool { return len(w.received(nodeA)) == 4 })
	for i, d := range w.received(nodeA) {
		if d.Conversation != "dm:1:2" || d.Seq != int64(i+1) {
			t.Errorf("number %d is %s %d, want dm:1:2 %d", i, d.Conversation, d.Seq, i+1)
		}
	}
	eventually(t, "all are counted once", func() bool { return w.count("gochat_deliveries_total", "written") == 4 })
	if n := w.count("gochat_deliveries_total", "error"); n != 3 {
		t.Errorf("%d counted as error, want the 3 room messages", n)
	}
	eventually(t, "nothing is kept of it", func() bool {
		w.task.mu.Lock()
		defer w.task.mu.Unlock()
		return len(w.task.byNode) == 0
	})
}

// What is owed when the process ends is counted, and keeps nobody waiting.
func TestOwedAtTheEnd(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	w.script(func(contract.NodeRef, *contract.PushRequest) (*contract.PushReply, error) {
		return nil, fmt.Errorf("push: %w", contract.Errorf(contract.Unavailable, "away"))
	})
	w.publish(toUser(1))
	eventually(t, "it is passed over", func() bool { return w.depth() == 0 })
	w.stop()
	if n := w.count("gochat_deliveries_total", "error"); n != 1 {
		t.Errorf("%d counted as error, want 1", n)
	}
}
