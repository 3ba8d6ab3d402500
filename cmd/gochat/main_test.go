package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gochat/layers"
)

// invoke runs the command line and answers what it printed and its error.
func invoke(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gochat.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigPrecedence: defaults, then the file, then the environment, then flags.
func TestConfigPrecedence(t *testing.T) {
	path := file(t, "[connect]\nbuckets = 16\nqueue_bytes = 100000\nmax_connections = 7\n")
	t.Setenv("GOCHAT_CONNECT_QUEUE_BYTES", "200000")
	t.Setenv("GOCHAT_CONNECT_MAX_CONNECTIONS", "8")
	out, err := invoke(t, "config", "--config", path, "--set", "connect.max_connections=9")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"connect.buckets = 16\n", "connect.queue_bytes = 200000\n", "connect.max_connections = 9\n", `api.listen = "127.0.0.1:7070"`} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
	t.Setenv("GOCHAT_CONFIG", path)
	if out, err = invoke(t, "config"); err != nil || !strings.Contains(out, "connect.buckets = 16\n") {
		t.Errorf("the file named by GOCHAT_CONFIG is not read: %v\n%s", err, out)
	}
}

// TestWrongSettings: each names itself, where it came from, and what is allowed; nothing starts.
func TestWrongSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		toml string
		env  [2]string
		args []string
		want []string
	}{
		{"unknown key in the file", "[conect]\nbuckets = 4\n", [2]string{}, nil, []string{"gochat.toml:", "conect.buckets", "connect.buckets"}},
		{"wrong type in the file", "[connect]\nbuckets = \"many\"\n", [2]string{}, nil, []string{"gochat.toml:2", "connect.buckets", "many"}},
		{"wrong value in the file", "[connect]\nbuckets = 12\n", [2]string{}, nil, []string{"gochat.toml:2", "connect.buckets", "12", "power of two"}},
		{"unknown variable", "", [2]string{"GOCHAT_CONNECT_BUKETS", "4"}, nil, []string{"GOCHAT_CONNECT_BUKETS", "GOCHAT_CONNECT_BUCKETS"}},
		{"wrong variable", "", [2]string{"GOCHAT_API_TIMEOUT", "soon"}, nil, []string{"GOCHAT_API_TIMEOUT", "soon"}},
		{"wrong policy", "", [2]string{"GOCHAT_AUTH_LOGIN_POLICY", "none"}, nil, []string{"GOCHAT_AUTH_LOGIN_POLICY", "none", "multi", "single"}},
		{"unknown flag key", "", [2]string{}, []string{"--set", "api.lisen=x"}, []string{"api.lisen", "api.listen"}},
		{"flag without a value", "", [2]string{}, []string{"--set", "api.listen"}, []string{"KEY=VALUE"}},
		{"no such file", "", [2]string{}, []string{"--config", "/nowhere.toml"}, []string{"/nowhere.toml"}},
		{"rpc on every address", "", [2]string{"GOCHAT_RPC_LISTEN", "0.0.0.0:7"}, nil, []string{"rpc.advertise", "0.0.0.0:7"}},
		{"advertising every address", "", [2]string{"GOCHAT_RPC_ADVERTISE", ":7"}, nil, []string{"GOCHAT_RPC_ADVERTISE", "a host that others can reach"}},
		{"unknown queue", "", [2]string{"GOCHAT_QUEUE_DRIVER", "pigeon"}, nil, []string{"GOCHAT_QUEUE_DRIVER", "pigeon", "redis"}},
	} {
		for _, verb := range [][]string{{"config"}, {"run", "--layers", "site"}, {"up", "--data-dir", filepath.Join(t.TempDir(), "never-made")}} {
			t.Run(c.name+"/"+verb[0], func(t *testing.T) {
				args := append(append([]string{}, verb...), c.args...)
				if c.toml != "" {
					args = append(args, "--config", file(t, c.toml))
				}
				if c.env[0] != "" {
					t.Setenv(c.env[0], c.env[1])
				}
				_, err := invoke(t, args...)
				if err == nil {
					t.Fatal("no error")
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %q, want it to say %q", err, want)
					}
				}
				if verb[0] == "up" {
					if _, err := os.Stat(verb[2]); !os.IsNotExist(err) {
						t.Error("the data directory was made all the same")
					}
				}
			})
		}
	}
}

