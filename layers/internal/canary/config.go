package canary

import (
	"errors"
	"fmt"
	"time"
)

// Config is how often the canary sends, and how long it waits.
type Config struct {
	Interval time.Duration `koanf:"interval" doc:"time between two messages that each connect node sends to itself through every transport and the whole system; 0s is none, and nothing is asked of readiness then"`
	Timeout  time.Duration `koanf:"timeout" doc:"such a message counts as received if it comes within this; want less than connect.repair, or what only a repair brings counts as well"`
}

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config { return Config{Interval: 10 * time.Second, Timeout: 2 * time.Second} }

// On reports whether there is a canary at all.
func (c Config) On() bool { return c.Interval > 0 }

// Validate reports what may not be.
func (c Config) Validate() error {
	var errs []error
	if c.Interval != 0 && (c.Interval < 100*time.Millisecond || c.Interval > time.Hour) {
		errs = append(errs, fmt.Errorf("interval: %v: want 100ms to 1h, or 0s for none", c.Interval))
	}
	if c.Timeout < 10*time.Millisecond || c.On() && c.Timeout > c.Interval {
		errs = append(errs, fmt.Errorf("timeout: %v: want 10ms to canary.interval, so that one message is decided before the next", c.Timeout))
	}
	return errors.Join(errs...)
}
