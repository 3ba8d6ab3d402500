package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"gochat/layers/internal/queue"
)

// position is where a partition stands. All are offsets.
type position struct {
	committed int64 // the oldest item that is not acknowledged
	handed    int64 // the first that no handler has been given; at least committed
	end       int64 // where the next one will be
}

// The metadata of a committed offset says how far items were handed over, so that the next owner knows which of them
// it is not the first to have, and everybody how many are pending.
const handedPrefix = "handed="

func encodeHanded(offset int64) string { return handedPrefix + strconv.FormatInt(offset, 10) }

// decodeHanded is 0 for metadata that is not ours.
func decodeHanded(metadata string) int64 {
	digits, ours := strings.CutPrefix(metadata, handedPrefix)
	offset, err := strconv.ParseInt(digits, 10, 64)
	if !ours || err != nil {
		return 0
	}
	return offset
}

// positions asks for every partition.
func (q *Queue) positions(ctx context.Context) ([]position, error) {
	var start, end kadm.ListedOffsets
	var committed kadm.OffsetResponses
	err := q.ask(ctx, func(ctx context.Context) error {
		asking, ctx := errgroup.WithContext(ctx)
		asking.Go(func() (err error) { start, err = q.admin.ListStartOffsets(ctx, q.cfg.Topic); return err })
		asking.Go(func() (err error) {
			committed, err = q.admin.FetchOffsets(ctx, group)
			if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nobody has consumed yet
				return err
			}
			// Only then, so that no partition seems to have acknowledged more than it holds.
			end, err = q.admin.ListEndOffsets(ctx, q.cfg.Topic)
			return err
		})
		return asking.Wait()
	})
	if err != nil {
		q.missing(err)
		return nil, err
	}
	all := make([]position, q.cfg.Partitions)
	for p := range all {
		first, _ := start.Lookup(q.cfg.Topic, int32(p))
		last, found := end.Lookup(q.cfg.Topic, int32(p))
		of, _ := committed.Lookup(q.cfg.Topic, int32(p))
		for _, err := range []error{first.Err, last.Err, of.Err} {
			if err != nil {
				q.missing(err)
				return nil, fmt.Errorf("partition %d: %w", p, err)
			}
		}
		if !found {
			return nil, fmt.Errorf("topic %s has no partition %d", q.cfg.Topic, p)
		}
		at := position{committed: max(of.At, first.Offset), end: last.Offset}
		at.end = max(at.end, at.committed)
		at.handed = min(max(at.committed, decodeHanded(of.Metadata)), at.end)
		all[p] = at
	}
	return all, nil
}

// Stats implements queue.Queue. Ages are by this process's clock against the publisher's.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	err := q.ensure(ctx)
	if err != nil {
		return queue.Stats{}, fmt.Errorf("stats: %w", err)
	}
	at, err := q.positions(ctx)
	if err != nil {
		return queue.Stats{}, fmt.Errorf("stats: %w", err)
	}
	oldest := make(map[int32]kgo.Offset)
	for p := range at {
		if at[p].committed < at[p].end {
			oldest[int32(p)] = kgo.NewOffset().At(at[p].committed)
		}
	}
	since := make(map[int32]time.Time, len(oldest))
	err = q.read(ctx, q.cfg.Topic, oldest, func(r *kgo.Record) bool {
		if since[r.Partition].IsZero() {
			since[r.Partition] = r.Timestamp
		}
		return len(since) < len(oldest)
	})
	if err != nil {
		return queue.Stats{}, fmt.Errorf("stats: oldest items: %w", err)
	}
	stats := queue.Stats{Partitions: make([]queue.PartitionStats, len(at))}
	for p := range at {
		stats.Partitions[p] = q.partitionStats(p, at[p], since[int32(p)])
	}
	return stats, nil
}

func (q *Queue) partitionStats(p int, at position, since time.Time) queue.PartitionStats {
	s := queue.PartitionStats{
		Partition: p, Depth: at.end - at.committed, Pending: at.handed - at.committed, Redelivered: q.readings.Redelivered(p),
	}
	if !since.IsZero() && s.Depth > 0 {
		s.OldestAge = max(0, time.Since(since))
	}
	return s
}

// read calls each with the records from the offsets on, until it is false or time is up. It has a client of its own:
// one that is in the group reads nothing else.
func (q *Queue) read(ctx context.Context, topic string, from map[int32]kgo.Offset, each func(*kgo.Record) bool) error {
	if len(from) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	client, err := kgo.NewClient(append(q.cfg.access(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchMaxWait(time.Second),
		kgo.DisableFetchSessions(),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for it := fetches.RecordIter(); !it.Done(); {
			if !each(it.Next()) {
				return nil
			}
		}
	}
}
