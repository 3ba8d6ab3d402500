package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
)

func testWiped(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	apply(t, s, node, Change{User: 7})
	apply(t, s, node, Change{User: 8})
	wantRegistered(t, s, node, true)
	if err := b.raw.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	apply(t, s, node, Change{User: 9}) // does not hide the loss
	for range 2 {
		wantRegistered(t, s, node, false)
	}
	apply(t, s, node, Change{User: 7}, Change{User: 8}, Change{User: 9})
	wantRegistered(t, s, node, true)
	if err := b.raw.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	wantRegistered(t, s, node, false)
}

// testOlderState is a failover to a replica that lags: the last writes are undone.
func testOlderState(t *testing.T, b *backend) {
	node := ref("connect-1", 5)
	for name, before := range map[string]func(*Store){
		"found when asked":                 func(*Store) {},
		"found by a write, which hides it": func(s *Store) { apply(t, s, node, Change{User: 8}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := b.open(t)
			apply(t, s, node, Change{User: 7})
			older := b.raw.HGet(t.Context(), nodesKey, node.String()).Val()
			apply(t, s, node, Change{User: 7, Gone: true})
			wantRegistered(t, s, node, true)
			b.raw.HSet(t.Context(), nodesKey, node.String(), older)
			b.raw.SAdd(t.Context(), nodeUsersKey(node), 7)
			b.raw.SAdd(t.Context(), userRouteKey(7), node.String())

			before(s)
			wantRegistered(t, s, node, false)
			if err := s.Replace(t.Context(), node, []Change{{User: 8}}); err != nil {
				t.Fatal(err)
			}
			wantRegistered(t, s, node, true)
			wantRoutes(t, s, nil, []contract.UserID{7, 8}, "user 8: connect-1@5")
		})
	}
}

func testFailedApply(t *testing.T, b *backend) {
	node := ref("connect-1", 5)
	for name, fail := range map[string]func(*testing.T, *Store) error{
		"half way": func(t *testing.T, s *Store) error {
			s.redis.AddHook(&cutter{at: 2, cancel: func() {}})
			return s.Apply(t.Context(), node, []Change{{User: 8}})
		},
		"before the first step": func(t *testing.T, s *Store) error {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			return s.Apply(ended, node, []Change{{User: 8}})
		},
		"waiting for another": func(t *testing.T, s *Store) error {
			l := s.life(node)
			if err := l.acquire(t.Context()); err != nil {
				return err
			}
			defer l.release()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			return s.Apply(ended, node, []Change{{User: 8}})
		},
		"replacing": func(t *testing.T, s *Store) error {
			s.redis.AddHook(&cutter{at: 1, cancel: func() {}})
			return s.Replace(t.Context(), node, []Change{{User: 8}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := b.open(t)
			apply(t, s, node, Change{User: 7})
			wantRegistered(t, s, node, true)
			if err := fail(t, s); contract.CodeOf(err) != contract.Unavailable || !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want unavailable because of the cancellation", err)
			}
			apply(t, s, node, Change{User: 9}) // begun before the owner was told: not the whole
			wantRegistered(t, s, node, false)
			apply(t, s, node, Change{User: 7}, Change{User: 8}, Change{User: 9})
			wantRegistered(t, s, node, true)
		})
	}
}

