package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// samplePeriod is how often the gauges are set. They are set by the owner of a partition alone, so that each
// partition has one series over all processes, and a sum of them is true.
const samplePeriod = 2 * time.Second

// Stats implements queue.Queue. Ages are by this process's clock against Redis's.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	all := make([]int, q.cfg.Partitions)
	for p := range all {
		all[p] = p
	}
	partitions, err := q.stats(ctx, all)
	return queue.Stats{Partitions: partitions}, err
}

func (q *Queue) stats(ctx context.Context, partitions []int) ([]queue.PartitionStats, error) {
	type answers struct {
		depth   *goredis.IntCmd
		oldest  *goredis.XMessageSliceCmd
		pending *goredis.XPendingCmd
	}
	asked := make([]answers, len(partitions))
	pipe := q.client.Pipeline()
	for i, p := range partitions {
		asked[i] = answers{
			depth:   pipe.XLen(ctx, q.streams[p]),
			oldest:  pipe.XRangeN(ctx, q.streams[p], "-", "+", 1),
			pending: pipe.XPending(ctx, q.streams[p], group),
		}
	}
	_, _ = pipe.Exec(ctx) // every command has its own error
	now := time.Now()
	stats := make([]queue.PartitionStats, len(partitions))
	for i, p := range partitions {
		a := asked[i]
		for _, err := range []error{a.depth.Err(), a.oldest.Err(), ignoring(a.pending.Err(), missing, isNil)} {
			if err != nil {
				return nil, fmt.Errorf("stats of partition %d: %w", p, err)
			}
		}
		stats[i] = queue.PartitionStats{Partition: p, Depth: a.depth.Val(), Redelivered: q.redelivered[p].Load()}
		if oldest := a.oldest.Val(); len(oldest) > 0 {
			stats[i].OldestAge = max(0, now.Sub(enqueuedAt(oldest[0].ID)))
		}
		if pending := a.pending.Val(); pending != nil {
			stats[i].Pending = pending.Count
		}
	}
	return stats, nil
}

// sample sets the gauges of the partitions owned here until ctx ends.
func (q *Queue) sample(ctx context.Context) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		q.mu.Lock()
		owned := slices.Collect(maps.Keys(q.owned))
		q.mu.Unlock()
		if len(owned) == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, opTimeout)
		stats, err := q.stats(bounded, owned)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				q.metrics.failed(opStats)
			}
			continue // the reader of the partition logs that Redis is away
		}
		q.mu.Lock()
		for _, s := range stats {
			if _, still := q.owned[s.Partition]; still {
				q.metrics.set(s.Partition, s.Depth, s.OldestAge.Seconds())
			}
		}
		q.mu.Unlock()
	}
}
