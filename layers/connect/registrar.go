package connect

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gochat/layers/internal/contract"
)

// Routes is where this node makes known whom it holds.
type Routes interface {
	// Apply writes changes, in order. After an error any part of them may have been written.
	Apply(ctx context.Context, node contract.NodeRef, changes []contract.RouteChange) error
	// Replace makes the routes of that life exactly these.
	Replace(ctx context.Context, node contract.NodeRef, present []contract.RouteChange) error
	Registered(ctx context.Context, node contract.NodeRef) (bool, error)
}

// registrar counts the node's connections by user and by user and room, and keeps the routes in step.
type registrar struct {
	routes  Routes
	self    func() (contract.NodeRef, bool)
	tell    func(ctx context.Context, rooms []contract.RoomID) error
	refresh time.Duration
	timeout time.Duration
	m       *metrics
	log     *slog.Logger
	wake    chan struct{} // something is pending
	news    chan struct{} // a room has changed

	mu      sync.Mutex
	users   map[contract.UserID]*presence
	rooms   map[contract.RoomID]map[contract.UserID]*presence
	pending []contract.RouteChange
	writing bool                         // changes are on their way
	waiting []chan error                 // told when pending has been written
	changed map[contract.RoomID]struct{} // rooms to be told who is online
	written contract.NodeRef             // the life under which the routes are written
}

type presence struct {
	name  string
	count int
}

func newRegistrar(cfg Config, routes Routes, self func() (contract.NodeRef, bool),
	tell func(context.Context, []contract.RoomID) error, m *metrics, log *slog.Logger) *registrar {
	return &registrar{
		routes: routes, self: self, tell: tell, refresh: cfg.Refresh, timeout: cfg.Timeout, m: m, log: log,
		wake:    make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		users:   make(map[contract.UserID]*presence),
		rooms:   make(map[contract.RoomID]map[contract.UserID]*presence),
		changed: make(map[contract.RoomID]struct{}),
	}
}

// arrive counts one more connection of the user, in the room or with room 0 at all, and returns once the route is
// written. On an error it is not counted.
func (r *registrar) arrive(ctx context.Context, w *who, room contract.RoomID) error {
	r.mu.Lock()
	people := r.people(room)
	p := people[w.user]
	if p == nil {
		p = &presence{name: w.name}
		people[w.user] = p
		r.pending = append(r.pending, contract.RouteChange{User: w.user, Name: w.name, Room: room})
	}
	p.count++
	r.markChanged(room) // also for a further connection of the same user: it has to be told who is online
	// Also for one that is not the first: the first may still be on its way.
	var done chan error
	if len(r.pending) > 0 || r.writing {
		done = make(chan error, 1)
		r.waiting = append(r.waiting, done)
	}
	r.mu.Unlock()
	if done == nil {
		poke(r.news)
		return nil
	}
	poke(r.wake)
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		r.depart(w, room)
		return contract.RetryLater(contract.Unavailable, time.Second, "routes could not be written")
	}
}

// entered has the room told who is online. It is called once the connection gets what the room is told, and for
// every connection: one that is not its user's first wants to know as well.
func (r *registrar) entered(room contract.RoomID) {
	r.mu.Lock()
	r.changed[room] = struct{}{}
	r.mu.Unlock()
	poke(r.news)
}

// depart counts one less. It never waits.
func (r *registrar) depart(w *who, room contract.RoomID) {
	r.mu.Lock()
	people := r.people(room)
	p := people[w.user]
	p.count--
	if p.count == 0 {
		delete(people, w.user)
		if room != 0 && len(people) == 0 {
			delete(r.rooms, room)
		}
		r.pending = append(r.pending, contract.RouteChange{User: w.user, Name: w.name, Room: room, Gone: true})
		r.markChanged(room)
	}
	r.mu.Unlock()
	poke(r.wake)
}

// people is called with mu held.
func (r *registrar) people(room contract.RoomID) map[contract.UserID]*presence {
	if room == 0 {
		return r.users
	}
	people := r.rooms[room]
	if people == nil {
		people = make(map[contract.UserID]*presence)
		r.rooms[room] = people
	}
	return people
}

