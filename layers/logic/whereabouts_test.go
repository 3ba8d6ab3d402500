package logic

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// at is what the node knows of a message.
func at(t *testing.T, l *Logic, id contract.MessageID) *contract.LogicWhereabouts {
	t.Helper()
	known, err := l.Whereabouts(t.Context(), &contract.WhereaboutsRequest{Message: id})
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// TestWhereabouts: what is stored, and when the node has accepted, committed and published it.
func TestWhereabouts(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann := register(t, l, "ann")
	sent := ann.say(t, l, 1, "hello")
	var known *contract.LogicWhereabouts
	eventually(t, "it is published, and out of the outbox", func() bool {
		known = at(t, l, sent.ID)
		return known.Record != nil && known.Record.Published > 0 && known.Stored != nil && !known.Stored.WaitsInOutbox
	})
	r := known.Record
	if r.AcceptedAt.IsZero() || r.CommittedAt.Before(r.AcceptedAt) || r.FirstPublishedAt.Before(r.CommittedAt) || r.LastPublishedAt != r.FirstPublishedAt ||
		r.Batch != 1 || r.Published != 1 || r.By != contract.PublishedAtOnce {
		t.Errorf("got %+v", r)
	}
	want := contract.StoredMessage{ID: sent.ID, Conversation: "room:1", Seq: 1, From: ann.User, FromName: "ann", CreatedAt: sent.CreatedAt}
	if *known.Stored != want || known.Away || known.Since.IsZero() {
		t.Errorf("got %+v %+v, want %+v", known, known.Stored, want)
	}
	if known := at(t, l, 12345); known.Stored != nil || known.Record != nil || known.Away {
		t.Errorf("of an id that nothing has, got %+v", known)
	}
}

// TestWhereaboutsOfABatch: each knows how many were committed with it; a message that was sent twice is one.
func TestWhereaboutsOfABatch(t *testing.T) {
	h := newHouse(t)
	stored := gate(h.store)
	h.deps.Store = stored
	l := h.running(t)
	ann := register(t, l, "ann")
	receipts := make(chan *contract.Receipt, 4)
	send := func(clientID string) {
		r, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, Room: 1, Text: "x", ClientID: clientID})
		if err != nil {
			t.Error(err)
			r = &contract.Receipt{}
		}
		receipts <- r
	}
	go send("first")
	<-stored.entered // the first waits alone in its commit, while the others gather
	for _, id := range []string{"a", "b", "a"} {
		go send(id)
	}
	eventually(t, "the others wait", func() bool { return len(l.committer.waiting) == 3 })
	close(stored.enter)
	var batches []int
	ids := make(map[contract.MessageID]bool)
	for range 4 {
		r := <-receipts
		if known := at(t, l, r.ID); known.Record == nil {
			t.Errorf("nothing on record of %d", r.ID)
		} else if !ids[r.ID] {
			batches = append(batches, known.Record.Batch)
		}
		ids[r.ID] = true
	}
	if slices.Sort(batches); !slices.Equal(batches, []int{1, 3, 3}) {
		t.Errorf("committed with %v, want one alone, and the others in a batch of 3", batches)
	}
}

// TestWhereaboutsBehind: while the queue takes nothing, a message is in the outbox and not published; then it is, from there.
func TestWhereaboutsBehind(t *testing.T) {
	h := newHouse(t)
	h.queue.failing(func([]contract.Item) error { return errAway })
	l := h.running(t)
	sent := register(t, l, "ann").say(t, l, 1, "hello")
	eventually(t, "the publisher is behind", l.committer.publisher.isBehind)
	if known := at(t, l, sent.ID); known.Record.Published != 0 || !known.Stored.WaitsInOutbox {
		t.Errorf("got %+v, %+v, want it in the outbox", known.Record, known.Stored)
	}
	h.queue.failing(nil)
	eventually(t, "it is published", func() bool { return at(t, l, sent.ID).Record.Published > 0 })
	if r := at(t, l, sent.ID).Record; r.By != contract.PublishedFromBox || r.CommittedAt.IsZero() {
		t.Errorf("got %+v, want it from the outbox", r)
	}
}

// TestWhereaboutsOfSwept: who publishes what a dead node left says so, and not that it has accepted it.
func TestWhereaboutsOfSwept(t *testing.T) {
	h := newHouse(t)
	h.deps.Singleton = everybody{}
	leave(t, h, "room:1", 1, time.Now().Add(-time.Hour))
	rows, err := h.store.Outbox(t.Context(), 0, 1<<40, 1)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	l := h.running(t)
	id := rows[0].Message.ID
	eventually(t, "it is swept", func() bool { return at(t, l, id).Record != nil })
	if r := at(t, l, id).Record; r.By != contract.PublishedBySweep || r.Published != 1 || !r.AcceptedAt.IsZero() {
		t.Errorf("got %+v", r)
	}
}

// TestWhereaboutsTwice: a message that is published again, since the answer got lost, says so.
func TestWhereaboutsTwice(t *testing.T) {
	h := newHouse(t)
	l := h.logic(t)
	p := l.committer.publisher
	p.note([]outgoing{{message: 7}}, contract.PublishedAtOnce)
	p.note([]outgoing{{message: 7}}, contract.PublishedFromBox)
	if r := at(t, l, 7).Record; r.Published != 2 || r.By != contract.PublishedFromBox {
		t.Errorf("got %+v", r)
	}
}

// TestWhereaboutsWithoutDatabase: what is on record is answered while the database is away.
func TestWhereaboutsWithoutDatabase(t *testing.T) {
	h := newHouse(t)
	away := &awayStore{Store: h.store}
	h.deps.Store = away
	l := h.running(t)
	sent := register(t, l, "ann").say(t, l, 1, "hello")
	away.is.Store(true)
	if known := at(t, l, sent.ID); !known.Away || known.Stored != nil || known.Record == nil {
		t.Errorf("got %+v", known)
	}
}

// awayStore does not tell what is stored while it is away.
type awayStore struct {
	Store
	is atomic.Bool
}

func (s *awayStore) Stored(ctx context.Context, id contract.MessageID) (contract.StoredMessage, error) {
	if s.is.Load() {
		return contract.StoredMessage{}, errors.New("the database is away")
	}
	return s.Store.Stored(ctx, id)
}
