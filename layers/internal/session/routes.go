package session

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

const (
	nodesKey           = "gochat:nodes"
	userRouteKeyPrefix = "gochat:route:user:"
)

func userRouteKey(user contract.UserID) string {
	return userRouteKeyPrefix + strconv.FormatInt(int64(user), 10)
}

func roomRouteKey(room contract.RoomID) string {
	return "gochat:route:room:" + strconv.FormatInt(int64(room), 10)
}

func presenceKey(node contract.NodeRef, room contract.RoomID) string {
	return "gochat:presence:" + node.String() + ":" + strconv.FormatInt(int64(room), 10)
}

func nodeUsersKey(node contract.NodeRef) string { return "gochat:node:" + node.String() + ":users" }
func nodeRoomsKey(node contract.NodeRef) string { return "gochat:node:" + node.String() + ":rooms" }

// Change is one change of what one life of a node holds. With Room 0 it is the user's route itself: the first
// connection of the user there, or the last one gone. Else it is the user's presence in that room on this node; the
// room's own route follows from it.
type Change = contract.RouteChange

// about is what a change is about: the last change about it is the one that counts.
type about struct {
	user contract.UserID
	room contract.RoomID
}

// Apply writes the changes of one life, in order: of several about the same user and room the last one counts.
// Applying them again changes nothing. It takes any number, in some round trips for each thousand, and waits for
// an earlier Apply or Replace of the same life. Applying no change registers the life.
//
// After an error any part of the changes may have been made, and Registered is false until a later write has
// succeeded; the caller then applies everything again, with what has gone since, or calls Replace.
func (s *Store) Apply(ctx context.Context, node contract.NodeRef, changes []Change) (err error) {
	defer s.done("apply", time.Now(), &err)
	return s.inTurn(ctx, node, func(l *life) error { return s.write(ctx, node, l, changes) })
}

// Replace makes Redis hold exactly the given routes and presence of one life (no Change of them is Gone): it is
// Apply, and takes away what else Redis has of that life, such as people whose leaving a failover has undone.
func (s *Store) Replace(ctx context.Context, node contract.NodeRef, present []Change) (err error) {
	defer s.done("replace", time.Now(), &err)
	return s.inTurn(ctx, node, func(l *life) error {
		l.whole, l.told = false, false
		changes, err := s.takeAway(ctx, node)
		if err != nil {
			return err
		}
		l.told = true
		return s.write(ctx, node, l, append(changes, present...)) // of each, the last change counts
	})
}

// takeAway is the changes that would leave nothing of what Redis has of the life.
func (s *Store) takeAway(ctx context.Context, node contract.NodeRef) ([]Change, error) {
	users, err := s.members(ctx, nodeUsersKey(node))
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, user := range users {
		changes = append(changes, Change{User: contract.UserID(user), Gone: true})
	}
	rooms, err := s.members(ctx, nodeRoomsKey(node))
	if err != nil {
		return nil, err
	}
	for batch := range slices.Chunk(rooms, maxBatch) {
		present := make([]*redis.StringSliceCmd, len(batch))
		err := s.pipeline(ctx, func(p redis.Pipeliner) {
			for i, room := range batch {
				present[i] = p.HKeys(ctx, presenceKey(node, contract.RoomID(room)))
			}
		})
		if err != nil {
			return nil, err
		}
		for i, room := range batch {
			for _, user := range parseInts(present[i].Val()) {
				changes = append(changes, Change{User: contract.UserID(user), Room: contract.RoomID(room), Gone: true})
			}
		}
	}
	return changes, nil
}

// members reads a set of numbers in bounded steps.
func (s *Store) members(ctx context.Context, key string) ([]int64, error) {
	var all []string
	it := s.redis.SScan(ctx, key, 0, "", maxBatch).Iterator()
	for it.Next(ctx) {
		all = append(all, it.Val())
	}
	return parseInts(all), it.Err()
}

