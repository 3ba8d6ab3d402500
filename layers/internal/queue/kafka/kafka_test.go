package kafka_test

import (
	"testing"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
)

func TestKafka(t *testing.T) {
	queuetest.Exercise(t, func(t *testing.T) queuetest.Harness {
		b := start(t)
		return queuetest.Harness{
			Partitions: partitions,
			Bound:      bound,
			New:        func(t *testing.T) queue.Queue { return b.open(t) },
			Stop:       func(*testing.T) { b.Stop() },
			Start:      func(*testing.T) { b.StartElsewhere() },
		}
	})
}
