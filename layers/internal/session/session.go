package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

// maxBatch bounds the commands of one pipeline to a few thousand, so that one caller's bulk does not hold up the
// others for longer than some milliseconds.
const maxBatch = 1000

// Store is the sessions, routes and presence in one Redis. Its methods may be called concurrently; each blocks for
// a few round trips at most, unless it says otherwise, and ends early with ctx's deadline.
type Store struct {
	redis   redis.UniversalClient
	admit   *redis.Script
	ttl     time.Duration
	log     *slog.Logger
	metrics metrics

	mu    sync.Mutex
	lives map[contract.NodeRef]*life // whose routes this store writes
}

// Open makes a Store. It does not wait for Redis: until Redis answers, calls fail with contract.Unavailable, and
// they work from then on.
func Open(cfg Config, tel observability.Telemetry) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open session store: %w", err)
	}
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("open session store: addrs: want host:port at least once")
	}
	cfg = cfg.withDefaults()
	client := redis.NewUniversalClient(cfg.options())
	return &Store{
		redis:   client,
		admit:   redis.NewScript(admit),
		ttl:     cfg.TTL,
		log:     tel.Log,
		metrics: newMetrics(tel.Metrics, client),
		lives:   make(map[contract.NodeRef]*life),
	}, nil
}

// Close closes the connections. Calls in flight fail.
func (s *Store) Close() error { return s.redis.Close() }

// Ping reports whether Redis answers.
func (s *Store) Ping(ctx context.Context) (err error) {
	defer s.done("ping", time.Now(), &err)
	return s.redis.Ping(ctx).Err()
}

// done ends every exported call: it measures it and makes of its error what the caller may pass on to a client.
// Errors of the contract stay what they are.
func (s *Store) done(op string, started time.Time, err *error) {
	var known *contract.Error
	if *err == nil || errors.As(*err, &known) {
		s.metrics.observe(op, started, nil)
		return
	}
	s.metrics.observe(op, started, *err)
	away := contract.RetryLater(contract.Unavailable, time.Second, "sessions are not reachable")
	*err = fmt.Errorf("session store: %s: %w: %w", op, away, *err)
}

// pipeline sends what fill queues in one round trip and returns the first failure. A missing key is none: the
// command that met it says so itself.
func (s *Store) pipeline(ctx context.Context, fill func(redis.Pipeliner)) error {
	cmds, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		fill(p)
		return nil
	})
	for _, cmd := range cmds {
		if e := cmd.Err(); e != nil && !errors.Is(e, redis.Nil) {
			return e
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}
