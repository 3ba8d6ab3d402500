package logic

import (
	"context"
	"time"

	"gochat/layers/internal/contract"
)

// Records keeps what this node has done with its latest messages, for those who ask where one is. Its methods do not
// block.
type Records interface {
	Committed(id contract.MessageID, accepted, committed time.Time, batch int)
	Published(id contract.MessageID, at time.Time, by contract.PublishedBy)
	// Find answers the record, nil if there is none, and from when on every message is on record; zero if nothing is kept.
	Find(id contract.MessageID) (*contract.LogicRecord, time.Time)
}

// noRecords keeps nothing.
type noRecords struct{}

func (noRecords) Committed(contract.MessageID, time.Time, time.Time, int)       {}
func (noRecords) Published(contract.MessageID, time.Time, contract.PublishedBy) {}
func (noRecords) Find(contract.MessageID) (_ *contract.LogicRecord, _ time.Time) {
	return nil, time.Time{}
}

// note tells the records what the queue has.
func (p *publisher) note(held []outgoing, by contract.PublishedBy) {
	now := time.Now()
	for i := range held {
		p.records.Published(held[i].message, now, by)
	}
}

// Whereabouts implements contract.LogicService.
func (l *Logic) Whereabouts(ctx context.Context, r *contract.WhereaboutsRequest) (*contract.LogicWhereabouts, error) {
	known := &contract.LogicWhereabouts{}
	known.Record, known.Since = l.committer.publisher.records.Find(r.Message)
	stored, err := l.deps.Store.Stored(ctx, r.Message)
	switch contract.CodeOf(err) {
	case "":
		known.Stored = &stored
	case contract.NotFound:
	default: // the record is what an operator has while the database is away
		l.tel.Log.WarnContext(ctx, "stored message not loaded", "msg_id", r.Message, "err", err)
		known.Away = true
	}
	return known, nil
}
