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
	nodes := cluster(t, 3)
	queuetest.Exercise(t, func(t *testing.T) queuetest.Harness {
		for _, n := range nodes {
			must(t, n.FlushAll(t.Context()).Err())
		}
		return harness(config(nodes[0].Options().Addr, nodes[1].Options().Addr))
	})
}

// cluster starts as many masters, each with its part of the slots.
func cluster(t *testing.T, size int) []*goredis.Client {
	const slots = 16384
	var nodes []*goredis.Client
	for i := range size {
		// The bus is usually 10,000 above the port, where there may be no port.
		bus, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		_, busPort, _ := net.SplitHostPort(bus.Addr().String())
		must(t, bus.Close())
		node := connect(t, testdeps.Redis(t, "--cluster-enabled", "yes", "--cluster-port", busPort).Addr())
		must(t, node.ClusterAddSlotsRange(t.Context(), i*slots/size, (i+1)*slots/size-1).Err())
		must(t, node.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err())
		host, port, _ := net.SplitHostPort(node.Options().Addr)
		for _, other := range nodes {
			must(t, other.Do(t.Context(), "cluster", "meet", host, port, busPort).Err())
		}
		nodes = append(nodes, node)
	}
	for _, n := range nodes {
		eventually(t, "every node sees the whole cluster", func() bool {
			info, err := n.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", size))
		})
	}
	return nodes
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
	consume(t, q, r.Handle)
	must(t, q.Publish(t.Context(), items("k", "1", "2")))
	r.Wait(t, "1", "2")
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
	r.Wait(t, "1", "2", "3", "4")
}
