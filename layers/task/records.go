package task

import (
	"time"

	"gochat/layers/internal/contract"
)

// Records keeps what this node has done with its latest messages, for those who ask where one is. Its methods do not
// block, and do not keep what they are given. Ids and deliveries of what is no message have the id 0.
type Records interface {
	Consumed(id contract.MessageID, at time.Time, attempt int)
	// Bound says that the deliveries are to go to the node, Pushing that a push of them begins, Answered what it has come
	// to: results, or the code of why there are none.
	Bound(node contract.NodeRef, deliveries []contract.Delivery)
	Pushing(node contract.NodeRef, deliveries []contract.Delivery)
	Answered(node contract.NodeRef, deliveries []contract.Delivery, results []contract.PushResult, code contract.Code)
	// Kept says that the message is owed to the node.
	Kept(node contract.NodeRef, id contract.MessageID)
	// LookedAgain says that users whom no node had any more are looked for once again.
	LookedAgain(id contract.MessageID)
	// Offline and GivenUp say how messages have ended, as the ledger counts them.
	Offline(ids []contract.MessageID)
	GivenUp(ids []contract.MessageID)
	// Done says that the message is acknowledged, or why it is handed over again.
	Done(id contract.MessageID, at time.Time, code contract.Code)
}

func (t *Task) noteConsumed(items []contract.Item, deliveries []delivery) {
	now := time.Now()
	for i := range deliveries {
		t.records.Consumed(deliveries[i].Message, now, items[i].Attempt)
	}
}

// noteFailed notes a push that was given up, if it was.
func (t *Task) noteFailed(node contract.NodeRef, deliveries []contract.Delivery, err error) {
	if err != nil {
		t.records.Answered(node, deliveries, nil, contract.CodeOf(err))
	}
}

func (t *Task) noteOwedFailed(node contract.NodeRef, owed []delivery, err error) {
	for i := range owed {
		t.noteFailed(node, []contract.Delivery{owed[i].Delivery}, err)
	}
}

func (t *Task) noteDone(deliveries []delivery, err error) {
	now, code := time.Now(), contract.CodeOf(err)
	for i := range deliveries {
		t.records.Done(deliveries[i].Message, now, code)
	}
}
