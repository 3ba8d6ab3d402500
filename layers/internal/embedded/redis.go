// Package embedded runs in the process what gochat otherwise finds beside it, for `gochat up`.
package embedded

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// redisTick is how often TTLs are moved on. A key expires up to one tick early.
const redisTick = 50 * time.Millisecond

// Redis is the Redis that `gochat up` runs in its own process. Its state is in memory only and ends with it:
// undelivered work is still in the outbox, routes are registered anew, and people log in again.
//
// Its clock is the system's: stream ids, TIME and EXPIREAT follow it by themselves, relative TTLs by a ticker.
type Redis struct {
	server   *miniredis.Miniredis
	addr     string
	password string
	stop     chan struct{}
	stopped  chan struct{}
}

// StartRedis listens on a free loopback port. Other users of the machine can reach that port, so every client has
// to give a password, made anew for each start.
func StartRedis() (*Redis, error) {
	r := &Redis{
		server:   miniredis.NewMiniRedis(),
		password: rand.Text(),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	r.server.RequireAuth(r.password)
	if err := r.server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start embedded redis: %w", err)
	}
	r.addr = r.server.Addr()
	go r.expire() // Close waits for it
	return r, nil
}

// Addr is the host:port to connect to.
func (r *Redis) Addr() string { return r.addr }

// Password is the secret of the default user.
func (r *Redis) Password() string { return r.password }

// Close ends every connection and returns once nothing of the server runs. Call it once.
func (r *Redis) Close() {
	close(r.stop)
	<-r.stopped
	r.server.Close()
}

func (r *Redis) expire() {
	defer close(r.stopped)
	ticker := time.NewTicker(redisTick)
	defer ticker.Stop()
	// By the monotonic clock: a ticker drops ticks when the machine is busy or asleep.
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
			now := time.Now()
			r.server.FastForward(now.Sub(last))
			last = now
		}
	}
}