// parseInts leaves out what is not a number: nothing here has written it.
func parseInts(texts []string) []int64 {
	numbers := make([]int64, 0, len(texts))
	for _, text := range texts {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// batch is changes sorted by the step in which they are written. Each subject is in it once.
type batch struct {
	comingUsers, goneUsers []any // as arguments of SADD and SREM
	comingRooms            []any
	changes                []Change
	left                   []contract.RoomID // rooms that someone has left
}

func newBatch(changes []Change) batch {
	b := batch{changes: changes}
	coming, left := make(map[contract.RoomID]bool), make(map[contract.RoomID]bool)
	for _, c := range changes {
		switch {
		case c.Room == 0 && c.Gone:
			b.goneUsers = append(b.goneUsers, int64(c.User))
		case c.Room == 0:
			b.comingUsers = append(b.comingUsers, int64(c.User))
		case c.Gone && !left[c.Room]:
			left[c.Room] = true
			b.left = append(b.left, c.Room)
		case !c.Gone && !coming[c.Room]:
			coming[c.Room] = true
			b.comingRooms = append(b.comingRooms, int64(c.Room))
		}
	}
	return b
}

// lastOfEach keeps the last change about each user and room, in the order of those.
func lastOfEach(changes []Change) []Change {
	seen := make(map[about]struct{}, len(changes))
	kept := make([]Change, 0, len(changes))
	for _, c := range slices.Backward(changes) {
		if _, later := seen[about{c.User, c.Room}]; !later {
			seen[about{c.User, c.Room}] = struct{}{}
			kept = append(kept, c)
		}
	}
	slices.Reverse(kept)
	return kept
}

// write makes the changes in the order that the package's documentation promises. The caller has acquired l.
func (s *Store) write(ctx context.Context, node contract.NodeRef, l *life, changes []Change) error {
	tally, err := s.begin(ctx, l)
	if err != nil {
		return err
	}
	changes = lastOfEach(changes)
	for {
		n := min(len(changes), maxBatch)
		if err := s.writeBatch(ctx, node, newBatch(changes[:n]), &tally); err != nil {
			return err
		}
		if changes = changes[n:]; len(changes) == 0 {
			l.finish(tally)
			return nil
		}
	}
}

func (s *Store) writeBatch(ctx context.Context, node contract.NodeRef, b batch, tally *tally) error {
	ref := node.String()
	var before, after *redis.IntCmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		before = p.HIncrBy(ctx, nodesKey, ref, 1)
		if len(b.comingUsers) > 0 {
			p.SAdd(ctx, nodeUsersKey(node), b.comingUsers...)
		}
		if len(b.comingRooms) > 0 {
			p.SAdd(ctx, nodeRoomsKey(node), b.comingRooms...)
		}
	})
	if err != nil {
		return err
	}

	remaining := make([]*redis.IntCmd, len(b.left))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for _, room := range b.comingRooms {
			p.SAdd(ctx, roomRouteKey(contract.RoomID(room.(int64))), ref)
		}
		for _, c := range b.changes {
			switch user := strconv.FormatInt(int64(c.User), 10); {
			case c.Room == 0 && c.Gone:
				p.SRem(ctx, userRouteKey(c.User), ref)
			case c.Room == 0:
				p.SAdd(ctx, userRouteKey(c.User), ref)
			case c.Gone:
				p.HDel(ctx, presenceKey(node, c.Room), user)
			default:
				p.HSet(ctx, presenceKey(node, c.Room), user, c.Name)
			}
		}
		for i, room := range b.left {
			remaining[i] = p.HLen(ctx, presenceKey(node, room))
		}
	})
	if err != nil {
		return err
	}

	var empty []any
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, room := range b.left {
			if remaining[i].Val() == 0 {
				p.SRem(ctx, roomRouteKey(room), ref)
				empty = append(empty, int64(room))
			}
		}
	})
	if err != nil {
		return err
	}

	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		if len(b.goneUsers) > 0 {
			p.SRem(ctx, nodeUsersKey(node), b.goneUsers...)
		}
		if len(empty) > 0 {
			p.SRem(ctx, nodeRoomsKey(node), empty...)
		}
		after = p.HIncrBy(ctx, nodesKey, ref, 1)
	})
	if err != nil {
		return err
	}
	tally.count(before.Val())
	tally.count(after.Val())
	return nil
}

// Routes says which lives hold connections of a user, or of people in a room. What has no route is absent.
type Routes = contract.Routes

// Resolve answers the routes in one round trip, those of lives that have ended included: the caller knows which
// nodes live.
func (s *Store) Resolve(ctx context.Context, rooms []contract.RoomID, users []contract.UserID) (routes Routes, err error) {
	defer s.done("resolve", time.Now(), &err)
	byRoom := make([]*redis.StringSliceCmd, len(rooms))
	byUser := make([]*redis.StringSliceCmd, len(users))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, room := range rooms {
			byRoom[i] = p.SMembers(ctx, roomRouteKey(room))
		}
		for i, user := range users {
			byUser[i] = p.SMembers(ctx, userRouteKey(user))
		}
	})
	if err != nil {
		return Routes{}, err
	}
	routes = Routes{
		Rooms: make(map[contract.RoomID][]contract.NodeRef, len(rooms)),
		Users: make(map[contract.UserID][]contract.NodeRef, len(users)),
	}
	for i, room := range rooms {
		if refs := parseRefs(byRoom[i].Val()); len(refs) > 0 {
			routes.Rooms[room] = refs
		}
	}
	for i, user := range users {
		if refs := parseRefs(byUser[i].Val()); len(refs) > 0 {
			routes.Users[user] = refs
		}
	}
	return routes, nil
}

// parseRefs leaves out what is no life: nothing here has written it.
func parseRefs(texts []string) []contract.NodeRef {
	refs := make([]contract.NodeRef, 0, len(texts))
	for _, text := range texts {
		if ref, err := contract.ParseNodeRef(text); err == nil {
			refs = append(refs, ref)
		}
	}
	return refs
}
