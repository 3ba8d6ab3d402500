package address

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		check func(string) error
		good  []string
		bad   []string
	}{
		"listen": {
			CheckListen,
			[]string{":0", "127.0.0.1:65535", "[::1]:80", "localhost:7070", "chat.example:443"},
			[]string{"", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:abc", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1",
				"127.0.0.1:+1", "::1:80", "http://127.0.0.1:80", "127.0.0.1:7070,7071", "a b:80", "a/b:80", "u@h:80"},
		},
		"dial": {
			CheckDial,
			[]string{"127.0.0.1:1", "redis:6379", "[::1]:65535"},
			[]string{"", "nonsense", ":6379", "redis:0", "redis:70000", "redis://redis:6379", "redis"},
		},
		"endpoint": {
			CheckEndpoint,
			[]string{"http://127.0.0.1:2379", "https://etcd-1.example:2379/", "http://[::1]:2379", "unix:///run/etcd.sock"},
			[]string{"", "nonsense", "127.0.0.1:2379", "http://etcd", "http://etcd:0", "http://etcd:70000", "ftp://etcd:2379",
				"http://etcd:2379/v3", "unix://run", "unix:", "http://"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, addr := range c.good {
				if err := c.check(addr); err != nil {
					t.Errorf("%q: %v", addr, err)
				}
			}
			for _, addr := range c.bad {
				if err := c.check(addr); err == nil {
					t.Errorf("%q is taken", addr)
				}
			}
		})
	}
}

func TestPasswordsAreNotTold(t *testing.T) {
	for _, check := range []func(string) error{CheckListen, CheckDial, CheckEndpoint} {
		err := check("http://user:hid@den@host:1")
		if err == nil || strings.Contains(err.Error(), "hid") || !strings.Contains(err.Error(), `"••••@host:1": want `) {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}