// TestConfigKeepsSecrets: what is secret, and passwords in addresses, are not printed.
func TestConfigKeepsSecrets(t *testing.T) {
	for name, value := range map[string]string{
		"GOCHAT_RPC_SECRET":     "hidden-hidden-hidden",
		"GOCHAT_REDIS_PASSWORD": "hidden-redis",
		"GOCHAT_DATABASE_URL":   "postgres://user:hidden-database@host/db",
		"GOCHAT_QUEUE_URL":      "redis://user:hidden-queue@host:1/0",
	} {
		t.Setenv(name, value)
	}
	out, err := invoke(t, "config")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "hidden") {
		t.Errorf("a secret is printed:\n%s", out)
	}
	if !strings.Contains(out, "host/db") {
		t.Errorf("of a URL only the password is secret:\n%s", out)
	}
}

func TestUpFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want map[string]string
	}{
		{nil, map[string]string{}},
		{[]string{"--api-port", "1"}, map[string]string{"api.listen": "127.0.0.1:1"}},
		{[]string{"--tcp-ports", "1,2,3"}, map[string]string{"connect.tcp.listen": "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"}},
		{[]string{"--listen-host", "0.0.0.0"}, map[string]string{
			"api.listen": "0.0.0.0:7070", "site.listen": "0.0.0.0:8080", "connect.websocket.listen": "0.0.0.0:7000",
			"connect.tcp.listen": "0.0.0.0:7001,0.0.0.0:7002"}},
		{[]string{"--listen-host", "::1", "--site-port", "9"}, map[string]string{
			"api.listen": "[::1]:7070", "site.listen": "[::1]:9", "connect.websocket.listen": "[::1]:7000",
			"connect.tcp.listen": "[::1]:7001,[::1]:7002"}},
		{[]string{"--admin-port", "5"}, map[string]string{"admin.listen": "127.0.0.1:5"}},
	} {
		cmd := upCommand()
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		got := listenFlags(cmd.Flags())
		if len(got) != len(c.want) {
			t.Errorf("%v: got %v, want %v", c.args, got, c.want)
		}
		for key, want := range c.want {
			if got[key] != want {
				t.Errorf("%v: %s: got %q, want %q", c.args, key, got[key], want)
			}
		}
	}
}

// TestUpFlagDefaults: the help of up tells the ports that are in fact taken.
func TestUpFlagDefaults(t *testing.T) {
	out, err := invoke(t, "config", "--up")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range portFlags() {
		for _, port := range p.defaults {
			line := p.key + " = "
			_, rest, _ := strings.Cut(out, line)
			value, _, _ := strings.Cut(rest, "\n")
			if !strings.Contains(value, loopback+":"+port) {
				t.Errorf("%s: default is %s, the flag --%s says port %s", p.key, value, p.flag, port)
			}
		}
	}
}

func TestMigrate(t *testing.T) {
	database := "--set=database.url=sqlite:" + filepath.Join(t.TempDir(), "x.db")
	for _, step := range []struct{ verb, want string }{
		{"status", "pending"}, {"up", "applied 00001"}, {"up", "nothing to apply"}, {"status", "00001"}, {"down", "took back"},
	} {
		out, err := invoke(t, "migrate", step.verb, database)
		if err != nil || !strings.Contains(out, step.want) {
			t.Errorf("migrate %s: %v, %q; want %q", step.verb, err, out, step.want)
		}
	}
	if _, err := invoke(t, "migrate", "up"); err == nil || !strings.Contains(err.Error(), "database.url") {
		t.Errorf("without a database: got %v, want it to name database.url", err)
	}
}

// TestEveryKeyIsExplained: whoever reads the list of keys learns what each does.
func TestEveryKeyIsExplained(t *testing.T) {
	keys := layers.Keys(layers.Defaults())
	if len(keys) < 40 {
		t.Errorf("got %d keys only", len(keys))
	}
	for _, k := range keys {
		if k.Doc == "" || !strings.HasPrefix(k.Env, "GOCHAT_") {
			t.Errorf("%s: %q, %q", k.Name, k.Env, k.Doc)
		}
	}
}

func TestVersion(t *testing.T) {
	if out, err := invoke(t, "version"); err != nil || !strings.HasPrefix(out, "gochat dev go1.") {
		t.Errorf("got %q, %v", out, err)
	}
}
