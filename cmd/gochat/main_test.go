package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gochat/layers"
)

// invoke runs the command line and answers what it printed and its error. One that would run until it is ended, as
// where a wrong setting is taken, is ended after a while.
func invoke(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := cmd.ExecuteContext(ctx)
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
		want string // FILE stands for the path
	}{
		{name: "unknown key in the file", toml: "[conect]\nbuckets = 4\n",
			want: "FILE:2: unknown key conect.buckets; did you mean connect.buckets?"},
		{name: "wrong type in the file", toml: "[connect]\nbuckets = \"many\"\n",
			want: `FILE:2: connect.buckets = "many": want a whole number from -9223372036854775808 to 9223372036854775807`},
		{name: "wrong value in the file", toml: "[connect]\nbuckets = 12\n",
			want: "FILE:2: connect.buckets: 12: want a power of two up to 4096"},
		{name: "unknown variable", env: [2]string{"GOCHAT_CONNECT_BUKETS", "4"},
			want: "GOCHAT_CONNECT_BUKETS: unknown variable; did you mean GOCHAT_CONNECT_BUCKETS?"},
		{name: "wrong variable", env: [2]string{"GOCHAT_API_TIMEOUT", "soon"},
			want: `GOCHAT_API_TIMEOUT: api.timeout = "soon": want a duration such as 5s or 1m30s`},
		{name: "wrong policy", env: [2]string{"GOCHAT_AUTH_LOGIN_POLICY", "none"},
			want: `GOCHAT_AUTH_LOGIN_POLICY: auth.login_policy: "none": want multi or single`},
		{name: "unknown key set", args: []string{"--set", "api.lisen=x"},
			want: "--set api.lisen: unknown key; did you mean api.listen?"},
		{name: "wrong value set", args: []string{"--set", "connect.buckets=12"},
			want: "--set connect.buckets: connect.buckets: 12: want a power of two up to 4096"},
		{name: "wrong type set", args: []string{"--set", "api.timeout=soon"},
			want: `--set api.timeout: api.timeout = "soon": want a duration such as 5s or 1m30s`},
		{name: "set without a value", args: []string{"--set", "api.listen"},
			want: `flag --set "api.listen": want KEY=VALUE`},
		{name: "no such file", args: []string{"--config", "/nowhere.toml"},
			want: "/nowhere.toml: read: no such file or directory"},
		{name: "unknown queue", env: [2]string{"GOCHAT_QUEUE_DRIVER", "pigeon"},
			want: `GOCHAT_QUEUE_DRIVER: queue.driver = "pigeon": want redis, rabbitmq or kafka`},
		{name: "port of the queue", env: [2]string{"GOCHAT_QUEUE_URL", "redis://u:hidden@h:70000/0"},
			want: "GOCHAT_QUEUE_URL: queue.url = ••••: want redis://user:password@host:port/db (its host is not host:port, the port from 1 to 65535)"},
		{name: "database of the queue", args: []string{"--set", "queue.url=redis://u:hidden@h:1/abc"},
			want: "--set queue.url: queue.url = ••••: want redis://user:password@host:port/db (its db is not a number)"},
		{name: "rabbitmq without an address", toml: "[queue]\ndriver = \"rabbitmq\"\n",
			want: "default: queue.url = ••••: want amqp://user:password@host:port/vhost"},
		{name: "kafka without an address", toml: "[queue]\ndriver = \"kafka\"\n",
			want: "default: queue.url = ••••: want kafka://user:password@host:9092,host2:9092?tls=true&sasl=plain|scram-sha-256|scram-sha-512 (it has another form)"},

		{name: "records", args: []string{"--set", "record.messages=-1"},
			want: `--set record.messages: record.messages: -1: want 0 to 10000000`},
		{name: "age of records", toml: "record.keep = '0s'\n",
			want: `FILE:1: record.keep: 0s: want 1s to 24h`},
		{name: "admin", args: []string{"--set", "admin.listen=nonsense"},
			want: `--set admin.listen: admin.listen: "nonsense": want host:port, the port from 0 to 65535`},
		{name: "site", toml: "site.listen = '127.0.0.1'\n",
			want: `FILE:1: site.listen: "127.0.0.1": want host:port, the port from 0 to 65535`},
		{name: "api", env: [2]string{"GOCHAT_API_LISTEN", "127.0.0.1:99999"},
			want: `GOCHAT_API_LISTEN: api.listen: "127.0.0.1:99999": want host:port, the port from 0 to 65535`},
		{name: "websocket", args: []string{"--set", "connect.websocket.listen=:http"},
			want: `--set connect.websocket.listen: connect.websocket.listen: ":http": want host:port, the port from 0 to 65535`},
		{name: "one of the tcp sockets", args: []string{"--set", "connect.tcp.listen=:7001,:-1"},
			want: `--set connect.tcp.listen: connect.tcp.listen: ":-1": want host:port, the port from 0 to 65535`},
		{name: "rpc", args: []string{"--set", "rpc.listen=nonsense"},
			want: `--set rpc.listen: rpc.listen: "nonsense": want host:port, the port from 0 to 65535`},
		{name: "port of rpc", args: []string{"--set", "rpc.listen=127.0.0.1:abc"},
			want: `--set rpc.listen: rpc.listen: "127.0.0.1:abc": want host:port, the port from 0 to 65535`},
		{name: "rpc on every address", env: [2]string{"GOCHAT_RPC_LISTEN", "0.0.0.0:7"},
			want: `GOCHAT_RPC_LISTEN: rpc.listen: "0.0.0.0:7" is every address, which others cannot reach: want one host's, or rpc.advertise set`},
		{name: "advertising every address", env: [2]string{"GOCHAT_RPC_ADVERTISE", ":7"},
			want: `GOCHAT_RPC_ADVERTISE: rpc.advertise: ":7": want a host that others can reach, and a port from 0 to 65535`},
		{name: "advertising no address", env: [2]string{"GOCHAT_RPC_ADVERTISE", "node-1:70000"},
			want: `GOCHAT_RPC_ADVERTISE: rpc.advertise: "node-1:70000": want host:port, the port from 0 to 65535`},
		{name: "etcd", args: []string{"--set", "etcd.endpoints=nonsense"},
			want: `--set etcd.endpoints: etcd.endpoints: "nonsense": want http://host:port, https://host:port or unix:///path, the port from 1 to 65535`},
		{name: "etcd's user alone", env: [2]string{"GOCHAT_ETCD_USERNAME", "root"},
			want: "GOCHAT_ETCD_USERNAME: etcd.username: set, but etcd.password is not: want both or neither"},
		{name: "etcd's password alone", args: []string{"--set", "etcd.password=hidden"},
			want: "--set etcd.password: etcd.password: set, but etcd.username is not: want both or neither"},
		{name: "redis", args: []string{"--set", "redis.addrs=nonsense"},
			want: `--set redis.addrs: redis.addrs: "nonsense": want host:port, the port from 1 to 65535`},
		{name: "a URL for redis", toml: "[redis]\naddrs = ['h:1', 'redis://u:hidden@h:2']\n",
			want: `FILE:2: redis.addrs: "••••@h:2": want host:port, the port from 1 to 65535`},
	} {
		for _, verb := range []string{"config", "run", "up"} {
			t.Run(c.name+"/"+verb, func(t *testing.T) {
				args, path := c.args, ""
				if c.toml != "" {
					path = file(t, c.toml)
					args = append([]string{"--config", path}, args...)
				}
				if c.env[0] != "" {
					t.Setenv(c.env[0], c.env[1])
				}
				refused(t, strings.ReplaceAll(c.want, "FILE", path), verb, args...)
			})
		}
	}
}

