package kafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"gochat/layers/internal/queue"
)

// reasonHeader says why an item was set aside. It is the last of a record's headers.
const reasonHeader = "gochat-aside-reason"

// setAside adds the item to the other topic, in the partition that has the number of its own.
func (q *Queue) setAside(ctx context.Context, p int, it queue.Item, cause error) error {
	return q.keepAside(ctx, record(q.cfg.asideTopic(), p, it), cause)
}

// setForeignAside is setAside for a record that is no item of ours.
func (q *Queue) setForeignAside(ctx context.Context, r *kgo.Record, cause error) error {
	return q.keepAside(ctx, &kgo.Record{
		Topic: q.cfg.asideTopic(), Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: slices.Clone(r.Headers),
	}, cause)
}

func (q *Queue) keepAside(ctx context.Context, r *kgo.Record, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if err := q.ensure(ctx); err != nil {
		return err
	}
	reason := cause.Error()
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: reasonHeader, Value: []byte(reason[:min(len(reason), 2048)])})
	answered := make(chan error, 1)
	q.client.Produce(ctx, r, func(_ *kgo.Record, err error) { answered <- err })
	select {
	case err := <-answered:
		q.missing(err)
		return err
	case <-ctx.Done():
		return ctx.Err() // it may be set aside twice
	}
}

// SetAside implements queue.Queue.
func (q *Queue) SetAside(ctx context.Context, limit int) ([]queue.Aside, error) {
	topic := q.cfg.asideTopic()
	var start, end kadm.ListedOffsets
	err := q.ensure(ctx)
	if err == nil {
		err = q.ask(ctx, func(ctx context.Context) (err error) {
			if start, err = q.admin.ListStartOffsets(ctx, topic); err == nil {
				end, err = q.admin.ListEndOffsets(ctx, topic)
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("items set aside: %w", err)
	}
	from, until := make(map[int32]kgo.Offset), make(map[int32]int64)
	for p := range int32(q.cfg.Partitions) {
		first, _ := start.Lookup(topic, p)
		last, _ := end.Lookup(topic, p)
		if err := cmp.Or(first.Err, last.Err); err != nil {
			q.missing(err)
			return nil, fmt.Errorf("items set aside of partition %d: %w", p, err)
		}
		if at := max(first.Offset, last.Offset-int64(limit)); at < last.Offset {
			from[p], until[p] = kgo.NewOffset().At(at), last.Offset
		}
	}
	var all []queue.Aside
	err = q.read(ctx, topic, from, func(r *kgo.Record) bool {
		if r.Offset < until[r.Partition] {
			all = append(all, aside(r))
		}
		if r.Offset >= until[r.Partition]-1 {
			delete(until, r.Partition)
		}
		return len(until) > 0
	})
	if err != nil {
		return nil, fmt.Errorf("items set aside: %w", err)
	}
	slices.Reverse(all) // so that those of the same millisecond are in order, too
	slices.SortStableFunc(all, func(a, b queue.Aside) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	return all[:min(limit, len(all))], nil
}

func aside(r *kgo.Record) queue.Aside {
	a := queue.Aside{
		Item:      queue.Item{Key: string(r.Key), Body: r.Value},
		Partition: int(r.Partition), At: r.Timestamp,
	}
	headers := make(map[string]string, len(r.Headers))
	for i, h := range r.Headers {
		if h.Key == reasonHeader && i == len(r.Headers)-1 {
			a.Reason = string(h.Value)
			continue
		}
		headers[h.Key] = string(h.Value)
	}
	if len(headers) > 0 {
		a.Headers = headers
	}
	return a
}
