package logic

import (
	"context"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"gochat/layers/internal/contract"
)

// Bounds of what a process remembers, in entries.
const (
	cachedSessions = 100_000
	cachedRooms    = 100_000
	cachedNames    = 100_000
	cachedLimits   = 100_000
)

type timed[V any] struct {
	value V
	until time.Time
}

// timedCache remembers answers for a while. What is dropped while an answer is being fetched is not remembered:
// the fetch may have begun before the change.
type timedCache[K comparable, V any] struct {
	life time.Duration

	mu    sync.Mutex
	items *lru.Cache[K, timed[V]]
	drops uint64
}

func newTimedCache[K comparable, V any](size int, life time.Duration) (*timedCache[K, V], error) {
	items, err := lru.New[K, timed[V]](size)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &timedCache[K, V]{life: life, items: items}, nil
}

func (c *timedCache[K, V]) get(ctx context.Context, key K, fetch func(context.Context, K) (V, error)) (V, error) {
	c.mu.Lock()
	found, ok := c.items.Get(key)
	drops := c.drops
	c.mu.Unlock()
	if ok && time.Now().Before(found.until) {
		return found.value, nil
	}
	value, err := fetch(ctx, key)
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops == drops {
		c.items.Add(key, timed[V]{value, time.Now().Add(c.life)})
	}
	return value, nil
}

func (c *timedCache[K, V]) drop(keys ...K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	for _, key := range keys {
		c.items.Remove(key)
	}
}

// sessionCache answers who a credential speaks for.
type sessionCache struct {
	sessions Sessions
	cache    *timedCache[contract.SessionID, contract.Session]
}

func newSessionCache(sessions Sessions, life time.Duration) (*sessionCache, error) {
	cache, err := newTimedCache[contract.SessionID, contract.Session](cachedSessions, life)
	return &sessionCache{sessions, cache}, err
}

// who is Unauthenticated if the credential is not that of a session.
func (s *sessionCache) who(ctx context.Context, c contract.Credential) (contract.Session, error) {
	id := c.Session
	if c.Token != "" {
		id = contract.SessionOf(c.Token)
	}
	if id == "" {
		return contract.Session{}, contract.Errorf(contract.Unauthenticated, "no token was given")
	}
	session, err := s.cache.get(ctx, id, s.sessions.Get)
	if err != nil {
		return contract.Session{}, fmt.Errorf("load session: %w", err)
	}
	return session, nil
}

// roomCache answers whether a user may be in a room.
type roomCache struct {
	store Store
	cache *timedCache[roomUser, contract.Room]
}

type roomUser struct {
	room contract.RoomID
	user contract.UserID // 0 for what holds for everybody
}

func newRoomCache(store Store, life time.Duration) (*roomCache, error) {
	cache, err := newTimedCache[roomUser, contract.Room](cachedRooms, life)
	return &roomCache{store, cache}, err
}

// enter answers the room if the user may be in it: NotFound, or Forbidden for a private one without membership.
// Whether the user is a member of a public room is not looked up.
func (r *roomCache) enter(ctx context.Context, id contract.RoomID, user contract.UserID) (contract.Room, error) {
	if id <= 0 {
		return contract.Room{}, contract.Errorf(contract.BadRequest, "room %d: want a positive number", id)
	}
	room, err := r.cache.get(ctx, roomUser{room: id}, r.load)
	if err == nil && room.Private {
		room, err = r.cache.get(ctx, roomUser{id, user}, r.load)
	}
	return admitted(room, err)
}

// enterAnew is enter by what the database says now.
func (r *roomCache) enterAnew(ctx context.Context, id contract.RoomID, user contract.UserID) (contract.Room, error) {
	return admitted(r.load(ctx, roomUser{id, user}))
}

func (r *roomCache) load(ctx context.Context, k roomUser) (contract.Room, error) {
	return r.store.Room(ctx, k.room, k.user)
}

func admitted(room contract.Room, err error) (contract.Room, error) {
	if err != nil {
		return contract.Room{}, fmt.Errorf("load room: %w", err)
	}
	if room.Private && !room.Member {
		return contract.Room{}, contract.Errorf(contract.Forbidden, "room %d is private", room.ID)
	}
	return room, nil
}

func (r *roomCache) drop(room contract.RoomID, user contract.UserID) {
	r.cache.drop(roomUser{room, user})
}

// nameCache answers users' names, which never change.
type nameCache struct {
	store Store
	cache *lru.Cache[contract.UserID, string]
}

func newNameCache(store Store) (*nameCache, error) {
	cache, err := lru.New[contract.UserID, string](cachedNames)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &nameCache{store, cache}, nil
}

// name is NotFound for a user that does not exist.
func (n *nameCache) name(ctx context.Context, id contract.UserID) (string, error) {
	if name, ok := n.cache.Get(id); ok {
		return name, nil
	}
	user, err := n.store.User(ctx, id)
	if err != nil {
		return "", fmt.Errorf("load user: %w", err)
	}
	n.cache.Add(id, user.Name)
	return user.Name, nil
}

// limits keeps users from sending too fast, and passwords from being guessed.
type limits struct {
	cfg     RateConfig
	senders *lru.Cache[contract.UserID, *rate.Limiter]
	logins  *lru.Cache[string, *rate.Limiter]
}

// A name may fail to log in this often at once, then once in each interval.
const (
	loginBurst    = 20
	loginInterval = 3 * time.Second
)

func newLimits(cfg RateConfig) (*limits, error) {
	senders, err := lru.New[contract.UserID, *rate.Limiter](cachedLimits)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	logins, err := lru.New[string, *rate.Limiter](cachedLimits)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &limits{cfg: cfg, senders: senders, logins: logins}, nil
}

func limiter[K comparable](c *lru.Cache[K, *rate.Limiter], key K, every rate.Limit, burst int) *rate.Limiter {
	if l, ok := c.Get(key); ok {
		return l
	}
	fresh := rate.NewLimiter(every, burst)
	if earlier, ok, _ := c.PeekOrAdd(key, fresh); ok {
		return earlier
	}
	return fresh
}

// send takes one from the user's allowance: RateLimited, with the time to wait, when it is used up.
func (l *limits) send(user contract.UserID) error {
	r := limiter(l.senders, user, rate.Limit(l.cfg.PerSecond), l.cfg.Burst).Reserve()
	if wait := r.Delay(); wait > 0 {
		r.Cancel()
		return contract.RetryLater(contract.RateLimited, wait.Round(time.Millisecond)+time.Millisecond, "too many messages")
	}
	return nil
}

// login reports whether the name may be tried; failed counts a try that was wrong.
func (l *limits) login(name string) error {
	if limiter(l.logins, name, rate.Every(loginInterval), loginBurst).Tokens() < 1 {
		return contract.RetryLater(contract.RateLimited, loginInterval, "too many failed logins")
	}
	return nil
}

func (l *limits) failed(name string) {
	limiter(l.logins, name, rate.Every(loginInterval), loginBurst).Allow()
}
