package session

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
)

// Online answers how many users are in the room over the lives that live holds for living, each counted once, and
// the first of them by id, limit at most (0 is none). Both are true of one moment only.
func (s *Store) Online(ctx context.Context, room contract.RoomID, live func(contract.NodeRef) bool, limit int) (
	count int, users []contract.User, err error) {
	defer s.done("online", time.Now(), &err)
	refs, err := s.redis.SMembers(ctx, roomRouteKey(room)).Result()
	if err != nil {
		return 0, nil, err
	}
	nodes := slices.DeleteFunc(parseRefs(refs), func(ref contract.NodeRef) bool { return !live(ref) })

	present := make([]*redis.StringSliceCmd, len(nodes))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, node := range nodes {
			present[i] = p.HKeys(ctx, presenceKey(node, room))
		}
	})
	if err != nil {
		return 0, nil, err
	}
	type place struct {
		user contract.UserID
		node int
	}
	var places []place
	for i, cmd := range present {
		for _, user := range parseInts(cmd.Val()) {
			places = append(places, place{contract.UserID(user), i})
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.node, b.node))
	})
	places = slices.CompactFunc(places, func(a, b place) bool { return a.user == b.user })

	// Names are read for those answered only: a room may have tens of thousands.
	named := places[:max(0, min(limit, len(places)))]
	names := make([]*redis.StringCmd, len(named))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, pl := range named {
			names[i] = p.HGet(ctx, presenceKey(nodes[pl.node], room), strconv.FormatInt(int64(pl.user), 10))
		}
	})
	if err != nil {
		return 0, nil, err
	}
	for i, pl := range named {
		if names[i].Err() == nil { // else gone since a moment ago
			users = append(users, contract.User{ID: pl.user, Name: names[i].Val()})
		}
	}
	return len(places), users, nil
}
