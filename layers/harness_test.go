package layers

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gochat/layers/internal/embedded"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testlog"
	"gochat/layers/internal/testwait"
)

// nodeVariable holds the configuration of a process of layers: set, this test binary is that process.
const nodeVariable = "LAYERS_TEST_NODE"

// node is what a process of layers is told: to run some, or, with a data directory, to be up.
type node struct {
	Layers  []string
	DataDir string
	Config  Config
	Env     []string // further variables
	Spoiled string   // one of spoiled()
}

func TestMain(m *testing.M) {
	ConfigureLibraries(slog.New(slog.DiscardHandler))
	if told, ok := os.LookupEnv(nodeVariable); ok {
		os.Exit(beNode(told))
	}
	if len(os.Args) > 1 && os.Args[1] == referenceArgument {
		os.Exit(beReference(os.Args[len(os.Args)-1]))
	}
	// The tests of whole systems wait far more than they compute. A -parallel that is given comes later and wins.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// beNode runs a node until its standard input ends, and prints its addresses when it is ready.
func beNode(told string) int {
	var n node
	if err := json.Unmarshal([]byte(told), &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test that holds the other end
		stop()
	}()
	o := Options{Layers: n.Layers, Log: os.Stderr, seams: spoiled()[n.Spoiled], Ready: func(a Addresses) {
		_ = json.NewEncoder(os.Stdout).Encode(a) // a test that does not read it fails for lack of it
	}}
	var err error
	if n.DataDir != "" {
		err = Up(ctx, n.Config, UpOptions{Options: o, DataDir: n.DataDir})
	} else {
		err = Run(ctx, n.Config, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// backend is what a cluster of the tests rests on.
type backend struct {
	name     string
	etcd     string
	redis    string
	password string
	database string
}

// backends are the dependencies of `gochat up`, and the real ones.
func backends() map[string]func(testing.TB) backend {
	return map[string]func(testing.TB) backend{"embedded": embeddedBackend, "real": realBackend}
}

func embeddedBackend(t testing.TB) backend {
	t.Helper()
	dir := t.TempDir()
	etcd, err := embedded.StartEtcd(t.Context(), filepath.Join(dir, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	redis, err := embedded.StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	return migrated(t, backend{
		name: "embedded", etcd: etcd.Endpoint(), redis: redis.Addr(), password: redis.Password(),
		database: "sqlite:" + filepath.Join(dir, "gochat.db"),
	})
}

func realBackend(t testing.TB) backend {
	t.Helper()
	return migrated(t, backend{
		name: "real", etcd: testdeps.Etcd(t).Endpoint(), redis: testdeps.Redis(t).Addr(), database: testdeps.Postgres(t),
	})
}

func migrated(t testing.TB, b backend) backend {
	t.Helper()
	if _, err := store.MigrateUp(t.Context(), store.Config{URL: b.database}); err != nil {
		t.Fatal(err)
	}
	return b
}

// config is that of a process on the backend, on free ports, with cheap passwords and short times.
func (b backend) config() Config {
	cfg := Defaults()
	free := "127.0.0.1:0"
	cfg.API.Listen, cfg.Site.Listen, cfg.Admin.Listen = free, free, free
	cfg.Connect.WebSocket.Listen, cfg.Connect.TCP.Listen = free, []string{free}
	cfg.Connect.Drain = 100 * time.Millisecond
	cfg.Etcd.Endpoints, cfg.Etcd.LeaseTTL = []string{b.etcd}, 3*time.Second
	cfg.Redis.Addrs, cfg.Redis.Password = []string{b.redis}, b.password
	cfg.Database.URL = b.database
	cfg.RPC.Secret = "secret of the test's processes"
	cfg.Auth.Argon2.MemoryKiB, cfg.Auth.Argon2.Time = 8, 1
	cfg.Logic.Rate.PerSecond, cfg.Logic.Rate.Burst = 100_000, 100_000
	cfg.Log.Level = "warn"
	cfg.Canary.Interval = 0 // most tests count what there is; see canary_test.go
	return cfg
}

// running is a process of layers that is ready.
type running struct {
	Addresses
	pid  int // of one in a process of its own
	log  *syncBuffer
	stop func() error // drains it and waits
	kill func()       // SIGKILL; nil for one in this process
}

type syncBuffer = testlog.Buffer

// start runs layers in this process and waits until they are ready. They are drained when the test ends.
func start(t testing.TB, cfg Config, chosen ...string) *running {
	t.Helper()
	return startWith(t, func(ctx context.Context, o Options) error {
		o.Layers = chosen
		return Run(ctx, cfg, o)
	})
}

func startWith(t testing.TB, run func(context.Context, Options) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	r := &running{log: &syncBuffer{}}
	go func() {
		ended <- run(ctx, Options{Log: r.log, Ready: func(a Addresses) { ready <- a }})
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("log of a process:\n%s", r.log)
		}
	})
	select {
	case r.Addresses = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("not started: %v\n%s", err, r.log)
	case <-time.After(30 * time.Second):
		t.Fatalf("not ready within 30 s\n%s", r.log)
	}
	return r
}

// spawn runs layers in a process of their own, which can be killed.
func spawn(t testing.TB, cfg Config, chosen ...string) *running {
	t.Helper()
	return node{Layers: chosen, Config: cfg}.spawn(t)
}

func (n node) spawn(t testing.TB) *running {
	t.Helper()
	told, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), n.Env...), nodeVariable+"="+string(told))
	r := &running{log: &syncBuffer{}}
	cmd.Stderr = r.log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.pid = cmd.Process.Pid
	r.stop = sync.OnceValue(func() error { _ = stdin.Close(); return cmd.Wait() })
	r.kill = func() {
		_ = cmd.Process.Signal(syscall.SIGKILL) // one that has ended is as dead
		_ = r.stop()                            // says that it was killed
	}
	t.Cleanup(func() {
		_ = r.stop() // a test that wants to know has asked
		if strings.Contains(r.log.String(), "DATA RACE") || t.Failed() {
			t.Errorf("log of a spawned process:\n%s", r.log)
		}
	})
	ready := make(chan error, 1)
	go func() { ready <- json.NewDecoder(stdout).Decode(&r.Addresses) }()
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("not started: %v\n%s", err, r.log)
		}
	case <-time.After(30 * time.Second):
		r.kill()
		t.Fatalf("not ready within 30 s\n%s", r.log)
	}
	return r
}

// api is the base URL of the process's API.
func (r *running) api() string { return "http://" + r.API }

var eventually = testwait.Eventually
