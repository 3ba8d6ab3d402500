package logic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gochat/layers/internal/contract"
)

// publisher hands committed messages to the queue, in the order of the commits.
//
// It is in one of two states. Ahead: batches come from memory, straight after their commit. Behind: the queue did
// not take a batch, or more gathered than is kept, or the outcome of a commit is not known; what is added then stays in
// the outbox alone, and the publisher reads it from there up to its end. Then it is ahead again; but while a commit is
// in doubt, which may yet come through, it stays behind. Nothing overtakes: what was committed until then is published
// before what gathers from then on, and the outbox is read in the order of the commits of each conversation.
//
// Where only some partitions do not take what they get, the publisher is behind as well: what goes to the others comes
// from the outbox too, after the pause between two tries, and after as long as a try takes to fail, publishTimeout at most.
type publisher struct {
	store Store
	queue *entrance
	m     *metrics
	log   *slog.Logger
	wake  chan struct{}
	// records are told what the queue has. New sets them before run.
	records Records

	commits atomic.Bool // one has taken published rows along since the last tick

	mu        sync.Mutex
	gathered  []outgoing
	behind    bool
	doubted   time.Time                 // it stays behind until then
	published []contract.OutboxPosition // rows to delete with the next commit
}

const (
	maxGathered    = 16384           // messages kept in memory for a queue that is slow
	publishBatch   = 500             // messages handed to the queue at once
	publishTimeout = 5 * time.Second // of one such batch
	// After a failure: longer, up to the second, where there is much to read past what a partition does not take.
	publishPause    = 250 * time.Millisecond
	publishPauseMax = 2 * time.Second
	idleDelete      = time.Second // published rows go with the next commit, or after this if there is none
	sweepEvery      = 2 * time.Second
	sweepAge        = 10 * time.Second // older rows than this are nobody's: their publisher would have caught up
	doubtTime       = sweepAge         // in which a commit in doubt comes through, or else is left to the sweeper
)

func newPublisher(store Store, queue *entrance, m *metrics, log *slog.Logger) *publisher {
	return &publisher{store: store, queue: queue, m: m, log: log, wake: make(chan struct{}, 1), records: noRecords{}}
}

// add takes a committed batch. It never blocks.
func (p *publisher) add(batch []outgoing) {
	if len(batch) == 0 {
		return
	}
	p.mu.Lock()
	// Of what was committed with an answer that got lost, the outbox alone knows the rows.
	lost := slices.ContainsFunc(batch, func(o outgoing) bool { return o.row == 0 })
	if !p.behind && (lost || len(p.gathered)+len(batch) > maxGathered) {
		p.fall()
	}
	if p.behind {
		p.m.left.Add(float64(len(batch)))
	} else {
		p.gathered = append(p.gathered, batch...)
	}
	p.mu.Unlock()
	p.wakeUp()
}

// fall makes the publisher read from the outbox, in which what gathered is as well. p.mu is held.
func (p *publisher) fall() {
	p.m.left.Add(float64(len(p.gathered)))
	p.gathered, p.behind = nil, true
}

// fallBehind is fall, for others.
func (p *publisher) fallBehind() {
	p.mu.Lock()
	p.fall()
	p.mu.Unlock()
	p.wakeUp()
}

// doubt says that a commit may be stored, or may yet come to be.
func (p *publisher) doubt() {
	p.mu.Lock()
	p.doubted = time.Now().Add(doubtTime)
	p.fall()
	p.mu.Unlock()
	p.wakeUp()
}

func (p *publisher) inDoubt() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.doubted)
}

func (p *publisher) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// takePublished answers the outbox rows that may be deleted; returnPublished gives them back if they were not.
func (p *publisher) takePublished() []contract.OutboxPosition {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.published
	p.published = nil
	return taken
}

func (p *publisher) returnPublished(rows []contract.OutboxPosition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(rows, p.published...)
}

