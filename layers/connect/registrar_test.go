package connect

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/session"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

// testRegistrar is a registrar that runs, with a Redis of its own.
type testRegistrar struct {
	*registrar
	redis *testdeps.RedisServer
	store *session.Store
	life  atomic.Int64 // epoch of the present life; 0 between two
	stop  func()

	mu   sync.Mutex
	told map[contract.RoomID][]int // how many were present each time logic was told of the room
}

func startRegistrar(t *testing.T, timeout time.Duration, routes func(*session.Store) Routes) *testRegistrar {
	t.Helper()
	r := &testRegistrar{redis: testdeps.Redis(t), told: make(map[contract.RoomID][]int)}
	var err error
	r.store, err = session.Open(session.Config{Addrs: []string{r.redis.Addr()}, Timeout: time.Second}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.store.Close() })
	r.life.Store(1)
	self := func() (contract.NodeRef, bool) {
		epoch := r.life.Load()
		return contract.NodeRef{ID: "connect-1", Epoch: epoch}, epoch > 0
	}
	cfg := Defaults()
	cfg.Timeout, cfg.Refresh = timeout, 100*time.Millisecond
	tel := observability.Discard()
	var to Routes = r.store
	if routes != nil {
		to = routes(r.store)
	}
	r.registrar = newRegistrar(cfg, to, self, r.tell, newMetrics(prometheus.NewRegistry(), 1), tel.Log)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(r.stop)
	return r
}

// tell looks who is present, as logic does.
func (r *testRegistrar) tell(ctx context.Context, rooms []contract.RoomID) error {
	for _, room := range rooms {
		count, _, err := r.store.Online(ctx, room, func(contract.NodeRef) bool { return true }, 0)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.told[room] = append(r.told[room], count)
		r.mu.Unlock()
	}
	return nil
}

func (r *testRegistrar) lastTold(room contract.RoomID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if told := r.told[room]; len(told) > 0 {
		return told[len(told)-1]
	}
	return -1
}

func (r *testRegistrar) ref() contract.NodeRef {
	return contract.NodeRef{ID: "connect-1", Epoch: r.life.Load()}
}

func (r *testRegistrar) counted() (users, rooms int) {
	r.registrar.mu.Lock()
	defer r.registrar.mu.Unlock()
	return len(r.users), len(r.rooms)
}

func person(user contract.UserID) *who { return &who{user: user, name: fmt.Sprintf("user%d", user)} }

func (r *testRegistrar) mustArrive(t *testing.T, user contract.UserID, room contract.RoomID) {
	t.Helper()
	if err := r.arrive(t.Context(), person(user), room); err != nil {
		t.Fatalf("user %d, room %d: %v", user, room, err)
	}
}

