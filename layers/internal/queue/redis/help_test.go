package redis_test

import (
	"fmt"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue"
	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/testwait"
)

const patience = testwait.Patience

type received = queuetest.Received

var (
	must       = queuetest.Must
	items      = queuetest.Items
	consume    = queuetest.Consume
	eventually = testwait.Eventually
)

// connect is a client beside the queue, to look at what it does and to interfere with it.
func connect(t testing.TB, addr string) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func stream(key string) string {
	return fmt.Sprintf("gochat:deliveries:{%d}", queue.Partition(key, partitions))
}
