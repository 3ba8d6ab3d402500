package connect

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gochat/layers/internal/contract"
)

// sequencer keeps every conversation in the order of its seq on this node, whatever comes in which order: a message
// that was pushed already is dropped, and one that skips ahead waits until what is missing has been fetched.
//
// It knows the head of each room that has a member here, from before the room's route is written. Of a direct
// conversation of a user with a connection here it knows none until something happens in it; then it is fetched from
// the first message on that was accepted since the user came.
type sequencer struct {
	fetchHead func(context.Context, contract.Conversation) (int64, error)
	wake      chan struct{} // something is due

	mu      sync.Mutex              // held from letting deliveries through until the buckets have them: that is their order
	round   int                     // of comparisons, see Connect.compareHeads; from 1
	touched [activeRounds][]subject // that saw a delivery in each of the last rounds, once a round, at round % activeRounds
	delays  [4]time.Duration        // the longest that a message pushed in each of the last rounds was under way, at round % 4
	rooms   map[contract.RoomID]*servedRoom
	users   map[contract.UserID]*servedUser
	due     []hole // whose repair is to begin
}

// head is how far one conversation has come here.
type head struct {
	// unknown says that last is not known yet, as of a direct conversation until its repair has begun. least is then the
	// lowest that was pushed, 0 if none was.
	unknown bool
	least   int64
	// done are the seqs below what is due that came to their end here all the same: those that went out though they were
	// accepted before the user came, and of what was given up those that task had pushed.
	done spans

	first  int64     // what is below is not due here
	last   int64     // up to here it was pushed
	want   int64     // above last: what is between is being fetched
	active int       // the round of comparisons in which a delivery last came
	until  time.Time // of a direct conversation: what was accepted up to then is not due any more, should the head be forgotten

	// What a comparison noted, the last one before which something had come here.
	ahead int64     // logic's head
	mark  int64     // last
	since time.Time // when that was

	// held are the seqs above last that were deferred, of a direct conversation, and which connection each excepts: whom
	// they are for is owed a count, and the sender no copy.
	held map[int64]contract.ConnID
}

// startAt makes it known that the seq is the next one due.
func (h *head) startAt(seq int64) {
	h.unknown, h.first, h.last = false, seq, seq-1
}

// below says what becomes of a seq below what is due that may not go out: what followed has gone out, or is lost.
func (h *head) below(seq int64) verdict {
	if h.done.has(seq) {
		return had
	}
	return absent // when it was accepted nobody was here
}

// verdict is what the sequencer says of a delivery.
type verdict uint8

const (
	goes     verdict = iota
	had              // it went before
	deferred         // it comes with what is being fetched
	absent           // nobody is here to get it
)

// repairing reports whether something is being fetched.
func (h *head) repairing() bool { return h.want > h.last }

// servedRoom is a room with a member here, or about to have one.
type servedRoom struct {
	head
	connections int
	ready       chan struct{} // closed when last is known, or err says why not
	err         error
}

// servedUser is a user with a connection here.
type servedUser struct {
	since       time.Time // when the first of the connections came, or the time that a forgotten head had come to: what is due from then on
	connections int
	heads       map[contract.Conversation]*head
}

// maxUserHeads is of how many direct conversations of a user the heads are kept.
const maxUserHeads = 256

// subject is whose repair it is: a conversation, and for a direct one for which of the two.
type subject struct {
	conversation contract.Conversation
	room         contract.RoomID
	user         contract.UserID
}

// hole is what one repair is to fill: in that head, for as long as the subject has it. Who has left and come back has
// another, of which other messages are due.
type hole struct {
	subject
	head *head
}

func newSequencer(fetchHead func(context.Context, contract.Conversation) (int64, error)) *sequencer {
	return &sequencer{
		fetchHead: fetchHead, wake: make(chan struct{}, 1), round: 1,
		rooms: make(map[contract.RoomID]*servedRoom), users: make(map[contract.UserID]*servedUser),
	}
}

// arriveUser counts one more connection of the user, once its bucket has it.
func (s *sequencer) arriveUser(user contract.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[user]
	if u == nil {
		u = &servedUser{since: nextMilli(time.Now())}
		s.users[user] = u
	}
	u.connections++
}

// nextMilli is the time, or else the next one that is whole milliseconds: the database keeps no less.
func nextMilli(t time.Time) time.Time {
	if whole := t.Truncate(time.Millisecond); !whole.Equal(t) {
		return whole.Add(time.Millisecond)
	}
	return t
}

