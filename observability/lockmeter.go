package observability

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// holdSample is how many acquisitions there are to one whose hold time is taken.
const holdSample = 64

// LockMetrics is where one Mutex counts. The counters and observers are children already looked up, such as
// vec.WithLabelValues("7"), since a look-up costs more than the lock.
type LockMetrics struct {
	Acquisitions prometheus.Counter
	Contended    prometheus.Counter  // acquisitions that had to wait, counted when the wait begins
	Wait         prometheus.Observer // seconds, of the contended ones alone
	Hold         prometheus.Observer // seconds, of one acquisition in 64
}

// Mutex is a sync.Mutex that counts. The clock is read only by an acquisition that has to wait and by one hold in 64,
// and what was measured is observed after the lock is released, so that measuring does not lengthen what it measures.
type Mutex struct {
	to LockMetrics
	mu sync.Mutex

	// Of the acquisition that holds mu, and guarded by it.
	count  uint64
	timed  bool          // one of the two below is set
	waited time.Duration // 0 if it did not
	since  time.Time     // zero if this hold is not sampled
}

var _ sync.Locker = (*Mutex)(nil)

// NewMutex is unlocked. Every field of to is needed.
func NewMutex(to LockMetrics) *Mutex { return &Mutex{to: to} }

// Lock blocks until the lock is held.
func (m *Mutex) Lock() {
	if !m.mu.TryLock() {
		m.lockSlow()
	}
	if m.count%holdSample == 0 {
		m.since, m.timed = time.Now(), true
	}
	m.count++
	m.to.Acquisitions.Inc()
}

func (m *Mutex) lockSlow() {
	m.to.Contended.Inc()
	start := time.Now()
	m.mu.Lock()
	m.waited, m.timed = max(time.Since(start), 1), true
}

// Waited is how long the acquisition that holds the lock had to wait for it. Only its holder may ask.
func (m *Mutex) Waited() time.Duration { return m.waited }

// Unlock releases the lock; that it is held is the caller's to know.
func (m *Mutex) Unlock() {
	if !m.timed {
		m.mu.Unlock()
		return
	}
	waited, since := m.waited, m.since
	m.waited, m.since, m.timed = 0, time.Time{}, false
	var held time.Duration
	if !since.IsZero() {
		held = time.Since(since)
	}
	m.mu.Unlock()
	if waited > 0 {
		m.to.Wait.Observe(waited.Seconds())
	}
	if !since.IsZero() {
		m.to.Hold.Observe(held.Seconds())
	}
}
