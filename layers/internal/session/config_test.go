package session

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gochat/observability"
)

func TestConfigValidate(t *testing.T) {
	one, two := []string{"h:1"}, []string{"h:1", "h:2"}
	for name, c := range map[string]struct {
		cfg  Config
		want string // part of the error; "" for none
	}{
		"addresses alone":        {Config{Addrs: one}, ""},
		"sentinels":              {Config{Addrs: two, Master: "m", DB: 3}, ""},
		"no port":                {Config{Addrs: []string{"h:1", "nonsense"}}, `addrs: "nonsense": want host:port`},
		"negative database":      {Config{Addrs: one, DB: -1}, "db -1"},
		"database of a cluster":  {Config{Addrs: two, DB: 1}, "db 1"},
		"cluster with sentinels": {Config{Addrs: two, Master: "m", Cluster: true}, "cluster"},
		"life below a tick":      {Config{Addrs: one, TTL: time.Microsecond}, "ttl 1µs"},
		"negative life":          {Config{Addrs: one, TTL: -time.Hour}, "ttl -1h"},
		"negative timeout":       {Config{Addrs: one, Timeout: -1}, "timeout"},
		"negative pool":          {Config{Addrs: one, PoolSize: -1}, "pool_size -1"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Validate()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if s, openErr := Open(c.cfg, observability.Discard()); (openErr == nil) != (err == nil) {
				t.Errorf("Open: %v, Validate: %v", openErr, err)
			} else if s != nil {
				_ = s.Close()
			}
		})
	}
}

// TestNoAddress is no fault of a configuration that nobody opens, and one of who opens it.
func TestNoAddress(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("validate: %v", err)
	}
	if _, err := Open(Defaults(), observability.Discard()); err == nil || !strings.Contains(err.Error(), "addrs") {
		t.Errorf("open: got %v, want an error with addrs", err)
	}
}

func TestConfigChoosesClient(t *testing.T) {
	single, cluster := "*redis.Client", "*redis.ClusterClient"
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"one address":                {Config{Addrs: []string{"h:1"}}, single},
		"several are a cluster":      {Config{Addrs: []string{"h:1", "h:2"}}, cluster},
		"one address of a cluster":   {Config{Addrs: []string{"h:1"}, Cluster: true}, cluster},
		"sentinels lead to a master": {Config{Addrs: []string{"h:1", "h:2"}, Master: "m"}, single},
	} {
		t.Run(name, func(t *testing.T) {
			client := redis.NewUniversalClient(c.cfg.withDefaults().options())
			defer client.Close()
			got := single
			if _, ok := client.(*redis.ClusterClient); ok {
				got = cluster
			}
			if got != c.want || (got == cluster) != c.cfg.cluster() {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
