package queue_test

import (
	"fmt"
	"testing"

	"gochat/layers/internal/queue"
)

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
