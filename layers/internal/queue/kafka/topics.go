package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// errPartitions is what no waiting mends: every publisher must agree on the number of partitions.
var errPartitions = errors.New("another number of partitions than queue.partitions")

// ensure is check, unless the topics are known to be there.
func (q *Queue) ensure(ctx context.Context) error {
	if q.checked.Load() {
		return nil
	}
	return q.check(ctx)
}

// missing notes that the topics are not, or no more, those that were known, if err says so.
func (q *Queue) missing(err error) bool {
	if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID) {
		return false
	}
	q.moved.Store(true)
	q.checked.Store(false)
	return true
}

// check looks at the topics and makes those that are missing.
func (q *Queue) check(ctx context.Context) (err error) {
	defer func() { q.checked.Store(err == nil) }()
	if q.moved.Swap(false) {
		// The client holds on to the topics it has seen first, even if others have their names now.
		q.client.PurgeTopicsFromProducing(q.cfg.Topic, q.cfg.asideTopic())
	}
	for ctx.Err() == nil {
		made, err := q.checkOnce(ctx)
		if err != nil || made == 0 {
			return err
		}
		select { // look at what was made, here or elsewhere at the same time
		case <-ctx.Done():
		case <-time.After(minBackoff):
		}
	}
	return ctx.Err()
}

// checkOnce answers how many topics were missing.
func (q *Queue) checkOnce(ctx context.Context) (made int, err error) {
	var found kadm.TopicDetails
	err = q.ask(ctx, func(ctx context.Context) (err error) {
		found, err = q.admin.ListTopics(ctx, q.cfg.Topic, q.cfg.asideTopic())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look for topics: %w", err)
	}
	for _, topic := range []string{q.cfg.Topic, q.cfg.asideTopic()} {
		is, ok := found[topic]
		switch {
		case !ok || errors.Is(is.Err, kerr.UnknownTopicOrPartition):
			if err := q.create(ctx, topic); err != nil {
				return 0, err
			}
			made++
		case is.Err != nil:
			return 0, fmt.Errorf("topic %s: %w", topic, is.Err)
		case len(is.Partitions) != q.cfg.Partitions:
			return 0, fmt.Errorf("topic %s has %d partitions, queue.partitions is %d: %w",
				topic, len(is.Partitions), q.cfg.Partitions, errPartitions)
		}
	}
	return made, nil
}

func (q *Queue) create(ctx context.Context, topic string) error {
	configs := map[string]string{"cleanup.policy": "delete"} // a compacted topic would lose all but the last of a key
	if topic == q.cfg.asideTopic() {
		// The last 100 of each partition stay, however old and large they are.
		configs["retention.ms"], configs["retention.bytes"], configs["segment.bytes"] = "-1", "134217728", "16777216"
	}
	pointers := make(map[string]*string, len(configs))
	for k, v := range configs {
		pointers[k] = &v
	}
	// -1: as many replicas as the cluster's operators think right.
	err := q.ask(ctx, func(ctx context.Context) error {
		_, err := q.admin.CreateTopic(ctx, int32(q.cfg.Partitions), -1, pointers, topic)
		return err
	})
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("make topic %s: %w", topic, err)
	}
	q.log.InfoContext(ctx, "queue topic made", "topic", topic, "partitions", q.cfg.Partitions)
	return nil
}
