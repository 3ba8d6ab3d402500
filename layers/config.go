// Package layers puts the layers together: their configuration, the order in which they start, and the reverse
// order in which they stop. One process runs any set of them; `gochat up` runs all, on dependencies that live in
// the process.
package layers

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"gochat/layers/api"
	"gochat/layers/connect"
	"gochat/layers/internal/address"
	"gochat/layers/internal/canary"
	"gochat/layers/internal/config"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/record"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/session"
	"gochat/layers/internal/store"
	"gochat/layers/logic"
	"gochat/layers/site"
	"gochat/layers/task"
	"gochat/observability"
)

// Config is the configuration of a process, composed of each part's own. Parts that no layer of the process needs
// may stay empty.
type Config struct {
	API      api.Config       `koanf:"api"`
	Site     site.Config      `koanf:"site"`
	Admin    AdminConfig      `koanf:"admin"`
	Connect  connect.Config   `koanf:"connect"`
	Canary   canary.Config    `koanf:"canary"`
	Logic    logic.Config     `koanf:"logic"`
	Auth     logic.AuthConfig `koanf:"auth"`
	Task     task.Config      `koanf:"task"`
	RPC      rpc.Config       `koanf:"rpc"`
	Etcd     discovery.Config `koanf:"etcd"`
	Redis    session.Config   `koanf:"redis"`
	Database store.Config     `koanf:"database"`
	Queue    QueueConfig      `koanf:"queue"`
	Record   record.Config    `koanf:"record"`

	Log   observability.LogConfig   `koanf:"log"`
	Trace observability.TraceConfig `koanf:"trace"`
}

// AdminConfig is where the process answers its operators.
type AdminConfig struct {
	Listen string `koanf:"listen" doc:"host:port of metrics, health, pprof and where messages are; keep it from the public"`
}

// Validate reports an address that cannot be bound.
func (c AdminConfig) Validate() error {
	if err := address.CheckListen(c.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Defaults is the configuration that `gochat run` starts from.
func Defaults() Config {
	seen := observability.DefaultConfig()
	return Config{
		API:     api.Defaults(),
		Site:    site.Defaults(),
		Admin:   AdminConfig{Listen: "127.0.0.1:9100"},
		Connect: connect.Defaults(),
		Canary:  canary.Defaults(),
		Logic:   logic.Defaults(),
		Auth:    logic.AuthDefaults(),
		Task:    task.Defaults(),
		RPC:     rpc.Defaults(),
		Etcd:    discovery.Defaults(),
		Redis:   session.Defaults(),
		Queue:   QueueConfig{Driver: DriverRedis, Config: queue.Defaults()},
		Record:  record.Defaults(),
		Log:     seen.Log,
		Trace:   seen.Trace,
	}
}

// UpDefaults is the configuration that `gochat up` starts from: every message is traced, and /debug/traces shows the
// latest.
func UpDefaults() Config {
	cfg := Defaults()
	cfg.Trace.SampleRatio, cfg.Trace.Keep = 1, 500
	return cfg
}

// Sources are where settings come from, in ascending precedence: a TOML file, GOCHAT_ environment variables
// ("NAME=value"), and flags by their dotted key.
type Sources = config.Sources

// Flag is a setting as typed on the command line.
type Flag = config.Flag

// Key describes one setting.
type Key = config.Key

// Load lays the sources over cfg. On an error, which names every fault with its source, cfg is unchanged.
func Load(cfg *Config, from Sources) error { return config.Load(cfg, from) }

// Keys describes every setting, with the values of cfg as defaults.
func Keys(cfg Config) []Key { return config.Keys(cfg) }

// Redacted is the configuration by dotted key, without its secrets.
func Redacted(cfg Config) map[string]any { return config.Redacted(cfg) }

// All are the layers in the order in which they start.
func All() []string {
	return []string{contract.LayerLogic, contract.LayerTask, contract.LayerConnect, contract.LayerAPI, contract.LayerSite}
}

// needs are the settings without which a layer cannot work.
func needs(layer string) []string {
	switch layer {
	case contract.LayerLogic:
		return []string{"etcd.endpoints", "rpc.secret", "redis.addrs", "database.url"}
	case contract.LayerConnect, contract.LayerTask:
		return []string{"etcd.endpoints", "rpc.secret", "redis.addrs"}
	case contract.LayerAPI:
		return []string{"etcd.endpoints", "rpc.secret"}
	case contract.LayerSite:
		return []string{"etcd.endpoints"}
	}
	return nil
}

// check reports layers that do not exist and settings without which those given cannot work.
func (c Config) check(chosen []string) error {
	if len(chosen) == 0 {
		return errors.New("layers: want one or more of " + strings.Join(All(), ", "))
	}
	set := map[string]bool{
		"etcd.endpoints": len(c.Etcd.Endpoints) > 0,
		"rpc.secret":     c.RPC.Secret != "",
		"redis.addrs":    len(c.Redis.Addrs) > 0,
		"database.url":   c.Database.URL != "",
	}
	var errs []error
	for _, layer := range chosen {
		if !slices.Contains(All(), layer) {
			errs = append(errs, fmt.Errorf("layers: %q is none; want some of %s", layer, strings.Join(All(), ", ")))
		}
		for _, key := range needs(layer) {
			if !set[key] {
				errs = append(errs, fmt.Errorf("%s: not set, and %s needs it", key, layer))
			}
		}
	}
	return errors.Join(errs...)
}

// onLoopback reports whether nothing of this process can be reached from another machine.
func (c Config) onLoopback() bool {
	listens := append([]string{c.API.Listen, c.Site.Listen, c.Admin.Listen, c.Connect.WebSocket.Listen, c.RPC.Listen}, c.Connect.TCP.Listen...)
	return !slices.ContainsFunc(listens, func(listen string) bool { return !isLoopback(listen) })
}

func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}
