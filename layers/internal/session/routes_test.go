package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

// cutter cuts a call short: the step numbered at is made, its answer is lost, and ctx has ended.
type cutter struct {
	at, steps int
	cancel    context.CancelFunc
}

func (c *cutter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *cutter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if c.cut() {
			cmd.SetErr(context.Canceled)
			return context.Canceled
		}
		return err
	}
}

func (c *cutter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if c.cut() {
			for _, cmd := range cmds {
				cmd.SetErr(context.Canceled)
			}
			return context.Canceled
		}
		return err
	}
}

func (c *cutter) cut() bool {
	if c.steps++; c.steps != c.at {
		return false
	}
	c.cancel()
	return true
}

// cutShort runs call, cut after step at, and reports whether it had so many steps.
func cutShort(t *testing.T, b *backend, at int, call func(context.Context, *Store)) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &cutter{at: at, cancel: cancel}
	s := b.open(t)
	s.redis.AddHook(c)
	call(ctx, s)
	return c.steps >= at
}

func apply(t testing.TB, s *Store, node contract.NodeRef, changes ...Change) {
	t.Helper()
	if err := s.Apply(t.Context(), node, changes); err != nil {
		t.Fatal(err)
	}
}

func wantRegistered(t *testing.T, s *Store, node contract.NodeRef, want bool) {
	t.Helper()
	got, err := s.Registered(t.Context(), node)
	if err != nil || got != want {
		t.Fatalf("registered: got %v, %v; want %v", got, err, want)
	}
}

// wantRoutes compares what Resolve answers, written as "room 1: connect-1@5 connect-2@6", one line each.
func wantRoutes(t *testing.T, s *Store, rooms []contract.RoomID, users []contract.UserID, want string) {
	t.Helper()
	routes, err := s.Resolve(t.Context(), rooms, users)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	add := func(name string, refs []contract.NodeRef) {
		texts := make([]string, len(refs))
		for i, r := range refs {
			texts[i] = r.String()
		}
		slices.Sort(texts)
		lines = append(lines, name+": "+strings.Join(texts, " "))
	}
	for _, room := range slices.Sorted(maps.Keys(routes.Rooms)) {
		add(fmt.Sprint("room ", room), routes.Rooms[room])
	}
	for _, user := range slices.Sorted(maps.Keys(routes.Users)) {
		add(fmt.Sprint("user ", user), routes.Users[user])
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("routes:\n%s\nwant:\n%s", got, want)
	}
}

// wantFindable is what makes leftovers harmless: all that names the life can be found from the life, and where
// someone is present there is a route.
func wantFindable(t *testing.T, b *backend, node contract.NodeRef) {
	t.Helper()
	in := func(key string, member any) bool { return b.raw.SIsMember(t.Context(), key, member).Val() }
	id := func(key string) string { return key[strings.LastIndex(key, ":")+1:] }
	found := func(key string, ok bool) {
		if !ok || !b.raw.HExists(t.Context(), nodesKey, node.String()).Val() {
			t.Errorf("%s names %s, which does not know of it", key, node)
		}
	}
	for _, key := range b.keys(t, "gochat:route:user:") {
		if in(key, node.String()) {
			found(key, in(nodeUsersKey(node), id(key)))
		}
	}
	for _, key := range b.keys(t, "gochat:route:room:") {
		if in(key, node.String()) {
			found(key, in(nodeRoomsKey(node), id(key)))
		}
	}
	for _, key := range b.keys(t, "gochat:presence:"+node.String()+":") {
		found(key, in(nodeRoomsKey(node), id(key)))
		if !in("gochat:route:room:"+id(key), node.String()) {
			t.Errorf("%s is there and the room has no route", key)
		}
	}
}

func testRoutes(t *testing.T, b *backend) {
	s, one, two := b.open(t), ref("connect-1", 5), ref("connect-2", 6)
	rooms, users := []contract.RoomID{1, 2, 3}, []contract.UserID{7, 8, 9}
	wantRegistered(t, s, one, false)
	apply(t, s, one)
	wantRegistered(t, s, one, true)
	wantRoutes(t, s, rooms, users, "")
	apply(t, s, one, Change{User: 7}, Change{User: 7, Name: "ann", Room: 1}, Change{User: 8})
	apply(t, s, two, Change{User: 7}, Change{User: 7, Name: "ann", Room: 1}, Change{User: 7, Name: "ann", Room: 2})
	wantRoutes(t, s, rooms, users, "room 1: connect-1@5 connect-2@6\nroom 2: connect-2@6\n"+
		"user 7: connect-1@5 connect-2@6\nuser 8: connect-1@5")

	// Going from one node takes nothing from the other, nor from an earlier life.
	apply(t, s, ref("connect-2", 4), Change{User: 7})
	apply(t, s, two, Change{User: 7, Room: 1, Gone: true}, Change{User: 7, Gone: true})
	wantRoutes(t, s, rooms, users, "room 1: connect-1@5\nroom 2: connect-2@6\n"+
		"user 7: connect-1@5 connect-2@4\nuser 8: connect-1@5")
	lives, err := s.Lives(t.Context())
	slices.SortFunc(lives, func(a, b contract.NodeRef) int { return int(a.Epoch - b.Epoch) })
	if want := []contract.NodeRef{ref("connect-2", 4), one, two}; err != nil || !slices.Equal(lives, want) {
		t.Errorf("lives %v, %v; want %v", lives, err, want)
	}
	wantRegistered(t, s, one, true)
	wantRegistered(t, s, two, true)
	wantFindable(t, b, two)
}

