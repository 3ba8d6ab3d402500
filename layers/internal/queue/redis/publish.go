package redis

import (
	"context"
	"fmt"
	"net/url"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// publishScript adds to each stream of KEYS all its items in order and answers 1, or adds none and answers 0 if it would
// hold more than ARGV[1]. ARGV goes on, for each stream, with how many items it gets, and their keys, headers and bodies.
const publishScript = `
local answers, at = {}, 2
for k = 1, #KEYS do
	local n = tonumber(ARGV[at])
	local last = at + 3 * n
	answers[k] = 0
	if redis.call('XLEN', KEYS[k]) + n <= tonumber(ARGV[1]) then
		for i = at + 1, last, 3 do
			redis.call('XADD', KEYS[k], '*', 'key', ARGV[i], 'headers', ARGV[i + 1], 'body', ARGV[i + 2])
		end
		answers[k] = 1
	end
	at = last + 1
end
return answers`

// batch is what one Publish has for one partition.
type batch struct {
	partition int
	items     []any // key, headers and body of each
}

func (b *batch) count() int { return len(b.items) / 3 }

// call runs the script for some batches.
type call struct {
	batches []*batch
	cmd     *goredis.Cmd
}

// Publish implements queue.Queue. All partitions go in one round trip, each as a whole or not at all unless Redis fails amidst.
func (q *Queue) Publish(ctx context.Context, items []queue.Item) error {
	if len(items) == 0 {
		return nil
	}
	byPartition := make([]*batch, q.cfg.Partitions)
	var batches []*batch
	for i := range items {
		p := q.Partition(items[i].Key)
		b := byPartition[p]
		if b == nil {
			b = &batch{partition: p}
			byPartition[p], batches = b, append(batches, b)
		}
		b.items = append(b.items, items[i].Key, encodeHeaders(items[i].Headers), items[i].Body)
	}
	calls := []*call{{batches: batches}}
	if q.cluster() { // where a script has one slot
		calls = nil
		for _, b := range batches {
			calls = append(calls, &call{batches: []*batch{b}})
		}
	}

	q.run(ctx, calls, goredis.Pipeliner.EvalSha, q.script.Hash())
	var unknown []*call // to a Redis that has restarted, or a Cluster node that has not seen it
	for _, c := range calls {
		if goredis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	if len(unknown) > 0 {
		q.run(ctx, unknown, goredis.Pipeliner.Eval, publishScript)
	}

	failed := make(queue.Failures)
	for _, c := range calls {
		added, err := c.cmd.BoolSlice()
		if err == nil && len(added) != len(c.batches) {
			err = fmt.Errorf("%d answers for %d streams", len(added), len(c.batches))
		}
		if err != nil {
			q.readings.Metrics.Failed(queue.OpPublish)
			for _, b := range c.batches {
				failed[b.partition] = err
			}
			continue
		}
		for i, b := range c.batches {
			if !added[i] {
				q.readings.Metrics.Failed(queue.OpFull)
				failed[b.partition] = queue.ErrFull
				continue
			}
			q.readings.Metrics.Published.Add(float64(b.count()))
		}
	}
	return failed.Err(len(batches))
}

// Partition implements queue.Queue.
func (q *Queue) Partition(key string) int { return queue.Partition(key, q.cfg.Partitions) }

// run leaves in each call the command that was run for it.
func (q *Queue) run(
	ctx context.Context, calls []*call,
	eval func(goredis.Pipeliner, context.Context, string, []string, ...any) *goredis.Cmd, script string,
) {
	pipe := q.client.Pipeline()
	for _, c := range calls {
		var streams []string
		args := []any{q.cfg.MaxItems}
		for _, b := range c.batches {
			streams = append(streams, q.streams[b.partition])
			args = append(append(args, b.count()), b.items...)
		}
		c.cmd = eval(pipe, ctx, script, streams, args...)
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
