package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type policy string

type testConfig struct {
	API     apiSection     `koanf:"api"`
	Connect connectSection `koanf:"connect"`
	Auth    authSection    `koanf:"auth"`
	Runtime func()         // not configuration
}

type apiSection struct {
	Listen  string        `koanf:"listen" doc:"where people connect"`
	Timeout time.Duration `koanf:"timeout"`
	Debug   bool          `koanf:"debug"`
	Origins []string      `koanf:"origins"`
}

type connectSection struct {
	Buckets   int           `koanf:"buckets"`
	Queue     uint16        `koanf:"queue-bytes"`
	Websocket listenSection `koanf:"websocket"`
}

// Validate uses plain errors that begin with a key, as a package that knows nothing of this one does.
func (c connectSection) Validate() error {
	if c.Buckets&(c.Buckets-1) != 0 {
		return fmt.Errorf("buckets %d: want a power of two", c.Buckets)
	}
	return nil
}

type listenSection struct {
	Listen string `koanf:"listen"`
}

func (c *listenSection) Validate() error {
	if c.Listen == "nowhere" {
		return errors.New("cannot be reached")
	}
	return nil
}

type authSection struct {
	Policy policy        `koanf:"login_policy"`
	Pepper string        `koanf:"pepper" secret:"true"`
	URL    string        `koanf:"url"`
	Argon2 argon2Section `koanf:"argon2"`
}

func (c authSection) Validate() error {
	var errs []error
	if c.Policy != "multi" && c.Policy != "single" {
		errs = append(errs, Invalid("login_policy", c.Policy, "multi or single"))
	}
	if c.Pepper == "short" {
		errs = append(errs, Invalid("pepper", c.Pepper, "32 bytes"))
	}
	if c.Argon2.MemoryKiB < 8 {
		errs = append(errs, Invalid("argon2.memory_kib", c.Argon2.MemoryKiB, "8 or more"))
	}
	return errors.Join(errs...)
}

type argon2Section struct {
	MemoryKiB uint32  `koanf:"memory_kib"`
	Share     float64 `koanf:"share"`
}

func defaults() testConfig {
	return testConfig{
		API:     apiSection{Listen: "127.0.0.1:7070", Timeout: 5 * time.Second, Origins: []string{"http://a", "http://b"}},
		Connect: connectSection{Buckets: 8, Queue: 512},
		Auth:    authSection{Policy: "multi", URL: "postgres://u:p@h/db", Argon2: argon2Section{MemoryKiB: 19456, Share: 0.5}},
	}
}

