package layers

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
)

// readiness asks the admin server: whether it is ready, and what each check that is not says.
func readiness(addr string) (ready bool, reasons map[string]string) {
	resp, err := http.Get("http://" + addr + "/readyz")
	if err != nil {
		return false, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		Ready  bool
		Checks []struct {
			Name, Reason string
			Ready        bool
		}
	}
	if json.NewDecoder(resp.Body).Decode(&out) != nil {
		return false, nil
	}
	reasons = make(map[string]string)
	for _, c := range out.Checks {
		if !c.Ready {
			reasons[c.Name] = c.Reason
		}
	}
	return resp.StatusCode == http.StatusOK && out.Ready, reasons
}

// freePort is an address that nothing listens on, for a server that has to say where it is before it starts.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// TestWaitsForDependencies starts a process before anything that it needs. It waits, says for what, is not ready,
// and works when all is there.
func TestWaitsForDependencies(t *testing.T) {
	etcd, redis, pg := testdeps.Etcd(t), testdeps.Redis(t), testdeps.StartPostgres(t)
	b := backend{etcd: etcd.Endpoint(), redis: redis.Addr(), database: pg.URL}
	etcd.Stop()
	redis.Stop()
	pg.Stop(t)
	cfg := b.config()
	cfg.Admin.Listen = freePort(t)

	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	log := &syncBuffer{}
	go func() {
		ended <- Run(ctx, cfg, Options{Layers: All(), Log: log, Ready: func(a Addresses) { ready <- a }})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	waitsFor := func(check string) {
		t.Helper()
		eventually(t, "waits for "+check, func() bool {
			ok, reasons := readiness(cfg.Admin.Listen)
			return !ok && strings.Contains(reasons[check], "waiting")
		})
		eventually(t, "the log says that it waits for "+check, func() bool {
			return strings.Contains(log.String(), "waiting for "+check)
		})
	}
	waitsFor("etcd")
	etcd.Start()
	waitsFor("logic: database")
	pg.Start(t) // without a schema
	waitsFor("logic: database")
	eventually(t, "says that the schema is missing", func() bool {
		_, reasons := readiness(cfg.Admin.Listen)
		return strings.Contains(reasons["logic: database"], "migrate up")
	})
	if _, err := store.MigrateUp(t.Context(), cfg.Database); err != nil {
		t.Fatal(err)
	}
	waitsFor("logic: redis")
	select {
	case a := <-ready:
		t.Fatalf("ready without Redis: %v", a)
	default:
	}
	redis.Start()
	var bound Addresses
	select {
	case bound = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatalf("not ready though everything is there\n%s", log)
	}
	ann := testclient.Register(t, "http://"+bound.API, "ann")
	c := testclient.WebSocket(t, bound.WebSocket)
	c.Enter(t, ann, 1)
}

// TestStopsWhileWaiting: told to stop while it waits for a dependency, a process ends in peace. Every layer waits for
// etcd, where the others find it.
func TestStopsWhileWaiting(t *testing.T) {
	for _, chosen := range append([][]string{All()}, slices.Collect(slices.Chunk(All(), 1))...) {
		t.Run(strings.Join(chosen, ","), func(t *testing.T) {
			cfg := backend{etcd: "http://" + freePort(t), redis: "127.0.0.1:1", database: "sqlite:" + t.TempDir() + "/x.db"}.config()
			cfg.Admin.Listen = freePort(t)
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, cfg, Options{Layers: chosen, Log: io.Discard}) }()
			eventually(t, "waits for etcd", func() bool {
				_, reasons := readiness(cfg.Admin.Listen)
				return reasons["etcd"] != ""
			})
			stop()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(testclient.Patience):
				t.Error("not stopped")
			}
		})
	}
}

// TestDependencyLostAndBack stops each dependency of a working process in turn. The process says so, stays, keeps
// its connections, and works again by itself: its canary finds that messages come through.
func TestDependencyLostAndBack(t *testing.T) {
	etcd, redis, pg := testdeps.Etcd(t), testdeps.Redis(t), testdeps.StartPostgres(t)
	b := migrated(t, backend{etcd: etcd.Endpoint(), redis: redis.Addr(), database: pg.URL})
	r := start(t, watching(b.config()), All()...)
	for _, d := range []struct {
		name, check string
		stop, start func()
	}{
		{"redis", "connect: redis", redis.Kill, redis.Start},
		{"database", "logic: database", func() { pg.Stop(t) }, func() { pg.Start(t) }},
		{"etcd", "etcd", etcd.Kill, etcd.Start},
	} {
		t.Run(d.name, func(t *testing.T) {
			ann := testclient.Register(t, r.api(), "ann-"+d.name)
			c := testclient.WebSocket(t, r.WebSocket)
			c.Enter(t, ann, 1)
			d.stop()
			eventually(t, "says that it is away", func() bool {
				_, reasons := readiness(r.Admin)
				return reasons[d.check] != ""
			})
			d.start()
			eventually(t, "ready again", func() bool { ok, _ := readiness(r.Admin); return ok })
			if d.name == "redis" { // without persistence: the sessions are gone, people log in again
				u, status := login(t, r, ann.Name, "secret-password")
				if status != http.StatusOK {
					t.Fatalf("login: status %d", status)
				}
				c = testclient.WebSocket(t, r.WebSocket)
				c.Enter(t, u, 1)
			}
			eventually(t, "a message accepted", func() bool {
				c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "after " + d.name, "clientId": "after-" + d.name})
				time.Sleep(200 * time.Millisecond)
				for _, f := range c.Frames() {
					if f.Op() == 20 && f.Str("clientId") == "after-"+d.name {
						return true
					}
				}
				return false
			})
			c.AwaitText(t, "after "+d.name)
		})
	}
}
