package connect

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
	pending map[place]string             // names of those whose routes may not be as the counts say; a set, so that it stays bounded
	writing bool                         // changes are on their way
	changed map[contract.RoomID]struct{} // rooms with a change that has not been written
	untold  map[contract.RoomID]struct{} // rooms with a change that has, to be told who is online
	renewed bool                         // everything was written anew, see takeRenewed
	written contract.NodeRef             // the life under which all routes but the pending are written; zero if none

	begun, finished uint64        // numbers of the latest flush, and of the latest that has succeeded
	progress        chan struct{} // closed and made anew when finished rises
}

type presence struct {
	name  string
	count int
}

// place is what one route is about: a user, with room 0 anywhere on this node.
type place struct {
	user contract.UserID
	room contract.RoomID
}

func newRegistrar(cfg Config, routes Routes, self func() (contract.NodeRef, bool),
	tell func(context.Context, []contract.RoomID) error, m *metrics, log *slog.Logger) *registrar {
	return &registrar{
		routes: routes, self: self, tell: tell, refresh: cfg.Refresh, timeout: cfg.Timeout, m: m, log: log,
		wake:    make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		users:   make(map[contract.UserID]*presence),
		rooms:   make(map[contract.RoomID]map[contract.UserID]*presence),
		pending: make(map[place]string), progress: make(chan struct{}),
		changed: make(map[contract.RoomID]struct{}),
		untold:  make(map[contract.RoomID]struct{}),
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
		r.markChanged(w, room)
	}
	p.count++
	// Also for one that is not the first: the first may still be on its way, or have been lost.
	wait, flush := len(r.pending) > 0 || r.writing || r.written == (contract.NodeRef{}), r.begun+1
	r.mu.Unlock()
	if !wait {
		return nil
	}
	poke(r.wake)
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := r.await(ctx, flush); err != nil {
		r.depart(w, room)
		return contract.RetryLater(contract.Unavailable, time.Second, "routes could not be written")
	}
	return nil
}

// await returns once that flush, or a later one, has succeeded.
func (r *registrar) await(ctx context.Context, flush uint64) error {
	for {
		r.mu.Lock()
		finished, progress := r.finished, r.progress
		r.mu.Unlock()
		if finished >= flush {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// entered has the room told who is online. It is called once the connection gets what the room is told, and for
// every connection: one that is not its user's first wants to know as well.
func (r *registrar) entered(room contract.RoomID) {
	r.mu.Lock()
	r.untold[room] = struct{}{}
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
		r.markChanged(w, room)
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
func (r *registrar) markChanged(w *who, room contract.RoomID) {
	r.pending[place{w.user, room}] = w.name
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
			telling.Wait()
			r.finish(working)
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

// finish writes and tells what is left. What it cannot, whoever takes back the routes of this node does.
func (r *registrar) finish(ctx context.Context) {
	self := r.life()
	if self == (contract.NodeRef{}) {
		return
	}
	if err := r.flush(ctx, self, false); err != nil {
		r.log.Warn("last routes not taken back", "err", err)
	}
	if err := r.tellChanged(ctx); err != nil {
		r.log.Warn("logic not told who went last", "err", err)
	}
}

// tellChanges tells logic which rooms have changed until ctx ends.
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
			r.doubt()
			return fmt.Errorf("look for routes: %w", err)
		}
		again = !there
	}
	return r.flush(ctx, self, again)
}

// doubt has everything written anew, and whoever arrives wait for it: what could not be reached may come back empty,
// and a message that finds no route passes its people by.
func (r *registrar) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = contract.NodeRef{}
}

func (r *registrar) life() contract.NodeRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// takeRenewed reports whether all routes were written anew since it was last asked: until then pushes may have missed
// this node. Who cannot do what that asks for returns it.
func (r *registrar) takeRenewed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	renewed := r.renewed
	r.renewed = false
	return renewed
}

func (r *registrar) returnRenewed(renewed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewed = r.renewed || renewed
}

// flush writes what is pending, or with anew everything, in place of whatever is written for this life.
func (r *registrar) flush(ctx context.Context, self contract.NodeRef, anew bool) error {
	r.mu.Lock()
	var changes []contract.RouteChange
	if anew {
		changes = r.everything() // what was pending is in it, or for a life or a copy that is gone
		r.written = contract.NodeRef{}
	} else {
		changes = r.latest()
	}
	pending, changed := r.pending, r.changed
	r.pending, r.changed = make(map[place]string), make(map[contract.RoomID]struct{})
	write := len(changes) > 0 || anew
	r.writing = write
	r.begun++
	r.mu.Unlock()
	var err error
	if write {
		apply := r.routes.Apply
		if anew {
			apply = r.routes.Replace
		}
		bounded, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		err = apply(bounded, self, changes)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = false
	if err != nil {
		maps.Copy(r.pending, pending)
		maps.Copy(r.changed, changed)
		r.written = contract.NodeRef{} // as in doubt
		return fmt.Errorf("write routes: %w", err)
	}
	if anew {
		r.written = self
		r.renewed = true
		if len(changes) > 0 {
			r.m.registered.Inc()
		}
	}
	maps.Copy(r.untold, changed) // only now does a reader of the routes see the change
	poke(r.news)
	r.finished = r.begun
	close(r.progress)
	r.progress = make(chan struct{})
	return nil
}

// latest is how the pending routes are now. It is called with mu held.
func (r *registrar) latest() []contract.RouteChange {
	changes := make([]contract.RouteChange, 0, len(r.pending))
	for at, name := range r.pending {
		here := r.users[at.user] != nil
		if at.room != 0 {
			here = r.rooms[at.room][at.user] != nil
		}
		changes = append(changes, contract.RouteChange{User: at.user, Name: name, Room: at.room, Gone: !here})
	}
	return changes
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
	return all
}

// tellChanged tells of the rooms that changed; on an error they are still to be told.
func (r *registrar) tellChanged(ctx context.Context) error {
	r.mu.Lock()
	rooms := slices.Collect(maps.Keys(r.untold))
	clear(r.untold)
	r.mu.Unlock()
	if len(rooms) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := r.tell(ctx, rooms); err != nil {
		r.mu.Lock()
		for _, room := range rooms {
			r.untold[room] = struct{}{}
		}
		r.mu.Unlock()
		return fmt.Errorf("tell who is online: %w", err)
	}
	return nil
}