// TestWrongUpFlags: a port is put on the flag that was typed, not on the key it stands for.
func TestWrongUpFlags(t *testing.T) {
	const want = ": want host:port, the port from 0 to 65535"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"api", []string{"--api-port", "99999"}, `--api-port: api.listen: "127.0.0.1:99999"` + want},
		{"site", []string{"--site-port", "x"}, `--site-port: site.listen: "127.0.0.1:x"` + want},
		{"websocket", []string{"--websocket-port", ""}, `--websocket-port: connect.websocket.listen: "127.0.0.1:"` + want},
		{"tcp", []string{"--tcp-ports", "70000"}, `--tcp-ports: connect.tcp.listen: "127.0.0.1:70000"` + want},
		{"one of tcp", []string{"--tcp-ports", "1", "--tcp-ports", "y"}, `--tcp-ports: connect.tcp.listen: "127.0.0.1:y"` + want},
		{"none of tcp", []string{"--tcp-ports", ""}, "--tcp-ports: connect.tcp.listen: want host:port, one at least"},
		{"admin", []string{"--admin-port", "-1"}, `--admin-port: admin.listen: "127.0.0.1:-1"` + want},
		{"rpc", []string{"--rpc-port", "65536"}, `--rpc-port: rpc.listen: "127.0.0.1:65536"` + want},
		{"two for one", []string{"--api-port", "7070,7071"}, `--api-port: api.listen: "127.0.0.1:7070,7071"` + want},
		{"port and host", []string{"--listen-host", "::1", "--api-port", "z"}, `--listen-host, --api-port: api.listen: "[::1]:z"` + want},
		{"host", []string{"--listen-host", "a b", "--tcp-ports", "0"},
			`--listen-host: api.listen: "a b:7070"` + want + "\n" +
				`--listen-host: connect.websocket.listen: "a b:7000"` + want + "\n" +
				`--listen-host: site.listen: "a b:8080"` + want + "\n" +
				`--listen-host, --tcp-ports: connect.tcp.listen: "a b:0"` + want},
		{"set over it", []string{"--api-port", "1", "--set", "api.listen=w"}, `--set api.listen: api.listen: "w"` + want},
	} {
		t.Run(c.name+"/up", func(t *testing.T) { refused(t, c.want, "up", c.args...) })
		t.Run(c.name+"/config", func(t *testing.T) { refused(t, c.want, "config", append([]string{"--up"}, c.args...)...) })
	}
	t.Run("without up", func(t *testing.T) {
		refused(t, "--api-port: only up has it: want --up too", "config", "--api-port", "1")
	})
}

