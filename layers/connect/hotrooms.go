package connect

import (
	"container/heap"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
)

const (
	hotShown  = 20               // rooms that are shown
	hotKept   = 10 * hotShown    // rooms that are counted at once; more make the counts of the coldest less exact
	hotWindow = 10 * time.Second // over which deliveries are counted
)

// hotRooms are the rooms with the most deliveries on this node, of which only the first have a series: with one for each
// room there would be no bound. They are counted by Space-Saving (Metwally, Agrawal, El Abbadi 2005): a room that has
// more than a hotKept-th of all deliveries is never missed, and no count is too high by more than that.
type hotRooms struct {
	desc *prometheus.Desc
	now  func() time.Time

	mu     sync.Mutex
	since  time.Time // when the present window began
	rooms  map[contract.RoomID]*hotRoom
	order  hotHeap
	latest []hotRoom // the hottest of the window before, hottest first
}

type hotRoom struct {
	id         contract.RoomID
	deliveries int
	at         int // in the heap
}

func newHotRooms() *hotRooms {
	return &hotRooms{
		desc: prometheus.NewDesc("gochat_hot_room_deliveries_per_second",
			"Deliveries to the rooms of this node that have most of them, within the last whole 10 seconds.", []string{"room"}, nil),
		now: time.Now, rooms: make(map[contract.RoomID]*hotRoom),
	}
}

// add counts a message that went to so many connections.
func (h *hotRooms) add(id contract.RoomID, deliveries int, at time.Time) {
	if deliveries == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(at)
	r := h.rooms[id]
	switch {
	case r != nil:
	case len(h.order) < hotKept:
		r = &hotRoom{id: id}
		h.rooms[id] = r
		heap.Push(&h.order, r)
	default: // it takes the place of the coldest, and its count: it may have had as many before
		r = h.order[0]
		delete(h.rooms, r.id)
		r.id = id
		h.rooms[id] = r
	}
	r.deliveries += deliveries
	heap.Fix(&h.order, r.at)
}

// turn begins the next window if it is time. It is called with mu held.
func (h *hotRooms) turn(at time.Time) {
	passed := at.Sub(h.since)
	if passed < hotWindow {
		return
	}
	h.latest = h.latest[:0]
	if passed < 2*hotWindow {
		for _, r := range h.order {
			h.latest = append(h.latest, *r)
		}
		slices.SortFunc(h.latest, func(a, b hotRoom) int { return b.deliveries - a.deliveries })
		h.latest = h.latest[:min(len(h.latest), hotShown)]
	}
	h.since, h.order = at, h.order[:0]
	clear(h.rooms)
}

// Describe implements prometheus.Collector.
func (h *hotRooms) Describe(to chan<- *prometheus.Desc) { to <- h.desc }

// Collect implements prometheus.Collector.
func (h *hotRooms) Collect(to chan<- prometheus.Metric) {
	h.mu.Lock()
	h.turn(h.now())
	latest := slices.Clone(h.latest)
	h.mu.Unlock()
	for _, r := range latest {
		to <- prometheus.MustNewConstMetric(h.desc, prometheus.GaugeValue, float64(r.deliveries)/hotWindow.Seconds(), strconv.FormatInt(int64(r.id), 10))
	}
}

// hotHeap has the coldest first.
type hotHeap []*hotRoom

func (h hotHeap) Len() int           { return len(h) }
func (h hotHeap) Less(i, j int) bool { return h[i].deliveries < h[j].deliveries }
func (h hotHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *hotHeap) Push(r any) {
	room := r.(*hotRoom)
	room.at = len(*h)
	*h = append(*h, room)
}
func (h *hotHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	*h = (*h)[:last]
	return r
}
