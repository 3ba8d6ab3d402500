package redis

import (
	"errors"
	"fmt"

	"gochat/layers/internal/queue"
)

// Config is how the queue is reached and what it may hold.
type Config struct {
	queue.Config

	// Addrs are host:port: one server, several nodes of a Cluster, or, with MasterName, Sentinels.
	Addrs      []string
	MasterName string
	Username   string
	Password   string
	DB         int // 0 on a Cluster
}

// DefaultConfig lacks only the addresses.
func DefaultConfig() Config { return Config{Config: queue.Defaults()} }

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addrs) == 0 {
		errs = append(errs, errors.New("addrs: want at least one host:port"))
	}
	if c.DB < 0 {
		errs = append(errs, fmt.Errorf("db: %d is negative", c.DB))
	}
	return errors.Join(append(errs, c.Config.Validate())...)
}
