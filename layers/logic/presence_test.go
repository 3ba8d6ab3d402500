package logic

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
)

var (
	node1 = contract.NodeRef{ID: "connect-1", Epoch: 10}
	node2 = contract.NodeRef{ID: "connect-2", Epoch: 20}
)

// come puts users into a room on a node.
func (h *house) come(t *testing.T, node contract.NodeRef, room contract.RoomID, users ...contract.UserID) {
	t.Helper()
	var changes []contract.RouteChange
	for _, u := range users {
		changes = append(changes, contract.RouteChange{User: u}, contract.RouteChange{User: u, Room: room, Name: fmt.Sprint("user ", u)})
	}
	if err := h.sessions.Apply(t.Context(), node, changes); err != nil {
		t.Fatal(err)
	}
}

// info is what op 5 and op 4 frames say.
type info struct {
	Op           int
	Count        int
	RoomID       contract.RoomID
	RoomUserInfo map[string]string
}

// told are the announcements to a room so far.
func (h *house) toldRoom(t *testing.T, room contract.RoomID) []info {
	t.Helper()
	var list []info
	for _, d := range h.queue.deliveries(t, false) {
		if d.Room != room {
			continue
		}
		var i info
		if err := json.Unmarshal(d.Frame, &i); err != nil || i.RoomID != room {
			t.Fatalf("frame %s: %v", d.Frame, err)
		}
		list = append(list, i)
	}
	return list
}

