package redis_test

import (
	"testing"
	"time"

	"gochat/layers/internal/embedded"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/queue/redis"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

const partitions, bound = 4, 2500

func config(addrs ...string) redis.Config {
	cfg := redis.DefaultConfig()
	cfg.Addrs, cfg.Partitions, cfg.MaxItems, cfg.Batch = addrs, partitions, bound, 32
	cfg.Drain = 3 * time.Second
	return cfg
}

func open(t testing.TB, cfg redis.Config, owners queue.Ownership, tel observability.Telemetry) *redis.Queue {
	t.Helper()
	q, err := redis.New(cfg, owners, tel)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return q
}

func harness(cfg redis.Config) queuetest.Harness {
	owners := queuetest.NewOwners()
	return queuetest.Harness{
		Partitions: cfg.Partitions,
		Bound:      cfg.MaxItems,
		New: func(t *testing.T) queue.Queue {
			return open(t, cfg, owners, observability.Discard())
		},
	}
}

func TestRedisServer(t *testing.T) {
	queuetest.Exercise(t, func(t *testing.T) queuetest.Harness {
		server := testdeps.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
		h := harness(config(server.Addr()))
		h.Stop = func(*testing.T) { server.Kill() }
		h.Start = func(*testing.T) { server.Start() }
		return h
	})
}

func TestEmbeddedRedis(t *testing.T) {
	queuetest.Exercise(t, func(t *testing.T) queuetest.Harness {
		server, err := embedded.StartRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		cfg := config(server.Addr())
		cfg.Password = server.Password()
		return harness(cfg)
	})
}
