package queuetest

import (
	"context"
	"slices"
	"sync"

	"gochat/layers/internal/queue"
)

// Owners is a queue.Ownership for the instances of one process: exclusive, and fair over those that run.
type Owners struct {
	mu      sync.Mutex
	members []*member // in the order they joined
	owner   map[int]*member
	changed chan struct{} // closed and replaced at every change
}

// member is one call of Run. Its address is its identity.
type member struct{ giveUp map[int]context.CancelFunc }

var _ queue.Ownership = (*Owners)(nil)

// NewOwners has no members yet.
func NewOwners() *Owners {
	return &Owners{owner: make(map[int]*member), changed: make(chan struct{})}
}

// Run implements queue.Ownership.
func (o *Owners) Run(ctx context.Context, n int, own func(ctx context.Context, p int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &member{giveUp: make(map[int]context.CancelFunc)}
	o.change(func() { o.members = append(o.members, m) })
	var running sync.WaitGroup
	var once sync.Once
	var failed error
	for ctx.Err() == nil {
		o.mu.Lock()
		changed := o.changed
		for p := range n {
			wanted := o.members[p%len(o.members)] == m
			if giveUp, mine := m.giveUp[p]; mine && !wanted {
				giveUp()
			}
			if !wanted || o.owner[p] != nil {
				continue
			}
			o.owner[p] = m
			var pctx context.Context
			pctx, m.giveUp[p] = context.WithCancel(ctx)
			running.Go(func() {
				if err := own(pctx, p); err != nil {
					once.Do(func() { failed = err })
					cancel()
				}
				o.change(func() {
					m.giveUp[p]() // ends pctx, whatever ended own
					delete(m.giveUp, p)
					delete(o.owner, p)
				})
			})
		}
		o.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	o.change(func() { o.members = slices.DeleteFunc(o.members, func(other *member) bool { return other == m }) })
	running.Wait()
	return failed
}

func (o *Owners) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.changed)
	o.changed = make(chan struct{})
}
