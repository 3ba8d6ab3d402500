package connect

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
)

// shown are the series of the hot rooms, by room.
func shown(t *testing.T, h *hotRooms) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(h)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, f := range families {
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
	h.add(1, 1, at)
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
		h.add(room, 10, at)
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
	h.add(7, 3, at)
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
		h.add(room, int(room), at)
		h.add(room, int(room), at)
		h.add(room, 0, at)
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
}
