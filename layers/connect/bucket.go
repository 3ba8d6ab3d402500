package connect

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// bucket owns the channels of the users that hash to it, and its part of each room.
type bucket struct {
	number int
	jobs   chan *job
	m      bucketMetrics
	tracer trace.Tracer

	mu       *observability.Mutex
	users    map[contract.UserID][]*channel
	rooms    map[contract.RoomID]*room
	channels map[*channel]struct{}
}

// room is the part of a room that one bucket owns.
type room struct {
	id      contract.RoomID
	members []*channel
}

// membership is where a channel stands in a room. The bucket's mu guards it.
type membership struct {
	room  *room
	index int // of the channel in room.members
}

// jobQueue is how many pushes wait for a bucket before the callers do.
const jobQueue = 64

func newBucket(number int, m bucketMetrics, tracer trace.Tracer) *bucket {
	return &bucket{
		number:   number,
		tracer:   tracer,
		jobs:     make(chan *job, jobQueue),
		m:        m,
		mu:       observability.NewMutex(m.lock),
		users:    make(map[contract.UserID][]*channel),
		rooms:    make(map[contract.RoomID]*room),
		channels: make(map[*channel]struct{}),
	}
}

// add puts an authenticated channel under its user.
func (b *bucket) add(c *channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channels[c] = struct{}{}
	b.users[c.who.user] = append(b.users[c.who.user], c)
	b.m.channels.Set(float64(len(b.channels)))
}

// remove takes out this channel, and no other of the same user. It answers the rooms that the channel was in.
func (b *bucket) remove(c *channel) []contract.RoomID {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.channels, c)
	own := b.users[c.who.user]
	if i := slices.Index(own, c); i >= 0 {
		own = slices.Delete(own, i, i+1)
	}
	if len(own) == 0 {
		delete(b.users, c.who.user)
	} else {
		b.users[c.who.user] = own
	}
	rooms := make([]contract.RoomID, len(c.memberships))
	for i := range rooms {
		last := len(c.memberships) - 1
		rooms[i] = c.memberships[last].room.id
		b.leaveAt(c, last)
	}
	b.m.channels.Set(float64(len(b.channels)))
	return rooms
}

// prepare notes that the channel is about to join the room, so that a leave from now on undoes it. It answers
// whether the channel is a member already, and of how many rooms.
func (b *bucket) prepare(c *channel, id contract.RoomID) (member bool, rooms int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.entering = id
	return c.membership(id) >= 0, len(c.memberships)
}

// join makes the channel a member. It is false, and changes nothing, if the channel has left the room since
// prepare, or is in it already.
func (b *bucket) join(c *channel, id contract.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.entering != id || c.membership(id) >= 0 {
		return false
	}
	c.entering = 0
	r := b.rooms[id]
	if r == nil {
		r = &room{id: id}
		b.rooms[id] = r
		b.m.rooms.Set(float64(len(b.rooms)))
	}
	c.memberships = append(c.memberships, membership{r, len(r.members)})
	r.members = append(r.members, c)
	return true
}

// leave ends the membership, or what is about to become one. It is false if there was none.
func (b *bucket) leave(c *channel, id contract.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.entering == id {
		c.entering = 0
	}
	i := c.membership(id)
	if i < 0 {
		return false
	}
	b.leaveAt(c, i)
	return true
}

// membership is the index of the channel's membership in the room, -1 if there is none. It is called with the
// bucket's mu held.
func (c *channel) membership(id contract.RoomID) int {
	return slices.IndexFunc(c.memberships, func(m membership) bool { return m.room.id == id })
}

// leaveAt ends the channel's i-th membership: the last member takes its place. It is called with mu held.
func (b *bucket) leaveAt(c *channel, i int) {
	m := c.memberships[i]
	last := len(m.room.members) - 1
	moved := m.room.members[last]
	m.room.members[m.index] = moved
	moved.memberships[moved.membership(m.room.id)].index = m.index
	m.room.members[last] = nil
	m.room.members = m.room.members[:last]
	if last == 0 {
		delete(b.rooms, m.room.id)
		b.m.rooms.Set(float64(len(b.rooms)))
	}
	end := len(c.memberships) - 1
	c.memberships[i] = c.memberships[end]
	c.memberships[end] = membership{}
	c.memberships = c.memberships[:end]
}

// ofUser answers the user's channels here.
func (b *bucket) ofUser(user contract.UserID) []*channel {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.users[user])
}

// all answers every channel here.
func (b *bucket) all() []*channel {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*channel, 0, len(b.channels))
	for c := range b.channels {
		all = append(all, c)
	}
	return all
}

// delivery is a contract.Delivery on this node.
type delivery struct {
	*contract.Delivery
	frame  frame
	except uint64 // number of the channel that does not get it; 0 is none
	counts [outcomes]atomic.Int32
	trace  context.Context // of its trace; nil if that is not recorded

	first, last atomic.Int64 // when the first write of it began and the last ended, nanoseconds of Unix; 0 if there was none

	// The rest is the pusher's.
	had, deferred int
	absent        []contract.UserID
}

// note takes note of the sequencer's verdict, and reports whether the delivery goes out.
func (d *delivery) note(v verdict) bool {
	switch v {
	case had:
		d.had++
	case deferred:
		d.deferred++
	}
	return v == goes
}

// job is what one push has for one bucket: deliveries in order, and for those to users, to whom.
type job struct {
	work []work
	push *push
	done chan<- struct{} // has room for every job of its push
}

type work struct {
	delivery *delivery
	user     contract.UserID // 0: the delivery's room
	nobody   bool            // set by the bucket: it has no connection of the user any more
}

// run does one job after another until ctx ends.
func (b *bucket) run(ctx context.Context) {
	var p pusher
	for {
		select {
		case j := <-b.jobs:
			var sum [outcomes]int
			for rest := j.work; len(rest) > 0; {
				n := together(rest)
				b.fanOut(&p, rest[:n], &sum)
				rest = rest[n:]
			}
			p.count(&b.m.fanOut)
			b.m.count(&sum) // here, since nobody may wait for what comes of it any more
			if j.push.left.Add(-1) == 0 {
				j.push.observe()
			}
			j.done <- struct{}{}
		case <-ctx.Done():
			return
		}
	}
}

// fanOut sends work to its receivers, which are the same throughout.
func (b *bucket) fanOut(p *pusher, all []work, sum *[outcomes]int) {
	part := share{bucket: b.number, began: time.Now()}
	p.to, part.waited = b.receivers(p.to[:0], &all[0])
	p.push(all, sum)
	if part.members = len(p.to); part.members > 0 {
		part.ended = time.Now()
		part.note(b.tracer, all, p.counts)
	}
	clear(p.to) // holds no connection that has ended
}

// together is how many of the first of the work go to the same receivers, and fit one write.
func together(all []work) int {
	first := &all[0]
	bytes := 0
	for n := range all {
		w := &all[n]
		if bytes += len(w.delivery.Frame); n > 0 && (bytes > maxWrite || w.user != first.user || w.user == 0 && w.delivery.Room != first.delivery.Room) {
			return n
		}
	}
	return len(all)
}

// receivers copies the channels out, so that nothing is written under the lock, for which it waited so long.
func (b *bucket) receivers(into []*channel, w *work) (all []*channel, waited time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	waited = b.mu.Waited()
	if w.user != 0 {
		return append(into, b.users[w.user]...), waited
	}
	if r := b.rooms[w.delivery.Room]; r != nil {
		return append(into, r.members...), waited
	}
	return into, waited
}