// refused runs a command that is to fail with that error and leave nothing behind.
func refused(t *testing.T, want, verb string, args ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "never-made")
	before := map[string][]string{"config": {"config"}, "run": {"run", "--layers", "site"}, "up": {"up", "--data-dir", dir}}[verb]
	_, err := invoke(t, append(before, args...)...)
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the data directory was made all the same")
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
		{[]string{"--api-port", "1", "--api-port", "2"}, map[string]string{"api.listen": "127.0.0.1:2"}},
		{[]string{"--tcp-ports", "1", "--tcp-ports", "2"}, map[string]string{"connect.tcp.listen": "127.0.0.1:1,127.0.0.1:2"}},
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
			if got[key].Value != want {
				t.Errorf("%v: %s: got %q, want %q", c.args, key, got[key].Value, want)
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
		for _, port := range p.ports {
			line := p.key + " = "
			_, rest, _ := strings.Cut(out, line)
			value, _, _ := strings.Cut(rest, "\n")
			if !strings.Contains(value, loopback+":"+port) {
				t.Errorf("%s: default is %s, the flag --%s says port %s", p.key, value, p.flag, port)
			}
		}
	}
}

// TestConfigUp prints what up is given by its flags.
func TestConfigUp(t *testing.T) {
	out, err := invoke(t, "config", "--up", "--listen-host", "0.0.0.0", "--api-port", "1", "--set", "site.listen=:2")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`api.listen = "0.0.0.0:1"`, `site.listen = ":2"`, `connect.tcp.listen = ["0.0.0.0:7001","0.0.0.0:7002"]`, "trace.sample_ratio = 1"} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("want %q in:\n%s", want, out)
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
