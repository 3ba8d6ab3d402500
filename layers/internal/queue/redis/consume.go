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
	shared, end := q.pollers()
	err := q.ownership.Run(ctx, q.cfg.Partitions, func(ctx context.Context, p int) error {
		q.consume(ctx, p, shared(p), h)
		return nil
	})
	end()
	stop()
	sampler.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("consume: own partitions: %w", err)
	}
	return nil
}

// pollers answers whom the reader of each partition asks. A Cluster's nodes answer for a slot at a time, so there each
// partition has its own.
func (q *Queue) pollers() (of func(p int) *poller, end func()) {
	n := 1
	if q.cluster() {
		n = q.cfg.Partitions
	}
	all := make([]*poller, n)
	for i := range all {
		all[i] = newPoller(q)
	}
	return func(p int) *poller { return all[p%n] }, func() {
		for _, one := range all {
			one.close()
		}
	}
}

// reader reads one partition while this instance owns it.
type reader struct {
	*Queue
	poller    *poller
	partition int
	stream    string
	handler   queue.Handler
	handled   []string // ids that are done and Redis does not know of yet
	settled   bool     // nothing but these was pending at the last look, and nothing has failed since
}

// consume returns once ctx has ended and the handler has returned.
func (q *Queue) consume(ctx context.Context, p int, shared *poller, h queue.Handler) {
	q.readings.Begin(p)
	defer q.readings.End(p)
	shared.readers.Add(1)
	defer shared.readers.Add(-1)
	work, release := queue.Drainable(ctx, q.cfg.Drain)
	defer release()
	r := &reader{Queue: q, poller: shared, partition: p, stream: q.streams[p], handler: h}
	queue.Repeat(ctx, func() bool { return r.step(work) })
	r.ackLast()
}

// step goes once from look to handle, see the package's description. It is false if something failed, which has been
// reported.
func (r *reader) step(work context.Context) bool {
	batch, err := r.read(work)
	if err != nil {
		r.settled = false
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
	if err != nil || done < len(batch.items) {
		r.settled = false
	}
	return err == nil
}

// entries are what one read has got.
type entries struct {
	items   []queue.Item
	ids     []string           // of the items
	foreign []goredis.XMessage // what is no item of ours
}

// read acknowledges what is handled and answers what is pending, else what is new. An error has been reported.
func (r *reader) read(work context.Context) (entries, error) {
	ctx, cancel := context.WithTimeout(work, opTimeout)
	defer cancel()
	got := r.poller.ask(r)
	if got.acked {
		r.handled = nil
	}
	r.settled = got.settled && !got.pending
	err := got.err
	var attempts map[string]int
	if err == nil && got.pending {
		attempts, err = r.attempts(ctx)
	}
	if missing(err) {
		err = r.createGroup(ctx)
	}
	r.readings.Reached(r.partition, queue.OpRead, err)
	if err != nil {
		return entries{}, err
	}
	var e entries
	for _, m := range got.messages {
		item, err := decode(m)
		if err != nil {
			if m.Values != nil { // else it was deleted, and is still to be acknowledged
				r.log.Error("entry is not a delivery", "stream", r.stream, "id", m.ID, "err", err)
				r.readings.Metrics.Failed(queue.OpDecode)
			}
			e.foreign = append(e.foreign, m)
			continue
		}
		r.readings.CountAttempt(r.partition, &item, attempts[m.ID])
		e.items, e.ids = append(e.items, item), append(e.ids, m.ID)
	}
	return e, nil
}

// ackLast tells Redis what was handled at the end. A drain that has used up its time still does.
func (r *reader) ackLast() {
	if len(r.handled) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	_, err := r.client.Pipelined(ctx, func(pipe goredis.Pipeliner) error { ack(ctx, pipe, r.stream, r.handled); return nil })
	r.readings.Reached(r.partition, queue.OpAck, err)
}

// attempts is how often each of the oldest pending entries was read.
func (r *reader) attempts(ctx context.Context) (map[string]int, error) {
	pending, err := r.client.XPendingExt(ctx, &goredis.XPendingExtArgs{
		Stream: r.stream, Group: group, Start: "-", End: "+", Count: int64(r.cfg.Batch), Consumer: consumer,
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	attempts := make(map[string]int, len(pending))
	for _, p := range pending {
		attempts[p.ID] = int(p.RetryCount)
	}
	return attempts, nil
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
