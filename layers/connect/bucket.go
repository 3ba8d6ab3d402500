package connect

import (
	"context"
	"sync"
	"sync/atomic"

	"gochat/layers/internal/contract"
)

// bucket owns the channels of the users that hash to it, and its part of each room.
type bucket struct {
	jobs chan *job

	mu       sync.Mutex
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

func newBucket() *bucket {
	return &bucket{
		jobs:     make(chan *job, jobQueue),
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
}

// remove takes out this channel, and no other of the same user, with its memberships.
func (b *bucket) remove(c *channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.channels, c)
	own := b.users[c.who.user]
	for i := range own {
		if own[i] == c {
			own[i] = own[len(own)-1]
			own[len(own)-1] = nil
			own = own[:len(own)-1]
			break
		}
	}
	if len(own) == 0 {
		delete(b.users, c.who.user)
	} else {
		b.users[c.who.user] = own
	}
	for len(c.memberships) > 0 {
		b.leaveAt(c, len(c.memberships)-1)
	}
}

// join makes the channel a member. Joining again changes nothing.
func (b *bucket) join(c *channel, id contract.RoomID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range c.memberships {
		if m.room.id == id {
			return
		}
	}
	r := b.rooms[id]
	if r == nil {
		r = &room{id: id}
		b.rooms[id] = r
	}
	c.memberships = append(c.memberships, membership{r, len(r.members)})
	r.members = append(r.members, c)
}

// leave ends the membership, if there is one.
func (b *bucket) leave(c *channel, id contract.RoomID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range c.memberships {
		if m.room.id == id {
			b.leaveAt(c, i)
			return
		}
	}
}

// leaveAt ends the channel's i-th membership: the last member takes its place. It is called with mu held.
func (b *bucket) leaveAt(c *channel, i int) {
	m := c.memberships[i]
	last := len(m.room.members) - 1
	moved := m.room.members[last]
	m.room.members[m.index] = moved
	for j := range moved.memberships {
		if moved.memberships[j].room == m.room {
			moved.memberships[j].index = m.index
			break
		}
	}
	m.room.members[last] = nil
	m.room.members = m.room.members[:last]
	if last == 0 {
		delete(b.rooms, m.room.id)
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
	return append([]*channel(nil), b.users[user]...)
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
	counts [4]atomic.Int32
}

// job is what one push has for one bucket: deliveries in order, and for those to users, to whom.
type job struct {
	work []work
	done *sync.WaitGroup
}

type work struct {
	delivery *delivery
	user     contract.UserID // 0: the delivery's room
}

// run does one job after another until ctx ends.
func (b *bucket) run(ctx context.Context) {
	w := newWriter()
	var members []*channel
	for {
		select {
		case j := <-b.jobs:
			for i := range j.work {
				members = b.receivers(members[:0], &j.work[i])
				d := j.work[i].delivery
				for _, c := range members {
					if c.number != d.except {
						d.counts[c.push(w, &d.frame, d.Conversation, d.Seq)].Add(1)
					}
				}
			}
			clear(members)
			j.done.Done()
		case <-ctx.Done():
			return
		}
	}
}

// receivers copies the channels out, so that nothing is written under the lock.
func (b *bucket) receivers(into []*channel, w *work) []*channel {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.user != 0 {
		return append(into, b.users[w.user]...)
	}
	if r := b.rooms[w.delivery.Room]; r != nil {
		return append(into, r.members...)
	}
	return into
}
