package queue

import (
	"errors"
	"fmt"
	"time"
)

// Config is what every driver is told. All publishers and consumers must have the same Partitions and MaxItems.
type Config struct {
	Partitions int           `koanf:"partitions" doc:"how many ordered parts; the same in every process, never changed while items wait"`
	MaxItems   int           `koanf:"max_items" doc:"items that may wait in one partition, those being handled included"`
	Batch      int           `koanf:"batch" doc:"items that are handed over at once"`
	Drain      time.Duration `koanf:"drain" doc:"for what is being handed over when the process stops"`
	Tries      int           `koanf:"tries" doc:"how often an item that is itself at fault is handed over before it is set aside"`
}

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config {
	return Config{Partitions: 16, MaxItems: 100_000, Batch: 256, Drain: 10 * time.Second, Tries: 5}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		name     string
		got, max int
	}{
		{"partitions", c.Partitions, 1024},
		{"max_items", c.MaxItems, 100_000_000},
		{"batch", c.Batch, 10_000},
		{"tries", c.Tries, 1000},
	} {
		if n.got < 1 || n.got > n.max {
			errs = append(errs, fmt.Errorf("%s: %d is not in [1,%d]", n.name, n.got, n.max))
		}
	}
	if c.Drain <= 0 {
		errs = append(errs, fmt.Errorf("drain: %s is not positive", c.Drain))
	}
	return errors.Join(errs...)
}
