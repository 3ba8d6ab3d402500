package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

// life is what a store remembers of a life whose routes it writes. Whoever holds the turn may use the fields.
//
//	whole: Redis holds everything that was applied. Lost on an error, on a count that does not follow, or when
//	Registered finds so; regained by a write that succeeds after the owner was told.
type life struct {
	turn   chan struct{} // holds one value: unlike a mutex, waiting for it ends with the context
	missed atomic.Bool   // a write failed for want of the turn

	whole   bool
	told    bool // the owner knows that it must apply everything: the next write begins that
	counted int64
	servers string // the server processes that the whole was written to; "" unless they are a Cluster
}

func (s *Store) life(node contract.NodeRef) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[node]
	if l == nil {
		l = &life{turn: make(chan struct{}, 1), told: true} // nothing was applied, so that nothing can be missing
		s.lives[node] = l
	}
	return l
}

// acquire waits for the turn. Writes are made one after the other, with all their round trips.
func (l *life) acquire(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.missed.Swap(false) {
		l.whole, l.told = false, false
	}
	return nil
}

func (l *life) release() { <-l.turn }

// inTurn runs a write of the life, alone.
func (s *Store) inTurn(ctx context.Context, node contract.NodeRef, write func(*life) error) error {
	l := s.life(node)
	if err := l.acquire(ctx); err != nil {
		l.missed.Store(true)
		return err
	}
	defer l.release()
	return write(l)
}

// tally follows the count of a life through one write.
type tally struct {
	last   int64
	any    bool // the first count may be any: what came before does not matter
	broken bool
}

func (t *tally) count(n int64) {
	if !t.any && n != t.last+1 {
		t.broken = true
	}
	t.last, t.any = n, false
}

// begin starts a write. Until finish, the life is not whole, so that every way out of a failure leaves it so.
func (s *Store) begin(ctx context.Context, l *life) (tally, error) {
	t := tally{last: l.counted, any: !l.whole && l.told, broken: !l.whole && !l.told}
	l.whole, l.told = false, false
	if t.any {
		var err error
		if l.servers, err = s.servers(ctx); err != nil {
			return tally{}, err
		}
	}
	return t, nil
}

func (l *life) finish(t tally) { l.whole, l.counted = !t.broken, t.last }

// Registered reports whether Redis holds all that this Store has applied for the life. It is false before the first
// Apply, after one that failed, and once Redis has lost data; the caller then applies everything again (or calls
// Replace), and Registered is true when a write that began after that answer has succeeded. It waits for a write of
// the same life that is under way.
func (s *Store) Registered(ctx context.Context, node contract.NodeRef) (registered bool, err error) {
	defer s.done("registered", time.Now(), &err)
	l := s.life(node)
	if err := l.acquire(ctx); err != nil {
		return false, err
	}
	defer l.release()
	if l.whole {
		n, err := s.redis.HGet(ctx, nodesKey, node.String()).Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return false, err
		}
		servers, err := s.servers(ctx)
		if err != nil {
			return false, err
		}
		l.whole = n == l.counted && servers == l.servers
	}
	l.told = !l.whole
	return l.whole, nil
}

// servers names the server processes that are the masters of a Cluster: after a restart or a failover it is another
// name. It is "" where the life's count is enough, since it lies where everything lies.
func (s *Store) servers(ctx context.Context) (string, error) {
	cluster, ok := s.redis.(*redis.ClusterClient)
	if !ok {
		return "", nil
	}
	var mu sync.Mutex
	var runs []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		info, err := master.Info(ctx, "server").Result()
		if err != nil {
			return err
		}
		_, run, _ := strings.Cut(info, "run_id:")
		run, _, _ = strings.Cut(run, "\r")
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, run)
		return nil
	})
	slices.Sort(runs)
	return strings.Join(runs, " "), err
}

// Lives answers every life that has, or may have, routes: those that live and those to be forgotten.
func (s *Store) Lives(ctx context.Context) (lives []contract.NodeRef, err error) {
	defer s.done("lives", time.Now(), &err)
	refs, err := s.redis.HKeys(ctx, nodesKey).Result()
	if err != nil {
		return nil, err
	}
	return parseRefs(refs), nil
}

// Forget removes every route and all presence of a life that has ended, in steps of bounded size, and answers the
// rooms whose presence that has changed. It may be repeated, be cut short and be called by several nodes at once:
// of those, one that finished answers all the rooms and the others none; while nobody has finished, the next call
// answers them all. Rooms that come with an error are to be taken as answered.
func (s *Store) Forget(ctx context.Context, node contract.NodeRef) (rooms []contract.RoomID, err error) {
	defer s.done("forget", time.Now(), &err)
	if err := s.forgetUsers(ctx, node); err != nil {
		return nil, err
	}
	ids, err := s.members(ctx, nodeRoomsKey(node))
	if err != nil {
		return nil, err
	}
	ref := node.String()
	for batch := range slices.Chunk(ids, maxBatch) {
		err := s.pipeline(ctx, func(p redis.Pipeliner) {
			for _, id := range batch {
				rooms = append(rooms, contract.RoomID(id))
				p.SRem(ctx, roomRouteKey(contract.RoomID(id)), ref)
				p.Unlink(ctx, presenceKey(node, contract.RoomID(id)))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(rooms)
	rooms = slices.Compact(rooms) // a scan may meet one twice
	// The set of rooms goes last and whole: as long as it is there, a later call can answer all of them, and whoever
	// removes it is the one to answer.
	removed, err := s.redis.Unlink(ctx, nodeRoomsKey(node)).Result()
	if err != nil {
		return rooms, err // perhaps removed: better announced twice than never
	}
	if removed == 0 {
		rooms = nil
	}
	return rooms, s.redis.HDel(ctx, nodesKey, ref).Err()
}

func (s *Store) forgetUsers(ctx context.Context, node contract.NodeRef) error {
	ref := node.String()
	for {
		users, err := s.redis.SRandMemberN(ctx, nodeUsersKey(node), maxBatch).Result()
		if err != nil || len(users) == 0 {
			return err
		}
		err = s.pipeline(ctx, func(p redis.Pipeliner) {
			for _, user := range users {
				p.SRem(ctx, userRouteKeyPrefix+user, ref)
			}
		})
		if err != nil {
			return err
		}
		done := make([]any, len(users))
		for i, user := range users {
			done[i] = user
		}
		if err := s.redis.SRem(ctx, nodeUsersKey(node), done...).Err(); err != nil {
			return err
		}
	}
}
