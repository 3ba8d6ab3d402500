package observability

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

type meter struct {
	acquisitions, contended prometheus.Counter
	wait, hold              prometheus.Histogram
}

func newMeter() (*Mutex, meter) {
	m := meter{
		acquisitions: prometheus.NewCounter(prometheus.CounterOpts{Name: "a"}),
		contended:    prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}),
		wait:         prometheus.NewHistogram(prometheus.HistogramOpts{Name: "w"}),
		hold:         prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h"}),
	}
	return NewMutex(LockMetrics{Acquisitions: m.acquisitions, Contended: m.contended, Wait: m.wait, Hold: m.hold}), m
}

// add is a critical section.
func add(mu sync.Locker, n *int) {
	mu.Lock()
	*n++
	mu.Unlock()
}

type counts struct{ acquisitions, contended, waits, holds uint64 }

func (m meter) counts(t *testing.T) counts {
	t.Helper()
	read := func(c prometheus.Metric) *dto.Metric {
		var out dto.Metric
		if err := c.Write(&out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	return counts{
		uint64(read(m.acquisitions).GetCounter().GetValue()), uint64(read(m.contended).GetCounter().GetValue()),
		read(m.wait).GetHistogram().GetSampleCount(), read(m.hold).GetHistogram().GetSampleCount(),
	}
}

func TestMutexUncontended(t *testing.T) {
	for _, tc := range []struct {
		locks int
		want  counts
	}{
		{0, counts{}},
		{1, counts{1, 0, 0, 1}},
		{holdSample, counts{holdSample, 0, 0, 1}},
		{holdSample + 1, counts{holdSample + 1, 0, 0, 2}},
	} {
		mu, m := newMeter()
		n := 0
		for range tc.locks {
			add(mu, &n)
		}
		if got := m.counts(t); got != tc.want {
			t.Errorf("after %d: %+v, want %+v", tc.locks, got, tc.want)
		}
	}
}

func TestMutexContended(t *testing.T) {
	mu, m := newMeter()
	mu.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := 0
		add(mu, &n)
	}()
	// A wait shows as soon as it begins, so that a lock that is never released can be seen.
	eventually(t, "the second locker waits", func() bool { return m.counts(t).contended == 1 })
	if got := m.counts(t); got.acquisitions != 1 || got.waits != 0 {
		t.Errorf("while it waits: %+v", got)
	}
	mu.Unlock()
	<-done
	if got, want := m.counts(t), (counts{2, 1, 1, 1}); got != want {
		t.Errorf("after: %+v, want %+v", got, want)
	}
}

func TestMutexExcludes(t *testing.T) {
	mu, m := newMeter()
	const goroutines, each = 8, 2000
	var n int // guarded by mu: the race detector says if it is not
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				add(mu, &n)
			}
		})
	}
	wg.Wait()
	got := m.counts(t)
	if n != goroutines*each || got.acquisitions != goroutines*each {
		t.Errorf("counted to %d in %d acquisitions, want %d", n, got.acquisitions, goroutines*each)
	}
	if got.contended != got.waits || got.holds != goroutines*each/holdSample {
		t.Errorf("%+v: want as many waits as contended, and %d holds", got, goroutines*each/holdSample)
	}
}

func BenchmarkMutex(b *testing.B) {
	metered, _ := newMeter()
	for _, bm := range []struct {
		name string
		mu   sync.Locker
	}{{"sync", &sync.Mutex{}}, {"metered", metered}} {
		b.Run(bm.name+"/alone", func(b *testing.B) {
			n := 0
			for b.Loop() {
				add(bm.mu, &n)
			}
		})
		b.Run(bm.name+"/shared", func(b *testing.B) {
			n := 0
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					add(bm.mu, &n)
				}
			})
		})
	}
}
