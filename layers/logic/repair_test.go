package logic

import (
	"slices"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// TestForRepairs asks for what a connect node needs to find what it has missed.
func TestForRepairs(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	say := func() *contract.Receipt {
		r, err := l.Send(t.Context(), &contract.SendRequest{Credential: ann.by, To: bob.User, Text: "x", Origin: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	say()
	say()
	time.Sleep(2 * time.Millisecond) // times are kept in milliseconds
	since := time.Now()
	time.Sleep(2 * time.Millisecond)
	direct := say().Conversation
	say()

	heads, err := l.ConversationHeads(t.Context(), &contract.ConversationHeadsRequest{Conversations: []contract.Conversation{direct, "room:9"}})
	if err != nil || len(heads.Heads) != 1 || heads.Heads[direct] != 4 {
		t.Errorf("heads: got %v, %v", heads, err)
	}
	for _, c := range []struct {
		since time.Time
		want  []contract.UserHead
	}{
		{since, []contract.UserHead{{User: bob.User, Conversation: direct, Last: 4}}},
		{time.Now().Add(time.Hour), nil},
	} {
		got, err := l.DirectHeads(t.Context(), &contract.DirectHeadsRequest{Users: []contract.UserSince{{User: bob.User, Since: c.since}}})
		if err != nil || !slices.Equal(got.Heads, c.want) {
			t.Errorf("since %v: got %v, %v, want %v", c.since, got, err, c.want)
		}
	}
	if _, err := l.DirectHeads(t.Context(), &contract.DirectHeadsRequest{Users: make([]contract.UserSince, contract.MaxHeads+1)}); contract.CodeOf(err) != contract.BadRequest {
		t.Errorf("too many users: %v", err)
	}
	for _, c := range []struct {
		name string
		ask  contract.DeliveriesRequest
		want []int64
	}{
		{"after", contract.DeliveriesRequest{After: 1, Limit: 2}, []int64{2, 3}},
		{"since", contract.DeliveriesRequest{Since: since, Before: 9, Limit: 9}, []int64{3, 4}},
		{"since, but from what was pushed", contract.DeliveriesRequest{Since: since, Before: 2, Limit: 9}, []int64{2, 3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.ask.Conversation = direct
			got, err := l.Deliveries(t.Context(), &c.ask)
			if err != nil {
				t.Fatal(err)
			}
			var seqs []int64
			for _, d := range got.Deliveries {
				seqs = append(seqs, d.Seq)
				if d.Except != "" || !slices.Equal(d.Users, []contract.UserID{bob.User, ann.User}) {
					t.Errorf("got %+v, want it to be for both, on all connections", d)
				}
			}
			if !slices.Equal(seqs, c.want) {
				t.Errorf("got %v, want %v", seqs, c.want)
			}
		})
	}
}
