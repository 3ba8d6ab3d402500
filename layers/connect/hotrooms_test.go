package connect

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
)

// shown are the deliveries a second of the hot rooms, by room.
func shown(t *testing.T, h *hotRooms) map[string]float64 {
	t.Helper()
	return shownOf(t, h, "gochat_hot_room_deliveries_per_second")
}

// shownOf are the series of one metric of the hot rooms, by room.
func shownOf(t *testing.T, h *hotRooms, name string) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(h)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			series[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	return series
}

// TestHotRooms: of many rooms those with the most deliveries are shown, and no more than that.
func TestHotRooms(t *testing.T) {
	h := newHotRooms()
	at := time.Unix(1_000_000, 0)
	h.now = func() time.Time { return at }
	h.add(1, 1, 0, at)
	var messages []contract.RoomID
	for hot := range contract.RoomID(hotShown) { // each has one in 40 of all
		for range 500 {
			messages = append(messages, 1000+hot)
		}
	}
	for cold := range contract.RoomID(10_000) {
		messages = append(messages, 10_000+cold)
	}
	rand.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	for _, room := range messages {
		h.add(room, 10, 0, at)
	}
	if got := shown(t, h); len(got) != 0 {
		t.Errorf("within the first window %d are shown, want none", len(got))
	}
	if len(h.rooms) > hotKept || len(h.order) > hotKept {
		t.Errorf("%d rooms are kept, want at most %d", len(h.rooms), hotKept)
	}
	at = at.Add(hotWindow)
	got := shown(t, h)
	if len(got) != hotShown {
		t.Errorf("%d are shown, want %d", len(got), hotShown)
	}
	slack := float64(10*len(messages)) / hotKept / hotWindow.Seconds()
	for hot := range hotShown {
		if n := got[fmt.Sprint(1000+hot)]; n < 500 || n > 500+slack {
			t.Errorf("room %d: %v a second, want 500 to %v", 1000+hot, n, 500+slack)
		}
	}
	at = at.Add(hotWindow)
	if got := shown(t, h); len(got) != 0 {
		t.Errorf("after a window without any %d are shown, want none", len(got))
	}
	h.add(7, 3, 0, at)
	if at = at.Add(3 * hotWindow); len(shown(t, h)) != 0 {
		t.Error("one of long ago is shown")
	}
}

// TestHotRoomsOfFew: where all have room, counts are exact, hottest first.
func TestHotRoomsOfFew(t *testing.T) {
	h := newHotRooms()
	at := time.Unix(1_000_000, 0)
	h.now = func() time.Time { return at }
	h.turn(at)
	for room := contract.RoomID(1); room <= 50; room++ {
		h.add(room, int(room)+1, time.Duration(room)*time.Millisecond, at)
		h.add(room, int(room)-1, time.Duration(room)*time.Microsecond, at)
		h.add(room, 0, time.Hour, at)
	}
	at = at.Add(hotWindow)
	got := shown(t, h)
	for room := 1; room <= 50; room++ {
		want := 0.0
		if room > 50-hotShown {
			want = float64(2*room) / hotWindow.Seconds()
		}
		if got[fmt.Sprint(room)] != want {
			t.Errorf("room %d: got %v, want %v", room, got[fmt.Sprint(room)], want)
		}
	}
	if members := shownOf(t, h, "gochat_hot_room_members"); len(members) != hotShown || members["50"] != 49 || members["31"] != 30 {
		t.Errorf("the members are %v, want those of the last message", members)
	}
	if spread := shownOf(t, h, "gochat_hot_room_fanout_seconds"); len(spread) != hotShown || spread["50"] != 0.05 || spread["31"] != 0.031 {
		t.Errorf("the times are %v, want the longest", spread)
	}
}

// TestHotRoomInAnothersPlace: a room that takes the place of a colder one has none of its time.
func TestHotRoomInAnothersPlace(t *testing.T) {
	h := newHotRooms()
	at := time.Unix(1_000_000, 0)
	h.now = func() time.Time { return at }
	h.turn(at)
	for room := contract.RoomID(1); room <= hotKept; room++ {
		h.add(room, 10, time.Hour, at)
	}
	h.add(hotKept+1, 20, time.Second, at)
	at = at.Add(hotWindow)
	if spread := shownOf(t, h, "gochat_hot_room_fanout_seconds"); spread[fmt.Sprint(hotKept+1)] != 1 {
		t.Errorf("the times are %v, want 1 of the last room", spread)
	}
}
