package session

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// backend is one kind of Redis. raw looks at it from outside.
type backend struct {
	cfg Config
	raw redis.UniversalClient
}

func (b *backend) open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(b.cfg, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// keys answers every key that contains part.
func (b *backend) keys(t testing.TB, part string) []string {
	t.Helper()
	keys, err := b.raw.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return slices.DeleteFunc(keys, func(key string) bool { return !strings.Contains(key, part) })
}

// dump is every key with everything in it.
func (b *backend) dump(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, key := range b.keys(t, "") {
		var value any
		var err error
		switch kind := b.raw.Type(t.Context(), key).Val(); kind {
		case "string":
			value, err = b.raw.Get(t.Context(), key).Result()
		case "zset":
			value, err = b.raw.ZRange(t.Context(), key, 0, -1).Result()
		case "set":
			value, err = b.raw.SMembers(t.Context(), key).Result()
		case "hash":
			value, err = b.raw.HGetAll(t.Context(), key).Result()
		default:
			t.Fatalf("key %q is a %s", key, kind)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&all, key, value)
	}
	return all.String()
}

func newBackend(t testing.TB, cfg Config) *backend {
	t.Helper()
	b := &backend{cfg: cfg, raw: redis.NewUniversalClient(cfg.withDefaults().options())}
	t.Cleanup(func() { _ = b.raw.Close() })
	eventually(t, "redis answers", func() bool { return b.raw.Ping(context.Background()).Err() == nil })
	return b
}

func newRedis(t testing.TB) *backend {
	return newBackend(t, Config{Addrs: []string{startRedis(t, freePort(t)).addr}})
}

func newCluster(t testing.TB) *backend {
	_, b := startCluster(t)
	return b
}

// startCluster is one server that is a whole Cluster: it refuses what would touch several slots at once.
func startCluster(t testing.TB, args ...string) (*server, *backend) {
	srv := startRedis(t, freePort(t), append(args, "--cluster-enabled", "yes", "--cluster-port", freePort(t))...)
	client := redis.NewClient(&redis.Options{Addr: srv.addr})
	defer client.Close()
	eventually(t, "redis answers", func() bool { return client.Ping(context.Background()).Err() == nil })
	if err := client.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is whole", func() bool {
		return strings.Contains(client.ClusterInfo(context.Background()).Val(), "cluster_state:ok")
	})
	return srv, newBackend(t, Config{Addrs: []string{srv.addr}, Cluster: true})
}

func newMiniredis(t testing.TB) *backend {
	return newBackend(t, Config{Addrs: []string{miniredis.RunT(t).Addr()}})
}

type server struct {
	addr string
	dir  string
	args []string
	cmd  *exec.Cmd
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// startRedis starts redis-server, which keeps nothing on disk unless args say so.
func startRedis(t testing.TB, port string, args ...string) *server {
	t.Helper()
	srv := &server{addr: "127.0.0.1:" + port, dir: t.TempDir()}
	srv.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--dir", srv.dir, "--loglevel", "warning"}, args...)
	srv.start(t)
	t.Cleanup(srv.kill)
	return srv
}

func (srv *server) start(t testing.TB) {
	t.Helper()
	srv.cmd = exec.Command("redis-server", srv.args...)
	if err := srv.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the server as a crash would. Its error says only that it was killed.
func (srv *server) kill() {
	_ = srv.cmd.Process.Kill()
	_ = srv.cmd.Wait()
}

var eventually = testwait.Eventually

// TestStore holds every kind of Redis to every promise.
func TestStore(t *testing.T) {
	backends := map[string]func(testing.TB) *backend{"redis": newRedis, "cluster": newCluster, "miniredis": newMiniredis}
	promises := map[string]func(*testing.T, *backend){
		"create, get, list, end":              testLifecycle,
		"the token is kept nowhere":           testTokenNotStored,
		"no session without both halves":      testBothHalves,
		"at most MaxSessions":                 testMaxSessions,
		"single login":                        testSingle,
		"concurrent single logins":            testConcurrentSingle,
		"sliding life":                        testSliding,
		"touch":                               testTouch,
		"list cleans up":                      testListCleans,
		"names that are none":                 testMalformed,
		"routes":                              testRoutes,
		"last change counts":                  testLastChangeCounts,
		"applying again changes nothing":      testIdempotent,
		"thousands of changes":                testThousands,
		"a room's route follows presence":     testRoomRoute,
		"online":                              testOnline,
		"replace":                             testReplace,
		"wiped":                               testWiped,
		"an older state":                      testOlderState,
		"forget":                              testForget,
		"forget, cut short":                   testForgetResumes,
		"forget, cut anywhere":                testForgetCutAnywhere,
		"forget, several at once":             testForgetConcurrent,
		"forgotten while it still lives":      testForgottenAlive,
		"concurrent joins and leaves":         testConcurrentApply,
		"a failed apply is not registered":    testFailedApply,
		"what a crash leaves is found":        testCrashLeftovers,
		"foreign entries do not break a read": testForeignEntries,
	}
	for name, start := range backends {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			for name, test := range promises {
				t.Run(name, func(t *testing.T) {
					if err := b.raw.FlushAll(t.Context()).Err(); err != nil {
						t.Fatal(err)
					}
					test(t, b)
				})
			}
		})
	}
}

func ref(id string, epoch int64) contract.NodeRef {
	return contract.NodeRef{ID: contract.NodeID(id), Epoch: epoch}
}
