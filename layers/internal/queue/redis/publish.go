package redis

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// publishScript adds all items to the stream KEYS[1] in order and answers 1, or answers 0 and adds none if it would
// hold more than ARGV[1]. ARGV goes on with key, headers and body of each item.
const publishScript = `
if redis.call('XLEN', KEYS[1]) + (#ARGV - 1) / 3 > tonumber(ARGV[1]) then
	return 0
end
for i = 2, #ARGV, 3 do
	redis.call('XADD', KEYS[1], '*', 'key', ARGV[i], 'headers', ARGV[i + 1], 'body', ARGV[i + 2])
end
return 1`

// batch is what one Publish has for one partition.
type batch struct {
	partition int
	args      []any // of the script
	cmd       *goredis.Cmd
}

func (b *batch) items() int { return (len(b.args) - 1) / 3 }

// Publish implements queue.Queue. All partitions go in one round trip, each as a whole or not at all.
func (q *Queue) Publish(ctx context.Context, items []queue.Item) error {
	if len(items) == 0 {
		return nil
	}
	byPartition := make([]*batch, q.cfg.Partitions)
	var batches []*batch
	for i := range items {
		p := queue.Partition(items[i].Key, q.cfg.Partitions)
		b := byPartition[p]
		if b == nil {
			b = &batch{partition: p, args: []any{q.cfg.MaxItems}}
			byPartition[p], batches = b, append(batches, b)
		}
		b.args = append(b.args, items[i].Key, encodeHeaders(items[i].Headers), items[i].Body)
	}

	q.run(ctx, batches, goredis.Pipeliner.EvalSha, q.script.Hash())
	var unknown []*batch // to a Redis that has restarted, or a Cluster node that has not seen it
	for _, b := range batches {
		if goredis.HasErrorPrefix(b.cmd.Err(), "NOSCRIPT") {
			unknown = append(unknown, b)
		}
	}
	if len(unknown) > 0 {
		q.run(ctx, unknown, goredis.Pipeliner.Eval, publishScript)
	}

	var full []int
	var failed error // the first: they are alike
	for _, b := range batches {
		added, err := b.cmd.Int()
		switch {
		case err != nil:
			q.readings.Metrics.Failed(queue.OpPublish)
			if failed == nil {
				failed = fmt.Errorf("publish to partition %d: %w", b.partition, err)
			}
		case added == 0:
			q.readings.Metrics.Failed(queue.OpFull)
			full = append(full, b.partition)
		default:
			q.readings.Metrics.Published.Add(float64(b.items()))
		}
	}
	if len(full) > 0 {
		return errors.Join(fmt.Errorf("publish to partitions %v: %w", full, queue.ErrFull), failed)
	}
	return failed
}

// run leaves in each batch the command that was run for it.
func (q *Queue) run(
	ctx context.Context, batches []*batch,
	eval func(goredis.Pipeliner, context.Context, string, []string, ...any) *goredis.Cmd, script string,
) {
	pipe := q.client.Pipeline()
	for _, b := range batches {
		b.cmd = eval(pipe, ctx, script, []string{q.streams[b.partition]}, b.args...)
	}
	_, _ = pipe.Exec(ctx) // every command has its own error
}

// encodeHeaders writes them as a URL query: any bytes survive, and people can read it in the stream.
func encodeHeaders(headers map[string]string) string {
	if len(headers) == 0 {
		return ""
	}
	values := make(url.Values, len(headers))
	for k, v := range headers {
		values.Set(k, v)
	}
	return values.Encode()
}

func decodeHeaders(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(s)
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	headers := make(map[string]string, len(values))
	for k := range values {
		headers[k] = values.Get(k)
	}
	return headers, nil
}
