// Package queue is the seam between logic, which publishes deliveries, and task, which consumes them.
//
// Every driver promises the same, and queuetest.Exercise holds it to that:
//
//   - At least once. What Publish has accepted is handed to a handler until a handler has returned nil for it. A
//     consumer that dies leaves what it held to the next owner of the partition.
//   - In order within a key. Items of one key are in one partition; a partition has one reader, which hands its items
//     over in the order they arrived and goes back to the oldest unacknowledged one after any failure. An item may
//     come twice, but never before one of the same key that was published earlier has been acknowledged.
//   - Bounded. A partition that holds as many items as it may refuses more with ErrFull.
//   - Unblocked. An item that is itself at fault is set aside after some tries, where people can look at it, and
//     what follows goes on. A handler that fails for any other reason is asked for ever.
//   - Patient. A broker that goes away, comes back, or comes back empty needs no restart of gochat.
//
// Order across a change of owner rests on Ownership: where two instances hold a partition at once, both may hand
// over the same items.
package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gochat/layers/internal/contract"
)

// ErrFull says that a partition has reached its bound. Nothing was added to that partition; publish again later.
var ErrFull = errors.New("queue partition is full")

// Item is one unit of work. Key, Headers and Body may hold any bytes.
type Item = contract.Item

// Handler takes items of one partition, in order. Nil acknowledges them all. An error acknowledges none: they are
// handed over again after a pause, in order, before anything newer of that partition. Calls for one partition
// never overlap, calls for different partitions do. The items belong to the handler. An ItemError says which item is
// at fault; a panic, that one is: see Readings.HandOver.
//
// The handler's ctx outlives Consume's, so that work in flight can be finished, and ends when the driver's bound
// on draining has passed. It carries the values of the ctx that Ownership gave.
type Handler = contract.Handler

// Queue is one instance's access to the queue. All methods may be called concurrently, Consume once at a time.
type Queue interface {
	// Publish returns nil once the queue holds every item. After a contract.PublishError it holds those of the partitions
	// that are not named; of the others, and of all after another error, any subset. What is held keeps its order within
	// each key; publishing all of them again is safe for receivers that drop what they have. The error wraps ErrFull if a
	// partition was full. It blocks no longer than ctx allows and keeps no reference to the items.
	Publish(ctx context.Context, items []Item) error
	// System is what the broker is called in spans: OpenTelemetry's messaging.system.
	System() string
	// Partition is that of the items with the key.
	Partition(key string) int
	// Consume hands items to h until ctx ends. Then it reads no more, lets the handlers in flight finish within the
	// driver's bound, acknowledges what they did, and returns nil. It survives the loss of the broker, which shows
	// in the log, the metrics and Ping. An error means that it could not go on.
	Consume(ctx context.Context, h Handler) error
	// Stats answers for every partition, in order.
	Stats(ctx context.Context) (Stats, error)
	// SetAside answers the items that were set aside last, latest first, at most limit.
	SetAside(ctx context.Context, limit int) ([]Aside, error)
	// Ping says why the queue cannot do its work now, nil if it can.
	Ping(ctx context.Context) error
	// Close releases the connections. Call it after Consume has returned: before, it has the effect of a crash, and
	// what handlers hold stays unacknowledged.
	Close() error
}

// Aside is an item that could not be handled and is kept for people to look at. A driver keeps at least the last 100
// of each partition.
type Aside struct {
	Item
	Partition int
	Reason    string
	At        time.Time
}

// Stats is what the queue holds.
type Stats struct{ Partitions []PartitionStats }

// PartitionStats is what one partition holds.
type PartitionStats struct {
	Partition   int
	Depth       int64         // items not acknowledged, those handed over included
	Pending     int64         // of these, items read by a consumer
	OldestAge   time.Duration // how long the oldest has waited; 0 if there is none
	Redelivered int64         // items this instance has got with Attempt > 1 since it was made
}

// Ownership decides which instance reads which partition.
type Ownership interface {
	// Run calls own(ctx, p) in a goroutine for each partition p in [0,n) that this instance comes to own. The ctx
	// ends when the partition must be given up, and the partition is released only after own has returned. Run
	// returns after ctx has ended and every own has returned.
	Run(ctx context.Context, n int, own func(ctx context.Context, p int) error) error
}

// Partition is the partition in [0,n) of a key: FNV-1a of 64 bits, its halves folded together by xor, modulo n.
// Every publisher must agree on it, so it never changes. n must be positive.
func Partition(key string, n int) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	// The low bits of FNV depend on the low bits of the input alone: fold the high ones in.
	return int((h ^ h>>32) % uint64(n))
}

// Failures are why partitions did not take what was published to them.
type Failures map[int]error

// Err is the error of a Publish to as many partitions, nil if none failed. Where all of several failed, and not for lack
// of room, the queue is away, and the error does not tell partitions apart.
func (f Failures) Err(published int) error {
	if len(f) == 0 {
		return nil
	}
	var full []int
	var first error // the others are alike
	failed := slices.Sorted(maps.Keys(f))
	for _, p := range failed {
		switch {
		case errors.Is(f[p], ErrFull):
			full = append(full, p)
		case first == nil:
			first = fmt.Errorf("publish to partition %d: %w", p, f[p])
		}
	}
	err := first
	if len(full) > 0 {
		err = errors.Join(fmt.Errorf("publish to partitions %v: %w", full, ErrFull), first)
	}
	if len(full) == 0 && len(f) == published && published > 1 {
		return err
	}
	return &contract.PublishError{Partitions: failed, Err: err}
}
