package logic

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// What a room's own, a member and a stranger are answered, for each kind of room.
func TestRoomRights(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	owner, stranger := register(t, l, "owner"), register(t, l, "stranger")
	room := func(name string, private bool) contract.RoomID {
		r, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: owner.by, Name: name, Private: private})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Member || r.Owner != owner.User || r.Private != private || r.Name != name {
			t.Errorf("made %+v", r)
		}
		return r.ID
	}
	public, private := room("public", false), room("private", true)
	owner.say(t, l, private, "hello")
	calls := map[string]func(by contract.Credential, id contract.RoomID) error{
		"room": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Room(t.Context(), &contract.RoomRequest{Credential: by, Room: id})
			return err
		},
		"join": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.JoinRoom(t.Context(), &contract.RoomRequest{Credential: by, Room: id})
			return err
		},
		"enter": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.EnterRoom(t.Context(), &contract.RoomRequest{Credential: by, Room: id})
			return err
		},
		"online": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Online(t.Context(), &contract.RoomRequest{Credential: by, Room: id})
			return err
		},
		"members": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Members(t.Context(), &contract.MembersRequest{Credential: by, Room: id})
			return err
		},
		"send": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Send(t.Context(), &contract.SendRequest{Credential: by, Room: id, Text: "x"})
			return err
		},
		"announce": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Announce(t.Context(), &contract.AnnounceRequest{Credential: by, Room: id})
			return err
		},
		"history": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.History(t.Context(), &contract.HistoryRequest{Credential: by, Conversation: contract.RoomConversation(id)})
			return err
		},
		"mark read": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.MarkRead(t.Context(), &contract.MarkReadRequest{Credential: by, Conversation: contract.RoomConversation(id), Seq: 1})
			return err
		},
		"typing": func(by contract.Credential, id contract.RoomID) error {
			_, err := l.Typing(t.Context(), &contract.TypingRequest{Credential: by, Conversation: contract.RoomConversation(id)})
			return err
		},
	}
	nobody := contract.Credential{Token: "nobody's"}
	for name, call := range calls {
		refused := contract.Forbidden
		if name == "room" {
			refused = contract.NotFound // what is private is not told of
		}
		for _, c := range []struct {
			name string
			by   contract.Credential
			room contract.RoomID
			want contract.Code
		}{
			{"public, owner", owner.by, public, ""},
			{"public, stranger", stranger.by, public, ""},
			{"private, owner", owner.by, private, ""},
			{"private, stranger", stranger.by, private, refused},
			{"lobby, stranger", stranger.by, contract.Lobby, ""},
			{"none", owner.by, 999, contract.NotFound},
			{"public, nobody", nobody, public, contract.Unauthenticated},
			{"private, nobody", nobody, private, contract.Unauthenticated},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				if name == "join" && c.by == stranger.by && c.room == public { // who joins is no stranger afterwards
					defer func() { _ = h.store.Leave(t.Context(), public, stranger.User) }()
				}
				wantCode(t, call(c.by, c.room), c.want)
			})
		}
		t.Run(name+" below 0", func(t *testing.T) {
			if err := call(owner.by, -1); contract.CodeOf(err) != contract.BadRequest && contract.CodeOf(err) != contract.NotFound {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLeavingAPrivateRoom(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann := register(t, l, "ann")
	room, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "private", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	ask := &contract.RoomRequest{Credential: ann.by, Room: room.ID}
	if r, err := l.EnterRoom(t.Context(), ask); err != nil || r.ID != room.ID || !r.Member {
		t.Fatalf("entering one's own: %+v, %v", r, err)
	}
	for range 2 { // the second time changes nothing and says the same
		if _, err := l.LeaveRoom(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		_, err = l.EnterRoom(t.Context(), ask) // though a membership is remembered for seconds
		wantCode(t, err, contract.Forbidden)
		_, err = l.Room(t.Context(), ask)
		wantCode(t, err, contract.NotFound)
		_, err = l.JoinRoom(t.Context(), ask)
		wantCode(t, err, contract.Forbidden)
	}
	want := contract.NodeLeaveRoomRequest{User: ann.User, Room: room.ID}
	if len(h.told.left) != 2 || h.told.left[0] != want {
		t.Errorf("connect nodes were told %+v, want %+v", h.told.left, want)
	}
	// Of a public room the connections stay: entering does not want membership.
	if _, err := l.LeaveRoom(t.Context(), &contract.RoomRequest{Credential: ann.by, Room: contract.Lobby}); err != nil {
		t.Fatal(err)
	}
	if len(h.told.left) != 2 {
		t.Errorf("connect nodes were told to take ann out of the lobby")
	}
	_, err = l.LeaveRoom(t.Context(), &contract.RoomRequest{Credential: ann.by, Room: 999})
	wantCode(t, err, contract.NotFound)
}

// Into a private room the database lets, not memory: who has left by way of another node stays out of it.
func TestEnteringAPrivateRoomIsNotRemembered(t *testing.T) {
	h := newHouse(t)
	long := func(c *Config, _ *AuthConfig) { c.SessionCache = time.Hour }
	here, there := h.logic(t, long), h.logic(t, long)
	ann := register(t, here, "ann")
	room, err := here.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "private", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	ask := &contract.RoomRequest{Credential: ann.by, Room: room.ID}
	if r, err := there.EnterRoom(t.Context(), ask); err != nil || r.ID != room.ID || !r.Member {
		t.Fatalf("entering one's own: %+v, %v", r, err)
	}
	if _, err := here.LeaveRoom(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	if _, err := there.rooms.enter(t.Context(), room.ID, ann.User); err != nil {
		t.Fatalf("the other node does not remember the membership, so this shows nothing: %v", err)
	}
	_, err = there.EnterRoom(t.Context(), ask)
	wantCode(t, err, contract.Forbidden) // as where nothing is remembered
}

// While a connect node could not be told, it may still send the room: that is no success, and is told when repeated.
func TestLeavingAPrivateRoomUntold(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann := register(t, l, "ann")
	room, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "private", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	ask := &contract.RoomRequest{Credential: ann.by, Room: room.ID}
	h.told.lost = contract.Errorf(contract.Unavailable, "a node is away")
	for range 2 {
		_, err = l.LeaveRoom(t.Context(), ask)
		wantCode(t, err, contract.Unavailable)
		_, err = l.EnterRoom(t.Context(), ask) // the membership has ended all the same
		wantCode(t, err, contract.Forbidden)
	}
	h.told.lost = nil
	if _, err := l.LeaveRoom(t.Context(), ask); err != nil {
		t.Errorf("repeated: %v", err)
	}
	if want := []contract.NodeLeaveRoomRequest{{User: ann.User, Room: room.ID}}; !slices.Equal(h.told.left, want) {
		t.Errorf("connect nodes were told %+v, want %+v", h.told.left, want)
	}
}

// Who joins a room has read what was said before, and what is said from then on is unread. Joining again changes
// nothing.
func TestJoiningSetsTheReadMark(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	room, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "r"})
	if err != nil {
		t.Fatal(err)
	}
	entry := func() contract.InboxEntry {
		t.Helper()
		r, err := l.Inbox(t.Context(), &contract.InboxRequest{Credential: bob.by})
		if err != nil || len(r.Entries) != 1 {
			t.Fatalf("got %+v, %v", r, err)
		}
		return r.Entries[0]
	}
	join := func() {
		t.Helper()
		if _, err := l.JoinRoom(t.Context(), &contract.RoomRequest{Credential: bob.by, Room: room.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		ann.say(t, l, room.ID, "before")
	}
	join()
	if e := entry(); e.Unread != 0 || e.ReadSeq != 3 || e.LastSeq != 3 {
		t.Errorf("on joining: %+v, want nothing unread", e)
	}
	ann.say(t, l, room.ID, "after")
	join()
	if e := entry(); e.Unread != 1 || e.ReadSeq != 3 {
		t.Errorf("on joining again: %+v, want one unread", e)
	}
	bob.say(t, l, room.ID, "own")
	if e := entry(); e.Unread != 1 {
		t.Errorf("after an own message: %+v, want one unread", e)
	}
}

func TestListsOfRooms(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	if _, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: "Tea", Private: true}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 65)
	for _, c := range []struct {
		name string
		ask  contract.RoomsRequest
		code contract.Code
		want int
	}{
		{"one's own", contract.RoomsRequest{Credential: ann.by}, "", 2},
		{"another's", contract.RoomsRequest{Credential: bob.by}, "", 1},
		{"by name", contract.RoomsRequest{Credential: ann.by, Query: "eA"}, "", 1},
		{"next page", contract.RoomsRequest{Credential: ann.by, After: 1}, "", 1},
		{"after a number below 0", contract.RoomsRequest{Credential: ann.by, After: -9}, "", 2},
		{"with a NUL", contract.RoomsRequest{Credential: ann.by, Query: "e\x00"}, "", 0},
		{"query too long", contract.RoomsRequest{Credential: ann.by, Query: long}, contract.BadRequest, 0},
		{"page too large", contract.RoomsRequest{Credential: ann.by, Limit: contract.MaxPage + 1}, contract.BadRequest, 0},
		{"page below 0", contract.RoomsRequest{Credential: ann.by, Limit: -1}, contract.BadRequest, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := l.Rooms(t.Context(), &c.ask)
			wantCode(t, err, c.code)
			if err == nil && len(r.Rooms) != c.want {
				t.Errorf("got %+v, want %d", r.Rooms, c.want)
			}
		})
	}
	for name, bad := range map[string]string{"empty": "", "too long": long, "NUL": "a\x00", "not UTF-8": "\xff", "lines": "a\nb"} {
		_, err := l.CreateRoom(t.Context(), &contract.CreateRoomRequest{Credential: ann.by, Name: bad})
		if contract.CodeOf(err) != contract.BadRequest {
			t.Errorf("a room with a name that is %s: %v", name, err)
		}
	}
	_, err := l.Members(t.Context(), &contract.MembersRequest{Credential: ann.by, Room: 1, Limit: 1000})
	wantCode(t, err, contract.BadRequest)
}

// A room's state is remembered for a time, a refusal is not: who has just become a member gets in.
func TestRefusalsAreNotRemembered(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	room, err := h.store.CreateRoom(t.Context(), "private", true, ann.User, now())
	if err != nil {
		t.Fatal(err)
	}
	ask := &contract.RoomRequest{Credential: bob.by, Room: room.ID}
	_, err = l.EnterRoom(t.Context(), ask)
	wantCode(t, err, contract.Forbidden)
	if err := h.store.Join(t.Context(), room.ID, bob.User, now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bob gets in", func() bool { _, err := l.EnterRoom(context.Background(), ask); return err == nil })
}
