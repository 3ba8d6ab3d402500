package rabbitmq_test

import (
	"context"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/rabbitmq"
	"gochat/layers/internal/testdeps"
)

// BenchmarkPublishConsume publishes in batches of 100, some at a time, and ends when everything is acknowledged.
func BenchmarkPublishConsume(b *testing.B) {
	const batch, publishers = 100, 8
	cfg := rabbitmq.DefaultConfig()
	cfg.URL = testdeps.RabbitMQ(b).URL()
	q := open(b, cfg, queuetest.NewOwners())
	ctx, cancel := context.WithCancel(b.Context())
	ended, handled := make(chan error, 1), make(chan int, 1<<16)
	go func() {
		ended <- q.Consume(ctx, func(_ context.Context, items []queue.Item) error { handled <- len(items); return nil })
	}()
	var all []queue.Item
	for i := range batch {
		all = append(all, queue.Item{
			Key:     "room:" + string(rune('a'+i%26)),
			Headers: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			Body:    make([]byte, 512),
		})
	}
	must(b, q.Publish(ctx, all)) // the queues are made
	for done := 0; done < batch; {
		done += <-handled
	}
	calls, failed := make(chan struct{}, b.N), make(chan error, publishers)
	for range b.N {
		calls <- struct{}{}
	}
	close(calls)
	b.ResetTimer()
	start := time.Now()
	for range publishers {
		go func() {
			for range calls {
				if err := q.Publish(ctx, all); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range publishers {
		must(b, <-failed)
	}
	b.ReportMetric(float64(b.N*batch)/time.Since(start).Seconds(), "confirmed/s")
	for done := 0; done < b.N*batch; {
		done += <-handled
	}
	b.ReportMetric(float64(b.N*batch)/time.Since(start).Seconds(), "items/s")
	b.StopTimer()
	cancel()
	must(b, <-ended)
}
