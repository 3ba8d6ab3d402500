package task

import (
	"errors"
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
		wantA   int // pushes
		wantB   int
		written int
		offline int
	}{
		{"to another node", []contract.NodeRef{nodeB}, gone, 1, 1, 2, 0},
		{"to another node, the old route still there", []contract.NodeRef{nodeA, nodeB}, gone, 2, 1, 2, 0},
		{"nowhere", nil, gone, 1, 0, 1, 1},
		{"nowhere, the old route still there", []contract.NodeRef{nodeA}, gone, 2, 0, 1, 1},
		{"from a node that has died", []contract.NodeRef{nodeB}, func(node contract.NodeRef) error {
			if node == nodeA {
				return contract.Errorf(contract.NotFound, "node %s is gone", node)
			}
			return nil
		}, 1, 1, 1, 0},
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
			if n := w.pushed(nodeA); n != c.wantA {
				t.Errorf("the node that has the user no more was pushed to %d times, want %d", n, c.wantA)
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

// Who was between two connections to one node when the push came is found there by the second look.
func TestBackOnTheSameNode(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	var away atomic.Bool
	away.Store(true)
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if away.Swap(false) {
			return written(r, 2), nil
		}
		return written(r), nil
	})
	w.publish(toUser(1))
	eventually(t, "it is done", func() bool { return w.depth() == 0 })
	if written, offline := w.count("gochat_deliveries_total", "written"), w.count("gochat_deliveries_total", "offline"); written != 1 || offline != 0 {
		t.Errorf("%d written and %d offline, want 1 and 0", written, offline)
	}
}

// What is handed over again, since the second look failed, is offline once.
func TestOfflineOnce(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	var failed atomic.Bool
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !failed.Swap(true) {
			w.lost = errors.New("routes are away")
		}
		return written(r, 2), nil
	})
	nobody := toUser(2)
	nobody.Users = []contract.UserID{9}
	w.publish(toUser(1), nobody)
	eventually(t, "the second look fails", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.lost != nil
	})
	consumed := w.count("gochat_messages_consumed_total")
	eventually(t, "it is handed over again", func() bool { return w.count("gochat_messages_consumed_total") > consumed })
	w.mu.Lock()
	w.lost = nil
	w.mu.Unlock()
	eventually(t, "it is done", func() bool { return w.depth() == 0 })
	if n := w.count("gochat_deliveries_total", "offline"); n != 2 {
		t.Errorf("%d counted as offline, want each of the 2 once", n)
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
		eventually(t, "it is passed over", w.passedOver)
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
	if n := w.count("gochat_deliveries_total", "deferred"); n != 3 {
		t.Errorf("%d counted as deferred, want the 3 room messages", n)
	}
	w.keepsNothing()
}

// Who has left the node that owed messages are kept for is looked for once again.
func TestOwedToSomebodyWhoMoved(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  error // of the first node, when it answers again
		to      []contract.NodeRef
		written int
		offline int
	}{
		{"to another node", nil, []contract.NodeRef{nodeB}, 2, 0},
		{"nowhere", nil, nil, 0, 2},
		{"nowhere, the old route still there", nil, []contract.NodeRef{nodeA}, 0, 2},
		{"from a node that has died", contract.Errorf(contract.NotFound, "node %s is gone", nodeA), []contract.NodeRef{nodeB}, 2, 0},
		{"with the node", contract.Errorf(contract.NotFound, "node %s is gone", nodeA), nil, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.user(2, nodeA)
			var away atomic.Bool
			away.Store(true)
			w.script(func(node contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
				switch {
				case node == nodeB:
					return written(r), nil
				case away.Load():
					return nil, contract.Errorf(contract.Unavailable, "away")
				case c.answer != nil:
					return nil, c.answer
				}
				return written(r, 2), nil
			})
			w.publish(toUser(1), toUser(2))
			eventually(t, "they are passed over", w.passedOver)
			w.user(2, c.to...)
			away.Store(false)
			eventually(t, "they are counted", func() bool {
				return w.count("gochat_deliveries_total", "written") == c.written && w.count("gochat_deliveries_total", "offline") == c.offline
			})
			if got := len(w.received(nodeB)); got != c.written {
				t.Errorf("the other node got %d, want %d", got, c.written)
			}
			w.keepsNothing()
		})
	}
}

// What is owed is an error if nobody can say any more where it should go.
func TestOwedWhileRoutesAreAway(t *testing.T) {
	w := newWorld(t)
	w.user(2, nodeA)
	var away atomic.Bool
	away.Store(true)
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if away.Load() {
			return nil, contract.Errorf(contract.Unavailable, "away")
		}
		return written(r, 2), nil
	})
	w.publish(toUser(1))
	eventually(t, "it is passed over", w.passedOver)
	w.mu.Lock()
	w.lost = errors.New("routes are away")
	w.mu.Unlock()
	away.Store(false)
	eventually(t, "it is counted", func() bool { return w.count("gochat_deliveries_total", "error") == 1 })
}

// Nothing is kept of a suspect node that dies, though nothing more is bound for it.
func TestSuspectThatDies(t *testing.T) {
	w := newWorld(t)
	w.room(1, nodeA)
	var dead atomic.Bool
	var asked atomic.Int32
	w.script(func(_ contract.NodeRef, r *contract.PushRequest) (*contract.PushReply, error) {
		if len(r.Deliveries) == 0 {
			asked.Add(1)
		}
		if dead.Load() {
			return nil, contract.Errorf(contract.NotFound, "node %s is gone", nodeA)
		}
		return nil, contract.Errorf(contract.Unavailable, "away")
	})
	w.publish(toRoom(1, 1))
	eventually(t, "it is passed over, and asked", func() bool { return w.passedOver() && asked.Load() > 1 })
	w.task.mu.Lock()
	if s := w.task.byNode[nodeA]; s == nil || !s.suspect {
		t.Error("the node is not suspect")
	}
	w.task.mu.Unlock()
	dead.Store(true)
	w.keepsNothing()
}

// passedOver reports whether all that was published has been tried, and node a was passed over with what was for it.
func (w *world) passedOver() bool {
	w.task.mu.Lock()
	defer w.task.mu.Unlock()
	s := w.task.byNode[nodeA]
	return w.depth() == 0 && s != nil && s.suspect && s.outstanding == 0
}

// keepsNothing waits until nothing is kept of any node.
func (w *world) keepsNothing() {
	w.t.Helper()
	eventually(w.t, "nothing is kept of a node", func() bool {
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
	eventually(t, "it is passed over", w.passedOver)
	w.stop()
	if n := w.count("gochat_deliveries_total", "error"); n != 1 {
		t.Errorf("%d counted as error, want 1", n)
	}
}
