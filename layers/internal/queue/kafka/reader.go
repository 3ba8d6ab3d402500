package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue"
)

// A partition of which more than highBytes wait here is not fetched until they are fewer than lowBytes. Between the two
// is what handlers do until a fetch that has begun without the partition has come back.
const (
	highBytes = 4 << 20
	lowBytes  = 2 << 20
)

// entry is a record and how often handlers were given it.
type entry struct {
	*kgo.Record
	times int
}

// reader reads one partition while this instance owns it.
type reader struct {
	*session
	partition int
	giveUp    context.CancelFunc // ends it after what is in flight
	kill      context.CancelFunc // ends what is in flight
	done      chan struct{}      // closed when nothing of it runs any more

	handedBefore atomic.Int64 // what lies before this offset may have been given to another owner's handler
	lost         atomic.Bool  // somebody else may own the partition: nothing may be committed

	mu      sync.Mutex
	waiting []*entry // from the oldest that is not done
	bytes   int      // of what waits
	paused  bool
	wake    chan struct{}

	// Of the reader's goroutine alone.
	begun  int64        // what lies before this offset was given to the handler here
	at     mark         // what Kafka is to know
	known  mark         // what it does know, as far as is known here
	marked <-chan error // of the last mark that was submitted and not waited for
}

// startReader reads until ctx ends.
func (s *session) startReader(ctx context.Context, p int32) *reader {
	r := &reader{session: s, partition: int(p), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	ctx, r.giveUp = context.WithCancel(ctx)
	work, release := queue.Drainable(ctx, s.cfg.Drain)
	work, r.kill = context.WithCancel(work)
	s.running.Go(func() {
		defer close(r.done)
		defer release()
		defer r.kill()
		defer r.giveUp()
		r.run(ctx, work)
	})
	return r
}

// lose ends the reader as a crash would: nothing that it has done is acknowledged any more.
func (r *reader) lose() {
	r.lost.Store(true)
	r.giveUp()
	r.kill()
}

// add takes records that follow those that wait.
func (r *reader) add(records []*kgo.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		e := &entry{Record: rec}
		if rec.Offset < r.handedBefore.Load() {
			e.times = 1
		}
		r.waiting = append(r.waiting, e)
		r.bytes += recordBytes(rec)
	}
	if !r.paused && r.bytes > highBytes {
		r.paused = true
		r.client.PauseFetchPartitions(map[string][]int32{r.cfg.Topic: {int32(r.partition)}})
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// since is when the oldest item was published that waits here, zero if there is none.
func (r *reader) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return time.Time{}
	}
	return r.waiting[0].Timestamp
}

// next waits for the next batch, and is empty if ctx ends first.
func (r *reader) next(ctx context.Context) []*entry {
	for {
		if batch := r.peek(); len(batch) > 0 {
			return batch
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
	}
}

// peek is what a handler is to be given next.
func (r *reader) peek() []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.waiting), r.cfg.Batch)
	return append([]*entry(nil), r.waiting[:n]...)
}

// drop removes what is done.
func (r *reader) drop(n int) {
	r.mu.Lock()
	for i, e := range r.waiting[:n] {
		r.bytes -= recordBytes(e.Record)
		r.waiting[i] = nil
	}
	r.waiting = r.waiting[n:]
	resume := r.paused && r.bytes < lowBytes
	if resume {
		r.paused = false
	}
	r.mu.Unlock()
	if resume {
		r.client.ResumeFetchPartitions(map[string][]int32{r.cfg.Topic: {int32(r.partition)}})
	}
}

// run returns once ctx has ended, the handler has returned and Kafka knows what it did.
func (r *reader) run(ctx, work context.Context) {
	r.readings.Begin(r.partition)
	defer r.readings.End(r.partition)
	queue.Repeat(ctx, func() bool { return r.step(ctx, work) })
	r.at.handed = max(r.at.offset, r.begun)
	if (r.known.offset != r.at.offset || r.known.handed != r.at.handed) && !r.lost.Load() {
		r.commit()
	}
	if r.marked != nil {
		<-r.marked // a mark must not be committed once the partition is another's
	}
}

// step goes once from next to commit, see the package's description. It is false if something failed, which has been
// reported.
func (r *reader) step(ctx, work context.Context) bool {
	if r.known.offset < r.at.offset {
		return r.commit()
	}
	batch := r.next(ctx)
	if len(batch) == 0 {
		return true
	}
	last := batch[len(batch)-1]
	if r.at.offset != batch[0].Offset {
		// The first batch, or what Kafka has lost lies between.
		r.at = mark{offset: batch[0].Offset, epoch: -1}
		r.known.offset = r.at.offset
	}
	if handed := last.Offset + 1; handed > r.known.handed {
		// Beside the handler, which need not wait for it.
		r.at.handed = handed
		r.known.handed = handed
		r.marked = r.commits.submit(int32(r.partition), r.at)
	}
	r.begun = last.Offset + 1
	done, err := r.handle(work, batch)
	if done == 0 {
		return err == nil
	}
	r.at.offset, r.at.epoch = batch[done-1].Offset+1, batch[done-1].LeaderEpoch
	r.drop(done)
	r.at.handed = max(r.at.offset, r.begun)
	if following := r.peek(); len(following) > 0 && ctx.Err() == nil {
		r.at.handed = following[len(following)-1].Offset + 1
	}
	return r.commit() && err == nil
}

// handle answers how many entries, from the first, are done.
func (r *reader) handle(work context.Context, batch []*entry) (done int, err error) {
	var items []queue.Item
	for _, e := range batch {
		it, err := decode(e.Record, r.cfg.Partitions)
		if err != nil {
			if len(items) > 0 {
				break // it comes first next time
			}
			return r.handleForeign(work, e, err)
		}
		e.times++
		r.readings.CountAttempt(r.partition, &it, e.times)
		items = append(items, it)
	}
	return r.readings.HandOver(work, r.partition, r.handler, items, func(ctx context.Context, it queue.Item, cause error) error {
		return r.setAside(ctx, r.partition, it, cause)
	})
}

func (r *reader) handleForeign(work context.Context, e *entry, cause error) (done int, err error) {
	r.log.ErrorContext(work, "record is not a delivery", "partition", r.partition, "offset", e.Offset, "err", cause)
	r.readings.Metrics.Failed(queue.OpDecode)
	if err := r.setForeignAside(work, e.Record, cause); err != nil {
		r.readings.Metrics.Failed(queue.OpSetAside)
		return 0, fmt.Errorf("set record aside: %w", err)
	}
	return 1, nil
}

// commit waits until Kafka knows how far the reader is. A drain that has used up its time still says what it has done.
func (r *reader) commit() bool {
	if r.lost.Load() {
		return false
	}
	m := r.at
	err := <-r.commits.submit(int32(r.partition), m)
	r.marked = nil // it was submitted before
	r.readings.Reached(r.partition, queue.OpAck, err)
	if err != nil {
		return false
	}
	r.known = m
	return true
}
