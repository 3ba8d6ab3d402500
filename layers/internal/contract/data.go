package contract

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Session is a session as it is kept.
type Session struct {
	ID                   SessionID
	User                 UserID
	Name, Device         string
	CreatedAt, ExpiresAt time.Time
}

// RouteChange is a change of where a user is, on one life of a connect node. With Room 0 it is the user's route:
// the first connection there came, or with Gone the last one left. With a room it is the user's presence in it.
type RouteChange struct {
	User UserID
	Name string
	Room RoomID
	Gone bool
}

// Routes are the lives of nodes that hold a member of each room and a connection of each user. Lives that have
// ended may be among them: the reader filters by the nodes that live.
type Routes struct {
	Rooms map[RoomID][]NodeRef
	Users map[UserID][]NodeRef
}

// CommitResult is a message as stored: the one given, numbered, or, with Duplicate, the one that its sender stored
// before under the same ClientID.
type CommitResult struct {
	Message   Message
	Duplicate bool
	Outbox    OutboxPosition // 0 for a duplicate, and if it is not known
}

// OutboxPosition names a row of the outbox. Within a conversation it ascends with Seq.
type OutboxPosition int64

// OutboxRow is a message that is not known to be published.
type OutboxRow struct {
	Position OutboxPosition
	Message  Message
}

// ErrUncertain is a commit of which it is not known whether it is stored, or will be: all of it or nothing. The same
// client id, sent again, is safe.
var ErrUncertain = errors.New("the outcome is not known")

// Item is what the queue carries: bytes that keep their order among those of the same key.
type Item struct {
	Key        string
	Headers    map[string]string
	Body       []byte
	Attempt    int       // set on consuming: 1 at the first delivery
	EnqueuedAt time.Time // set on consuming, if the queue knows
}

// PublishError is what a queue answers of which only some partitions did not take their items, as far as is known. It
// holds all items of the others.
type PublishError struct {
	Partitions []int // that did not, ascending
	Err        error
}

func (e *PublishError) Error() string { return e.Err.Error() }

func (e *PublishError) Unwrap() error { return e.Err }

// HeaderTraceparent is the header under which an Item carries its W3C trace context.
const HeaderTraceparent = "traceparent"

// QueueDeliveries is the name of the queue, as spans have it.
const QueueDeliveries = "gochat.deliveries"

// Handler is given items of one partition, in order. Nil acknowledges them all; after an error they are handed
// over again, in order, before anything newer of that partition. An ItemError names one that will never do.
type Handler func(ctx context.Context, items []Item) error

// ItemError says that none of the items was handled since one is itself at fault, as when it is malformed: it fails
// whatever is tried. The queue sets it aside after some tries and goes on without it.
type ItemError struct {
	Index int // among the items handed over
	Err   error
}

func (e *ItemError) Error() string { return fmt.Sprintf("item %d: %v", e.Index, e.Err) }

func (e *ItemError) Unwrap() error { return e.Err }
