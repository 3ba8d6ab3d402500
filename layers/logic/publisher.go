package logic

import (
	"context"
	"fmt"
	"log/slog"
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
type publisher struct {
	store Store
	queue Publisher
	m     *metrics
	log   *slog.Logger
	wake  chan struct{}

	commits atomic.Bool // one has taken published rows along since the last tick

	mu        sync.Mutex
	gathered  []outgoing
	behind    bool
	doubted   time.Time            // it stays behind until then
	published []contract.MessageID // rows to delete with the next commit
}

// outgoing is a stored message as it goes to the queue.
type outgoing struct {
	id   contract.MessageID
	item contract.Item
}

func outgoingOf(d contract.Delivery) outgoing {
	return outgoing{d.Message, item(string(d.Conversation), d.Traceparent, encode(&d))}
}

const (
	maxGathered    = 16384           // messages kept in memory for a queue that is slow
	publishBatch   = 500             // messages handed to the queue at once
	publishTimeout = 5 * time.Second // of one such batch
	publishPause   = 250 * time.Millisecond
	idleDelete     = time.Second // published rows go with the next commit, or after this if there is none
	sweepEvery     = 2 * time.Second
	sweepAge       = 10 * time.Second // older rows than this are nobody's: their publisher would have caught up
	doubtTime      = sweepAge         // in which a commit in doubt comes through, or else is left to the sweeper
)

// ever is later than every row, whatever the clocks of the nodes say.
var ever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func newPublisher(store Store, queue Publisher, m *metrics, log *slog.Logger) *publisher {
	return &publisher{store: store, queue: queue, m: m, log: log, wake: make(chan struct{}, 1)}
}

// add takes a committed batch. It never blocks.
func (p *publisher) add(batch []outgoing) {
	if len(batch) == 0 {
		return
	}
	p.mu.Lock()
	if !p.behind && len(p.gathered)+len(batch) > maxGathered {
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
func (p *publisher) takePublished() []contract.MessageID {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.published
	p.published = nil
	return taken
}

func (p *publisher) returnPublished(ids []contract.MessageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(ids, p.published...)
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
		caughtUp := p.publishAll(ctx)
		if !caughtUp && !stopping {
			select {
			case <-time.After(publishPause):
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
			if err := p.publish(ctx, batch[:n]); err != nil {
				p.log.Warn("queue does not take messages, they stay in the outbox", "messages", len(batch), "err", err)
				p.m.left.Add(float64(len(batch)))
				p.mu.Lock()
				p.fall()
				p.mu.Unlock()
				return false
			}
			p.mu.Lock()
			for i := range batch[:n] {
				p.published = append(p.published, batch[i].id)
			}
			p.mu.Unlock()
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
	for {
		n, err := p.publishOutbox(ctx, ever)
		if err != nil {
			p.log.Debug("outbox not published", "err", err)
			return false
		}
		if n < publishBatch {
			return true
		}
	}
}

// publishOutbox publishes and deletes one batch of rows older than the time, and answers how many.
func (p *publisher) publishOutbox(ctx context.Context, olderThan time.Time) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	rows, err := p.store.Outbox(ctx, olderThan, publishBatch)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	batch, ids := make([]outgoing, len(rows)), make([]contract.MessageID, len(rows))
	for i := range rows {
		// Which connection sent it is not known any more: that one gets it too, and knows it by its seq.
		batch[i], ids[i] = outgoingOf(messageDelivery(&rows[i], "", rows[i].CreatedAt)), rows[i].ID
	}
	if err := p.publish(ctx, batch); err != nil {
		return 0, err
	}
	p.m.swept.Add(float64(len(rows)))
	return len(rows), p.store.DeleteOutbox(ctx, ids)
}

func (p *publisher) publish(ctx context.Context, batch []outgoing) error {
	items := make([]contract.Item, len(batch))
	for i := range batch {
		items[i] = batch[i].item
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := p.queue.Publish(ctx, items); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.m.published.Add(float64(len(items)))
	return nil
}

// deletePublished deletes the rows that no commit took along.
func (p *publisher) deletePublished(ctx context.Context) bool {
	ids := p.takePublished()
	if len(ids) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := p.store.DeleteOutbox(ctx, ids); err != nil {
		p.log.Debug("published outbox rows not deleted", "err", err)
		p.returnPublished(ids)
		return false
	}
	return true
}

// sweep publishes the rows that processes left behind when they died, until ctx ends.
func (p *publisher) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for {
			n, err := p.publishOutbox(ctx, time.Now().Add(-sweepAge))
			if err != nil && ctx.Err() == nil {
				p.log.Warn("outbox not swept", "err", err)
			}
			if err != nil || n == 0 { // fewer than were asked for does not mean that no more are due
				break
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
