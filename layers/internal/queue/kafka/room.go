package kafka

import (
	"context"
	"fmt"
	"time"

	"gochat/layers/internal/queue"
)

// roomAge is how old an answer may be by which a publisher knows how full the partitions are.
const roomAge = time.Second

// outgoing is a partition as this publisher knows it. Guarded by Queue.mu.
type outgoing struct {
	known          bool
	end, committed int64           // offsets: where the next record goes, and the oldest that is not acknowledged
	unanswered     int64           // records on their way to it
	givenUp        map[*batch]bool // of these, those whose Publish has returned
}

func (o *outgoing) depth() int64 { return o.end - o.committed + o.unanswered }

// reserve answers those batches that fit, with their place taken, and why the others do not.
func (q *Queue) reserve(ctx context.Context, batches []*batch) (fit []*batch, failed queue.Failures) {
	var err error
	if !q.roomy(batches) {
		err = q.askRoom(ctx, batches)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	failed = make(queue.Failures)
	for _, b := range batches {
		o := &q.out[b.partition]
		switch {
		case o.known && o.depth()+int64(len(b.records)) <= int64(q.cfg.MaxItems):
			o.unanswered += int64(len(b.records))
			fit = append(fit, b)
		case err == nil:
			failed[b.partition] = queue.ErrFull
		default:
			failed[b.partition] = fmt.Errorf("ask how full it is: %w", err)
		}
	}
	return fit, failed
}

// unreserve gives the place of a batch back that is not produced.
func (q *Queue) unreserve(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out[b.partition].unanswered -= int64(len(b.records))
}

// roomy is true if what is known is new enough and has room for all.
func (q *Queue) roomy(batches []*batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.asked) > roomAge {
		return false
	}
	for _, b := range batches {
		if o := &q.out[b.partition]; !o.known || o.depth()+int64(len(b.records)) > int64(q.cfg.MaxItems) {
			return false
		}
	}
	return true
}

// askRoom asks Kafka how full the partitions are. Only one does at a time.
func (q *Queue) askRoom(ctx context.Context, batches []*batch) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	select {
	case q.asking <- struct{}{}:
		defer func() { <-q.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if q.roomy(batches) {
		return nil // whoever asked before has been told
	}
	held, err := q.positions(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = time.Now()
	for p := range q.out {
		o := &q.out[p]
		o.known, o.end, o.committed = true, held[p].end, held[p].committed
	}
	return nil
}
