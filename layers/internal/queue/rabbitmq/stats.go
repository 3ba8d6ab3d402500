package rabbitmq

import (
	"context"
	"fmt"
	"time"

	"gochat/layers/internal/queue"
)

// Stats implements queue.Queue. The broker tells how many items wait, and nothing of those that were read: of a
// partition that is read elsewhere, Depth lacks the items that its reader holds, and Pending and OldestAge are 0.
// Ages are by this process's clock against the publishers'.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	all := make([]int, q.cfg.Partitions)
	for p := range all {
		all[p] = p
	}
	partitions, err := q.stats(ctx, all)
	return queue.Stats{Partitions: partitions}, err
}

func (q *Queue) stats(ctx context.Context, partitions []int) ([]queue.PartitionStats, error) {
	stats := make([]queue.PartitionStats, len(partitions))
	for i, p := range partitions {
		is, err := q.declare(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("stats of partition %d: %w", p, err)
		}
		stats[i] = queue.PartitionStats{Partition: p, Depth: int64(is.Messages), Redelivered: q.readings.Redelivered(p)}
		if s := q.sessions[p].Load(); s != nil {
			n, since := s.holds()
			stats[i].Pending = int64(n)
			stats[i].Depth += int64(n)
			if n > 0 {
				stats[i].OldestAge = max(0, time.Since(since))
			}
		}
	}
	return stats, nil
}
