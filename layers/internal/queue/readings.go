package queue

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gochat/observability"
)

// Readings are the partitions that one instance reads now, and what is known of them. Every driver has one.
type Readings struct {
	Metrics *Metrics

	cfg         Config
	log         *slog.Logger
	redelivered []atomic.Int64 // by partition, since the instance was made

	mu    sync.Mutex
	state map[int]error // the partitions read here, and why the last attempt to reach the broker for each failed
}

// NewReadings registers the metrics, so a Registerer takes one.
func NewReadings(cfg Config, tel observability.Telemetry) *Readings {
	return &Readings{
		Metrics: newMetrics(tel.Metrics, cfg.Partitions), cfg: cfg, log: tel.Log,
		redelivered: make([]atomic.Int64, cfg.Partitions), state: make(map[int]error),
	}
}

// Begin and End bracket the time that this instance reads a partition.
func (r *Readings) Begin(p int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state[p] = nil
	r.Metrics.own(p)
}

// End is the counterpart of Begin.
func (r *Readings) End(p int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.state, p)
	r.Metrics.forget(p)
}

// Reached keeps the outcome of an operation on a partition that is read here. It logs when the outcome changes, not
// at every attempt.
func (r *Readings) Reached(p int, op Op, err error) {
	r.mu.Lock()
	before, reading := r.state[p]
	if reading {
		r.state[p] = err
	}
	r.mu.Unlock()
	if err != nil {
		r.Metrics.Failed(op)
	}
	switch {
	case err != nil && before == nil:
		r.log.Warn("queue partition cannot be reached", "partition", p, "op", string(op), "err", err)
	case err == nil && before != nil:
		r.log.Info("queue partition is reached again", "partition", p)
	}
}

// Failing is why a partition that is read here could not be reached at the last attempt, nil if all could.
func (r *Readings) Failing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, err := range r.state {
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

// CountAttempt notes that the item has been read, and so often. It sets Item.Attempt.
func (r *Readings) CountAttempt(p int, it *Item, attempt int) {
	it.Attempt = max(1, attempt)
	if it.Attempt > 1 {
		r.Metrics.redelivered.Inc()
		r.redelivered[p].Add(1)
	}
}

// Redelivered is PartitionStats.Redelivered.
func (r *Readings) Redelivered(p int) int64 { return r.redelivered[p].Load() }

// samplePeriod is how often the gauges are set. They are set by who reads a partition alone, so that each partition
// has one series over all processes, and a sum of them is true.
const samplePeriod = 2 * time.Second

// sampleTimeout bounds one sample.
const sampleTimeout = 5 * time.Second

// Sample sets the gauges of the partitions read here until ctx ends.
func (r *Readings) Sample(ctx context.Context, stats func(context.Context, []int) ([]PartitionStats, error)) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r.mu.Lock()
		reading := slices.Sorted(maps.Keys(r.state))
		r.mu.Unlock()
		if len(reading) == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, sampleTimeout)
		all, err := stats(bounded, reading)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.Metrics.Failed(OpStats)
			}
			for _, p := range reading {
				r.Metrics.unknown(p)
			}
			continue // who reads the partition logs that the broker is away
		}
		r.mu.Lock()
		for _, s := range all {
			if _, still := r.state[s.Partition]; still {
				r.Metrics.set(s.Partition, s.Depth, s.OldestAge.Seconds())
			}
		}
		r.mu.Unlock()
	}
}

// Drainable is a context for work in flight: it has ctx's values and ends limit later than ctx. release ends it and
// waits for what watches over it.
func Drainable(ctx context.Context, limit time.Duration) (work context.Context, release func()) {
	// Not ended by ctx: its end starts the drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ctx.Done():
		case <-work.Done():
			return
		}
		select {
		case <-time.After(limit):
			cancel()
		case <-work.Done():
		}
	})
	return work, func() {
		cancel()
		watch.Wait()
	}
}

// The pause after a failure doubles from the first to the second.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
)

// Repeat calls step until ctx ends, with a pause after each that is false.
func Repeat(ctx context.Context, step func() bool) {
	pause := minPause
	for ctx.Err() == nil {
		if step() {
			pause = minPause
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}
