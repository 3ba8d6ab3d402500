package session

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"gochat/layers/internal/address"
)

// Config says which Redis, and how long a session lives. Zero values, but for Addrs, take those of Defaults.
type Config struct {
	Addrs            []string      `koanf:"addrs" doc:"host:port of Redis; several are a Cluster, or the Sentinels if master is set"`
	Username         string        `koanf:"username" doc:"user of Redis's access control list"`
	Password         string        `koanf:"password" secret:"true" doc:"password of Redis"`
	DB               int           `koanf:"db" doc:"number of the database; 0 on a Cluster"`
	Cluster          bool          `koanf:"cluster" doc:"the one address given is that of a Cluster"`
	Master           string        `koanf:"master" doc:"name of the master that the Sentinels watch"`
	SentinelPassword string        `koanf:"sentinel_password" secret:"true" doc:"password of the Sentinels"`
	TTL              time.Duration `koanf:"ttl" doc:"life of a session since its last use; the same on every node"`
	Timeout          time.Duration `koanf:"timeout" doc:"limit of each dial, read, write and wait for a connection"`
	PoolSize         int           `koanf:"pool_size" doc:"most connections to each Redis server"`
}

// Defaults is a Config that lacks only its addresses.
func Defaults() Config {
	return Config{TTL: 168 * time.Hour, Timeout: 2 * time.Second, PoolSize: 32}
}

// Validate reports everything that is wrong with the configuration. Open, not Validate, wants addresses.
func (c Config) Validate() error {
	var errs []error
	for _, addr := range c.Addrs {
		if err := address.CheckDial(addr); err != nil {
			errs = append(errs, fmt.Errorf("addrs: %w", err))
		}
	}
	if c.DB < 0 || c.DB > 0 && c.cluster() {
		errs = append(errs, fmt.Errorf("db %d: want 0 or more, on a Cluster 0", c.DB))
	}
	if c.Cluster && c.Master != "" {
		errs = append(errs, errors.New("cluster: want false, since master is set"))
	}
	if c.TTL != 0 && c.TTL < time.Millisecond {
		errs = append(errs, fmt.Errorf("ttl %s: want 1ms or more", c.TTL))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %s: want more than 0", c.Timeout))
	}
	if c.PoolSize < 0 {
		errs = append(errs, fmt.Errorf("pool_size %d: want 1 or more", c.PoolSize))
	}
	return errors.Join(errs...)
}

func (c Config) cluster() bool { return c.Cluster || c.Master == "" && len(c.Addrs) > 1 }

func (c Config) withDefaults() Config {
	d := Defaults()
	c.TTL = cmp.Or(c.TTL, d.TTL)
	c.Timeout = cmp.Or(c.Timeout, d.Timeout)
	c.PoolSize = cmp.Or(c.PoolSize, d.PoolSize)
	return c
}

func (c Config) options() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:                 c.Addrs,
		Username:              c.Username,
		Password:              c.Password,
		DB:                    c.DB,
		IsClusterMode:         c.Cluster,
		MasterName:            c.Master,
		SentinelPassword:      c.SentinelPassword,
		Protocol:              2,
		DialTimeout:           c.Timeout,
		DialerRetries:         1,
		ReadTimeout:           c.Timeout,
		WriteTimeout:          c.Timeout,
		PoolTimeout:           c.Timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              c.PoolSize,
		MaxActiveConns:        c.PoolSize,
		PipelinePoolSize:      -1, // nearly all is pipelined: one pool, so that its bound is the bound
		MaxRetries:            -1, // see the package's documentation, Failures
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}
