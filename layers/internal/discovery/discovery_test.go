package discovery

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

var await = testwait.Within

func testConfig(endpoint string, ttl time.Duration) Config {
	cfg := Defaults()
	cfg.Endpoints = []string{endpoint}
	cfg.LeaseTTL = ttl
	return cfg
}

func open(t testing.TB, endpoint string, ttl time.Duration) *Client {
	t.Helper()
	c, err := Open(testConfig(endpoint, ttl), observability.Discard())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// process is one joined process, with Run running. It leaves with the test, or at leave, or vanishes at crash.
type process struct {
	c *Client
	m *Membership

	end  context.CancelFunc
	done chan error
}

func join(t testing.TB, endpoint string, ttl time.Duration) *process {
	t.Helper()
	p := &process{c: open(t, endpoint, ttl), done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m, err := p.c.Join(ctx)
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	p.m = m
	runCtx, end := context.WithCancel(context.Background())
	p.end = end
	go func() { p.done <- m.Run(runCtx) }()
	t.Cleanup(func() { p.leave(t) })
	return p
}

func (p *process) leave(t testing.TB) {
	t.Helper()
	if p.end == nil {
		return
	}
	p.end()
	p.end = nil
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("run does not end")
	}
}

// crash ends the process without a word to etcd.
func (p *process) crash(t testing.TB) {
	t.Helper()
	_ = p.c.etcd.ActiveConnection().Close()
	p.leave(t)
}

func register(t testing.TB, p *process, layer, addr string) Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := p.m.Register(ctx, layer, addr)
	if err != nil {
		t.Fatalf("register %s: %v", layer, err)
	}
	return n
}

func watch(t testing.TB, c *Client, layer string) *View {
	t.Helper()
	v, err := c.Watch(t.Context(), layer)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := v.WaitSynced(ctx); err != nil {
		t.Fatalf("wait synced: %v", err)
	}
	return v
}

func shows(v *View, want ...Node) func() bool {
	return func() bool {
		got := v.Nodes()
		return len(got) == 0 && len(want) == 0 || reflect.DeepEqual(got, want)
	}
}

// link is a TCP connection to etcd that a test can cut.
type link struct {
	target string
	addr   string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	wg    sync.WaitGroup
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	k := &link{target: target, addr: "127.0.0.1:0"}
	k.mend(t)
	t.Cleanup(k.cut)
	return k
}

func (k *link) endpoint() string { return "http://" + k.addr }

func (k *link) mend(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", k.addr)
	if err != nil {
		t.Fatalf("link: %v", err)
	}
	k.l, k.addr = l, l.Addr().String()
	k.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", k.target)
			if err != nil {
				_ = in.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, in, out)
			k.mu.Unlock()
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			k.wg.Go(func() { pipe(in, out) })
			k.wg.Go(func() { pipe(out, in) })
		}
	})
}

