package rpc

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gochat/layers/internal/testwait"
)

// goroutine names the one that calls; no name is used again.
func goroutine() string {
	line := make([]byte, 64)
	return strings.Fields(string(line[:runtime.Stack(line, false)]))[1]
}

// Everything given to workers runs at once, however much it is; those that are kept work again, and end when they are told.
func TestWorkers(t *testing.T) {
	w := newWorkers()
	var known sync.Map
	for range 3 {
		const n = workersKept + 50
		release := make(chan struct{})
		var running atomic.Int32
		var done sync.WaitGroup
		done.Add(n)
		for range n {
			w.start(func() {
				defer done.Done()
				known.Store(goroutine(), true)
				running.Add(1)
				<-release
			})
		}
		eventually(t, "all run at the same time", func() bool { return running.Load() == n })
		close(release)
		done.Wait()
		if kept := len(w.kept); kept > workersKept {
			t.Errorf("%d are kept, want at most %d", kept, workersKept)
		}
	}
	eventually(t, "one that has worked works again", func() bool {
		again := make(chan bool, 1)
		w.start(func() { _, is := known.Load(goroutine()); again <- is })
		return testwait.Receive(t, "somebody works", again)
	})
	w.end()
	eventually(t, "those that were kept end", func() bool { return len(w.kept) == 0 })
	last := make(chan struct{})
	w.start(func() { close(last) })
	testwait.Receive(t, "what comes when they have ended", last)
}