// markChanged is called with mu held.
func (r *registrar) markChanged(room contract.RoomID) {
	if room != 0 {
		r.changed[room] = struct{}{}
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const registerRetry = 200 * time.Millisecond

// run writes changes, all that gathered while the last ones were written, until ctx ends and then once more.
func (r *registrar) run(ctx context.Context) {
	var telling sync.WaitGroup
	telling.Go(func() { r.tellChanges(ctx) })
	defer telling.Wait()
	// Not derived from ctx: the last connections leave while the node drains.
	working := context.WithoutCancel(ctx)
	tick := time.NewTicker(r.refresh)
	defer tick.Stop()
	for {
		look := false
		select {
		case <-r.wake:
		case <-tick.C:
			look = true
		case <-ctx.Done():
			if err := r.flush(working, r.life(), false); err != nil {
				r.log.Warn("last routes not taken back, their node's end does it", "err", err)
			}
			return
		}
		err := r.step(working, look)
		if err == nil {
			continue
		}
		r.log.Warn("routes not written, trying again", "err", err)
		select {
		case <-time.After(registerRetry):
			poke(r.wake)
		case <-ctx.Done():
		}
	}
}

// tellChanges tells logic which rooms have changed until ctx ends. Those that the last flush changes are told by
// whoever takes back the routes of this node.
func (r *registrar) tellChanges(ctx context.Context) {
	for {
		select {
		case <-r.news:
		case <-ctx.Done():
			return
		}
		if err := r.tellChanged(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("logic not told who came and went, trying again", "err", err)
			select {
			case <-time.After(registerRetry):
				poke(r.news)
			case <-ctx.Done():
			}
		}
	}
}

// step writes everything anew if this is a new life, or if the routes turn out to be lost; then what is pending.
func (r *registrar) step(ctx context.Context, look bool) error {
	self, alive := r.self()
	if !alive {
		return nil // between two lives: the next one writes everything
	}
	again := self != r.life()
	if !again && look {
		bounded, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		there, err := r.routes.Registered(bounded, self)
		if err != nil {
			return fmt.Errorf("look for routes: %w", err)
		}
		again = !there
	}
	return r.flush(ctx, self, again)
}

func (r *registrar) life() contract.NodeRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// flush writes what is pending, or with anew everything, in place of whatever is written for this life.
func (r *registrar) flush(ctx context.Context, self contract.NodeRef, anew bool) error {
	r.mu.Lock()
	changes, waiting := r.pending, r.waiting
	r.pending, r.waiting = nil, nil
	if anew {
		changes = r.everything() // what was pending is in it, or for a life or a copy that is gone
		r.written = contract.NodeRef{}
	}
	write := len(changes) > 0 || anew
	r.writing = write
	r.mu.Unlock()
	if write {
		bounded, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		apply := r.routes.Apply
		if anew {
			apply = r.routes.Replace
		}
		err := apply(bounded, self, changes)
		r.mu.Lock()
		r.writing = false
		if err != nil {
			r.waiting = append(waiting, r.waiting...)
			if !anew { // else everything is gathered again
				r.pending = append(changes, r.pending...)
			}
			r.mu.Unlock()
			return fmt.Errorf("write routes: %w", err)
		}
		if anew {
			r.written = self
		}
		r.mu.Unlock()
	}
	for _, done := range waiting {
		done <- nil
	}
	poke(r.news) // only now does a reader of the routes see the change
	return nil
}

// everything is every route of this node. It is called with mu held.
func (r *registrar) everything() []contract.RouteChange {
	var all []contract.RouteChange
	for user, p := range r.users {
		all = append(all, contract.RouteChange{User: user, Name: p.name})
	}
	for room, people := range r.rooms {
		for user, p := range people {
			all = append(all, contract.RouteChange{User: user, Name: p.name, Room: room})
		}
		r.changed[room] = struct{}{}
	}
	if len(all) > 0 {
		r.m.registered.Inc()
	}
	return all
}

// tellChanged tells of the rooms that changed; on an error they still have.
func (r *registrar) tellChanged(ctx context.Context) error {
	r.mu.Lock()
	rooms := make([]contract.RoomID, 0, len(r.changed))
	for room := range r.changed {
		rooms = append(rooms, room)
	}
	clear(r.changed)
	r.mu.Unlock()
	if len(rooms) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := r.tell(ctx, rooms); err != nil {
		r.mu.Lock()
		for _, room := range rooms {
			r.changed[room] = struct{}{}
		}
		r.mu.Unlock()
		return fmt.Errorf("tell who is online: %w", err)
	}
	return nil
}
