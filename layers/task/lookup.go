package task

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"gochat/layers/internal/contract"
)

// lookups looks at the routes for handovers of several partitions at once: those that come while one look is on its
// way share the next.
type lookups struct {
	routes  Routes
	timeout time.Duration
	running sync.WaitGroup

	mu      sync.Mutex
	next    *lookup // who is to be looked for, nil if nobody
	looking bool
}

// lookup is one look. routes has at least what each of those who share it has asked for.
type lookup struct {
	rooms  map[contract.RoomID]struct{}
	users  map[contract.UserID]struct{}
	routes contract.Routes // once done is closed, as err
	err    error
	done   chan struct{}
}

// resolve answers where the receivers of the deliveries are, as it is after the call.
func (l *lookups) resolve(ctx context.Context, deliveries []delivery) (contract.Routes, error) {
	one := l.join(deliveries)
	select {
	case <-one.done:
	case <-ctx.Done():
		return contract.Routes{}, ctx.Err()
	}
	if one.err != nil {
		return contract.Routes{}, fmt.Errorf("resolve routes: %w", one.err)
	}
	return one.routes, nil
}

func (l *lookups) join(deliveries []delivery) *lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &lookup{
			rooms: make(map[contract.RoomID]struct{}), users: make(map[contract.UserID]struct{}), done: make(chan struct{}),
		}
	}
	for i := range deliveries {
		if room := deliveries[i].Room; room != 0 {
			l.next.rooms[room] = struct{}{}
			continue
		}
		for _, user := range deliveries[i].Users {
			l.next.users[user] = struct{}{}
		}
	}
	if !l.looking {
		l.looking = true
		l.running.Go(l.run)
	}
	return l.next
}

func (l *lookups) run() {
	for {
		runtime.Gosched() // others are about to come
		l.mu.Lock()
		one := l.next
		l.next, l.looking = nil, one != nil
		l.mu.Unlock()
		if one == nil {
			return
		}
		// Not a handover's context: others share the look.
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		one.routes, one.err = l.routes.Resolve(ctx, slices.Collect(maps.Keys(one.rooms)), slices.Collect(maps.Keys(one.users)))
		cancel()
		close(one.done)
	}
}