// departUser counts one less, before its bucket lets go of it: so a bucket without a connection of the user means
// that the user has departed here, and that what is pushed next begins anew. It answers how many deferred messages
// nobody is here any more to get, but for those that this connection has sent.
func (s *sequencer) departUser(user contract.UserID, connection contract.ConnID) (held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[user]
	if u.connections--; u.connections > 0 {
		return 0
	}
	delete(s.users, user)
	for _, h := range u.heads {
		for _, except := range h.held {
			if except != connection {
				held++
			}
		}
	}
	return held
}

// arrive counts one more connection in the room, before its route is written. It returns once it is known from which
// seq on the room's messages are due here.
func (s *sequencer) arrive(ctx context.Context, room contract.RoomID) error {
	s.mu.Lock()
	r, known := s.rooms[room]
	if !known {
		r = &servedRoom{ready: make(chan struct{})}
		s.rooms[room] = r
	}
	r.connections++
	s.mu.Unlock()
	if !known {
		s.begin(ctx, room, r)
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		s.release(room, r)
		return fmt.Errorf("wait for the room's head: %w", ctx.Err())
	}
	if r.err != nil {
		s.release(room, r)
		return r.err
	}
	return nil
}

// begin finds out from which seq on a room is served.
func (s *sequencer) begin(ctx context.Context, room contract.RoomID, r *servedRoom) {
	last, err := s.fetchHead(ctx, contract.RoomConversation(room))
	s.mu.Lock()
	defer s.mu.Unlock()
	r.startAt(last + 1)
	s.touch(&r.head, subject{conversation: contract.RoomConversation(room), room: room})
	if err != nil {
		r.err = fmt.Errorf("load the room's head: %w", err)
		delete(s.rooms, room) // the next one tries again
	}
	close(r.ready)
}

func (s *sequencer) release(room contract.RoomID, r *servedRoom) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.connections--
	if r.connections == 0 && s.rooms[room] == r {
		delete(s.rooms, room)
	}
}

// depart counts one less in the room, after its route.
func (s *sequencer) depart(room contract.RoomID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[room]
	if r.connections--; r.connections == 0 {
		delete(s.rooms, room)
	}
}

// admitRoom decides about a delivery to a room. It is called with mu held.
func (s *sequencer) admitRoom(d *contract.Delivery) verdict {
	r := s.rooms[d.Room]
	if r == nil || !r.isReady() {
		return absent // or about to be here
	}
	if d.Seq == 0 {
		return goes
	}
	return s.admit(&r.head, d, subject{conversation: d.Conversation, room: d.Room})
}

func (r *servedRoom) isReady() bool {
	select {
	case <-r.ready:
		return r.err == nil
	default:
		return false
	}
}

// touch notes that the conversation is active. It is called with mu held.
func (s *sequencer) touch(h *head, of subject) {
	if h.active != s.round {
		h.active = s.round
		at := s.round % activeRounds
		s.touched[at] = append(s.touched[at], of)
	}
}

// admitUser decides about a delivery to a user. It is called with mu held.
func (s *sequencer) admitUser(d *contract.Delivery, user contract.UserID) verdict {
	u := s.users[user]
	if u == nil {
		return absent
	}
	if d.Seq == 0 {
		return goes
	}
	h := u.head(d.Conversation)
	switch {
	case !h.unknown:
	case d.AcceptedAt.Before(u.since) && (h.least == 0 || d.Seq < h.least):
		// Late; it says nothing of what is due. Above what is, it comes with that.
		if d.Seq <= h.done.end() {
			return h.below(d.Seq)
		}
		h.done.add(d.Seq)
		return goes
	case d.Seq == 1: // nothing can be missing before it
		h.startAt(1)
	}
	return s.admit(h, d, subject{conversation: d.Conversation, user: user})
}

// head is the conversation's, made if there is none.
func (u *servedUser) head(c contract.Conversation) *head {
	h := u.heads[c]
	if h == nil {
		h = &head{unknown: true}
		u.keep(c, h)
	}
	return h
}

// keep adds a head and, if there are too many, forgets the one of which a delivery came the longest ago. One that is
// being repaired, or is behind, stays.
func (u *servedUser) keep(c contract.Conversation, h *head) {
	if u.heads == nil {
		u.heads = make(map[contract.Conversation]*head)
	}
	if len(u.heads) >= maxUserHeads {
		var oldest contract.Conversation
		for other, old := range u.heads {
			if !old.repairing() && old.ahead <= old.last && (oldest == "" || old.active < u.heads[oldest].active) {
				oldest = other
			}
		}
		if old := u.heads[oldest]; old != nil { // else all stay
			if until := nextMilli(old.until.Add(1)); until.After(u.since) {
				u.since = until
			}
			delete(u.heads, oldest)
		}
	}
	u.heads[c] = h
}

