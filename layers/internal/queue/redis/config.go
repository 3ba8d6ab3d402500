package redis

import (
	"errors"
	"fmt"
	"time"
)

// Config is how the queue is reached and what it may hold. Every publisher and consumer must have the same
// Partitions and MaxItems.
type Config struct {
	// Addrs are host:port: one server, several nodes of a Cluster, or, with MasterName, Sentinels.
	Addrs      []string `koanf:"addrs"`
	MasterName string   `koanf:"master_name"`
	Username   string   `koanf:"username"`
	Password   string   `koanf:"password"`
	DB         int      `koanf:"db"` // 0 on a Cluster

	Partitions int           `koanf:"partitions"`
	MaxItems   int           `koanf:"max_items"` // per partition, those being handled included
	Batch      int           `koanf:"batch"`     // most items handed over at once
	Drain      time.Duration `koanf:"drain"`     // for the handlers in flight when consuming ends
}

// DefaultConfig lacks only the addresses.
func DefaultConfig() Config {
	return Config{Partitions: 16, MaxItems: 100_000, Batch: 256, Drain: 10 * time.Second}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addrs) == 0 {
		errs = append(errs, errors.New("addrs: want at least one host:port"))
	}
	for _, n := range []struct {
		name     string
		got, max int
	}{
		{"partitions", c.Partitions, 1024},
		{"max_items", c.MaxItems, 100_000_000},
		{"batch", c.Batch, 10_000},
	} {
		if n.got < 1 || n.got > n.max {
			errs = append(errs, fmt.Errorf("%s: %d is not in [1,%d]", n.name, n.got, n.max))
		}
	}
	if c.DB < 0 {
		errs = append(errs, fmt.Errorf("db: %d is negative", c.DB))
	}
	if c.Drain <= 0 {
		errs = append(errs, fmt.Errorf("drain: %s is not positive", c.Drain))
	}
	return errors.Join(errs...)
}