// run publishes until stop is closed and nothing gathered is left, or the queue does not take it: then it stays in
// the outbox.
func (p *publisher) run(ctx context.Context, stop <-chan struct{}) {
	idle := time.NewTicker(idleDelete)
	defer idle.Stop()
	for {
		stopping, quiet := false, false
		select {
		case <-p.wake:
		case <-idle.C:
			quiet = !p.commits.Swap(false)
		case <-stop:
			stopping = true
		}
		begun := time.Now()
		caughtUp := p.publishAll(ctx)
		if !caughtUp && !stopping {
			select {
			case <-time.After(min(max(publishPause, 3*time.Since(begun)), publishPauseMax)):
			case <-stop:
				stopping = true
			}
			p.wakeUp()
		}
		if caughtUp && (quiet || stopping) {
			p.deletePublished(ctx)
		}
		if stopping {
			return
		}
	}
}

// publishAll publishes all there is. It answers false if the queue, or behind it the store, failed.
func (p *publisher) publishAll(ctx context.Context) bool {
	for {
		p.mu.Lock()
		behind, batch := p.behind, p.gathered
		p.gathered = nil
		p.mu.Unlock()
		if behind {
			if p.inDoubt() { // what is added wakes it, and else it looks again by the ticker
				return p.deletePublished(ctx) && p.publishToEnd(ctx)
			}
			if !p.catchUp(ctx) {
				return false
			}
			continue
		}
		if len(batch) == 0 {
			return true
		}
		for len(batch) > 0 {
			n := min(len(batch), publishBatch)
			held, err := p.publish(ctx, batch[:n])
			p.note(held, contract.PublishedAtOnce)
			p.mu.Lock()
			p.published = append(p.published, rowsOf(held)...)
			p.mu.Unlock()
			if err != nil {
				left := len(batch) - len(held)
				p.log.Warn("queue does not take messages, they stay in the outbox", "messages", left, "err", err)
				p.m.left.Add(float64(left))
				p.fallBehind()
				return false
			}
			batch = batch[n:]
		}
	}
}

// catchUp publishes the outbox up to its end and is then ahead. It does not wait for the outbox to be empty, which
// under load it never is: other nodes' rows of this moment are in it too.
func (p *publisher) catchUp(ctx context.Context) bool {
	if !p.deletePublished(ctx) { // else they would be published again
		return false
	}
	if !p.publishToEnd(ctx) {
		return false
	}
	p.mu.Lock()
	p.behind = false
	p.mu.Unlock()
	// A batch committed before this moment is in what is read now. One committed after it gathers, and may be read
	// as well: published twice, in order both times.
	if !p.publishToEnd(ctx) {
		p.fallBehind()
		return false
	}
	return true
}

// publishToEnd publishes all rows that were in the outbox when it was called.
func (p *publisher) publishToEnd(ctx context.Context) bool {
	if err := p.publishOutbox(ctx, contract.PublishedFromBox, func(time.Time) bool { return true }); err != nil {
		p.log.Debug("outbox not published", "err", err)
		return false
	}
	return true
}

