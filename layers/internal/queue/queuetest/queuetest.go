// Package queuetest holds every driver of the queue to what package queue promises.
package queuetest

import (
	"testing"

	"gochat/layers/internal/queue"
)

// Harness is one broker, empty and used by one test alone.
type Harness struct {
	// New makes a further instance on the broker, publisher or consumer. All instances share one Ownership. Closing
	// it is the test's.
	New func(t *testing.T) queue.Queue
	// Partitions is how many the instances use, at least 2.
	Partitions int
	// Bound is how many items a partition may hold, at least 2,500; 0 if the driver has no bound.
	Bound int
	// Stop makes the broker unreachable, Start makes it reachable again with what it held, perhaps at another
	// address that the instances can find. Both are nil if the broker cannot.
	Stop, Start func(t *testing.T)
}

// Exercise runs the suite. It calls factory once for each test.
func Exercise(t *testing.T, factory func(t *testing.T) Harness) {
	for _, c := range []struct {
		name    string
		test    func(t *testing.T, h Harness)
		applies func(h Harness) bool
	}{
		{"nothing to publish", testEmpty, nil},
		{"bytes survive", testBytes, nil},
		{"order within a key", testOrder, nil},
		{"partitions do not wait for each other", testIndependence, nil},
		{"a handler's error", testHandlerError, nil},
		{"a consumer dies", testDeath, nil},
		{"consumers come and go", testRebalance, nil},
		{"drain", testDrain, nil},
		{"drain is bounded by the handler's context", testDrainEnds, nil},
		{"full", testFull, func(h Harness) bool { return h.Bound > 0 }},
		{"stats", testStats, nil},
		{"the broker restarts", testRestart, func(h Harness) bool { return h.Stop != nil }},
		{"the broker is away", testAway, func(h Harness) bool { return h.Stop != nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := factory(t)
			if c.applies != nil && !c.applies(h) {
				return // the driver does not promise it
			}
			c.test(t, h)
		})
	}
}

// open is an instance that is closed at the end of the test, unless the test has closed it.
func (h Harness) open(t *testing.T) queue.Queue {
	t.Helper()
	q := h.New(t)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// keyIn is a key of the partition.
func (h Harness) keyIn(partition int) string {
	for key := "a"; ; key += "a" {
		if queue.Partition(key, h.Partitions) == partition {
			return key
		}
	}
}