func testLastChangeCounts(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	apply(t, s, node, Change{User: 7}, Change{User: 7, Gone: true}, Change{User: 8, Gone: true}, Change{User: 8},
		Change{User: 7, Name: "ann", Room: 1}, Change{User: 7, Room: 1, Gone: true},
		Change{User: 8, Room: 2, Gone: true}, Change{User: 8, Name: "bob", Room: 2})
	wantRoutes(t, s, []contract.RoomID{1, 2}, []contract.UserID{7, 8}, "room 2: connect-1@5\nuser 8: connect-1@5")
	wantFindable(t, b, node)
}

func testIdempotent(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	changes := []Change{{User: 7}, {User: 7, Name: "ann", Room: 1}, {User: 8, Gone: true}, {User: 8, Room: 1, Gone: true}}
	state := func() string {
		var lines []string
		for line := range strings.Lines(b.dump(t)) {
			if !strings.HasPrefix(line, nodesKey+" ") { // counts every write
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	apply(t, s, node, changes...)
	before := state()
	apply(t, s, node, changes...)
	if after := state(); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}

func testThousands(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	var changes []Change
	for i := range contract.UserID(2*maxBatch + 1) {
		changes = append(changes, Change{User: i + 1}, Change{User: i + 1, Name: "x", Room: 1})
	}
	apply(t, s, node, changes...)
	wantRegistered(t, s, node, true)
	for key, want := range map[string]int64{nodeUsersKey(node): 2*maxBatch + 1, nodeRoomsKey(node): 1} {
		if got := b.raw.SCard(t.Context(), key).Val(); got != want {
			t.Errorf("%s has %d, want %d", key, got, want)
		}
	}
	if routes := b.keys(t, "gochat:route:user:"); len(routes) != 2*maxBatch+1 {
		t.Errorf("%d users have a route, want %d", len(routes), 2*maxBatch+1)
	}
	for i := range changes {
		changes[i].Gone = true
	}
	apply(t, s, node, changes...)
	if keys := b.keys(t, ""); !slices.Equal(keys, []string{nodesKey}) {
		t.Errorf("after all have gone there are %v", keys)
	}
}

func testRoomRoute(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	rooms, there := []contract.RoomID{1}, "room 1: connect-1@5"
	steps := []struct {
		name    string
		changes []Change
		want    string
	}{
		{"first enters", []Change{{User: 7, Name: "ann", Room: 1}}, there},
		{"second enters", []Change{{User: 8, Name: "bob", Room: 1}}, there},
		{"first leaves", []Change{{User: 7, Room: 1, Gone: true}}, there},
		{"first leaves again", []Change{{User: 7, Room: 1, Gone: true}}, there},
		{"one for the other", []Change{{User: 8, Room: 1, Gone: true}, {User: 9, Name: "cid", Room: 1}}, there},
		{"last leaves", []Change{{User: 9, Room: 1, Gone: true}}, ""},
	}
	for _, step := range steps {
		apply(t, s, node, step.changes...)
		t.Run(step.name, func(t *testing.T) { wantRoutes(t, s, rooms, nil, step.want) })
	}
	if keys := b.keys(t, ""); !slices.Equal(keys, []string{nodesKey}) {
		t.Errorf("an empty room leaves %v", keys)
	}
}

func testConcurrentApply(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	var wg sync.WaitGroup
	for user := range contract.UserID(8) {
		wg.Go(func() {
			for turn := range 20 {
				gone := turn%2 == 1 || user < 7 && turn == 18
				if err := s.Apply(t.Context(), node, []Change{{User: user + 1, Name: "x", Room: 1, Gone: gone}}); err != nil {
					t.Error(err)
				}
			}
			if user == 7 {
				if err := s.Apply(t.Context(), node, []Change{{User: 8, Name: "x", Room: 1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantRoutes(t, s, []contract.RoomID{1}, nil, "room 1: connect-1@5")
	wantRegistered(t, s, node, true)
	wantFindable(t, b, node)
}

func testOnline(t *testing.T, b *backend) {
	s, one, two, dead := b.open(t), ref("connect-1", 5), ref("connect-2", 6), ref("connect-2", 3)
	apply(t, s, one, Change{User: 30, Name: "cid", Room: 1}, Change{User: 9, Name: "ann", Room: 1}, Change{User: 50, Name: "eve", Room: 2})
	apply(t, s, two, Change{User: 30, Name: "cid", Room: 1}, Change{User: 100, Name: "dan", Room: 1})
	apply(t, s, dead, Change{User: 1, Name: "ghost", Room: 1})
	ann, cid, dan := contract.User{ID: 9, Name: "ann"}, contract.User{ID: 30, Name: "cid"}, contract.User{ID: 100, Name: "dan"}
	live := func(n contract.NodeRef) bool { return n != dead }
	for name, c := range map[string]struct {
		room  contract.RoomID
		limit int
		count int
		users []contract.User
	}{
		"all by id":   {1, 10, 3, []contract.User{ann, cid, dan}},
		"the first":   {1, 2, 3, []contract.User{ann, cid}},
		"count alone": {1, 0, 3, nil},
		"other room":  {2, 10, 1, []contract.User{{ID: 50, Name: "eve"}}},
		"nobody":      {3, 10, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			count, users, err := s.Online(t.Context(), c.room, live, c.limit)
			if err != nil || count != c.count || !slices.Equal(users, c.users) {
				t.Errorf("got %d %v, %v; want %d %v", count, users, err, c.count, c.users)
			}
		})
	}
}

func testReplace(t *testing.T, b *backend) {
	s, node, other := b.open(t), ref("connect-1", 5), ref("connect-2", 6)
	apply(t, s, other, Change{User: 8}, Change{User: 8, Name: "bob", Room: 1})
	apply(t, s, node, Change{User: 7}, Change{User: 8}, Change{User: 7, Name: "ann", Room: 1},
		Change{User: 8, Name: "bob", Room: 1}, Change{User: 8, Name: "bob", Room: 2})
	err := s.Replace(t.Context(), node, []Change{{User: 7}, {User: 9}, {User: 9, Name: "cid", Room: 3}, {User: 7, Name: "ann", Room: 1}})
	if err != nil {
		t.Fatal(err)
	}
	wantRegistered(t, s, node, true)
	wantRoutes(t, s, []contract.RoomID{1, 2, 3}, []contract.UserID{7, 8, 9}, "room 1: connect-1@5 connect-2@6\n"+
		"room 3: connect-1@5\nuser 7: connect-1@5\nuser 8: connect-2@6\nuser 9: connect-1@5")
	all := func(contract.NodeRef) bool { return true }
	if count, _, err := s.Online(t.Context(), 1, all, 0); err != nil || count != 2 {
		t.Errorf("%d in room 1, %v; want 2", count, err)
	}
	if err := s.Replace(t.Context(), node, nil); err != nil {
		t.Fatal(err)
	}
	if keys := b.keys(t, node.String()); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}

	if err := b.raw.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(t.Context(), node, []Change{{User: 7}}); err != nil {
		t.Fatal(err)
	}
	wantRegistered(t, s, node, true) // without having been asked before: it was the whole
}

func testForeignEntries(t *testing.T, b *backend) {
	s, node := b.open(t), ref("connect-1", 5)
	apply(t, s, node, Change{User: 7}, Change{User: 7, Name: "ann", Room: 1})
	b.raw.SAdd(t.Context(), roomRouteKey(1), "nonsense")
	b.raw.SAdd(t.Context(), nodeRoomsKey(node), "nonsense")
	b.raw.HSet(t.Context(), presenceKey(node, 1), "nonsense", "x")
	b.raw.HSet(t.Context(), nodesKey, "nonsense", 1)
	wantRoutes(t, s, []contract.RoomID{1}, nil, "room 1: connect-1@5")
	all := func(contract.NodeRef) bool { return true }
	if count, users, err := s.Online(t.Context(), 1, all, 10); err != nil || count != 1 || len(users) != 1 {
		t.Errorf("online %d %v, %v; want one", count, users, err)
	}
	if lives, err := s.Lives(t.Context()); err != nil || len(lives) != 1 {
		t.Errorf("lives %v, %v; want one", lives, err)
	}
}

// crowd is users 1 to n with a route each, spread over the rooms.
func crowd(users, rooms int) []Change {
	var changes []Change
	for i := range users {
		user := contract.UserID(i + 1)
		changes = append(changes, Change{User: user},
			Change{User: user, Name: "user " + strconv.Itoa(i+1), Room: contract.RoomID(i%rooms + 1)})
	}
	return changes
}

func BenchmarkResolve(b *testing.B) {
	backend := newRedis(b)
	s := backend.open(b)
	var rooms []contract.RoomID
	var users []contract.UserID
	for i := range 100 {
		users = append(users, contract.UserID(i+1))
	}
	for i := range 10 {
		rooms = append(rooms, contract.RoomID(i+1))
	}
	for i := range int64(4) {
		apply(b, s, ref(fmt.Sprint("connect-", i), i+1), crowd(1000, 10)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Resolve(b.Context(), rooms, users); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s := newRedis(b).open(b)
	changes := crowd(500, 10) // 1,000 changes
	b.ReportAllocs()
	for b.Loop() {
		for i := range changes {
			changes[i].Gone = !changes[i].Gone
		}
		apply(b, s, ref("connect-1", 1), changes...)
	}
}
