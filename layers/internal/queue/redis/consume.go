package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
)

// Consume implements queue.Queue.
func (q *Queue) Consume(ctx context.Context, h queue.Handler) error {
	if q.ownership == nil {
		return errors.New("consume: this queue was made without ownership")
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { q.readings.Sample(sampling, q.stats) })
	err := q.ownership.Run(ctx, q.cfg.Partitions, func(ctx context.Context, p int) error {
		q.consume(ctx, p, h)
		return nil
	})
	stop()
	sampler.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("consume: own partitions: %w", err)
	}
	return nil
}

// reader reads one partition while this instance owns it.
type reader struct {
	*Queue
	partition int
	stream    string
	handler   queue.Handler
	handled   []string // ids that the handler has done and Redis does not know of yet
}

// consume returns once ctx has ended and the handler has returned.
func (q *Queue) consume(ctx context.Context, p int, h queue.Handler) {
	q.readings.Begin(p)
	defer q.readings.End(p)
	work, release := queue.Drainable(ctx, q.cfg.Drain)
	defer release()
	r := &reader{Queue: q, partition: p, stream: q.streams[p], handler: h}
	queue.Repeat(ctx, func() bool { return r.step(work) })
}

// step goes once from pending to ack, see the package's description. It is false if something failed, which has
// been reported.
func (r *reader) step(work context.Context) bool {
	if len(r.handled) > 0 {
		return r.ack(work)
	}
	batch, err := r.read(work)
	if missing(err) {
		err = r.createGroup(work)
	}
	r.readings.Reached(r.partition, queue.OpRead, err)
	if err != nil {
		return false
	}
	done := 0
	if len(batch.items) > 0 {
		done, err = r.readings.HandOver(work, r.partition, r.handler, batch.items, r.setAside)
	}
	for _, m := range batch.foreign {
		if asideErr := r.setForeignAside(work, m); asideErr == nil {
			r.handled = append(r.handled, m.ID)
		} else if err == nil {
			err = asideErr
		}
	}
	r.handled = append(r.handled, batch.ids[:done]...)
	acked := len(r.handled) == 0 || r.ack(work)
	return acked && err == nil
}

// entries are what one read has got.
type entries struct {
	items   []queue.Item
	ids     []string           // of the items
	foreign []goredis.XMessage // what is no item of ours
}

// read answers what is pending, else what is new.
func (r *reader) read(work context.Context) (entries, error) {
	ctx, cancel := context.WithTimeout(work, opTimeout)
	defer cancel()
	messages, attempts, err := r.readPending(ctx)
	if err == nil && len(messages) == 0 {
		messages, err = r.readNew(ctx)
	}
	if err != nil {
		return entries{}, err
	}
	var e entries
	for _, m := range messages {
		item, err := decode(m)
		if err != nil {
			r.log.Error("entry is not a delivery", "stream", r.stream, "id", m.ID, "err", err)
			r.readings.Metrics.Failed(queue.OpDecode)
			e.foreign = append(e.foreign, m)
			continue
		}
		r.readings.CountAttempt(r.partition, &item, attempts[m.ID])
		e.items, e.ids = append(e.items, item), append(e.ids, m.ID)
	}
	return e, nil
}

// readPending answers the oldest items that were read and not acknowledged, and how often each was read.
func (r *reader) readPending(ctx context.Context) ([]goredis.XMessage, map[string]int, error) {
	pipe := r.client.Pipeline()
	read := pipe.XReadGroup(ctx, &goredis.XReadGroupArgs{
		Group: group, Consumer: consumer, Streams: []string{r.stream, "0"}, Count: int64(r.cfg.Batch), Block: -1,
	})
	pending := pipe.XPendingExt(ctx, &goredis.XPendingExtArgs{
		Stream: r.stream, Group: group, Start: "-", End: "+", Count: int64(r.cfg.Batch), Consumer: consumer,
	})
	if _, err := pipe.Exec(ctx); ignoring(err, isNil) != nil {
		return nil, nil, fmt.Errorf("read pending: %w", err)
	}
	attempts := make(map[string]int, len(pending.Val()))
	for _, p := range pending.Val() {
		attempts[p.ID] = int(p.RetryCount)
	}
	return messages(read.Val()), attempts, nil
}

// once is a command that is not sent again when its reply is lost.
type once struct{ *goredis.XStreamSliceCmd }

func (once) NoRetry() bool { return true }

func (r *reader) readNew(ctx context.Context) ([]goredis.XMessage, error) {
	cmd := once{goredis.NewXStreamSliceCmd(ctx, "xreadgroup", "group", group, consumer,
		"count", r.cfg.Batch, "block", block.Milliseconds(), "streams", r.stream, ">")}
	if err := ignoring(r.client.Process(ctx, cmd), isNil); err != nil {
		return nil, fmt.Errorf("read new: %w", err)
	}
	return messages(cmd.Val()), nil
}

func messages(streams []goredis.XStream) []goredis.XMessage {
	if len(streams) == 0 {
		return nil
	}
	return streams[0].Messages
}

func (r *reader) createGroup(work context.Context) error {
	ctx, cancel := context.WithTimeout(work, opTimeout)
	defer cancel()
	// From the beginning: what was published while there was no group is to be delivered.
	err := r.client.XGroupCreateMkStream(ctx, r.stream, group, "0").Err()
	exists := func(err error) bool { return goredis.HasErrorPrefix(err, "BUSYGROUP") }
	if err := ignoring(err, exists); err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	return nil
}

// ack tells Redis what was handled. What it could not tell stays in handled, for the next step.
func (r *reader) ack(work context.Context) bool {
	// A drain that has used up its time still says what it has done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), opTimeout)
	defer cancel()
	_, err := r.client.TxPipelined(ctx, func(pipe goredis.Pipeliner) error {
		pipe.XAck(ctx, r.stream, group, r.handled...)
		pipe.XDel(ctx, r.stream, r.handled...)
		return nil
	})
	r.readings.Reached(r.partition, queue.OpAck, err)
	if err != nil {
		return false
	}
	r.handled = nil
	return true
}

var errForeign = errors.New("fields key, headers and body are not all there")

func decode(m goredis.XMessage) (queue.Item, error) {
	key, isKey := m.Values["key"].(string)
	headers, isHeaders := m.Values["headers"].(string)
	body, isBody := m.Values["body"].(string)
	if !isKey || !isHeaders || !isBody {
		return queue.Item{}, errForeign
	}
	decoded, err := decodeHeaders(headers)
	if err != nil {
		return queue.Item{}, err
	}
	return queue.Item{Key: key, Headers: decoded, Body: []byte(body), EnqueuedAt: enqueuedAt(m.ID)}, nil
}

// enqueuedAt is in the entry's id: milliseconds of Redis's clock, a dash, a counter.
func enqueuedAt(id string) time.Time {
	ms, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n)
}