// TestRegistrarCounts counts connections: a route is there as long as one of them is, and once arrive has returned.
func TestRegistrarCounts(t *testing.T) {
	r := startRegistrar(t, 5*time.Second, nil)
	want := make(map[place]bool)
	check := func(when string) {
		t.Helper()
		if got := storedRoutes(t, r.store, r.ref()); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	arrive := func(user contract.UserID, room contract.RoomID) {
		t.Helper()
		r.mustArrive(t, user, room)
		want[place{user, room}] = true
		check(fmt.Sprintf("%d in %d arrived", user, room))
	}
	arrive(1, 0)
	arrive(1, 0)
	arrive(2, 0)
	arrive(1, 5)
	arrive(1, 5)
	arrive(2, 5)
	eventually(t, "two are told of", func() bool { return r.lastTold(5) == 2 })

	r.depart(person(1), 5)
	r.depart(person(1), 0)
	arrive(3, 0) // so that what departed is written
	r.depart(person(1), 5)
	delete(want, place{1, 5})
	r.depart(person(1), 0)
	delete(want, place{1, 0})
	arrive(4, 0)
	eventually(t, "one is told of", func() bool { return r.lastTold(5) == 1 })
	r.depart(person(2), 5)
	delete(want, place{2, 5})
	arrive(5, 0)
	eventually(t, "none is told of", func() bool { return r.lastTold(5) == 0 })
	if _, rooms := r.counted(); rooms != 0 {
		t.Errorf("%d rooms kept, want none", rooms)
	}
}

// TestRegistrarModel lets many arrive and depart at once, while Redis is wiped and lives end. Then Redis has exactly
// those who are there.
func TestRegistrarModel(t *testing.T) {
	r := startRegistrar(t, time.Second, nil)
	const actors, steps = 16, 500
	type stay struct {
		user contract.UserID
		room contract.RoomID
	}
	left := make([][]stay, actors)
	var acting sync.WaitGroup
	for i := range actors {
		acting.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 3))
			for range steps {
				if n := len(left[i]); n > 0 && random.IntN(2) == 0 {
					j := random.IntN(n)
					r.depart(person(left[i][j].user), left[i][j].room)
					left[i] = slices.Delete(left[i], j, j+1)
					continue
				}
				s := stay{contract.UserID(random.IntN(4) + 1), contract.RoomID(random.IntN(4))}
				if err := r.arrive(context.Background(), person(s.user), s.room); err == nil {
					left[i] = append(left[i], s)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { acting.Wait(); close(done) }()
	for epoch := int64(2); ; epoch++ {
		select {
		case <-done:
		case <-time.After(20 * time.Millisecond):
			if epoch%3 == 0 {
				r.redis.Kill()
				r.redis.Start() // empty
			} else {
				r.life.Store(epoch)
			}
			continue
		}
		break
	}
	want := make(map[place]bool)
	for _, stays := range left {
		for _, s := range stays {
			want[place(s)] = true
		}
	}
	eventually(t, "exactly the right routes", func() bool { return maps.Equal(storedRoutes(t, r.store, r.ref()), want) })
	for room := contract.RoomID(1); room < 4; room++ {
		count := 0
		for at := range want {
			if at.room == room {
				count++
			}
		}
		eventually(t, "the count is told", func() bool { return r.lastTold(room) == count || count == 0 })
	}
	r.stop()
	if users, _ := r.counted(); users == 0 {
		t.Fatal("nobody is left: this test shows nothing")
	}
}

// TestRegistrarRedisAway has Redis hang: arrive fails in time and is not counted, and what changed is written when
// Redis is back.
func TestRegistrarRedisAway(t *testing.T) {
	r := startRegistrar(t, 300*time.Millisecond, nil)
	r.mustArrive(t, 1, 0)
	r.mustArrive(t, 1, 7)
	r.redis.Pause()
	for range 3 {
		err := r.arrive(t.Context(), person(2), 0)
		if contract.CodeOf(err) != contract.Unavailable || contract.AsError(err).RetryAfter == 0 {
			t.Errorf("got %v, want unavailable, and when to try again", err)
		}
	}
	r.depart(person(1), 7)
	if users, rooms := r.counted(); users != 1 || rooms != 0 {
		t.Errorf("got %d users, %d rooms counted, want 1 and 0", users, rooms)
	}
	r.registrar.mu.Lock()
	pending := len(r.pending)
	r.registrar.mu.Unlock()
	if pending > 2 {
		t.Errorf("%d changes pending, want one for each user and room at most", pending)
	}
	r.redis.Resume()
	want := map[place]bool{{user: 1}: true}
	eventually(t, "the routes are right", func() bool { return maps.Equal(storedRoutes(t, r.store, r.ref()), want) })
	eventually(t, "arrive succeeds again", func() bool { return r.arrive(t.Context(), person(2), 0) == nil })
}

// TestRegistrarWiped empties Redis: everything is written again.
func TestRegistrarWiped(t *testing.T) {
	r := startRegistrar(t, 5*time.Second, nil)
	want := make(map[place]bool)
	for user := contract.UserID(1); user <= 20; user++ {
		for _, room := range []contract.RoomID{0, contract.RoomID(user%3 + 1)} {
			r.mustArrive(t, user, room)
			want[place{user, room}] = true
		}
	}
	r.redis.Kill()
	r.redis.Start() // keeps nothing on disk
	eventually(t, "everything is written again", func() bool { return maps.Equal(storedRoutes(t, r.store, r.ref()), want) })
	eventually(t, "rooms are told", func() bool { return r.lastTold(1) == 6 && r.lastTold(2) == 7 && r.lastTold(3) == 7 })
}

// TestRegistrarNewLife ends the node's life: until the next nobody new is counted, and under the next everything is
// written.
func TestRegistrarNewLife(t *testing.T) {
	r := startRegistrar(t, 300*time.Millisecond, nil)
	r.mustArrive(t, 1, 0)
	r.mustArrive(t, 1, 2)
	r.life.Store(0)
	if err := r.arrive(t.Context(), person(2), 0); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("between two lives: got %v, want unavailable", err)
	}
	r.life.Store(2)
	want := map[place]bool{{user: 1}: true, {1, 2}: true}
	eventually(t, "everything is under the new life", func() bool { return maps.Equal(storedRoutes(t, r.store, r.ref()), want) })
	eventually(t, "arrive succeeds again", func() bool { return r.arrive(t.Context(), person(2), 0) == nil })
}

// TestRegistrarFinishes ends with changes that nobody has written or told yet.
func TestRegistrarFinishes(t *testing.T) {
	r := startRegistrar(t, 5*time.Second, nil)
	r.mustArrive(t, 1, 0)
	r.mustArrive(t, 1, 2)
	eventually(t, "one is told of", func() bool { return r.lastTold(2) == 1 })
	r.depart(person(1), 2)
	r.depart(person(1), 0)
	r.stop()
	if got := storedRoutes(t, r.store, r.ref()); len(got) != 0 {
		t.Errorf("routes left: %v", got)
	}
	if got := r.lastTold(2); got != 0 {
		t.Errorf("%d told of last, want 0", got)
	}
}

// gate lets writes through when it is told, with the answer it is told.
type gate struct {
	Routes
	entered, leave chan struct{}
	fail           atomic.Bool // Replace fails
	failApply      atomic.Bool // the next Apply fails
}

// Registered is true, so that nothing but a failed write has anything written again.
func (g *gate) Registered(context.Context, contract.NodeRef) (bool, error) { return true, nil }

func (g *gate) Apply(ctx context.Context, node contract.NodeRef, changes []contract.RouteChange) error {
	g.entered <- struct{}{}
	<-g.leave
	if g.failApply.Swap(false) {
		return contract.Errorf(contract.Unavailable, "not now")
	}
	return g.Routes.Apply(ctx, node, changes)
}

func (g *gate) Replace(ctx context.Context, node contract.NodeRef, present []contract.RouteChange) error {
	if g.fail.Load() {
		return contract.Errorf(contract.Unavailable, "not now")
	}
	return g.Routes.Replace(ctx, node, present)
}

// TestRegistrarTellsWhatIsWritten has somebody come while an earlier change is written: logic is told of them after
// they are in Redis, not before only.
func TestRegistrarTellsWhatIsWritten(t *testing.T) {
	g := &gate{entered: make(chan struct{}), leave: make(chan struct{})}
	r := startRegistrar(t, 5*time.Second, func(s *session.Store) Routes { g.Routes = s; return g })
	t.Cleanup(func() { close(g.leave) })
	r.mustArrive(t, 9, 0) // the first write is a Replace
	results := make(chan error, 2)
	arrive := func(user contract.UserID) { results <- r.arrive(context.Background(), person(user), 3) }
	go arrive(1)
	<-g.entered
	go arrive(2) // while 1 is written
	eventually(t, "both are counted", func() bool {
		r.registrar.mu.Lock()
		defer r.registrar.mu.Unlock()
		return len(r.rooms[3]) == 2
	})
	g.leave <- struct{}{}
	<-g.entered
	eventually(t, "the first is told of", func() bool { return r.lastTold(3) == 1 })
	g.leave <- struct{}{}
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "both are told of", func() bool { return r.lastTold(3) == 2 })
}