// publishOutbox publishes and deletes the rows that were in the outbox when it was called and are due by the times of
// their messages, until a page has none. Nothing overtakes: what follows a row that is not due in its conversation is
// left, and so is the rest of a partition that did not take its items. The error says why there is such a rest.
func (p *publisher) publishOutbox(ctx context.Context, by contract.PublishedBy, due func(time.Time) bool) error {
	end, err := p.outboxEnd(ctx)
	if err != nil {
		return err
	}
	young, stuck := make(map[contract.Conversation]bool), make(map[int]bool)
	var failed error
	for after := contract.OutboxPosition(0); after < end; {
		rows, err := p.page(ctx, after, end)
		if err != nil || len(rows) == 0 {
			return errors.Join(failed, err)
		}
		after = rows[len(rows)-1].Position
		var batch []outgoing
		anyDue := false
		for i := range rows {
			m := &rows[i].Message
			// Clocks of the nodes that made the messages may differ, so a later message can look older than an earlier one.
			if young[m.Conversation] || !due(m.CreatedAt) {
				young[m.Conversation] = true
				continue
			}
			anyDue = true
			if !stuck[p.queue.queue.Partition(string(m.Conversation))] {
				// Which connection sent it is not known any more: that one gets it too, and knows it by its seq.
				d := messageDelivery(m, "", m.CreatedAt)
				d.QueuedAt = m.CreatedAt // what it has waited in the outbox is part of the stage queue
				batch = append(batch, outgoingOf(&d, rows[i].Position))
			}
		}
		if !anyDue {
			return failed
		}
		held, err := p.publish(ctx, batch)
		p.m.swept.Add(float64(len(held)))
		p.note(held, by)
		if err := p.delete(ctx, rowsOf(held)); err != nil {
			return err
		}
		var partial *contract.PublishError
		switch {
		case errors.As(err, &partial):
			failed = err
			for _, partition := range partial.Partitions {
				stuck[partition] = true
			}
		case err != nil:
			return err
		}
	}
	return failed
}

func (p *publisher) outboxEnd(ctx context.Context) (contract.OutboxPosition, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return p.store.OutboxEnd(ctx)
}

func (p *publisher) page(ctx context.Context, after, end contract.OutboxPosition) ([]contract.OutboxRow, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return p.store.Outbox(ctx, after, end, publishBatch)
}

// publish answers what the queue holds for sure. The error says why that is not all.
func (p *publisher) publish(ctx context.Context, batch []outgoing) (held []outgoing, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err = p.queue.send(ctx, batch)
	var partial *contract.PublishError
	switch {
	case err == nil:
		held = batch
	case errors.As(err, &partial):
		for _, o := range batch {
			if !slices.Contains(partial.Partitions, p.queue.queue.Partition(o.item.Key)) {
				held = append(held, o)
			}
		}
	}
	p.m.published.Add(float64(len(held)))
	if err != nil {
		err = fmt.Errorf("publish: %w", err)
	}
	return held, err
}

func rowsOf(batch []outgoing) []contract.OutboxPosition {
	rows := make([]contract.OutboxPosition, len(batch))
	for i := range batch {
		rows[i] = batch[i].row
	}
	return rows
}

// deletePublished deletes the rows that no commit took along.
func (p *publisher) deletePublished(ctx context.Context) bool {
	rows := p.takePublished()
	if err := p.delete(ctx, rows); err != nil {
		p.log.Debug("published outbox rows not deleted", "err", err)
		p.returnPublished(rows)
		return false
	}
	return true
}

func (p *publisher) delete(ctx context.Context, rows []contract.OutboxPosition) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return p.store.DeleteOutbox(ctx, rows)
}

// sweep publishes the rows that processes left behind when they died, until ctx ends.
func (p *publisher) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer p.unmeasured() // another node sweeps, and says it
	for {
		err := p.publishOutbox(ctx, contract.PublishedBySweep, func(made time.Time) bool { return time.Since(made) > sweepAge })
		if err != nil && ctx.Err() == nil {
			p.log.Warn("outbox not swept", "err", err)
		}
		p.measure(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// measure has the metrics know what waits in the outbox.
func (p *publisher) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	n, oldest, err := p.store.OutboxSize(ctx)
	if err != nil {
		p.unmeasured()
		return
	}
	p.m.waiting.WithLabelValues().Set(float64(n))
	age := 0.0
	if n > 0 {
		age = max(0, time.Since(oldest).Seconds())
	}
	p.m.oldest.WithLabelValues().Set(age)
}

// unmeasured has the metrics say nothing: 0 would say that nothing waits.
func (p *publisher) unmeasured() {
	p.m.waiting.Reset()
	p.m.oldest.Reset()
}
