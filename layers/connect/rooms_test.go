package connect

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// TestRooms moves a connection by auth frames, and adds and takes rooms by ops 15 and 16.
func TestRooms(t *testing.T) {
	n := startNode(t, obliging(), nil)
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
		c := dial(t, n)
		ch := hello(t, n, c, 5, 1)
		steps := []struct {
			name string
			send object
			want []contract.RoomID
		}{
			{"auth", object{"authToken": token(5, 1), "roomId": 1}, []contract.RoomID{1}},
			{"auth again", object{"authToken": token(5, 1), "roomId": 1}, []contract.RoomID{1}},
			{"auth without a room", object{"authToken": token(5, 1)}, []contract.RoomID{1}},
			{"enter another", object{"op": 15, "roomId": 2}, []contract.RoomID{1, 2}},
			{"auth moves", object{"op": 6, "authToken": token(5, 1), "roomId": 3}, []contract.RoomID{2, 3}},
			{"auth where it may not", object{"op": 6, "authToken": token(5, 1), "roomId": privateRoom}, []contract.RoomID{2, 3}},
			{"leave", object{"op": 16, "roomId": 2}, []contract.RoomID{3}},
			{"leave again", object{"op": 16, "roomId": 2}, []contract.RoomID{3}},
			{"leave the auth frame's", object{"op": 16, "roomId": 3}, nil},
			{"auth after that", object{"op": 6, "authToken": token(5, 1), "roomId": 4}, []contract.RoomID{4}},
		}
		for _, step := range steps {
			c.Send(t, step.send)
			settle(t, c)
			if got := slices.Sorted(slices.Values(ch.roomIDs())); !slices.Equal(got, step.want) {
				t.Errorf("%s: got %v, want %v", step.name, got, step.want)
			}
			counted := make(map[place]int)
			for _, room := range step.want {
				counted[place{5, room}] = 1
			}
			if _, got := n.present(); !maps.Equal(got, counted) {
				t.Errorf("%s: counted %v, want %v", step.name, got, counted)
			}
		}
		c.Close()
		eventually(t, "nobody is there", func() bool { return len(storedRoutes(t, n.routes, n.self)) == 0 })
	})
}

// TestTooManyRooms enters one room more than a connection may.
func TestTooManyRooms(t *testing.T) {
	logic := obliging()
	logic.enterRoom = func(_ context.Context, r *contract.RoomRequest) (*contract.Room, error) {
		return &contract.Room{ID: r.Room}, nil
	}
	n := startNode(t, logic, nil)
	c := testclient.TCP(t, n.TCPAddrs()[0])
	ch := hello(t, n, c, 1, 1)
	for room := range maxRooms + 1 {
		c.Send(t, object{"op": 15, "roomId": room + 1})
	}
	c.AwaitError(t, "too_large")
	c.Send(t, object{"op": 15, "roomId": 1}) // where it is already
	settle(t, c)
	if got := len(ch.roomIDs()); got != maxRooms {
		t.Errorf("in %d rooms, want %d", got, maxRooms)
	}
}

// TestTakenOutWhileEntering takes the user out of a room while logic, or the registrar, is asked to let it in.
func TestTakenOutWhileEntering(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	logic := obliging()
	logic.enterRoom = func(context.Context, *contract.RoomRequest) (*contract.Room, error) {
		asked <- struct{}{}
		<-answer
		return &contract.Room{}, nil
	}
	n := startNode(t, logic, nil)
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
		c := dial(t, n)
		ch := hello(t, n, c, 6, 1)
		leave := func() {
			if _, err := n.LeaveRoom(t.Context(), &contract.NodeLeaveRoomRequest{User: 6, Room: 8}); err != nil {
				t.Fatal(err)
			}
		}
		c.Send(t, object{"op": 15, "roomId": 8})
		<-asked
		leave()
		answer <- struct{}{}
		c.AwaitError(t, "unavailable")
		if got := ch.roomIDs(); len(got) != 0 {
			t.Errorf("in %v, want no room", got)
		}
		if _, rooms := n.present(); len(rooms) != 0 {
			t.Errorf("counted %v, want nobody", rooms)
		}
		c.Send(t, object{"op": 15, "roomId": 8})
		<-asked
		answer <- struct{}{}
		settle(t, c)
		if got := n.push(t, note("room:8", 1, "inside")); got.Receivers() != 1 {
			t.Errorf("entered again: got %+v, want one receiver", got)
		}
		leave()
		if got := n.push(t, note("room:8", 2, "outside")); got.Receivers() != 0 {
			t.Errorf("taken out: got %+v, want no receiver", got)
		}
		c.Close()
	})
}

// TestLeaveRacesEnter enters and leaves one room from two sides: in the end counts and members agree.
func TestLeaveRacesEnter(t *testing.T) {
	n := startNode(t, obliging(), nil)
	var conns []*testclient.Conn
	var channels []*channel
	for i := range 4 {
		c := transports[i%len(transports)].dial(t, n)
		conns, channels = append(conns, c), append(channels, hello(t, n, c, 1, i))
	}
	stop := make(chan struct{})
	var leaving, entering sync.WaitGroup
	leaving.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = n.LeaveRoom(context.Background(), &contract.NodeLeaveRoomRequest{User: 1, Room: 1}) // has no error
			}
		}
	})
	for _, c := range conns {
		entering.Go(func() {
			for range 150 {
				if err := c.TrySend(object{"op": 15, "roomId": 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	entering.Wait()
	for _, c := range conns {
		settle(t, c)
	}
	close(stop)
	leaving.Wait()
	inside := 0
	for _, ch := range channels {
		inside += len(ch.roomIDs())
	}
	if _, rooms := n.present(); rooms[place{1, 1}] != inside {
		t.Errorf("counted %v, want %d", rooms, inside)
	}
	if got := n.push(t, note("room:1", 1, "x")); got.Receivers() != inside {
		t.Errorf("got %+v, want %d receivers", got, inside)
	}
}
