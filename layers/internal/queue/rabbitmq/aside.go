package rabbitmq

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gochat/layers/internal/queue"
)

// keptAside is how many items are kept of each partition.
const keptAside = 200

func (q *Queue) asideName(p int) string { return q.names[p] + ".aside" }

// setAside adds the item to the partition's queue of those set aside.
func (r *reader) setAside(ctx context.Context, it queue.Item, cause error) error {
	m, err := encode(it, time.Now())
	if err != nil {
		return err
	}
	return r.keepAside(ctx, m, cause)
}

// setForeignAside is setAside for a message that is no item of ours.
func (r *reader) setForeignAside(ctx context.Context, d amqp.Delivery, cause error) error {
	m, err := encode(queue.Item{Body: d.Body}, time.Now())
	if err != nil {
		return err
	}
	return r.keepAside(ctx, m, fmt.Errorf("%w; its headers: %v", cause, d.Headers))
}

func (r *reader) keepAside(ctx context.Context, m amqp.Publishing, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if err := r.declareAside(ctx, r.partition); err != nil {
		return err
	}
	reason := cause.Error()
	m.Headers[fieldReason] = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	f := r.outlet.send(ctx, func() []message { return []message{{r.asideName(r.partition), m}} })
	if f.messages == nil {
		return f.err
	}
	return f.wait(ctx)[0]
}

// SetAside implements queue.Queue. Who looks holds all that is there for a moment: another who looks at the same time
// may see a part.
func (q *Queue) SetAside(ctx context.Context, limit int) ([]queue.Aside, error) {
	var all []queue.Aside
	for p := range q.cfg.Partitions {
		some, err := q.lookAside(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("items set aside of partition %d: %w", p, err)
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b queue.Aside) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	return all[:min(limit, len(all))], nil
}

// lookAside answers all that is set aside of the partition, latest first.
func (q *Queue) lookAside(ctx context.Context, p int) ([]queue.Aside, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	conn, err := q.asker.link.get(ctx)
	if err != nil {
		return nil, err
	}
	var all []queue.Aside
	err = conn.within(ctx, func() error {
		ch, err := conn.Channel() // its end gives back what was read
		if err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		for {
			d, is, err := ch.Get(q.asideName(p), false)
			switch {
			case refused(err, amqp.NotFound):
				return nil // nothing was ever set aside; the channel is closed
			case err != nil:
				return err
			case !is:
				return ch.Close()
			}
			it, err := decode(d)
			if err != nil {
				it = queue.Item{Body: d.Body}
			}
			reason, _ := d.Headers[fieldReason].(string)
			all = append(all, queue.Aside{Item: it, Partition: p, Reason: reason, At: enqueuedAt(d)})
			all[len(all)-1].EnqueuedAt = time.Time{} // of the message in the other queue
		}
	})
	slices.Reverse(all)
	return all, err
}
