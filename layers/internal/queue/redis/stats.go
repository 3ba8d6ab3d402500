package redis

import (
	"context"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

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
		stats[i] = queue.PartitionStats{Partition: p, Depth: a.depth.Val(), Redelivered: q.readings.Redelivered(p)}
		if oldest := a.oldest.Val(); len(oldest) > 0 {
			stats[i].OldestAge = max(0, now.Sub(enqueuedAt(oldest[0].ID)))
		}
		if pending := a.pending.Val(); pending != nil {
			stats[i].Pending = pending.Count
		}
	}
	return stats, nil
}
