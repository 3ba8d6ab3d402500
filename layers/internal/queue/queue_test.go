package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
)

func TestFailures(t *testing.T) {
	away := errors.New("away")
	for _, c := range []struct {
		name      string
		failures  queue.Failures
		published int
		told      []int // nil: it is not told which
		full      bool
	}{
		{"one of several", queue.Failures{2: away}, 3, []int{2}, false},
		{"some of several", queue.Failures{9: away, 2: away}, 3, []int{2, 9}, false},
		{"all of several: the queue is away", queue.Failures{1: away, 2: away}, 2, nil, false},
		{"the only one", queue.Failures{2: away}, 1, []int{2}, false},
		{"all are full", queue.Failures{1: queue.ErrFull, 2: queue.ErrFull}, 2, []int{1, 2}, true},
		{"one is full", queue.Failures{1: away, 2: queue.ErrFull}, 2, []int{1, 2}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.failures.Err(c.published)
			var partial *contract.PublishError
			if told := errors.As(err, &partial); told != (c.told != nil) || told && !slices.Equal(partial.Partitions, c.told) {
				t.Errorf("got %+v, want that it tells %v", err, c.told)
			}
			if errors.Is(err, queue.ErrFull) != c.full || err == nil {
				t.Errorf("got %v, want full: %t", err, c.full)
			}
		})
	}
	if err := (queue.Failures{}).Err(2); err != nil {
		t.Errorf("none failed: got %v", err)
	}
}

// The numbers are what running publishers agree on: a change of any of them reorders conversations during a
// rolling update.
func TestPartitionIsStable(t *testing.T) {
	for _, c := range []struct {
		key     string
		n, want int
	}{
		{"", 16, 1},
		{"room:1", 16, 7},
		{"room:2", 16, 2},
		{"room:42", 16, 11},
		{"dm:3:17", 16, 8},
		{"dm:3:17", 7, 0},
		{"\x00\xff", 16, 7},
		{"room:1", 1, 0},
	} {
		if got := queue.Partition(c.key, c.n); got != c.want {
			t.Errorf("Partition(%q, %d) = %d, want %d", c.key, c.n, got, c.want)
		}
	}
}

func TestPartitionSpreadsEvenly(t *testing.T) {
	const n, keys = 16, 16_000
	for _, format := range []string{"room:%d", "dm:%[1]d:9%[1]d"} {
		var counts [n]int
		for i := range keys {
			counts[queue.Partition(fmt.Sprintf(format, i+1), n)]++
		}
		for p, got := range counts {
			if mean := keys / n; got < mean*8/10 || got > mean*12/10 {
				t.Errorf("%s: partition %d has %d of %d keys, want within a fifth of %d", format, p, got, keys, mean)
			}
		}
	}
}