func (k *link) cut() {
	_ = k.l.Close()
	for range 2 { // what was being accepted is closed at the second time
		k.mu.Lock()
		for _, c := range k.conns {
			_ = c.Close()
		}
		k.conns = nil
		k.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	k.wg.Wait()
}

func TestConfig(t *testing.T) {
	good := testConfig("http://127.0.0.1:1", time.Second)
	tests := []struct {
		name   string
		change func(*Config)
		ok     bool
	}{
		{"defaults with an endpoint", func(*Config) {}, true},
		{"no endpoint, as for a process that needs none", func(c *Config) { c.Endpoints = nil }, true},
		{"a unix socket", func(c *Config) { c.Endpoints = []string{"unix:///run/etcd.sock"} }, true},
		{"a second endpoint without a port", func(c *Config) { c.Endpoints = append(c.Endpoints, "http://etcd") }, false},
		{"relative prefix", func(c *Config) { c.Prefix = "gochat" }, false},
		{"prefix with a slash at the end", func(c *Config) { c.Prefix = "/gochat/" }, false},
		{"no lease", func(c *Config) { c.LeaseTTL = 0 }, false},
		{"half seconds", func(c *Config) { c.LeaseTTL = 1500 * time.Millisecond }, false},
		{"no dial timeout", func(c *Config) { c.DialTimeout = 0 }, false},
		{"user without password", func(c *Config) { c.Username = "root" }, false},
		{"password without user", func(c *Config) { c.Password = "x" }, false},
		{"both", func(c *Config) { c.Username, c.Password = "root", "x" }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			if err := c.Validate(); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestOpenWantsEndpoints(t *testing.T) {
	if _, err := Open(Defaults(), observability.Discard()); err == nil || !strings.Contains(err.Error(), "endpoints") {
		t.Errorf("got %v, want an error with endpoints", err)
	}
}

func TestWithoutEtcd(t *testing.T) {
	c := open(t, "http://127.0.0.1:1", time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	v, err := c.Watch(t.Context(), "connect")
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	if n := v.Nodes(); len(n) != 0 || v.Synced() {
		t.Errorf("got nodes %v, synced %v, want none", n, v.Synced())
	}
	if err := v.WaitSynced(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait synced: got %v, want the ctx's error", err)
	}
	if _, err := c.Join(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("join: got %v, want the ctx's error", err)
	}
	if err := c.Ping(ctx); err == nil {
		t.Error("ping: got no error")
	}
	if _, err := c.Watch(t.Context(), "a/b"); err == nil {
		t.Error("watch of a name with a slash: got no error")
	}
}

func TestWatchAfterClose(t *testing.T) {
	c, err := Open(testConfig("http://127.0.0.1:1", time.Second), observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Watch(context.Background(), "connect"); err != nil { // ends with Close alone
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.Watch(context.Background(), "connect"); err == nil {
		t.Error("watch after close: got no error")
	}
}

func TestPassword(t *testing.T) {
	server := testdeps.Etcd(t)
	admin := open(t, server.Endpoint(), 2*time.Second).etcd
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, err := admin.UserAdd(t.Context(), "root", "secret")
	do("add user", err)
	_, err = admin.RoleAdd(t.Context(), "root")
	do("add role", err)
	_, err = admin.UserGrantRole(t.Context(), "root", "root")
	do("grant", err)
	_, err = admin.AuthEnable(t.Context())
	do("enable", err)

	for name, tt := range map[string]struct {
		password string
		ok       bool
	}{"right": {"secret", true}, "wrong": {"guess", false}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(server.Endpoint(), 2*time.Second)
			cfg.Username, cfg.Password = "root", tt.password
			c, err := Open(cfg, observability.Discard())
			do("open", err)
			defer func() { do("close", c.Close()) }()
			v, err := c.Watch(t.Context(), "connect") // a stream is the first to ask for a token
			do("watch", err)
			for _, when := range []string{"at first", "after a restart, with a token that has expired"} {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				if err := v.WaitSynced(ctx); (err == nil) != tt.ok {
					t.Errorf("%s: wait synced: got %v, want ok %v", when, err, tt.ok)
				}
				if err := c.Ping(ctx); (err == nil) != tt.ok {
					t.Errorf("%s: ping: got %v, want ok %v", when, err, tt.ok)
				}
				cancel()
				server.Stop()
				await(t, 5*time.Second, "the loss", func() bool { return !v.Synced() })
				server.Start()
				c.auth.mu.Lock()
				c.auth.token = "expired.1"
				c.auth.mu.Unlock()
			}
		})
	}
}

// compact forgets all history.
func compact(t testing.TB, c *clientv3.Client) {
	t.Helper()
	r, err := c.Get(t.Context(), "x")
	if err == nil {
		_, err = c.Compact(t.Context(), r.Header.Revision)
	}
	if err != nil {
		t.Fatalf("compact: %v", err)
	}
}
