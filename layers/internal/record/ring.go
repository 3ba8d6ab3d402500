package record

import (
	"time"

	"gochat/layers/internal/contract"
)

// ring holds records by message id and forgets the oldest first: when a place is needed, and when they are too old. Its
// owner's lock guards it.
type ring[T any] struct {
	keep   time.Duration
	index  map[contract.MessageID]int32
	slots  blocks[slot[T]]
	oldest int32
	newest int32
	began  int64 // unix microseconds
	since  int64 // likewise: all that was made from then on is here
	drop   func(*T)
}

type slot[T any] struct {
	id    contract.MessageID
	made  int64 // unix microseconds
	newer int32
	value T
}

// newRing begins to know at the time given. drop is called with each value that is forgotten.
func newRing[T any](cfg Config, now time.Time, drop func(*T)) ring[T] {
	return ring[T]{
		keep: cfg.Keep, index: make(map[contract.MessageID]int32), slots: blocks[slot[T]]{max: cfg.Messages},
		oldest: none, newest: none, began: now.UnixMicro(), since: now.UnixMicro(), drop: drop,
	}
}

// off reports whether nothing is ever kept.
func (r *ring[T]) off() bool { return r.slots.max == 0 }

// find answers the message's record, valid until the next call; nil if there is none.
func (r *ring[T]) find(id contract.MessageID) *T {
	if i, ok := r.index[id]; ok {
		return &r.slots.at(i).value
	}
	return nil
}

// enter answers the message's record, a new one if there is none; nil if nothing is kept, or the id is none.
func (r *ring[T]) enter(id contract.MessageID, now int64) *T {
	if id == 0 || r.off() {
		return nil
	}
	if v := r.find(id); v != nil {
		return v
	}
	r.expire(now)
	i, ok := r.slots.take()
	for !ok {
		r.forgetOldest()
		i, ok = r.slots.take()
	}
	s := r.slots.at(i)
	s.id, s.made, s.newer = id, now, none
	if r.newest == none {
		r.oldest = i
	} else {
		r.slots.at(r.newest).newer = i
	}
	r.newest = i
	r.index[id] = i
	return &s.value
}

// expire forgets what is too old.
func (r *ring[T]) expire(now int64) {
	end := r.end(now)
	for r.oldest != none && r.slots.at(r.oldest).made < end {
		r.forgetOldest()
	}
	r.since = max(r.since, end)
}

// end is before when nothing is kept.
func (r *ring[T]) end(now int64) int64 { return now - r.keep.Microseconds() }

// age is that of the oldest record, in seconds; 0 if there is none.
func (r *ring[T]) age(now int64) float64 {
	r.expire(now)
	if r.oldest == none {
		return 0
	}
	return float64(now-r.slots.at(r.oldest).made) / 1e6
}

// forgetOldest forgets the record that was made first. There must be one.
func (r *ring[T]) forgetOldest() {
	i := r.oldest
	s := r.slots.at(i)
	r.drop(&s.value)
	delete(r.index, s.id)
	r.since = max(r.since, s.made+1)
	if r.oldest = s.newer; r.oldest == none {
		r.newest = none
	}
	r.slots.giveBack(i)
}

// covers is from when on everything is known; zero if nothing is kept.
func (r *ring[T]) covers(now int64) time.Time {
	if r.off() {
		return time.Time{}
	}
	r.expire(now)
	return moment(r.since)
}

// moment is a time of a record; 0 is none.
func moment(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// codeByte stands for a code word in a record, 0 for none.
type codeByte uint8

// codes are those that a record may hold; what is not among them is held as internal.
func codes() [13]contract.Code {
	return [...]contract.Code{
		"", contract.Internal, contract.BadRequest, contract.Unauthenticated, contract.Forbidden, contract.NotFound, contract.Conflict,
		contract.TooLarge, contract.RateLimited, contract.Unavailable, contract.SessionEnded, contract.Replaced, contract.SlowConsumer,
	}
}

func byteOf(code contract.Code) codeByte {
	if code == "" {
		return 0
	}
	for i, c := range codes() {
		if c == code {
			return codeByte(i)
		}
	}
	return 1
}

func (c codeByte) code() contract.Code { return codes()[c] }
