package ids

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bwmarrin/snowflake"

	"gochat/layers/internal/contract"
)

func fixed(n int) func() (int, bool) { return func() (int, bool) { return n, true } }

// collect makes n ids with each source, over as many goroutines, and fails on the first that comes twice.
func collect(t *testing.T, n int, sources ...*Source) {
	t.Helper()
	made := make([][]contract.MessageID, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			for range n {
				id, err := s.Next()
				if err != nil {
					t.Errorf("next: %v", err)
					return
				}
				made[i] = append(made[i], id)
			}
		})
	}
	wg.Wait()
	seen := make(map[contract.MessageID]bool)
	for _, ids := range made {
		for i, id := range ids {
			if seen[id] {
				t.Fatalf("id %d came twice", id)
			}
			if i > 0 && id <= ids[i-1] {
				t.Fatalf("id %d follows %d", id, ids[i-1])
			}
			seen[id] = true
		}
	}
	if want := n * len(sources); len(seen) != want {
		t.Fatalf("%d ids, want %d", len(seen), want)
	}
}

func TestUniqueOverGoroutines(t *testing.T) {
	s := New(fixed(7))
	collect(t, 100_000/8, s, s, s, s, s, s, s, s)
}

func TestUniqueOverNumbers(t *testing.T) {
	collect(t, 20_000, New(fixed(0)), New(fixed(1)), New(fixed(1023)))
}

func TestNumberComesAndGoes(t *testing.T) {
	var number atomic.Int64
	number.Store(-1)
	s := New(func() (int, bool) { n := int(number.Load()); return n, n >= 0 })
	seen := map[contract.MessageID]bool{}
	for _, n := range []int64{-1, 3, 4, -1, 3, 3, 4, -1, 4} {
		number.Store(n)
		for range 500 {
			id, err := s.Next()
			if n < 0 {
				if contract.CodeOf(err) != contract.Unavailable {
					t.Fatalf("without a number: got %v, want unavailable", err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("number %d: %v", n, err)
			}
			if got := snowflake.ID(id).Node(); got != n {
				t.Fatalf("id of node %d, want %d", got, n)
			}
			if seen[id] {
				t.Fatalf("id %d came twice", id)
			}
			seen[id] = true
		}
	}
}

func TestNumberOutOfRange(t *testing.T) {
	for _, n := range []int{-1, 1024} {
		if _, err := New(fixed(n)).Next(); contract.CodeOf(err) != contract.Internal {
			t.Errorf("number %d: got %v, want an internal error", n, err)
		}
	}
}

// A clock that has stepped back is one that is behind what was used before.
func TestClockStepsBack(t *testing.T) {
	tests := []struct {
		name  string
		ahead time.Duration
		want  contract.Code
	}{
		{"a little is waited for", 20 * time.Millisecond, ""},
		{"much is refused", time.Hour, contract.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(fixed(5))
			s.last = time.Now().Add(tt.ahead).UnixMilli() - snowflake.Epoch
			before := s.last
			id, err := s.Next()
			if got := contract.CodeOf(err); got != tt.want {
				t.Fatalf("got %v, want code %q", err, tt.want)
			}
			if err == nil && int64(id)>>timeShift <= before {
				t.Errorf("id of millisecond %d, want one after %d", int64(id)>>timeShift, before)
			}
		})
	}
}

func BenchmarkNext(b *testing.B) {
	s := New(fixed(1))
	for b.Loop() {
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// The time of an id is that at which it was made.
func TestTime(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	id, err := New(func() (int, bool) { return 1023, true }).Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := Time(id); got.Before(before) || got.After(time.Now()) {
		t.Errorf("got %v, want it between %v and now", got, before)
	}
}
