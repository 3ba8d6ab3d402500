package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// keptAside is about how many items each partition's stream of those set aside keeps.
const keptAside = 1000

// asideStream is in the slot of the partition's own stream.
func asideStream(stream string) string { return stream + ":aside" }

// setAside adds the item to the partition's stream of those set aside.
func (r *reader) setAside(ctx context.Context, it queue.Item, cause error) error {
	return r.keepAside(ctx, it.Key, encodeHeaders(it.Headers), it.Body, cause)
}

// setForeignAside is setAside for an entry that is no item of ours. One that was deleted has nothing to keep.
func (r *reader) setForeignAside(ctx context.Context, m goredis.XMessage) error {
	if m.Values == nil {
		return nil
	}
	return r.keepAside(ctx, "", "", fmt.Append(nil, m.Values), errForeign)
}

func (r *reader) keepAside(ctx context.Context, key, headers string, body []byte, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return r.client.XAdd(ctx, &goredis.XAddArgs{
		Stream: asideStream(r.stream), MaxLen: keptAside, Approx: true,
		Values: []any{"key", key, "headers", headers, "body", body, "reason", cause.Error()},
	}).Err()
}

// SetAside implements queue.Queue.
func (q *Queue) SetAside(ctx context.Context, limit int) ([]queue.Aside, error) {
	pipe := q.client.Pipeline()
	read := make([]*goredis.XMessageSliceCmd, len(q.streams))
	for p, stream := range q.streams {
		read[p] = pipe.XRevRangeN(ctx, asideStream(stream), "+", "-", int64(limit))
	}
	_, _ = pipe.Exec(ctx) // every command has its own error
	var all []queue.Aside
	for p, cmd := range read {
		if err := cmd.Err(); err != nil {
			return nil, fmt.Errorf("items set aside of partition %d: %w", p, err)
		}
		for _, m := range cmd.Val() {
			item, err := decode(m)
			if err != nil {
				item = queue.Item{Body: fmt.Append(nil, m.Values)}
			}
			reason, _ := m.Values["reason"].(string)
			all = append(all, queue.Aside{Item: item, Partition: p, Reason: reason, At: enqueuedAt(m.ID)})
			all[len(all)-1].EnqueuedAt = time.Time{} // of the entry in the other stream
		}
	}
	slices.SortStableFunc(all, func(a, b queue.Aside) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	return all[:min(limit, len(all))], nil
}
