package logic

import (
	"context"
	"slices"
	"testing"

	"gochat/layers/internal/contract"
)

// A direct message of a caller that does not know the conversation goes, once, by way of the node that its conversation
// prefers: with the session's user. All else is for this node.
func TestDirectMessagesArePassedOn(t *testing.T) {
	h := newHouse(t)
	l := h.running(t)
	ann, bob := register(t, l, "ann"), register(t, l, "bob")
	var passed []contract.SendRequest
	h.told.send = func(ctx context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		passed = append(passed, *r)
		if len(passed) > 1 {
			return nil, contract.Errorf(contract.Internal, "passed on again")
		}
		return l.Send(ctx, r)
	}
	for _, c := range []struct {
		name string
		send contract.SendRequest
		want []contract.SendRequest // without a credential, which is the session's own
	}{
		{"direct, of a caller that does not know", contract.SendRequest{To: bob.User, Text: "a", ClientID: "1", Origin: "c1"},
			[]contract.SendRequest{{From: ann.User, To: bob.User, Text: "a", ClientID: "1", Origin: "c1"}}},
		{"direct, of one that knows", contract.SendRequest{From: ann.User, To: bob.User, Text: "b"}, nil},
		{"direct, of one that is mistaken", contract.SendRequest{From: bob.User, To: bob.User, Text: "c"}, nil},
		{"to a room", contract.SendRequest{Room: contract.Lobby, Text: "d"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			passed = nil
			c.send.Credential = ann.by
			asked := c.send
			receipt, err := l.Send(t.Context(), &asked)
			if err != nil {
				t.Fatal(err)
			}
			want := contract.RoomConversation(c.send.Room)
			if c.send.To != 0 {
				want = contract.DirectConversation(ann.User, bob.User)
			}
			if receipt.Conversation != want {
				t.Errorf("it is in %s, want %s", receipt.Conversation, want)
			}
			for i := range c.want {
				c.want[i].Credential = ann.by
			}
			if !slices.Equal(passed, c.want) {
				t.Errorf("passed on %+v, want %+v", passed, c.want)
			}
			if asked != c.send {
				t.Errorf("the caller's request has become %+v, want %+v", asked, c.send)
			}
		})
	}
	t.Run("nobody's", func(t *testing.T) {
		passed = nil
		_, err := l.Send(t.Context(), &contract.SendRequest{Credential: contract.Credential{Token: "?"}, To: bob.User, Text: "x"})
		wantCode(t, err, contract.Unauthenticated)
		if len(passed) != 0 {
			t.Errorf("passed on %+v, want nothing", passed)
		}
	})
}
