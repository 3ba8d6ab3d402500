package redis_test

import (
	"context"
	"testing"
	"time"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/redis"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

// BenchmarkPublishConsume publishes in batches of 100 and ends when everything is acknowledged.
func BenchmarkPublishConsume(b *testing.B) {
	const batch = 100
	cfg := redis.DefaultConfig()
	cfg.Addrs = []string{testdeps.Redis(b).Addr()}
	q := open(b, cfg, queuetest.NewOwners(), observability.Discard())
	defer func() { _ = q.Close() }()
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
	b.ResetTimer()
	start := time.Now()
	for published, done := 0, 0; done < b.N*batch; {
		if published < b.N && published*batch-done < 10_000 {
			must(b, q.Publish(ctx, all))
			published++
			select {
			case n := <-handled:
				done += n
			default:
			}
			continue
		}
		done += <-handled
	}
	b.ReportMetric(float64(b.N*batch)/time.Since(start).Seconds(), "items/s")
	b.StopTimer()
	cancel()
	must(b, <-ended)
}