// TestRegistrarSecondWaits brings a further connection of somebody whose routes could not be written anew.
func TestRegistrarSecondWaits(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 100), leave: make(chan struct{})}
	close(g.leave)
	r := startRegistrar(t, 300*time.Millisecond, func(s *session.Store) Routes { g.Routes = s; return g })
	r.mustArrive(t, 1, 0)
	g.fail.Store(true)
	r.life.Store(2)
	eventually(t, "the new life is noticed", func() bool {
		r.registrar.mu.Lock()
		defer r.registrar.mu.Unlock()
		return r.written == contract.NodeRef{}
	})
	if err := r.arrive(t.Context(), person(1), 0); contract.CodeOf(err) != contract.Unavailable {
		t.Errorf("got %v, want unavailable: its route is not written", err)
	}
	g.fail.Store(false)
	eventually(t, "arrive succeeds again", func() bool { return r.arrive(t.Context(), person(1), 0) == nil })
	if got := storedRoutes(t, r.store, r.ref()); !maps.Equal(got, map[place]bool{{user: 1}: true}) {
		t.Errorf("routes: got %v", got)
	}
}

// TestRegistrarWritesAgain has a write fail: who waits for it waits for the next, and finds the route written.
func TestRegistrarWritesAgain(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 100), leave: make(chan struct{})}
	close(g.leave)
	r := startRegistrar(t, 5*time.Second, func(s *session.Store) Routes { g.Routes = s; return g })
	r.mustArrive(t, 1, 0)
	g.failApply.Store(true)
	r.mustArrive(t, 1, 4)
	if got := storedRoutes(t, r.store, r.ref()); !maps.Equal(got, map[place]bool{{user: 1}: true, {1, 4}: true}) {
		t.Errorf("routes: got %v", got)
	}
	g.failApply.Store(true)
	r.depart(person(1), 4)
	want := map[place]bool{{user: 1}: true}
	eventually(t, "taken back", func() bool { return maps.Equal(storedRoutes(t, r.store, r.ref()), want) })
}
