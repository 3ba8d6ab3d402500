package checker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const room = "room:1"

// world is a run in which nothing went wrong: two people, three connections, four messages.
type world struct {
	*Checker
	ann, bob *Client
}

func message(seq int64, from int64) Message {
	return Message{ID: fmt.Sprint("id", seq), Conversation: room, Seq: seq, From: from, ClientID: fmt.Sprint("c", seq), Text: fmt.Sprint("text ", seq)}
}

func healthy(change func(seq int64, to string, m Message) []Message) *world {
	w := &world{Checker: New()}
	w.ann, w.bob = w.Client("ann", 1, map[string]int64{room: 0}), w.Client("bob", 2, map[string]int64{room: 0})
	w.ann.Connected()
	w.bob.Connected()
	for seq := int64(1); seq <= 4; seq++ {
		from := seq%2 + 1
		m := message(seq, from)
		w.Sending(from, m.ClientID, m.Text, 0)
		w.Acknowledged(from, m.ClientID, Receipt{m.ID, room, seq})
		if seq == 3 {
			w.bob.Connected()
		}
		for name, cl := range map[string]*Client{"ann": w.ann, "bob": w.bob} {
			for _, m := range change(seq, name, m) {
				cl.Received(m)
			}
		}
	}
	return w
}

func asItWas(_ int64, _ string, m Message) []Message { return []Message{m} }

