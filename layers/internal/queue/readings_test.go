package queue_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

// TestUnknownReadings: while the broker cannot be asked, nobody says how much waits; who reads the partition is still said.
func TestUnknownReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		tel := observability.Discard()
		tel.Metrics = metrics
		cfg := queue.Defaults()
		r := queue.NewReadings(cfg, tel)
		r.Begin(3)
		r.Begin(5)
		var away atomic.Pointer[error]
		away.Store(new(error))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Sample(ctx, func(_ context.Context, some []int) (all []queue.PartitionStats, err error) {
				for _, p := range some {
					all = append(all, queue.PartitionStats{Partition: p, Depth: 7, OldestAge: 2 * time.Second})
				}
				return all, *away.Load()
			})
		}()
		series := func(name string) (n int) {
			families, err := metrics.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == name {
					n = len(f.GetMetric())
				}
			}
			return n
		}
		for _, want := range []struct {
			err   error
			known int
		}{{nil, 2}, {errors.New("away"), 0}, {nil, 2}} {
			away.Store(&want.err)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			for _, name := range []string{"gochat_queue_depth", "gochat_queue_oldest_age_seconds"} {
				if n := series(name); n != want.known {
					t.Errorf("with %v: %s of %d partitions, want %d", want.err, name, n, want.known)
				}
			}
			if n := series("gochat_queue_partition_owned"); n != 2 {
				t.Errorf("with %v: %d partitions are owned, want 2", want.err, n)
			}
		}
		cancel()
		<-done
	})
}
