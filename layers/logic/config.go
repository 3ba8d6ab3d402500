package logic

import (
	"errors"
	"fmt"
	"time"

	"gochat/layers/internal/contract"
)

// Login policies.
const (
	PolicyMulti  = "multi"  // a user may have many sessions
	PolicySingle = "single" // a login ends the user's other sessions
)

// AuthConfig is how people prove who they are.
type AuthConfig struct {
	LoginPolicy string       `koanf:"login_policy" doc:"multi: many sessions a user; single: a login ends the others"`
	Argon2      Argon2Config `koanf:"argon2"`
}

// Argon2Config is the cost of one password hash (RFC 9106, argon2id, one lane).
type Argon2Config struct {
	MemoryKiB uint32 `koanf:"memory_kib" doc:"memory of one password hash in KiB"`
	Time      uint32 `koanf:"time" doc:"passes over that memory"`
}

// Config is how the layer behaves.
type Config struct {
	Rate         RateConfig    `koanf:"rate"`
	Commit       CommitConfig  `koanf:"commit"`
	SessionCache time.Duration `koanf:"session_cache" doc:"how long a session, a room or a membership is trusted without asking again"`
}

// RateConfig bounds what one user may send through one logic node.
type RateConfig struct {
	PerSecond float64 `koanf:"per_second" doc:"messages a second that a user may send in the long run"`
	Burst     int     `koanf:"burst" doc:"messages that a user may send at once"`
}

// CommitConfig bounds the committer.
type CommitConfig struct {
	Gather  time.Duration `koanf:"gather" doc:"how long a commit waits for further messages, if the one before it had several"`
	Batch   int           `koanf:"batch" doc:"messages in one transaction at most"`
	Queue   int           `koanf:"queue" doc:"messages that may wait to be stored; more are answered unavailable"`
	Timeout time.Duration `koanf:"timeout" doc:"deadline of one transaction"`
}

// AuthDefaults follow OWASP's second choice for argon2id: 19 MiB, 2 passes.
func AuthDefaults() AuthConfig {
	return AuthConfig{LoginPolicy: PolicyMulti, Argon2: Argon2Config{MemoryKiB: 19456, Time: 2}}
}

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config {
	return Config{
		Rate:         RateConfig{PerSecond: 50, Burst: 200},
		Commit:       CommitConfig{Gather: 2 * time.Millisecond, Batch: 500, Queue: 8192, Timeout: 5 * time.Second},
		SessionCache: 2 * time.Second,
	}
}

// Validate reports what may not be.
func (c AuthConfig) Validate() error {
	var err error
	if c.LoginPolicy != PolicyMulti && c.LoginPolicy != PolicySingle {
		err = fmt.Errorf("login_policy: %q: want multi or single", c.LoginPolicy)
	}
	if c.Argon2.MemoryKiB < 8 || c.Argon2.MemoryKiB > 4<<20 {
		err = errors.Join(err, fmt.Errorf("argon2.memory_kib: %d: want 8 to 4194304", c.Argon2.MemoryKiB))
	}
	if c.Argon2.Time < 1 || c.Argon2.Time > 100 {
		err = errors.Join(err, fmt.Errorf("argon2.time: %d: want 1 to 100", c.Argon2.Time))
	}
	return err
}

// Validate reports what may not be.
func (c Config) Validate() error {
	var errs []error
	if c.Rate.PerSecond <= 0 {
		errs = append(errs, fmt.Errorf("rate.per_second: %v: want more than 0", c.Rate.PerSecond))
	}
	if c.Rate.Burst < 1 {
		errs = append(errs, fmt.Errorf("rate.burst: %d: want 1 or more", c.Rate.Burst))
	}
	if c.Commit.Batch < 1 || c.Commit.Batch > 1000 {
		errs = append(errs, fmt.Errorf("commit.batch: %d: want 1 to 1000", c.Commit.Batch))
	}
	if c.Commit.Gather < 0 || c.Commit.Gather > time.Second {
		errs = append(errs, fmt.Errorf("commit.gather: %v: want 0s to 1s", c.Commit.Gather))
	}
	// A direct message by REST is passed on to the node that its conversation prefers, and has a place on both meanwhile.
	if least := max(c.Commit.Batch, 2*contract.MaxSends); c.Commit.Queue < least {
		errs = append(errs, fmt.Errorf("commit.queue: %d: want %d or more, and no less than commit.batch", c.Commit.Queue, least))
	}
	if c.Commit.Timeout < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("commit.timeout: %v: want 100ms or more", c.Commit.Timeout))
	}
	if c.SessionCache < 0 || c.SessionCache > time.Minute {
		errs = append(errs, fmt.Errorf("session_cache: %v: want 0s to 1m", c.SessionCache))
	}
	return errors.Join(errs...)
}