func testCrashLeftovers(t *testing.T, b *backend) {
	node := ref("connect-1", 5)
	before := []Change{{User: 7}, {User: 8}, {User: 7, Name: "ann", Room: 1}, {User: 8, Name: "bob", Room: 2}}
	change := []Change{{User: 9}, {User: 9, Name: "cid", Room: 3}, {User: 7, Gone: true}, {User: 7, Room: 1, Gone: true},
		{User: 9, Name: "cid", Room: 2}, {User: 8, Room: 2, Gone: true}}
	steps := 0
	for cut := true; cut; steps++ {
		if err := b.raw.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		apply(t, b.open(t), node, before...)
		cut = cutShort(t, b, steps+1, func(ctx context.Context, s *Store) {
			if err := s.Apply(ctx, node, change); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		})
		wantFindable(t, b, node)
		s := b.open(t)
		// User 8 stays in any case, room 2 never is without someone.
		routes, err := s.Resolve(t.Context(), []contract.RoomID{2}, []contract.UserID{8})
		if err != nil || len(routes.Rooms) != 1 || len(routes.Users) != 1 {
			t.Errorf("cut after step %d: routes %v, %v; want one each", steps+1, routes, err)
		}
		if _, err := s.Forget(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if keys := b.keys(t, ""); len(keys) != 0 {
			t.Errorf("cut after step %d, forgotten, left: %v", steps+1, keys)
		}
	}
	if steps < 4 {
		t.Errorf("cut after %d steps only: proves little", steps)
	}
}

const crowdUsers, crowdRooms = 5000, 300

func crowdRoomIDs() []contract.RoomID {
	ids := make([]contract.RoomID, crowdRooms)
	for i := range ids {
		ids[i] = contract.RoomID(i + 1)
	}
	return ids
}

// wantForgotten checks that no key is left but those of the other life, which has user 1 in room 1.
func wantForgotten(t *testing.T, b *backend, s *Store, other contract.NodeRef) {
	t.Helper()
	want := []string{nodeRoomsKey(other), nodeUsersKey(other), nodesKey, presenceKey(other, 1), roomRouteKey(1), userRouteKey(1)}
	slices.Sort(want)
	if keys := b.keys(t, ""); !slices.Equal(keys, want) {
		t.Errorf("%d keys are left, want %d: %.300v", len(keys), len(want), keys)
	}
	wantRoutes(t, s, []contract.RoomID{1}, []contract.UserID{1}, "room 1: "+other.String()+"\nuser 1: "+other.String())
	if lives, err := s.Lives(t.Context()); err != nil || !slices.Equal(lives, []contract.NodeRef{other}) {
		t.Errorf("lives %v, %v; want %v", lives, err, other)
	}
}

func testForget(t *testing.T, b *backend) {
	s, dead, other := b.open(t), ref("connect-1", 5), ref("connect-1", 9)
	apply(t, s, dead, crowd(crowdUsers, crowdRooms)...)
	apply(t, s, other, crowd(1, 1)...)
	rooms, err := s.Forget(t.Context(), dead)
	if err != nil || !slices.Equal(rooms, crowdRoomIDs()) {
		t.Errorf("%d rooms changed, %v; want %d", len(rooms), err, crowdRooms)
	}
	wantForgotten(t, b, s, other)
	if rooms, err := s.Forget(t.Context(), dead); err != nil || len(rooms) != 0 {
		t.Errorf("forgotten again: %v, %v; want nothing", rooms, err)
	}
}

func testForgetResumes(t *testing.T, b *backend) {
	s, dead, other := b.open(t), ref("connect-1", 5), ref("connect-1", 9)
	apply(t, s, dead, crowd(crowdUsers, crowdRooms)...)
	apply(t, s, other, crowd(1, 1)...)
	var answered []contract.RoomID
	interrupted := 0
	// Each attempt gets one step further than the last, until there is nothing left to cut.
	for cut := true; cut; {
		cut = cutShort(t, b, interrupted+1, func(ctx context.Context, s *Store) {
			rooms, err := s.Forget(ctx, dead)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			answered = append(answered, rooms...)
		})
		if cut {
			interrupted++
		}
	}
	if interrupted < 5 {
		t.Errorf("interrupted %d times only: proves little", interrupted)
	}
	slices.Sort(answered)
	if answered = slices.Compact(answered); !slices.Equal(answered, crowdRoomIDs()) {
		t.Errorf("%d rooms were answered, want %d", len(answered), crowdRooms)
	}
	wantForgotten(t, b, s, other)
}

// testForgetCutAnywhere loses the answer to each step once: the rooms are answered all the same.
func testForgetCutAnywhere(t *testing.T, b *backend) {
	dead := ref("connect-1", 5)
	at := 1
	for cut := true; cut; at++ {
		apply(t, b.open(t), dead, crowd(6, 3)...)
		var answered []contract.RoomID
		cut = cutShort(t, b, at, func(ctx context.Context, s *Store) {
			answered, _ = s.Forget(ctx, dead) // its error is the cut
		})
		rest, err := b.open(t).Forget(t.Context(), dead)
		if err != nil {
			t.Fatal(err)
		}
		answered = append(answered, rest...)
		slices.Sort(answered)
		if answered = slices.Compact(answered); !slices.Equal(answered, []contract.RoomID{1, 2, 3}) {
			t.Errorf("cut after step %d: rooms %v were answered, want 1 to 3", at, answered)
		}
		if keys := b.keys(t, ""); len(keys) != 0 {
			t.Errorf("cut after step %d, left: %v", at, keys)
		}
	}
	if at < 7 {
		t.Errorf("%d steps only: proves little", at)
	}
}

func testForgetConcurrent(t *testing.T, b *backend) {
	s, dead, other := b.open(t), ref("connect-1", 5), ref("connect-1", 9)
	apply(t, s, dead, crowd(crowdUsers, crowdRooms)...)
	apply(t, s, other, crowd(1, 1)...)
	var mu sync.Mutex
	var answered []contract.RoomID
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			rooms, err := s.Forget(t.Context(), dead)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			answered = append(answered, rooms...)
		})
	}
	wg.Wait()
	if slices.Sort(answered); !slices.Equal(answered, crowdRoomIDs()) {
		t.Errorf("%d rooms were answered, want each of %d once", len(answered), crowdRooms)
	}
	wantForgotten(t, b, s, other)
}

func testForgottenAlive(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	all := []Change{{User: 7}, {User: 7, Name: "ann", Room: 1}}
	apply(t, s, node, all...)
	if _, err := s.Forget(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	wantRegistered(t, s, node, false)
	apply(t, s, node, all...)
	wantRegistered(t, s, node, true)
	wantRoutes(t, s, []contract.RoomID{1}, []contract.UserID{7}, "room 1: connect-1@5\nuser 7: connect-1@5")
}

// On a Cluster a master may come back without its last writes while the life's count, on another, is right.
func TestClusterMasterReplaced(t *testing.T) {
	srv, b := startCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	s, node := b.open(t), ref("connect-1", 5)
	apply(t, s, node, Change{User: 7})
	wantRegistered(t, s, node, true)
	counted := b.raw.HGet(t.Context(), nodesKey, node.String()).Val()
	srv.kill()
	srv.start(t)
	eventually(t, "the cluster is whole again", func() bool {
		return b.raw.HGet(t.Context(), nodesKey, node.String()).Val() == counted
	})
	var registered bool
	eventually(t, "the store reaches it", func() bool {
		var err error
		registered, err = s.Registered(t.Context(), node)
		return err == nil
	})
	if registered {
		t.Error("registered on a server process that has not been written to")
	}
	apply(t, s, node, Change{User: 7})
	wantRegistered(t, s, node, true)
}