// write makes a TOML file of that content; "" is no file.
func write(t *testing.T, content string) string {
	t.Helper()
	if content == "" {
		return ""
	}
	path := filepath.Join(t.TempDir(), "gochat.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// flags are settings typed after --set.
func flags(values map[string]string) map[string]Flag {
	typed := map[string]Flag{}
	for key, value := range values {
		typed[key] = Flag{"--set " + key, value}
	}
	return typed
}

func TestLoad(t *testing.T) {
	for _, tc := range []struct {
		name  string
		file  string
		env   []string
		flags map[string]string // by key
		want  func(*testConfig)
	}{
		{"nothing", "", nil, nil, func(*testConfig) {}},
		{"file, every type", `
			api = { listen = ":1", timeout = "1m30s", debug = true, origins = ["x", "y,z"] }
			[connect]
			buckets = 0x10
			queue-bytes = 65535
			websocket.listen = ":2"
			[auth]
			login_policy = "single"
			[auth.argon2]
			memory_kib = 64
			share = 1`, nil, nil, func(c *testConfig) {
			c.API = apiSection{":1", 90 * time.Second, true, []string{"x", "y,z"}}
			c.Connect = connectSection{16, 65535, listenSection{":2"}}
			c.Auth.Policy, c.Auth.Argon2 = "single", argon2Section{64, 1}
		}},
		{"environment, every type", "", []string{
			"GOCHAT_API_LISTEN=:1", "GOCHAT_API_TIMEOUT=250ms", "GOCHAT_API_DEBUG=true", "GOCHAT_API_ORIGINS= x , y ",
			"GOCHAT_CONNECT_BUCKETS=16", "GOCHAT_CONNECT_QUEUE_BYTES=7", "GOCHAT_AUTH_ARGON2_SHARE=0.25",
			"GOCHAT_AUTH_PEPPER=a=b", "HOME=/root", "GO=1"}, nil, func(c *testConfig) {
			c.API = apiSection{":1", 250 * time.Millisecond, true, []string{"x", "y"}}
			c.Connect.Buckets, c.Connect.Queue, c.Auth.Argon2.Share, c.Auth.Pepper = 16, 7, 0.25, "a=b"
		}},
		{"environment, a file", "", []string{"GOCHAT_AUTH_PEPPER_FILE=" + write(t, "a secret\r\n\n"), "GOCHAT_CONNECT_BUCKETS_FILE=" + write(t, "32\n")}, nil,
			func(c *testConfig) { c.Auth.Pepper, c.Connect.Buckets = "a secret", 32 }},
		{"flags", "", nil, map[string]string{"connect.buckets": "16", "api.origins": "", "api.debug": "false", "api.listen": ""},
			func(c *testConfig) { c.Connect.Buckets, c.API.Origins, c.API.Listen = 16, []string{}, "" }},
		{"environment over file", "connect.buckets = 16", []string{"GOCHAT_CONNECT_BUCKETS=32"}, nil,
			func(c *testConfig) { c.Connect.Buckets = 32 }},
		{"flag over environment and file", "connect.buckets = 16", []string{"GOCHAT_CONNECT_BUCKETS=32"}, map[string]string{"connect.buckets": "64"},
			func(c *testConfig) { c.Connect.Buckets = 64 }},
		{"each key on its own", "connect.buckets = 16\nconnect.queue-bytes = 1", []string{"GOCHAT_CONNECT_BUCKETS=32"}, nil,
			func(c *testConfig) { c.Connect.Buckets, c.Connect.Queue = 32, 1 }},
		{"an empty section", "[connect]\n[auth.argon2]", nil, nil, func(*testConfig) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := defaults()
			tc.want(&want)
			got := defaults()
			if err := Load(&got, Sources{File: write(t, tc.file), Environ: tc.env, Flags: flags(tc.flags)}); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name  string
		file  string
		env   []string
		flags map[string]string // by key
		want  string            // FILE stands for the path
	}{
		{"misspelled in the file", "[connect]\nbuckets = 4\n\n  [conect.websocket]\n  listen = ':1'", nil, nil,
			"FILE:5: unknown key conect.websocket.listen; did you mean connect.websocket.listen?"},
		{"misspelled in an inline table", "\nconnect = { buckets = 4, websoket = { listen = ':1' } }", nil, nil,
			"FILE:2: unknown key connect.websoket.listen; did you mean connect.websocket.listen?"},
		{"misspelled variable", "", []string{"GOCHAT_CONNECT_BUKETS=4"}, nil,
			"GOCHAT_CONNECT_BUKETS: unknown variable; did you mean GOCHAT_CONNECT_BUCKETS?"},
		{"misspelled flag", "", nil, map[string]string{"connect.bukets": "4"},
			"--set connect.bukets: unknown key; did you mean connect.buckets?"},
		{"no such key in the section", "connect.frobnicate = 1", nil, nil,
			"FILE:1: unknown key connect.frobnicate; connect has buckets, queue-bytes, websocket.listen"},
		{"no such variable in the section", "", []string{"GOCHAT_AUTH_ARGON2_SALTINESS=1"}, nil,
			"GOCHAT_AUTH_ARGON2_SALTINESS: unknown variable; auth.argon2 has memory_kib, share"},
		{"no such section", "[frobnicate]\n", []string{"GOCHAT_FROBNICATE=1"}, nil,
			"FILE:1: unknown key frobnicate; there are api, auth, connect\n" +
				"GOCHAT_FROBNICATE: unknown variable; there are api, auth, connect"},
		{"a value for a section", "connect = 3", nil, nil, "FILE:1: connect is a section, not a value"},
		{"a section for a value", "[connect.buckets]\nquantity = 3", nil, nil,
			"FILE:2: unknown key connect.buckets.quantity; connect.buckets is a whole number, not a section"},
		{"wrong types in the file", `
[api]
listen = 7070
timeout = 5
debug = "yes"
origins = ["x", 1]
[auth.argon2]
share = nan
memory_kib = -1
[connect]
buckets = 1.5
queue-bytes = 65536
[[auth.url]]
password = "hunter2"`, nil, nil,
			`FILE:3: api.listen = 7070: want text
FILE:4: api.timeout = 5: want a duration such as 5s or 1m30s
FILE:5: api.debug = "yes": want true or false
FILE:6: api.origins = x,1: want a list of texts
FILE:8: auth.argon2.share = NaN: want a number
FILE:9: auth.argon2.memory_kib = -1: want a whole number from 0 to 4294967295
FILE:11: connect.buckets = 1.5: want a whole number from -9223372036854775808 to 9223372036854775807
FILE:12: connect.queue-bytes = 65536: want a whole number from 0 to 65535
FILE:13: auth.url = {…}: want text`},
		{"wrong values in the environment and flags", "", []string{"GOCHAT_API_TIMEOUT=soon", "GOCHAT_API_DEBUG=1", "GOCHAT_API_ORIGINS=a,,b"},
			map[string]string{"connect.queue-bytes": "many", "auth.argon2.share": ""},
			`--set auth.argon2.share: auth.argon2.share = "": want a number
--set connect.queue-bytes: connect.queue-bytes = "many": want a whole number from 0 to 65535
GOCHAT_API_DEBUG: api.debug = "1": want true or false
GOCHAT_API_ORIGINS: api.origins = "a,,b": want a list of texts
GOCHAT_API_TIMEOUT: api.timeout = "soon": want a duration such as 5s or 1m30s`},
		{"files of the environment", "", []string{"GOCHAT_AUTH_PEPPER_FILE=/none", "GOCHAT_API_LISTEN=:1", "GOCHAT_API_LISTEN_FILE=" + write(t, ":2"),
			"GOCHAT_CONNECT_BUCKETS_FILE=" + write(t, "many"), "GOCHAT_CONNECT_BUKETS_FILE=/none"}, nil,
			`GOCHAT_API_LISTEN_FILE: GOCHAT_API_LISTEN is set as well
GOCHAT_AUTH_PEPPER_FILE: read: open /none: no such file or directory
GOCHAT_CONNECT_BUCKETS_FILE: connect.buckets = "many": want a whole number from -9223372036854775808 to 9223372036854775807
GOCHAT_CONNECT_BUKETS_FILE: unknown variable; did you mean GOCHAT_CONNECT_BUCKETS?`},
		{"not TOML", "[connect]\nbuckets = \n", nil, nil, "FILE:2: toml: incomplete number"},
		{"a key twice", "[connect]\nbuckets = 1\nbuckets = 2", nil, nil, "FILE: toml: key buckets is already defined"},
		{"values that a section refuses, by source", "[connect]\nbuckets = 3\nwebsocket.listen = 'nowhere'", []string{"GOCHAT_AUTH_LOGIN_POLICY=some"},
			map[string]string{"auth.argon2.memory_kib": "1"},
			`connect.websocket: cannot be reached
--set auth.argon2.memory_kib: auth.argon2.memory_kib = 1: want 8 or more
FILE:2: connect.buckets 3: want a power of two
GOCHAT_AUTH_LOGIN_POLICY: auth.login_policy = "some": want multi or single`},
		{"the source that won is named", "connect.buckets = 4", nil, map[string]string{"connect.buckets": "5"},
			"--set connect.buckets: connect.buckets 5: want a power of two"},
		{"a secret is not shown", "auth.pepper = 5", []string{"GOCHAT_AUTH_PEPPER=short"}, nil,
			"FILE:1: auth.pepper = ••••: want text\nGOCHAT_AUTH_PEPPER: auth.pepper = ••••: want 32 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.file)
			got := defaults()
			err := Load(&got, Sources{File: path, Environ: tc.env, Flags: flags(tc.flags)})
			if err == nil {
				t.Fatalf("no error, want %s", tc.want)
			}
			text := err.Error()
			if path != "" {
				text = strings.ReplaceAll(text, path, "FILE")
			}
			if text != tc.want {
				t.Errorf("got\n%s\nwant\n%s", text, tc.want)
			}
			if !reflect.DeepEqual(got, defaults()) {
				t.Errorf("changed to %+v in spite of the error", got)
			}
		})
	}
}

func TestADefaultCanBeInvalid(t *testing.T) {
	cfg := defaults()
	cfg.Connect.Buckets = 3
	if err := Load(&cfg, Sources{}); err == nil || err.Error() != "default: connect.buckets 3: want a power of two" {
		t.Errorf("got %v", err)
	}
}

// TestAFlagIsNamedAsTyped: who typed --port is not told of a key, unless it is the key that is wrong.
func TestAFlagIsNamedAsTyped(t *testing.T) {
	cfg := defaults()
	err := Load(&cfg, Sources{Flags: map[string]Flag{"connect.buckets": {"--shards", "3"}, "api.timeout": {"--patience", "none"}}})
	const want = `--patience: api.timeout = "none": want a duration such as 5s or 1m30s
--shards: connect.buckets 3: want a power of two`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAFileThatIsNotThere(t *testing.T) {
	cfg := defaults()
	path := filepath.Join(t.TempDir(), "none.toml")
	if err := Load(&cfg, Sources{File: path}); err == nil || err.Error() != path+": read: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

func TestTheDefaultsArrayIsLeftAlone(t *testing.T) {
	base := defaults()
	cfg := base
	if err := Load(&cfg, Sources{Flags: flags(map[string]string{"api.origins": "x"})}); err != nil {
		t.Fatal(err)
	}
	if base.API.Origins[0] != "http://a" {
		t.Errorf("the default became %v", base.API.Origins)
	}
}

func TestKeys(t *testing.T) {
	cfg := defaults()
	cfg.Auth.Pepper = "salt"
	want := []Key{
		{Name: "api.listen", Env: "GOCHAT_API_LISTEN", Type: "text", Default: "127.0.0.1:7070", Doc: "where people connect"},
		{Name: "api.timeout", Env: "GOCHAT_API_TIMEOUT", Type: "duration", Default: "5s"},
		{Name: "api.debug", Env: "GOCHAT_API_DEBUG", Type: "true or false", Default: "false"},
		{Name: "api.origins", Env: "GOCHAT_API_ORIGINS", Type: "list", Default: "http://a,http://b"},
		{Name: "connect.buckets", Env: "GOCHAT_CONNECT_BUCKETS", Type: "whole number", Default: "8"},
		{Name: "connect.queue-bytes", Env: "GOCHAT_CONNECT_QUEUE_BYTES", Type: "whole number", Default: "512"},
		{Name: "connect.websocket.listen", Env: "GOCHAT_CONNECT_WEBSOCKET_LISTEN", Type: "text"},
		{Name: "auth.login_policy", Env: "GOCHAT_AUTH_LOGIN_POLICY", Type: "text", Default: "multi"},
		{Name: "auth.pepper", Env: "GOCHAT_AUTH_PEPPER", Type: "text", Default: "••••", Secret: true},
		{Name: "auth.url", Env: "GOCHAT_AUTH_URL", Type: "text", Default: "postgres://••••@h/db"},
		{Name: "auth.argon2.memory_kib", Env: "GOCHAT_AUTH_ARGON2_MEMORY_KIB", Type: "whole number", Default: "19456"},
		{Name: "auth.argon2.share", Env: "GOCHAT_AUTH_ARGON2_SHARE", Type: "number", Default: "0.5"},
	}
	if got := Keys(cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestRedacted(t *testing.T) {
	want := map[string]any{
		"api.listen": "127.0.0.1:7070", "api.timeout": "5s", "api.debug": false, "api.origins": []string{"http://a", "http://••••@b"},
		"connect.buckets": 8, "connect.queue-bytes": uint16(512), "connect.websocket.listen": "",
		"auth.login_policy": "multi", "auth.pepper": "••••", "auth.url": "postgres://••••@h/db",
		"auth.argon2.memory_kib": uint32(19456), "auth.argon2.share": 0.5,
	}
	cfg := defaults()
	cfg.Auth.Pepper = "salt"
	cfg.API.Origins[1] = "http://token@b"
	if got := Redacted(cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if got := Redacted(defaults())["auth.pepper"]; got != "" {
		t.Errorf("a secret that is not set is %q, want nothing", got)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"127.0.0.1:2379":                        "127.0.0.1:2379",
		"sqlite:/var/lib/gochat/gochat.db":      "sqlite:/var/lib/gochat/gochat.db",
		"postgres://u:p@h:5432/db?sslmode=off":  "postgres://••••@h:5432/db?sslmode=off",
		"postgres://u:p@ss/w@h/db":              "postgres://••••@h/db",
		"postgres://h/db?password=x&a=b":        "postgres://h/db?password=••••&a=b",
		"redis://:p@h":                          "redis://••••@h",
		"user:p@tcp(h)/db":                      "••••@tcp(h)/db",
		"host=h password='a b' user=u":          "host=h password=•••• user=u",
		"host=h sslpassword = x user=u":         "host=h sslpassword =•••• user=u",
		"amqp://a:b@h1,amqp://c:d@h2":           "amqp://••••@h2",
		"http://127.0.0.1:4318/v1/traces?x=y#z": "http://127.0.0.1:4318/v1/traces?x=y#z",
	} {
		if got := redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMistakesInTheStructPanic(t *testing.T) {
	type pointer struct {
		P *int `koanf:"p"`
	}
	type clash struct {
		A string `koanf:"a-b"`
		B struct {
			C string `koanf:"b"`
		} `koanf:"a"`
	}
	type hidden struct {
		h string `koanf:"h"`
	}
	for name, do := range map[string]func(){
		"config: p: a *int cannot be configured":  func() { Keys(pointer{}) },
		"config: a-b and a.b are both GOCHAT_A_B": func() { Keys(clash{}) },
		"config: h: the field is not exported":    func() { Keys(hidden{h: "x"}) },
	} {
		func() {
			defer func() {
				if got := recover(); got != name {
					t.Errorf("panic %v, want %s", got, name)
				}
			}()
			do()
		}()
	}
}
