package terminal

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gochat/layers/connect/wire"
)

func seqsOf(messages []wire.Message) []int64 {
	var list []int64
	for _, m := range messages {
		list = append(list, m.Seq)
	}
	return list
}

func upTo(from, to int64) []int64 {
	var list []int64
	for seq := from; seq <= to; seq++ {
		list = append(list, seq)
	}
	return list
}

// TestOrder gives messages in any order, several times each: each is printed once, in order.
func TestOrder(t *testing.T) {
	const after, last = 7, 60
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		var coming []int64
		for range 3 {
			coming = append(coming, upTo(1, last)...)
		}
		random.Shuffle(len(coming), func(i, j int) { coming[i], coming[j] = coming[j], coming[i] })
		c := newConversation(after)
		var printed []int64
		for _, seq := range coming {
			printed = append(printed, seqsOf(c.add(time.Time{}, wire.Message{Seq: seq}))...)
		}
		if want := upTo(after+1, last); !slices.Equal(printed, want) {
			t.Fatalf("seed %d: printed %v, want %v", seed, printed, want)
		}
	}
}

func TestHole(t *testing.T) {
	start := time.Unix(1000, 0)
	c := newConversation(0)
	add := func(at time.Time, seq int64, want ...int64) {
		t.Helper()
		if got := seqsOf(c.add(at, wire.Message{Seq: seq})); !slices.Equal(got, want) {
			t.Errorf("seq %d: printed %v, want %v", seq, got, want)
		}
	}
	asks := func(at time.Time, want bool) {
		t.Helper()
		if got := c.holeLasts(at); got != want {
			t.Errorf("%v after the start: asks %v, want %v", at.Sub(start), got, want)
		}
	}
	add(start, 1, 1)
	asks(start.Add(time.Hour), false)
	add(start, 3)
	add(start, 4)
	asks(start.Add(holeLimit/2), false)
	asks(start.Add(holeLimit), true)
	c.askedAt = start.Add(holeLimit)
	asks(start.Add(holeLimit+askAgain/2), false)
	asks(start.Add(holeLimit+askAgain), true)
	add(start, 2, 2, 3, 4)
	asks(start.Add(time.Hour), false)

	// The store has no 5: its word ends the wait for it.
	add(start, 6)
	add(start, 8)
	if got := seqsOf(c.settle(start, 6)); !slices.Equal(got, []int64{6}) {
		t.Errorf("settled: printed %v, want 6", got)
	}
	if got := c.settle(start, 5); got != nil {
		t.Errorf("an older word printed %v", got)
	}
	add(start, 5)
	add(start, 7, 7, 8)
}

// TestHeldIsBounded has a hole with more behind it than is held: what was not held comes again by replay.
func TestHeldIsBounded(t *testing.T) {
	c := newConversation(0)
	for seq := int64(2); seq <= 2*maxHeld; seq++ {
		c.add(time.Time{}, wire.Message{Seq: seq})
	}
	if len(c.held) != maxHeld {
		t.Errorf("holds %d messages, want %d", len(c.held), maxHeld)
	}
	var printed []int64
	for seq := int64(1); seq <= 2*maxHeld; seq++ {
		printed = append(printed, seqsOf(c.add(time.Time{}, wire.Message{Seq: seq}))...)
	}
	if want := upTo(1, 2*maxHeld); !slices.Equal(printed, want) {
		t.Errorf("printed %v, want %v", printed, want)
	}
}
