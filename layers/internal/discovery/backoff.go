package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = time.Second // short enough that a returned etcd is in use again at once
)

// backoff is the pause before the next try: doubling, and spread out so that many processes do not try as one.
type backoff struct{ pause time.Duration }

func (b *backoff) next() time.Duration {
	b.pause = min(max(2*b.pause, firstPause), longPause)
	return b.pause/2 + rand.N(b.pause/2)
}

func (b *backoff) reset() { b.pause = 0 }

// sleep pauses for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// broadcast tells any number of waiters that something has changed. The owner's mutex guards it.
type broadcast struct{ c chan struct{} }

// next is closed at the next tell.
func (b *broadcast) next() <-chan struct{} {
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *broadcast) tell() {
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}
