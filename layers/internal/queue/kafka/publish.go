package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue"
)

// batch is what one Publish has for one partition.
type batch struct {
	partition int
	records   []*kgo.Record
	bytes     int64
	done      chan struct{} // closed when every record is answered

	// Guarded by Queue.mu.
	unanswered int
	err        error // the first
}

// Publish implements queue.Queue. What it has for one partition is refused by ErrFull as a whole.
//
// What is produced is never taken back: the client sends it until Kafka has answered, so that nothing is missing
// between two records that are there. A Publish for a partition for which an earlier one was given up waits until that
// one is answered: it cannot come before it, and an outage leaves no pile of repetitions.
func (q *Queue) Publish(ctx context.Context, items []queue.Item) error {
	if len(items) == 0 {
		return nil
	}
	batches, err := q.split(items)
	if err == nil {
		err = q.ensure(ctx)
	}
	if err != nil {
		q.readings.Metrics.Failed(queue.OpPublish)
		return fmt.Errorf("publish: %w", err)
	}
	fit, failed := q.reserve(ctx, batches)

	// Partitions that are well do not wait for those that are not.
	slices.SortStableFunc(fit, func(a, b *batch) int { return cmp.Compare(q.lateness(a.partition), q.lateness(b.partition)) })
	var produced []*batch
	for _, b := range fit {
		if err := q.produce(ctx, b); err != nil {
			q.unreserve(b)
			failed[b.partition] = fmt.Errorf("wait for what was published before: %w", err)
			continue
		}
		produced = append(produced, b)
	}
	for _, b := range produced {
		if err := q.answered(ctx, b); err != nil {
			failed[b.partition] = err
		}
	}
	for _, err := range failed {
		if errors.Is(err, queue.ErrFull) {
			q.readings.Metrics.Failed(queue.OpFull)
		} else {
			q.readings.Metrics.Failed(queue.OpPublish)
		}
	}
	return failed.Err(len(batches))
}

// Partition implements queue.Queue.
func (q *Queue) Partition(key string) int { return queue.Partition(key, q.cfg.Partitions) }

// split copies the items into a batch for each partition, in order.
func (q *Queue) split(items []queue.Item) ([]*batch, error) {
	byPartition := make([]*batch, q.cfg.Partitions)
	var batches []*batch
	for _, it := range items {
		p := q.Partition(it.Key)
		r := record(q.cfg.Topic, p, it)
		size := recordBytes(r)
		if size > maxItemBytes {
			return nil, fmt.Errorf("an item has %d bytes, Kafka takes at most %d", size, maxItemBytes)
		}
		b := byPartition[p]
		if b == nil {
			b = &batch{partition: p, done: make(chan struct{})}
			byPartition[p], batches = b, append(batches, b)
		}
		b.records, b.bytes = append(b.records, r), b.bytes+int64(size)
	}
	return batches, nil
}

// produce hands the batch to the client, which answers each record some time. It waits until nothing is left that was
// given up.
func (q *Queue) produce(ctx context.Context, b *batch) error {
	for earlier := q.givenUp(b.partition); earlier != nil; earlier = q.givenUp(b.partition) {
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	weight := min(b.bytes, bufferBytes)
	if err := q.buffer.Acquire(ctx, weight); err != nil {
		return err
	}
	q.mu.Lock()
	b.unanswered = len(b.records)
	q.mu.Unlock()
	for _, r := range b.records {
		// Not derived from ctx: its end would take back some records and not others.
		q.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			q.missing(err)
			if q.answer(b, r, err) {
				q.buffer.Release(weight)
			}
		})
	}
	return nil
}

// answer keeps what became of one record, and is true for the last one of the batch.
func (q *Queue) answer(b *batch, r *kgo.Record, err error) (last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := &q.out[b.partition]
	o.unanswered--
	if err != nil && b.err == nil {
		b.err = err
	}
	if err == nil {
		o.end = r.Offset + 1 // what others have published is in it
		q.readings.Metrics.Published.Inc()
	}
	b.unanswered--
	if b.unanswered > 0 {
		return false
	}
	delete(o.givenUp, b)
	close(b.done)
	return true
}

// answered waits until the batch is answered. It is given up when ctx ends, and may be held or not.
func (q *Queue) answered(ctx context.Context, b *batch) error {
	select {
	case <-b.done:
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	err := b.err
	if b.unanswered > 0 {
		err = ctx.Err()
		o := &q.out[b.partition]
		if o.givenUp == nil {
			o.givenUp = make(map[*batch]bool)
		}
		o.givenUp[b] = true
	}
	return err
}

// lateness is how many batches of the partition are given up and not answered.
func (q *Queue) lateness(p int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.out[p].givenUp)
}

// givenUp is a batch for the partition whose Publish has returned and that is not answered, nil if there is none.
func (q *Queue) givenUp(p int) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	for b := range q.out[p].givenUp {
		return b
	}
	return nil
}
