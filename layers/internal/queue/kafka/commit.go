package kafka

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mark is what Kafka is to know of a partition.
type mark struct {
	offset int64 // everything before it is acknowledged
	epoch  int32 // of the last record before it, -1 if that is not known
	handed int64 // everything from offset to before it is being handed over
}

// commits tells Kafka the marks of all partitions. The client does one commit at a time: what comes meanwhile goes
// together in the next.
type commits struct {
	client *kgo.Client
	topic  string
	wake   chan struct{}

	mu      sync.Mutex
	marks   map[int32]mark
	waiters map[int32][]chan error
}

func newCommits(client *kgo.Client, topic string) *commits {
	return &commits{
		client: client, topic: topic, wake: make(chan struct{}, 1),
		marks: make(map[int32]mark), waiters: make(map[int32][]chan error),
	}
}

// submit answers once Kafka has the mark, or a later one of the same partition.
func (c *commits) submit(p int32, m mark) <-chan error {
	answer := make(chan error, 1)
	c.mu.Lock()
	c.marks[p] = m
	c.waiters[p] = append(c.waiters[p], answer)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return answer
}

// run works until ctx ends, when nobody may submit any more.
func (c *commits) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		marks, waiters := c.marks, c.waiters
		c.marks, c.waiters = make(map[int32]mark), make(map[int32][]chan error)
		c.mu.Unlock()
		if len(marks) == 0 {
			continue
		}
		errs := c.commit(ctx, marks)
		for p, answers := range waiters {
			for _, answer := range answers {
				answer <- errs(p)
			}
		}
	}
}

func (c *commits) commit(ctx context.Context, marks map[int32]mark) (errs func(p int32) error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	offsets := make(map[int32]kgo.EpochOffset, len(marks))
	for p, m := range marks {
		offsets[p] = kgo.EpochOffset{Epoch: m.epoch, Offset: m.offset}
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for _, t := range req.Topics {
			for i := range t.Partitions {
				metadata := encodeHanded(marks[t.Partitions[i].Partition].handed)
				t.Partitions[i].Metadata = &metadata
			}
		}
		return nil
	})
	var failed error
	answers := make(map[int32]error, len(marks))
	c.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				failed = err
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					answers[p.Partition] = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		})
	return func(p int32) error {
		if failed != nil {
			return failed
		}
		return answers[p]
	}
}
