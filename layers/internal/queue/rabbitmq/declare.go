package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// noDeliveryLimit is so high that nothing is dropped for having been delivered often; 3.10 has no other word for it.
// Without a limit 3.10 puts what is given back behind everything else, and 4.0 takes 20.
const noDeliveryLimit = 1_000_000_000

// declare makes the partition's queue if it is missing and answers how many messages wait in it, those that somebody
// has read not counted. The broker answers 0 if the queue's leader is too busy to tell.
func (q *Queue) declare(ctx context.Context, p int) (is amqp.Queue, err error) {
	name := q.names[p]
	if q.asIs[p].Load() {
		err = q.asker.ask(ctx, func(ch *amqp.Channel) error {
			is, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		})
		if !refused(err, amqp.NotFound) {
			return is, wrap(err, "queue %s", name)
		}
		q.asIs[p].Store(false)
	}
	err = q.asker.ask(ctx, func(ch *amqp.Channel) error {
		is, err = ch.QueueDeclare(name, true, false, false, false, amqp.Table{
			"x-queue-type":             "quorum",
			"x-single-active-consumer": true,
			"x-delivery-limit":         int64(noDeliveryLimit),
			"x-max-length":             int64(fence(q.cfg.MaxItems)),
			"x-overflow":               "reject-publish",
		})
		return err
	})
	if refused(err, amqp.PreconditionFailed) && strings.Contains(err.Error(), "'x-max-length'") {
		q.log.Warn("queue was made with another bound, which stands until it is deleted", "queue", name, "err", err)
		q.asIs[p].Store(true)
		return q.declare(ctx, p)
	}
	return is, wrap(err, "declare queue %s", name)
}

// fence is the broker's own bound. Once it is passed the broker refuses until the queue is down to 80 per cent of it,
// so that is where a partition is full.
func fence(maxItems int) int { return maxItems + maxItems/4 + 1 }

// declareAside makes the queue of what is set aside from the partition. It is not there before something is.
func (q *Queue) declareAside(ctx context.Context, p int) error {
	return q.asker.ask(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(q.asideName(p), true, false, false, false, amqp.Table{
			"x-queue-type":     "quorum",
			"x-delivery-limit": int64(noDeliveryLimit), // each look at it is a delivery
			"x-max-length":     int64(keptAside),
			"x-overflow":       "drop-head",
		})
		return wrap(err, "declare queue %s", q.asideName(p))
	})
}

// refused is true if the broker has answered with the code, which closes the channel.
func refused(err error, code int) bool {
	var answer *amqp.Error
	return errors.As(err, &answer) && answer.Code == code
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
