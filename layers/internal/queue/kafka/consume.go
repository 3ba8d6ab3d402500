package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"gochat/layers/internal/queue"
)

// leaveTimeout bounds how long the end of Consume tries to tell the group. If it cannot, the group finds out when
// the session has run out.
const leaveTimeout = 2 * time.Second

// Consume implements queue.Queue.
func (q *Queue) Consume(ctx context.Context, h queue.Handler) error {
	attempts, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var broken error
	away := false
	queue.Repeat(attempts, func() bool {
		bounded, cancel := context.WithTimeout(ctx, opTimeout)
		err := q.check(bounded)
		cancel()
		switch {
		case q.isClosed():
			<-ctx.Done() // as a process that has crashed, it does nothing more
			return true
		case err == nil:
			away = false
			if err = q.session(ctx, h); err == nil {
				return true
			}
			broken = err
			giveUp()
		case errors.Is(err, errPartitions):
			broken = err
			giveUp()
		default:
			q.readings.Metrics.Failed(queue.OpRead)
			if !away && ctx.Err() == nil {
				q.log.WarnContext(ctx, "queue cannot be reached", "err", err)
			}
			away = true
		}
		return false
	})
	if broken != nil {
		return fmt.Errorf("consume: %w", broken)
	}
	return nil
}

func (q *Queue) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// session is one membership in the group. It ends with Consume, or when the topics have been replaced: a client holds
// on to those that it has seen first.
type session struct {
	*Queue
	handler queue.Handler
	client  *kgo.Client
	commits *commits
	running sync.WaitGroup // the readers

	mu      sync.Mutex
	ended   bool // no reader starts any more
	readers map[int32]*reader
}

// session returns nil once ctx has ended, the queue is closed or the topics are not those it began with, and every
// handler has returned.
func (q *Queue) session(ctx context.Context, h queue.Handler) error {
	s := &session{Queue: q, handler: h, readers: make(map[int32]*reader)}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	client, err := kgo.NewClient(append(q.cfg.access(),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(q.cfg.Topic),
		// Of the partitions that stay here nothing is interrupted; one that moves is given up in a first round, and
		// only when all have agreed to that is it given to its new owner, in a second.
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(q.cfg.Session),
		kgo.HeartbeatInterval(q.cfg.Session/5),
		// A partition is given up after what is in flight, and that must be within this time.
		kgo.RebalanceTimeout(q.cfg.Drain+3*opTimeout),
		// Whoever joins while others do may begin that time anew: a member that gives up before, and joins again under a
		// new name, would do so to the others for ever.
		kgo.RequestTimeoutOverhead(q.cfg.Drain+6*opTimeout),
		kgo.RetryTimeout(q.cfg.Session),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			s.begin(reading, got[q.cfg.Topic])
		}),
		kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
			s.fetched(resp)
			return nil
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			s.end(gone[q.cfg.Topic], func(r *reader) { r.giveUp() })
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			s.end(gone[q.cfg.Topic], (*reader).lose)
		}),
		// How late a partition is fetched whose reader had enough and has no more.
		kgo.FetchMaxWait(250*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	s.client, s.commits = client, newCommits(client, q.cfg.Topic)

	// Not derived from ctx: what the last handlers have done is still committed.
	committing, stopCommits := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCommits()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.commits.run(committing) })
	helpers.Go(func() {
		select {
		case <-q.closed:
			s.loseAll()
			stop()
		case <-reading.Done():
		}
	})
	helpers.Go(func() {
		q.readings.Sample(reading, func(ctx context.Context, partitions []int) ([]queue.PartitionStats, error) {
			stats, err := s.sample(ctx, partitions)
			if q.missing(err) {
				s.loseAll()
				stop()
			}
			return stats, err
		})
	})
	queue.Repeat(reading, func() bool {
		replaced, ok := s.poll(reading)
		if replaced {
			s.loseAll()
			stop()
		}
		return ok
	})

	// From here on it is a member that reads nothing, until its handlers have returned and Kafka knows of it.
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
	stopCommits()
	helpers.Wait()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := client.LeaveGroupContext(leaving); err != nil {
		q.log.WarnContext(ctx, "queue's consumer group was not told that this consumer has left", "err", err)
	}
	client.Close()
	return nil
}

// poll gives what has come to the readers. replaced is true if the topic is another one now; ok is false if
// something failed, which has been reported.
func (s *session) poll(ctx context.Context) (replaced, ok bool) {
	fetches := s.client.PollFetches(ctx)
	// Until then no partition changes hands.
	defer s.client.AllowRebalance()
	ok = true
	fetches.EachError(func(_ string, p int32, err error) {
		var membership *kgo.ErrGroupSession
		var loss *kgo.ErrDataLoss
		switch {
		case ctx.Err() != nil:
		case s.missing(err):
			replaced, ok = true, false
		case errors.As(err, &membership):
			s.readings.Metrics.Failed(queue.OpRead)
			s.log.WarnContext(ctx, "queue's consumer group has lost this consumer, which joins again", "err", err)
		case errors.As(err, &loss):
			s.readings.Metrics.Failed(queue.OpRead)
			s.log.ErrorContext(ctx, "queue partition has lost items", "partition", p, "err", err)
		default:
			s.readings.Reached(int(p), queue.OpRead, err)
			ok = false
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if r := s.readers[f.Partition]; r != nil && len(f.Records) > 0 {
			r.add(f.Records)
		}
	})
	return replaced, ok
}

// begin starts a reader for each partition.
func (s *session) begin(ctx context.Context, partitions []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || ctx.Err() != nil {
		return
	}
	for _, p := range partitions {
		s.readers[p] = s.startReader(ctx, p)
	}
}

// fetched tells the readers how far earlier owners have handed over items.
func (s *session) fetched(resp *kmsg.OffsetFetchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tell := func(p int32, metadata *string) {
		if r := s.readers[p]; r != nil && metadata != nil {
			r.handedBefore.Store(decodeHanded(*metadata))
		}
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			tell(p.Partition, p.Metadata)
		}
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				tell(p.Partition, p.Metadata)
			}
		}
	}
}

// end ends the readers of the partitions and returns once they have ended, before anybody else may begin.
func (s *session) end(partitions []int32, how func(*reader)) {
	var ending []*reader
	s.mu.Lock()
	for _, p := range partitions {
		if r := s.readers[p]; r != nil {
			how(r)
			ending = append(ending, r)
			delete(s.readers, p)
		}
	}
	s.mu.Unlock()
	for _, r := range ending {
		<-r.done
	}
	s.client.ResumeFetchPartitions(map[string][]int32{s.cfg.Topic: partitions})
}

// loseAll makes all readers end and does not wait for that.
func (s *session) loseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, r := range s.readers {
		r.lose()
	}
}

// sample is stats of partitions that are read here, and notes whether they can be reached. Ages are those of the items
// that have been read.
func (s *session) sample(ctx context.Context, partitions []int) ([]queue.PartitionStats, error) {
	at, err := s.positions(ctx)
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		for _, p := range partitions {
			s.readings.Reached(p, queue.OpRead, err)
		}
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var stats []queue.PartitionStats
	for _, p := range partitions {
		if r := s.readers[int32(p)]; r != nil {
			stats = append(stats, s.partitionStats(p, at[p], r.since()))
		}
	}
	return stats, nil
}
