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
	perSecond, members, spread *prometheus.Desc
	now                        func() time.Time

	mu     sync.Mutex
	since  time.Time // when the present window began
	rooms  map[contract.RoomID]*hotRoom
	order  hotHeap
	latest []hotRoom // the hottest of the window before, hottest first
}

type hotRoom struct {
	id         contract.RoomID
	deliveries int
	members    int           // of its last message
	spread     time.Duration // the longest from the first to the last write of one message
	at         int           // in the heap
}

func newHotRooms() *hotRooms {
	of := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help+" Of the rooms of this node with the most deliveries, within the last whole 10 seconds.", []string{"room"}, nil)
	}
	return &hotRooms{
		perSecond: of("gochat_hot_room_deliveries_per_second", "Deliveries."),
		members:   of("gochat_hot_room_members", "Connections that the last message went to."),
		spread:    of("gochat_hot_room_fanout_seconds", "The longest time from the first to the last write of one message."),
		now:       time.Now, rooms: make(map[contract.RoomID]*hotRoom),
	}
}

// add counts a message that went to so many connections, with so long between the first and the last of its writes.
func (h *hotRooms) add(id contract.RoomID, members int, spread time.Duration, at time.Time) {
	if members == 0 {
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
		r.id, r.spread = id, 0
		h.rooms[id] = r
	}
	r.deliveries += members
	r.members, r.spread = members, max(r.spread, spread)
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
func (h *hotRooms) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{h.perSecond, h.members, h.spread} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (h *hotRooms) Collect(to chan<- prometheus.Metric) {
	h.mu.Lock()
	h.turn(h.now())
	latest := slices.Clone(h.latest)
	h.mu.Unlock()
	for _, r := range latest {
		room := strconv.FormatInt(int64(r.id), 10)
		for d, value := range map[*prometheus.Desc]float64{
			h.perSecond: float64(r.deliveries) / hotWindow.Seconds(), h.members: float64(r.members), h.spread: r.spread.Seconds()} {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, room)
		}
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
