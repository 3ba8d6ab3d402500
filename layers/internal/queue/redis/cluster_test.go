package redis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"gochat/layers/internal/queue/queuetest"
	"gochat/layers/internal/testdeps"
	"gochat/observability"
)

func TestRedisCluster(t *testing.T) {
	const nodes, slots = 3, 16384
	queuetest.Exercise(t, func(t *testing.T) queuetest.Harness {
		var addrs []string
		var clients []*goredis.Client
		for i := range nodes {
			// The default port of the bus is 10,000 above the port, which may not exist.
			bus, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(bus.Addr().String())
			_ = bus.Close()
			server := testdeps.Redis(t, "--cluster-enabled", "yes", "--cluster-port", port)
			client := connect(t, server.Addr())
			must(t, client.ClusterAddSlotsRange(t.Context(), i*slots/nodes, (i+1)*slots/nodes-1).Err())
			must(t, client.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err())
			if i > 0 {
				host, first, _ := net.SplitHostPort(addrs[0])
				firstBus, err := clients[0].ConfigGet(t.Context(), "cluster-port").Result()
				must(t, err)
				must(t, client.Do(t.Context(), "cluster", "meet", host, first, firstBus["cluster-port"]).Err())
			}
			addrs, clients = append(addrs, server.Addr()), append(clients, client)
		}
		for _, c := range clients {
			eventually(t, "every node sees the whole cluster", func() bool {
				info, err := c.ClusterInfo(t.Context()).Result()
				return err == nil && strings.Contains(info, "cluster_state:ok") &&
					strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", nodes))
			})
		}
		return harness(config(addrs[:2]...))
	})
}

func TestSentinelFailover(t *testing.T) {
	master := testdeps.Redis(t)
	host, port, _ := net.SplitHostPort(master.Addr())
	replica := testdeps.Redis(t, "--replicaof", host+" "+port)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "sentinel monitor main %s %s 1\n"+
		"sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n", host, port), 0o600))
	sentinel := testdeps.Redis(t, conf, "--sentinel")
	onReplica, onSentinel := connect(t, replica.Addr()), connect(t, sentinel.Addr())

	cfg := config(sentinel.Addr())
	cfg.MasterName = "main"
	r := &received{}
	q := open(t, cfg, queuetest.NewOwners(), observability.Discard())
	t.Cleanup(func() { _ = q.Close() })
	consume(t, q, r.handle)
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	r.wait(t, "1", "2")
	eventually(t, "the replica has caught up and is known to the sentinel", func() bool {
		streams, err := onReplica.Exists(t.Context(), stream("k")).Result()
		known, err2 := onSentinel.Do(t.Context(), "sentinel", "replicas", "main").Slice()
		return err == nil && err2 == nil && streams == 1 && onReplica.XLen(t.Context(), stream("k")).Val() == 0 && len(known) == 1
	})

	master.Kill()
	eventually(t, "publishing reaches the new master", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return q.Publish(ctx, items("k", "3", "4")) == nil
	})
	r.wait(t, "1", "2", "3", "4")
}
