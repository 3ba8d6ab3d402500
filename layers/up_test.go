package layers

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gochat/layers/internal/testclient"
)

// upConfig is that of `gochat up` on free ports.
func upConfig() Config {
	cfg := (backend{}).config()
	cfg.Etcd.Endpoints, cfg.Redis.Addrs, cfg.Database.URL, cfg.RPC.Secret = nil, nil, "", ""
	return cfg
}

func up(t *testing.T, dir string, cfg Config) *running {
	t.Helper()
	return startWith(t, func(ctx context.Context, o Options) error {
		return Up(ctx, cfg, UpOptions{Options: o, DataDir: dir})
	})
}

// refused is the error with which Up does not begin.
func refused(t *testing.T, dir string, cfg Config) error {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	err := Up(ctx, cfg, UpOptions{Options: Options{Log: &syncBuffer{}, Ready: func(Addresses) { stop() }}, DataDir: dir})
	if err == nil {
		t.Fatal("it ran")
	}
	return err
}

func login(t *testing.T, r *running, name, password string) (*testclient.User, int) {
	t.Helper()
	u := &testclient.User{API: r.api(), Name: name}
	var out struct {
		Token  string `json:"token"`
		UserID int    `json:"userId"`
	}
	status, _ := u.Do(t, "POST", "/v1/login", map[string]any{"name": name, "password": password})
	if status == http.StatusOK {
		u.Must(t, "POST", "/v1/login", map[string]any{"name": name, "password": password}, &out)
		u.Token, u.ID = out.Token, out.UserID
	}
	return u, status
}

// TestUp starts on an empty folder, is used, and started again: users and history are still there. The demo users
// can log in as soon as it is ready.
func TestUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "up")
	first := up(t, dir, upConfig())
	if !first.DemoUsers {
		t.Error("a first run on loopback did not tell of demo users")
	}
	for _, name := range []string{"demo", "test", "admin"} {
		if _, status := login(t, first, name, "111111"); status != http.StatusOK {
			t.Errorf("%s cannot log in: status %d", name, status)
		}
	}
	demo, _ := login(t, first, "demo", "111111")
	own := testclient.Register(t, first.api(), "own")
	demo.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "to be kept"}, nil)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := up(t, dir, upConfig())
	if !second.DemoUsers {
		t.Error("a second run did not tell of the demo users that are there")
	}
	if _, status := login(t, second, own.Name, "secret-password"); status != http.StatusOK {
		t.Errorf("a user of the first run cannot log in: status %d", status)
	}
	demo, _ = login(t, second, "demo", "111111")
	if _, body := demo.Do(t, "GET", "/v1/rooms/1/messages", nil); !strings.Contains(string(body), "to be kept") {
		t.Errorf("history of the first run is gone: %s", body)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v; want it for its owner alone", info.Mode(), err)
	}
}

// TestUpRefusesASharedDirectory: two processes on one SQLite file would number messages twice.
func TestUpRefusesASharedDirectory(t *testing.T) {
	dir := t.TempDir()
	up(t, dir, upConfig())
	if err := refused(t, dir, upConfig()); !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want that the directory is in use", err)
	}
}

// TestNoDemoUsersBeyondLoopback: a password that everybody knows is only where nobody else can use it.
func TestNoDemoUsersBeyondLoopback(t *testing.T) {
	cfg := upConfig()
	cfg.Site.Listen = ":0"
	r := up(t, t.TempDir(), cfg)
	if r.DemoUsers {
		t.Error("demo users on an address that others reach")
	}
	if _, status := login(t, r, "demo", "111111"); status != http.StatusUnauthorized {
		t.Errorf("login as demo: status %d, want 401", status)
	}
}

