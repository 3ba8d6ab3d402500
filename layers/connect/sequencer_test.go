package connect

import (
	"context"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

func newTestSequencer(at int64) *sequencer {
	return newSequencer(func(context.Context, contract.Conversation) (int64, error) { return at, nil })
}

// TestForgetsTheOldest has one conversation more than is kept of a user: the one that was silent longest is forgotten.
func TestForgetsTheOldest(t *testing.T) {
	s := newTestSequencer(0)
	s.arriveUser(1)
	with := func(other int) contract.Conversation { return contract.DirectConversation(1, contract.UserID(other)) }
	pushed := func(other int, seq int64) verdict {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.admitUser(&contract.Delivery{Conversation: with(other), Seq: seq, AcceptedAt: time.Now().Add(time.Second)}, 1)
	}
	for i := range maxUserHeads {
		pushed(i+2, 1)
		if i == 0 {
			pushed(2, 9) // is repaired from now on
		}
		s.recent(false)
	}
	pushed(3, 2) // has news
	for i, oldest := range []int{4, 5} {
		pushed(maxUserHeads+2+i, 1)
		s.recent(false)
		heads := s.users[1].heads
		if len(heads) != maxUserHeads {
			t.Errorf("%d conversations are kept, want %d", len(heads), maxUserHeads)
		}
		if heads[with(oldest)] != nil {
			t.Errorf("the conversation with %d, which was silent longest, is kept", oldest)
		}
		for other := range maxUserHeads + i {
			if other += 2; heads[with(other)] == nil && (other < 4 || other > oldest) {
				t.Errorf("the conversation with %d is forgotten", other)
			}
		}
	}
}

// TestManyAtOnce has more conversations be heard of for the first time, by one push, than are kept of a user.
func TestManyAtOnce(t *testing.T) {
	logic, s := stocked(nil)
	const many = maxUserHeads + 44
	for other := range many {
		s.add(contract.DirectConversation(2, contract.UserID(other+3)), "stored before")
	}
	n := startNode(t, logic, func(c *Connect) { c.cfg.Repair = time.Hour })
	conn := member(t, n, 2)
	var pushed []contract.Delivery
	for other := range many {
		d := s.add(contract.DirectConversation(2, contract.UserID(other+3)), "x")
		d.Users = []contract.UserID{2}
		pushed = append(pushed, d)
	}
	n.push(t, pushed...)
	for _, d := range pushed {
		awaitSeqs(t, conn, d.Conversation, 2)
	}
}

// TestCompare says when a conversation that is behind is repaired. Each step is a comparison 3 s after the last; before
// it, messages up to pushed come, which were under way so long.
func TestCompare(t *testing.T) {
	type step struct {
		pushed int64
		delay  time.Duration
		ahead  int64 // logic's head
		putOff bool
		repair bool
	}
	for name, steps := range map[string][]step{
		"nothing is missing":        {{pushed: 1, ahead: 1}, {pushed: 5, ahead: 5}, {ahead: 5}},
		"a message was missed":      {{pushed: 1, ahead: 2}, {ahead: 2, repair: true}},
		"it comes":                  {{pushed: 1, ahead: 2}, {pushed: 2, ahead: 2}, {ahead: 2}},
		"others come before it":     {{pushed: 1, ahead: 9}, {pushed: 4, ahead: 9, putOff: true}, {ahead: 9, repair: true}},
		"the queue is behind":       {{pushed: 1, delay: 7 * time.Second, ahead: 3}, {ahead: 3, putOff: true}, {pushed: 3, ahead: 3}},
		"it is behind, and no more": {{pushed: 1, delay: 7 * time.Second, ahead: 3}, {ahead: 3, putOff: true}, {ahead: 3, putOff: true}, {ahead: 3, repair: true}},
		"far behind, for a minute": append(append([]step{{pushed: 1, delay: time.Hour, ahead: 3}},
			repeat(step{delay: time.Hour, ahead: 3, putOff: true}, 19)...), step{delay: time.Hour, ahead: 3, repair: true}),
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSequencer(0)
			if err := s.arrive(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			of, now, last := subject{conversation: "room:1", room: 1}, time.Now(), int64(0)
			for i, step := range steps {
				s.mu.Lock()
				for last < step.pushed {
					last++
					s.admitRoom(&contract.Delivery{Conversation: "room:1", Room: 1, Seq: last})
				}
				if step.delay > 0 {
					s.noteDelay(&contract.Delivery{AcceptedAt: time.Now().Add(-step.delay)}) // of any conversation
				}
				s.mu.Unlock()
				if _, compared := s.recent(false)["room:1"]; !compared {
					t.Fatalf("step %d: it is not compared", i)
				}
				if got := s.compare(of, step.ahead, now); got != step.putOff {
					t.Errorf("step %d: put off is %v, want %v", i, got, step.putOff)
				}
				if got := len(s.takeDue()) == 1; got != step.repair {
					t.Errorf("step %d: repair is %v, want %v", i, got, step.repair)
				}
				now = now.Add(3 * time.Second)
			}
		})
	}
}

func repeat[T any](one T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = one
	}
	return all
}
