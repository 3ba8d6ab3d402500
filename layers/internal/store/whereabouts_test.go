package store

import (
	"testing"

	"gochat/layers/internal/contract"
)

func testStored(t *testing.T, s *Store) {
	ann, bob := user(t, s, "ann"), user(t, s, "bob")
	room, direct := message(ann.ID, "room:1"), message(ann.ID, contract.DirectConversation(ann.ID, bob.ID))
	direct.To = bob.ID
	results := mustCommit(t, s, room, message(ann.ID, "room:1"), direct)
	for i, want := range []contract.StoredMessage{
		{Conversation: "room:1", Seq: 1, From: ann.ID, FromName: "ann", WaitsInOutbox: true},
		{Conversation: "room:1", Seq: 2, From: ann.ID, FromName: "ann", WaitsInOutbox: true},
		{Conversation: direct.Conversation, Seq: 1, From: ann.ID, FromName: "ann", To: bob.ID, ToName: "bob", WaitsInOutbox: true},
	} {
		stored := &results[i].Message
		want.ID, want.CreatedAt, want.Traceparent = stored.ID, stored.CreatedAt, stored.Traceparent
		if got, err := s.Stored(t.Context(), want.ID); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if err := s.DeleteOutbox(t.Context(), []contract.OutboxPosition{results[i].Outbox}); err != nil {
			t.Fatal(err)
		}
		want.WaitsInOutbox = false
		if got, err := s.Stored(t.Context(), want.ID); err != nil || got != want {
			t.Errorf("out of the outbox: got %+v, %v, want %+v", got, err, want)
		}
	}
	_, err := s.Stored(t.Context(), 1)
	wantCode(t, err, contract.NotFound)
}