// Any number of changes of a room are told together, the last of them included.
func TestChangesAreGathered(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	const changes = 500
	for i := range changes {
		h.come(t, node1, 1, contract.UserID(i%50+1))
		if _, err := l.PresenceChanged(t.Context(), &contract.PresenceChangedRequest{Rooms: []contract.RoomID{1, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last change is told", func() bool {
		told := h.toldRoom(t, 1)
		return len(told) > 0 && told[len(told)-1].Count == 50
	})
	told := h.toldRoom(t, 1)
	if len(told) >= changes/2 {
		t.Errorf("told %d times of %d changes", len(told), changes)
	}
	if last := told[len(told)-1]; last.Op != 5 || len(last.RoomUserInfo) != 50 || last.RoomUserInfo["7"] != "user 7" {
		t.Errorf("told %+v", last)
	}
}

// A big room is told less often, and at most MaxOnlineNames names; the count is the truth.
func TestBigRooms(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	for i := range smallRoom {
		h.come(t, node1, 1, contract.UserID(i+1))
	}
	pause := func() (least, most time.Duration) {
		l.presence.changed([]contract.RoomID{1})
		time.Sleep(gatherSmall) // until it is due
		before := time.Now()
		l.presence.round(t.Context())
		l.presence.mu.Lock()
		defer l.presence.mu.Unlock()
		return time.Until(l.presence.next[1]), l.presence.next[1].Sub(before)
	}
	if got, _ := pause(); got > gatherSmall {
		t.Errorf("a small room may be told again after %v, want %v", got, gatherSmall)
	}
	for i := range contract.MaxOnlineNames + 100 {
		h.come(t, node2, 1, contract.UserID(i+1))
	}
	if _, got := pause(); got < gatherBig {
		t.Errorf("a big room may be told again after %v, want %v", got, gatherBig)
	}
	told := h.toldRoom(t, 1)
	if last := told[len(told)-1]; last.Count != contract.MaxOnlineNames+100 || len(last.RoomUserInfo) != contract.MaxOnlineNames {
		t.Errorf("told a count of %d and %d names", last.Count, len(last.RoomUserInfo))
	}
}

// A room that could not be told is told later, not in a storm.
func TestFailedAnnouncement(t *testing.T) {
	h := newHouse(t)
	var tries atomic.Int32
	h.queue.failing(func([]contract.Item) error { tries.Add(1); return errAway })
	l := h.logic(t)
	h.come(t, node1, 1, 7)
	l.presence.changed([]contract.RoomID{1})
	time.Sleep(gatherSmall)
	before := time.Now()
	l.presence.round(t.Context())
	if tries.Load() != 1 {
		t.Fatalf("tried %d times", tries.Load())
	}
	if due, waits := l.presence.dirty[1]; !waits || due.Before(before.Add(gatherBig)) {
		t.Errorf("tried again (%v) after %v, want after %v", waits, due.Sub(before), gatherBig)
	}
	h.queue.failing(nil)
	run(t, l)
	eventually(t, "the room is told", func() bool { return len(h.toldRoom(t, 1)) == 1 })
}

func TestAnnounce(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann := register(t, l, "ann")
	h.come(t, node1, 1, 3, 7)
	h.come(t, node2, 1, 7, 9)
	for _, names := range []bool{false, true} {
		if _, err := l.Announce(t.Context(), &contract.AnnounceRequest{Credential: ann.by, Room: 1, Names: names}); err != nil {
			t.Fatal(err)
		}
	}
	told := h.toldRoom(t, 1)
	if len(told) != 2 || told[0].Op != 4 || told[0].Count != 3 || told[0].RoomUserInfo != nil ||
		told[1].Op != 5 || told[1].Count != 3 || len(told[1].RoomUserInfo) != 3 {
		t.Errorf("told %+v, want op 4 and op 5 with a count of 3", told)
	}
	online, err := l.Online(t.Context(), &contract.RoomRequest{Credential: ann.by, Room: 1})
	if err != nil || online.Count != 3 || len(online.Users) != 3 || online.Users[0].ID != 3 {
		t.Errorf("got %+v, %v", online, err)
	}
	h.queue.failing(func([]contract.Item) error { return errAway })
	if _, err := l.Announce(t.Context(), &contract.AnnounceRequest{Credential: ann.by, Room: 1}); err == nil {
		t.Error("an announcement that was not made is answered with success")
	}
}

// Who was on a node that died is gone: from the count at once, and from the routes soon; their rooms are told.
func TestDeadNodesAreForgotten(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann := register(t, l, "ann")
	h.come(t, node1, 1, 3)
	h.come(t, node2, 1, 7, 9)
	h.come(t, node2, 5, 7)
	count := func() int {
		r, err := l.Online(t.Context(), &contract.RoomRequest{Credential: ann.by, Room: 1})
		if err != nil {
			t.Fatal(err)
		}
		return r.Count
	}
	if n := count(); n != 3 {
		t.Fatalf("%d online, want 3", n)
	}
	h.nodes.die(node2)
	if n := count(); n != 1 {
		t.Errorf("%d online after a node died, want 1", n)
	}
	eventually(t, "the room is told", func() bool {
		told := h.toldRoom(t, 1)
		return len(told) > 0 && told[len(told)-1].Count == 1
	})
	eventually(t, "the routes are gone", func() bool {
		lives, err := h.sessions.Lives(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		routes, err := h.sessions.Resolve(context.Background(), []contract.RoomID{1, 5}, []contract.UserID{3, 7})
		if err != nil {
			t.Fatal(err)
		}
		return len(lives) == 1 && lives[0] == node1 && len(routes.Rooms[1]) == 1 && len(routes.Rooms[5]) == 0 && len(routes.Users[7]) == 0
	})
	if routes, err := h.sessions.Resolve(context.Background(), nil, []contract.UserID{3}); err != nil || len(routes.Users[3]) != 1 {
		t.Errorf("the living: %+v, %v", routes, err)
	}
	if told := h.toldRoom(t, 5); len(told) != 0 {
		t.Errorf("a room that nobody is in is told %+v", told)
	}
}

// Rooms that were told are not remembered for good.
func TestAnnouncerForgetsRooms(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	var rooms []contract.RoomID
	for i := range 50 {
		rooms = append(rooms, contract.RoomID(i+1))
	}
	l.presence.changed(rooms)
	time.Sleep(gatherSmall)
	l.presence.round(t.Context())
	eventually(t, "nothing is remembered", func() bool {
		l.presence.round(t.Context())
		l.presence.mu.Lock()
		defer l.presence.mu.Unlock()
		return len(l.presence.next) == 0 && len(l.presence.dirty) == 0
	})
}

// What was gathered when the end comes is told then, due or not: those who told of it consider it done.
func TestEndTellsWhatWasGathered(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	h.come(t, node1, 1, 7)
	h.come(t, node1, 2, 7, 9)
	l.presence.next[1] = time.Now().Add(time.Hour) // told a moment ago
	l.presence.next[2] = l.presence.next[1]
	stop := run(t, l)
	if _, err := l.PresenceChanged(t.Context(), &contract.PresenceChangedRequest{Rooms: []contract.RoomID{1, 2}}); err != nil {
		t.Fatal(err)
	}
	stop()
	for room, want := range map[contract.RoomID]int{1: 1, 2: 2} {
		if told := h.toldRoom(t, room); len(told) != 1 || told[0].Op != 5 || told[0].Count != want {
			t.Errorf("room %d was told %+v, want op 5 with a count of %d once", room, told, want)
		}
	}
}

// lateForgetter is a Presence whose Forget answers when its ctx has ended, and has taken the routes back.
type lateForgetter struct {
	Presence
	forgetting chan struct{}
}

func (f *lateForgetter) Forget(ctx context.Context, node contract.NodeRef) ([]contract.RoomID, error) {
	close(f.forgetting)
	<-ctx.Done()
	return f.Presence.Forget(context.WithoutCancel(ctx), node)
}

// The rooms of a dead node whose routes are taken back while the end comes are told too: no other process finds them.
func TestEndTellsOfDeadNodes(t *testing.T) {
	h := newHouse(t)
	h.come(t, node1, 1, 7)
	h.come(t, node2, 1, 9)
	h.nodes.die(node2)
	late := &lateForgetter{h.deps.Presence, make(chan struct{})}
	h.deps.Presence = late
	stop := run(t, h.logic(t))
	testwait.Receive(t, "the routes are being taken back", late.forgetting)
	stop()
	if told := h.toldRoom(t, 1); len(told) != 1 || told[0].Count != 1 {
		t.Errorf("told %+v, want a count of 1 once", told)
	}
}
