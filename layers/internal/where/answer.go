package where

import "time"

// State is where a message is, in a word.
type State string

const (
	Delivered State = "delivered" // everybody it was due to has it, or was closed as too slow, or had gone
	Nobody    State = "nobody"    // it was due to a room in which nobody was
	Offline   State = "offline"   // its addressee had no connection
	Deferred  State = "deferred"  // a connect node fetches what is missing before it, and brings it then
	GivenUp   State = "given_up"  // a connect node was passed over with it, which finds it by comparing heads
	Pushing   State = "pushing"   // on its way to connect nodes, or kept for one that is late
	Queued    State = "queued"    // published, and not with a task, or not any more
	Outbox    State = "outbox"    // stored, and not published
	// Unrecorded is one that is young, while a task node that it may have gone to is younger, and has nothing to tell.
	Unrecorded State = "unrecorded"
	Expired    State = "expired" // stored, and what became of it is not on record any more
	Unknown    State = "unknown" // no message has the id
)

// Answer is where a message is, as GET /admin/v1/messages/{id} answers it. It has no word of what the message says.
type Answer struct {
	ID           string `json:"id"`
	State        State  `json:"state"`
	Says         string `json:"says"` // the state in a sentence
	Conversation string `json:"conversation,omitempty"`
	Seq          int64  `json:"seq,omitempty"`
	From         *User  `json:"from,omitempty"`
	To           *User  `json:"to,omitempty"` // of a direct message
	// CreatedAt is what the message itself says, or else its id.
	CreatedAt time.Time `json:"createdAt"`
	TraceID   string    `json:"traceId,omitempty"`
	InOutbox  bool      `json:"inOutbox"` // its row is there: it is not yet published, or the row not yet deleted

	Logic  []LogicStep `json:"logic"` // the nodes that have accepted or published it
	Task   []TaskStep  `json:"task"`  // the nodes that have consumed it, by when each did last
	Totals Totals      `json:"totals"`

	// RecordsSince is from when on every node that has answered remembers every message.
	RecordsSince time.Time `json:"recordsSince,omitzero"`
	Missing      []string  `json:"missing,omitempty"` // what is not known, and why
}

// User is one of the two of a message.
type User struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// LogicStep is what one logic node has done. Times are by its own clock.
type LogicStep struct {
	Node             string    `json:"node"`
	AcceptedAt       time.Time `json:"acceptedAt,omitzero"`
	CommittedAt      time.Time `json:"committedAt,omitzero"`
	Batch            int       `json:"batch,omitempty"` // messages in that commit
	PublishedAt      time.Time `json:"publishedAt,omitzero"`
	LastPublishedAt  time.Time `json:"lastPublishedAt,omitzero"`
	Published        int       `json:"published"`             // how often
	PublishedBecause string    `json:"publishedBy,omitempty"` // the last time: commit, outbox or sweeper
}

// TaskStep is what one task node has done, over all the times that the message was handed over to it.
type TaskStep struct {
	Node       string    `json:"node"`
	ConsumedAt time.Time `json:"consumedAt"`
	Attempt    int       `json:"attempt"`   // the queue's count
	Handovers  int       `json:"handovers"` // to this node
	// DoneAt is when the last handover was acknowledged, or failed with the code in handedBack.
	DoneAt     time.Time    `json:"doneAt,omitzero"`
	HandedBack string       `json:"handedBack,omitempty"`
	Again      int          `json:"lookedAgain,omitempty"` // for users whom no node had any more
	Offline    bool         `json:"offline"`
	GivenUp    bool         `json:"givenUp"`
	Nodes      []NodeStep   `json:"nodes"`
	Further    *FurtherStep `json:"furtherNodes,omitempty"` // those beyond the first 16, summed up
}

// NodeStep is what became of the message on one connect node.
type NodeStep struct {
	Node       string    `json:"node"`
	PushedAt   time.Time `json:"pushedAt,omitzero"`
	AnsweredAt time.Time `json:"answeredAt,omitzero"`
	Counts
	Code string `json:"code,omitempty"` // why the push was given up
	Kept bool   `json:"kept,omitempty"` // for the node, until it answers again
}

// FurtherStep sums up connect nodes.
type FurtherStep struct {
	Bound   int `json:"bound"` // nodes that it was to go to
	Answers int `json:"answers"`
	Counts
	Errors int `json:"errors"`
}

// Counts are receivers, by what became of the message for them. Had and Deferred are 1 for a room, or users; Absent is
// users.
type Counts struct {
	Written  int `json:"written"`
	Queued   int `json:"queued"`
	Slow     int `json:"slow"`
	Gone     int `json:"gone"`
	Had      int `json:"had"`
	Deferred int `json:"deferred"`
	Absent   int `json:"absent"`
}

// Totals are over all nodes.
type Totals struct {
	Counts
	Offline int `json:"offline"`
	Errors  int `json:"errors"` // pushes given up
}

func (c *Counts) add(o Counts) {
	c.Written += o.Written
	c.Queued += o.Queued
	c.Slow += o.Slow
	c.Gone += o.Gone
	c.Had += o.Had
	c.Deferred += o.Deferred
	c.Absent += o.Absent
}

// Problem is how the absence of an answer is answered: RFC 9457, with the code words bad_request, not_found, expired and
// unavailable.
type Problem struct {
	Type         string    `json:"type"`
	Title        string    `json:"title"`
	Status       int       `json:"status"`
	Detail       string    `json:"detail"`
	Code         string    `json:"code"`
	RecordsSince time.Time `json:"recordsSince,omitzero"`
	Message      *Answer   `json:"message,omitempty"` // what is still known of one that has expired
}