// TestDemoUsersAreNotTakenBeyondLoopback: what was made on loopback opens nothing to others later, by whatever command
// and configuration; and nobody can make such a user there.
func TestDemoUsersAreNotTakenBeyondLoopback(t *testing.T) {
	dir := t.TempDir()
	if err := up(t, dir, upConfig()).stop(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"another address":                          func(*Config) {},
		"the same file as a database of one's own": func(c *Config) { c.Database.URL = "sqlite:" + filepath.Join(dir, "gochat.db") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := upConfig()
			cfg.API.Listen = ":0"
			change(&cfg)
			r := up(t, dir, cfg)
			if r.DemoUsers {
				t.Error("demo users on an address that others reach")
			}
			if _, status := login(t, r, "demo", "111111"); status != http.StatusUnauthorized {
				t.Errorf("login as demo: status %d, want 401", status)
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	cfg := upConfig()
	cfg.API.Listen = ":0"
	r := up(t, t.TempDir(), cfg)
	stranger := &testclient.User{API: r.api()}
	if status, body := stranger.Do(t, "POST", "/v1/register", map[string]any{"name": "demo", "password": "111111"}); status != http.StatusBadRequest {
		t.Errorf("register demo with the password that everybody knows: %d %s, want 400", status, body)
	}
}

// TestNoDemoUsersAmongOthers: a data directory that people have begun to use gets none.
func TestNoDemoUsersAmongOthers(t *testing.T) {
	dir := t.TempDir()
	cfg := upConfig()
	cfg.Site.Listen = ":0"
	public := up(t, dir, cfg)
	testclient.Register(t, public.api(), "own")
	if err := public.stop(); err != nil {
		t.Fatal(err)
	}
	if r := up(t, dir, upConfig()); r.DemoUsers {
		t.Error("demo users beside a user of one's own")
	}
}

func TestOnLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "example.test:1": false,
	} {
		cfg := Defaults()
		cfg.Connect.TCP.Listen = []string{"127.0.0.1:7001", listen}
		if got := cfg.onLoopback(); got != want {
			t.Errorf("%s: got %t, want %t", listen, got, want)
		}
	}
	for name, listen := range map[string]func(*Config) *string{
		"api": func(c *Config) *string { return &c.API.Listen }, "site": func(c *Config) *string { return &c.Site.Listen },
		"admin": func(c *Config) *string { return &c.Admin.Listen }, "rpc": func(c *Config) *string { return &c.RPC.Listen },
		"websocket": func(c *Config) *string { return &c.Connect.WebSocket.Listen },
	} {
		cfg := Defaults()
		*listen(&cfg) = ":1"
		if cfg.onLoopback() {
			t.Errorf("got true with %s on every address, want false", name)
		}
	}
}

// TestPortTaken names the address and starts nothing.
func TestPortTaken(t *testing.T) {
	r := up(t, t.TempDir(), upConfig())
	cfg := upConfig()
	cfg.API.Listen = r.API
	if err := refused(t, t.TempDir(), cfg); !strings.Contains(err.Error(), r.API) {
		t.Errorf("got %v, want an error that names %s", err, r.API)
	}
}

// TestRunChecksWhatItNeeds: each missing setting is named with the layer that needs it, and nothing is opened.
func TestRunChecksWhatItNeeds(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []string
		want   []string
		not    string // is not asked for
	}{
		{"none", nil, []string{"want one or more of logic, task, connect, api, site"}, "not set"},
		{"unknown", []string{"logik"}, []string{`"logik" is none`}, "not set"},
		{"logic", []string{"logic"}, []string{"etcd.endpoints: not set, and logic needs it", "rpc.secret", "redis.addrs", "database.url"}, "queue"},
		{"api", []string{"api"}, []string{"etcd.endpoints: not set, and api needs it", "rpc.secret"}, "database"},
		{"site", []string{"site"}, []string{"etcd.endpoints: not set, and site needs it"}, "rpc.secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Run(t.Context(), Defaults(), Options{Layers: c.layers, Log: &syncBuffer{}})
			if err == nil {
				t.Fatal("it ran")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), c.not) {
				t.Errorf("got %v, want nothing said of %q", err, c.not)
			}
		})
	}
}