func kinds(violations []Violation) []Kind {
	var all []Kind
	for _, v := range violations {
		all = append(all, v.Kind)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestHealthyRun(t *testing.T) {
	w := healthy(asItWas)
	if got := w.Verify(); len(got) != 0 {
		t.Errorf("got\n%s\nwant nothing", Report(got))
	}
	if sends, acknowledged, received := w.Count(); sends != 4 || acknowledged != 4 || received != 8 {
		t.Errorf("counted %d sends, %d acknowledged, %d received; want 4, 4, 8", sends, acknowledged, received)
	}
	if got := w.bob.Has(room); got != 4 {
		t.Errorf("bob has %d, want 4", got)
	}
}

// TestPlanted changes what bob is given.
func TestPlanted(t *testing.T) {
	at := func(which int64, change func(Message) []Message) func(int64, string, Message) []Message {
		return func(seq int64, to string, m Message) []Message {
			if seq == which && to == "bob" {
				return change(m)
			}
			return []Message{m}
		}
	}
	var held []Message
	for _, c := range []struct {
		name   string
		change func(int64, string, Message) []Message
		want   []Kind
		says   string
	}{
		// Bob's own 1 and 3 he knows by their acknowledgement, so 2 and 4 are what he can lack.
		{"the last is lost", at(4, func(Message) []Message { return nil }), []Kind{Lost}, "bob has not got room:1 4"},
		{"one in the middle is lost", at(2, func(Message) []Message { return nil }), []Kind{Hole, Lost}, "without 2"},
		{"twice on one connection", at(2, func(m Message) []Message { return []Message{m, m} }), []Kind{Repeated}, "twice"},
		{"two messages under one seq", at(2, func(m Message) []Message { m.ID = "other"; m.ClientID = ""; return []Message{m} }), []Kind{Disagree, Invented}, "other"},
		{"another text", at(2, func(m Message) []Message { m.Text = "forged"; return []Message{m} }), []Kind{Disagree, Invented}, "forged"},
		{"one message under two seqs", at(4, func(m Message) []Message { n := m; n.Seq = 5; return []Message{m, n} }), []Kind{Doubled, Lost}, "room:1 5"},
		{"one send as two messages", at(4, func(m Message) []Message { n := m; n.Seq, n.ID = 5, "id5"; return []Message{m, n} }), []Kind{Doubled}, "id5"},
		{"out of order", func(seq int64, to string, m Message) []Message {
			if to != "bob" || seq < 3 {
				return []Message{m}
			}
			if held = append(held, m); seq == 3 {
				return nil
			}
			return []Message{held[1], held[0]}
		}, []Kind{Disorder}, "3 after 4"},
		{"from somebody else", at(2, func(m Message) []Message { m.From = 7; return []Message{m} }), []Kind{Disagree, SpokenFor}, "as of 7"},
		{"sent by nobody", at(4, func(m Message) []Message {
			return []Message{m, {ID: "x", Conversation: room, Seq: 5, From: 9, ClientID: "x", Text: "who said that?"}}
		}), []Kind{Invented}, "nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := healthy(c.change).Verify()
			if !slices.Equal(kinds(got), c.want) || !strings.Contains(Report(got), c.says) {
				t.Errorf("got\n%s\nwant %v and %q", Report(got), c.want, c.says)
			}
		})
	}
}

// TestRetries: the answers to one send must be one message; what was never acknowledged may be missing for all, but not
// for some.
func TestRetries(t *testing.T) {
	w := healthy(asItWas)
	w.Acknowledged(2, "c1", Receipt{"id1", room, 1})
	w.Sending(1, "unsure", "never answered", 0)
	if got := w.Verify(); len(got) != 0 {
		t.Errorf("got\n%s\nwant nothing", Report(got))
	}
	w.Acknowledged(2, "c1", Receipt{"id9", room, 9})
	if got := kinds(w.Verify()); !slices.Equal(got, []Kind{Doubled, Hole, Lost}) {
		t.Errorf("a second message for one send: got %v, want it doubled and lost to ann, with a hole before it", got)
	}

	w = healthy(asItWas)
	w.Sending(2, "unsure", "unsure", 0)
	w.Sending(1, "c6", "text 6", 0)
	w.ann.Received(Message{ID: "id5", Conversation: room, Seq: 5, From: 2, ClientID: "unsure", Text: "unsure"})
	for _, cl := range []*Client{w.ann, w.bob} {
		cl.Received(Message{ID: "id6", Conversation: room, Seq: 6, From: 1, ClientID: "c6", Text: "text 6"})
	}
	if got := kinds(w.Verify()); !slices.Equal(got, []Kind{Hole}) {
		t.Errorf("stored, unacknowledged, and given to one of two: got %v, want a hole", got)
	}
}

// TestPrivate plants what may go wrong with a message of ann to bob, in a house with a third.
func TestPrivate(t *testing.T) {
	const ann, bob, eve = 1, 2, 3
	for _, c := range []struct {
		name     string
		where    string // the conversation in which it is acknowledged and given
		givenTo  []int64
		to       int64
		want     []Kind
		mustSays string
	}{
		{"as it should be", "dm:1:2", []int64{ann, bob}, bob, nil, ""},
		{"the sender has the acknowledgement", "dm:1:2", []int64{bob}, bob, nil, ""},
		{"a note to oneself", "dm:1:1", []int64{ann}, ann, nil, ""},
		{"to the room", room, []int64{ann, bob, eve}, 0, nil, ""},
		{"a third is given it too", "dm:1:2", []int64{ann, bob, eve}, bob, []Kind{Leaked}, "eve on connection 1 was given message id, which 1 sent to 2 alone"},
		{"a third is given it in place of the second", "dm:1:3", []int64{ann, eve}, bob, []Kind{Leaked, Misplaced}, "want dm:1:2"},
		{"the room is given it", room, []int64{ann, bob, eve}, bob, []Kind{Leaked, Misplaced}, "to 2 is for"},
		{"what is for all goes to one", "dm:1:2", []int64{bob}, 0, []Kind{Misplaced}, "to a room is for"},
		{"acknowledged elsewhere, given to nobody", "dm:1:1", nil, bob, []Kind{Misplaced}, "want dm:1:2"},
		{"the second lacks it", "dm:1:2", nil, bob, []Kind{Lost}, "bob has not got dm:1:2 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := New()
			w.Sending(ann, "c", "secret", c.to)
			w.Acknowledged(ann, "c", Receipt{"id", c.where, 1})
			for user, name := range map[int64]string{ann: "ann", bob: "bob", eve: "eve"} {
				due := map[string]int64{}
				if c.where == Direct(ann, bob) && user != eve && c.to != 0 {
					due[c.where] = 0
				}
				cl := w.Client(name, user, due)
				cl.Connected()
				if slices.Contains(c.givenTo, user) {
					cl.Received(Message{ID: "id", Conversation: c.where, Seq: 1, From: ann, ClientID: "c", Text: "secret"})
				}
			}
			got := w.Verify()
			if !slices.Equal(kinds(got), c.want) || !strings.Contains(Report(got), c.mustSays) {
				t.Errorf("got\n%s\nwant %v and %q", Report(got), c.want, c.mustSays)
			}
		})
	}
}

// TestOnlyWhatIsDue: a client that joined later lacks nothing of what was before.
func TestOnlyWhatIsDue(t *testing.T) {
	w := healthy(asItWas)
	late := w.Client("late", 3, map[string]int64{room: 2})
	late.Connected()
	late.Received(message(3, 2))
	late.Received(message(4, 1))
	if got := w.Verify(); len(got) != 0 {
		t.Errorf("got\n%s\nwant nothing", Report(got))
	}
	if got := late.Has(room); got != 4 {
		t.Errorf("late has %d, want 4", got)
	}
}

// TestBounded tells the first of many.
func TestBounded(t *testing.T) {
	w := New()
	cl := w.Client("ann", 1, map[string]int64{room: 0})
	cl.Connected()
	for seq := int64(1); seq <= 100; seq++ {
		w.Sending(1, fmt.Sprint("c", seq), "x", 0)
		w.Acknowledged(1, fmt.Sprint("c", seq), Receipt{fmt.Sprint(seq), room, seq})
	}
	bob := w.Client("bob", 2, map[string]int64{room: 0})
	bob.Connected()
	got := w.Verify()
	if len(got) != maxOfKind+1 || !strings.Contains(Report(got), "and 90 more") {
		t.Errorf("got %d lines:\n%s", len(got), Report(got))
	}
}
