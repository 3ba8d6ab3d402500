package contract

import (
	"context"
	"time"
)

// Task is what one task node answers. Calls are addressed to a node, never balanced over them.
type Task interface {
	// Whereabouts answers what the node's records hold of a message.
	Whereabouts(context.Context, *WhereaboutsRequest) (*TaskWhereabouts, error)
}

type WhereaboutsRequest struct{ Message MessageID }

// LogicWhereabouts is what one logic node knows of a message: what is stored, and what its own records hold.
type LogicWhereabouts struct {
	Stored *StoredMessage // nil if no message has the id, or the database is Away
	Away   bool           // the database has not answered
	Since  time.Time      // what was accepted here from then on is on record; zero if nothing is kept
	Record *LogicRecord   // nil if there is none
}

// StoredMessage is what the store has of a message, but for what it says. Names are those of now.
type StoredMessage struct {
	ID            MessageID
	Conversation  Conversation
	Seq           int64
	From, To      UserID // To is 0 in a room
	FromName      string
	ToName        string
	CreatedAt     time.Time
	Traceparent   string
	WaitsInOutbox bool // a row of the outbox names it: it is not yet published, or that row not yet deleted
}

// LogicRecord is what one logic node has done for a message. A time is zero where the node did not do it: who publishes
// a message need not have accepted it.
type LogicRecord struct {
	AcceptedAt, CommittedAt time.Time
	Batch                   int // messages in that commit, this one included

	FirstPublishedAt, LastPublishedAt time.Time
	Published                         int // how often
	By                                PublishedBy
}

// PublishedBy says why a message was published when it was, the last time.
type PublishedBy string

const (
	PublishedAtOnce  PublishedBy = "commit"  // straight after its commit
	PublishedFromBox PublishedBy = "outbox"  // from the outbox, since the queue or the commit had failed
	PublishedBySweep PublishedBy = "sweeper" // from the outbox, left there by a process that died
)

// TaskWhereabouts is what one task node's records hold of a message.
type TaskWhereabouts struct {
	Since  time.Time   // what was consumed here from then on is on record; zero if nothing is kept
	Began  time.Time   // the records did: of what was consumed before they know nothing, young as it may be
	End    time.Time   // what is older than this is kept nowhere
	Record *TaskRecord // nil if there is none
}

// TaskRecord is what one task node has done with a message, over all the times that it was handed over.
type TaskRecord struct {
	ConsumedAt time.Time // the last time
	Attempt    int       // the queue's count: 1 at the first delivery
	Handovers  int       // to this node
	DoneAt     time.Time // when the last of these was acknowledged, or failed; zero while it is under way
	Failed     Code      // why it was not acknowledged and is handed over again, "" if it was
	Again      int       // looks for users whom no node had any more
	Offline    bool      // its addressee has no connection
	GivenUp    bool      // without knowing whether all have it: an error in the ledger of package task
	Nodes      []NodeRecord
	Further    FurtherNodes
}

// NodeRecord is what became of a message on one life of a connect node. Written, Queued, Slow and Gone add up all
// pushes, since a connect node counts each connection once; what else there is is of the last answer.
type NodeRecord struct {
	Node       NodeRef
	PushedAt   time.Time // the first try of the last push; zero while it waits for its turn
	AnsweredAt time.Time // zero while that is under way
	Ends
	Had      int
	Deferred int
	Absent   int  // users named of whom the node has no connection
	Code     Code // why the push was given up, "" if it was answered
	Kept     bool // it is kept for the node until that answers again
}

// Ends are the ends of a message for connections of one node or several, as in PushResult.
type Ends struct{ Written, Queued, Slow, Gone int }

// Add adds what others have come to.
func (e *Ends) Add(o Ends) {
	e.Written += o.Written
	e.Queued += o.Queued
	e.Slow += o.Slow
	e.Gone += o.Gone
}

// FurtherNodes sum up the connect nodes of a message beyond those that are kept one by one.
type FurtherNodes struct {
	Bound   int // nodes that it was to go to, at each handover anew
	Answers int // of pushes, and pushes given up
	Ends
	Had, Deferred, Absent int
	Errors                int // pushes given up
}