// admit is called with mu held.
func (s *sequencer) admit(h *head, d *contract.Delivery, of subject) verdict {
	seq := d.Seq
	s.touch(h, of)
	h.cameTo(d)
	switch {
	case seq <= h.done.end():
		return h.below(seq)
	case h.unknown:
		if h.least == 0 || seq < h.least {
			h.least = seq
		}
		s.miss(h, seq, of)
	case seq < h.first:
		return h.below(seq)
	case seq <= h.last:
		return had
	case seq == h.last+1 && !h.repairing():
		h.last = seq
		return goes
	default:
		s.miss(h, seq, of)
	}
	if of.user != 0 {
		if h.held == nil {
			h.held = make(map[int64]contract.ConnID)
		}
		h.held[seq] = d.Except
	}
	return deferred
}

// cameTo notes of when what came is.
func (h *head) cameTo(d *contract.Delivery) {
	if d.AcceptedAt.After(h.until) {
		h.until = d.AcceptedAt
	}
}

// miss has everything up to want fetched. It is called with mu held.
func (s *sequencer) miss(h *head, want int64, of subject) {
	if h.repairing() {
		h.want = max(h.want, want)
		return
	}
	h.want = want
	s.due = append(s.due, hole{of, h})
	poke(s.wake)
}

// takeDue answers whose repairs are to begin.
func (s *sequencer) takeDue() []hole {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.due
	s.due = nil
	return due
}

// headOf is the subject's head and of how many connections, nil if it is not served any more. It is called with mu
// held.
func (s *sequencer) headOf(of subject) (h *head, connections int) {
	if of.room != 0 {
		if r := s.rooms[of.room]; r != nil && r.isReady() {
			return &r.head, r.connections
		}
		return nil, 0
	}
	if u := s.users[of.user]; u != nil {
		return u.heads[of.conversation], u.connections
	}
	return nil, 0
}

// recent answers which conversations saw a delivery in the last activeRounds, or with all also every room, and begins
// the next round.
func (s *sequencer) recent(all bool) map[contract.Conversation][]subject {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := make(map[subject]struct{})
	for _, touched := range s.touched {
		for _, one := range touched {
			of[one] = struct{}{}
		}
	}
	if all {
		for id := range s.rooms {
			of[subject{conversation: contract.RoomConversation(id), room: id}] = struct{}{}
		}
	}
	s.round++
	s.touched[s.round%activeRounds] = nil
	s.delays[s.round%len(s.delays)] = 0
	found := make(map[contract.Conversation][]subject)
	for one := range of {
		found[one.conversation] = append(found[one.conversation], one)
	}
	return found
}

// compare takes note of logic's head. A message that logic had at an earlier comparison, since which none of its
// conversation has come here, is missing once that is longer ago than what comes now was under way: the queue brings
// it otherwise. It reports whether the conversation is behind and left to the queue.
func (s *sequencer) compare(of subject, ahead int64, now time.Time) (putOff bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, _ := s.headOf(of)
	switch {
	case h == nil || h.repairing():
		return false
	case h.ahead <= h.last || h.mark != h.last:
		putOff = h.ahead > h.last
		h.ahead, h.mark, h.since = ahead, h.last, now
	case now.Sub(h.since) < s.delay():
		putOff = true
	default:
		s.miss(h, h.ahead, of)
		return false
	}
	if h.ahead > h.last {
		s.touch(h, of) // it is compared until it has come
	}
	return putOff
}

// someUsers answers a share of the users here, each once in activeRounds, or all.
func (s *sequencer) someUsers(round int, all bool) []contract.UserSince {
	s.mu.Lock()
	defer s.mu.Unlock()
	var some []contract.UserSince
	for user, u := range s.users {
		if all || int(user)%activeRounds == round%activeRounds {
			some = append(some, contract.UserSince{User: user, Since: u.since})
		}
	}
	return some
}

// note makes room for the head of a conversation in which something has happened.
func (s *sequencer) note(of subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[of.user]; u != nil {
		u.head(of.conversation)
	}
}

// maxDelay bounds how long a conversation that is behind is left to a queue that is behind.
const maxDelay = time.Minute

// delay is how long what is pushed these days was under way. It is called with mu held.
func (s *sequencer) delay() time.Duration { return min(slices.Max(s.delays[:]), maxDelay) }

// noteDelay takes note of how long what is pushed was under way. It is called with mu held.
func (s *sequencer) noteDelay(d *contract.Delivery) {
	at := s.round % len(s.delays)
	s.delays[at] = max(s.delays[at], time.Since(d.AcceptedAt))
}
