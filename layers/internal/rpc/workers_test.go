package rpc

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/testwait"
)

// Everything given to workers runs at once, however much it is; those that are kept work again, and end with the rest.
func TestWorkers(t *testing.T) {
	w := newWorkers()
	before := runtime.NumGoroutine()
	for range 3 {
		const n = workersKept + 50
		release := make(chan struct{})
		var running atomic.Int32
		var done sync.WaitGroup
		done.Add(n)
		for range n {
			w.start(func() {
				defer done.Done()
				running.Add(1)
				<-release
			})
		}
		eventually(t, "all run at the same time", func() bool { return running.Load() == n })
		if more := runtime.NumGoroutine() - before; more > n {
			t.Fatalf("%d goroutines for %d that run: those that were kept do not work again", more, n)
		}
		close(release)
		done.Wait()
		eventually(t, "some are kept, and the others end", func() bool { return runtime.NumGoroutine()-before == workersKept })
	}
	one, again := make(chan struct{}), make(chan struct{})
	w.start(func() { close(one) })
	testwait.Receive(t, "one of them works", one)
	w.end()
	eventually(t, "all end", func() bool { return runtime.NumGoroutine() <= before })
	w.start(func() { close(again) })
	testwait.Receive(t, "what comes when they have ended", again)
}
