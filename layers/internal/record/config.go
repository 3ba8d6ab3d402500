package record

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds what is kept.
type Config struct {
	Messages int           `koanf:"messages" doc:"messages of which a process remembers what it did, for gochat where: the default is an hour at 55 messages a second, or 50 s at 4000, see gochat_record_oldest_age_seconds; 0 is none"`
	Keep     time.Duration `koanf:"keep" doc:"how long it remembers them, if there is room for so many"`
}

// maxMessages is what a few gigabytes hold.
const maxMessages = 10_000_000

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config { return Config{Messages: 200_000, Keep: time.Hour} }

// Validate reports what may not be.
func (c Config) Validate() error {
	var err error
	if c.Messages < 0 || c.Messages > maxMessages {
		err = fmt.Errorf("messages: %d: want 0 to %d", c.Messages, maxMessages)
	}
	if c.Keep < time.Second || c.Keep > 24*time.Hour {
		err = errors.Join(err, fmt.Errorf("keep: %v: want 1s to 24h", c.Keep))
	}
	return err
}
