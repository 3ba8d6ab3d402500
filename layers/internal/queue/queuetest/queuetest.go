// Package queuetest holds every driver of the queue to what package queue promises.
package queuetest

import (
	"fmt"
	"testing"

	"gochat/layers/internal/queue"
)

// Harness is one broker, empty and used by one test alone.
type Harness struct {
	// New makes a further instance on the broker, publisher or consumer. All instances share one Ownership. Closing
	// it is the test's.
	New func(t *testing.T) queue.Queue
	// Partitions is how many the instances use, at least 2; their Tries are fewer than 8.
	Partitions int
	// Bound is how many items a partition may hold, at least 2,500; 0 if the driver has no bound.
	Bound int
	// ReaderKnows is true if the broker does not tell what was read and how old the oldest item is. Then the instance
	// that reads a partition tells, and to others Depth is what nobody has read, Pending and OldestAge are 0.
	ReaderKnows bool
	// ReadsAhead is true if Attempt counts the readers that have had an item, whether or not they handed it over.
	ReadsAhead bool
	// Stop makes the broker unreachable, Start makes it reachable again with what it held, perhaps at another
	// address that the instances can find. Both are nil if the broker cannot.
	Stop, Start func(t *testing.T)
}

// Exercise runs the suite. It calls factory once for each test, and once before to see which tests apply.
func Exercise(t *testing.T, factory func(t *testing.T) Harness) {
	is := factory(t)
	for _, c := range []struct {
		name    string
		applies bool
		test    func(t *testing.T, h Harness)
	}{
		{"nothing to publish", true, testEmpty},
		{"bytes survive", true, testBytes},
		{"order within a key", true, testOrder},
		{"partitions do not wait for each other", true, testIndependence},
		{"a handler's error", true, testHandlerError},
		{"what was not handed over", true, testFirst},
		{"a consumer dies", true, testDeath},
		{"consumers come and go", true, testRebalance},
		{"whatever consumers do", true, testHistories},
		{"drain", true, testDrain},
		{"drain is bounded by the handler's context", true, testDrainEnds},
		{"an item at fault", true, testFaultyItem},
		{"an outage of what the handler rests on", true, testOutage},
		{"full", is.Bound > 0, testFull},
		{"stats", true, testStats},
		{"the broker restarts", is.Stop != nil, testRestart},
		{"the broker is away", is.Stop != nil, testAway},
	} {
		if c.applies {
			t.Run(c.name, func(t *testing.T) { c.test(t, factory(t)) })
		}
	}
}

// open is an instance that is closed at the end of the test, unless the test has closed it.
func (h Harness) open(t *testing.T) queue.Queue {
	t.Helper()
	q := h.New(t)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// keys are one of each partition, with that prefix.
func (h Harness) keys(prefix string) []string {
	all := make([]string, h.Partitions)
	for i, missing := 0, h.Partitions; missing > 0; i++ {
		key := fmt.Sprint(prefix, i)
		if p := queue.Partition(key, h.Partitions); all[p] == "" {
			all[p] = key
			missing--
		}
	}
	return all
}

// keyIn is a key of the partition.
func (h Harness) keyIn(partition int) string {
	for key := "a"; ; key += "a" {
		if queue.Partition(key, h.Partitions) == partition {
			return key
		}
	}
}
