package rpc

import "sync"

// workers handle the calls of batches in goroutines that are kept, up to workersKept of them: the stack of a new one
// grows by copies until it is as deep as a call needs.
type workers struct {
	idle  chan func()   // is received from by those that are kept and have nothing to do
	kept  chan struct{} // holds an element for each that is kept
	ended chan struct{}
	end   func() // has those that are kept end when they have nothing to do; for what they do, Server.Run waits
}

const workersKept = 512

func newWorkers() *workers {
	w := &workers{idle: make(chan func()), kept: make(chan struct{}, workersKept), ended: make(chan struct{})}
	w.end = sync.OnceFunc(func() { close(w.ended) })
	return w
}

// start runs f at once, in a goroutine that is not the caller's.
func (w *workers) start(f func()) {
	select {
	case w.idle <- f:
		return
	default:
	}
	select {
	case w.kept <- struct{}{}:
		go w.work(f)
	default:
		go f()
	}
}

// work ends when its server has ended.
func (w *workers) work(f func()) {
	defer func() { <-w.kept }()
	for {
		f()
		select {
		case f = <-w.idle:
		case <-w.ended:
			return
		}
	}
}
