package connect

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"time"

	"gochat/layers/internal/address"
	"gochat/layers/internal/httpd"
)

// Config is how the layer behaves.
type Config struct {
	WebSocket  WebSocketConfig `koanf:"websocket"`
	TCP        TCPConfig       `koanf:"tcp"`
	Buckets    int             `koanf:"buckets" doc:"a power of two"`
	QueueBytes int             `koanf:"queue_bytes" doc:"what may wait for one socket; a channel that exceeds it is closed as slow"`
	MaxConns   int             `koanf:"max_connections" doc:"connections of both transports together; more are turned away; fewer where the process may not open 256 files more"`
	AuthWithin time.Duration   `koanf:"auth_within" doc:"a connection that has not authenticated by then is closed"`
	Ping       time.Duration   `koanf:"ping" doc:"time between two pings to a connection"`
	Check      time.Duration   `koanf:"session_check" doc:"time between two checks that a connection's session has not ended"`
	Refresh    time.Duration   `koanf:"refresh" doc:"time between two looks whether the routes are still there"`
	Repair     time.Duration   `koanf:"repair" doc:"time between two looks whether a message was missed; one that was is found within a few, or, in a conversation that is quiet here, within 20 and a few; a minute later at most while the queue is behind"`
	Drain      time.Duration   `koanf:"drain" doc:"when stopping, clients are told to go spread over this time"`
	ComeBack   time.Duration   `koanf:"come_back" doc:"clients that are sent away are told to come back spread over this time"`
	Timeout    time.Duration   `koanf:"timeout" doc:"deadline of each call to logic"`
}

// WebSocketConfig is where browsers connect.
type WebSocketConfig struct {
	Listen         string   `koanf:"listen" doc:"host:port"`
	AllowedOrigins []string `koanf:"allowed_origins" doc:"origins of pages that may connect besides those of the same host; * allows all"`
	Compression    bool     `koanf:"compression" doc:"messages of 256 bytes and more go compressed to clients that offer permessage-deflate, once for all of a node, and are taken so"`
}

// TCPConfig is where tcp clients connect.
type TCPConfig struct {
	Listen []string `koanf:"listen" doc:"host:port, several allowed"`
}

// Defaults are the values of a Config that is not told otherwise.
func Defaults() Config {
	return Config{
		WebSocket:  WebSocketConfig{Listen: "127.0.0.1:7000"},
		TCP:        TCPConfig{Listen: []string{"127.0.0.1:7001", "127.0.0.1:7002"}},
		Buckets:    1 << bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)),
		QueueBytes: 256 << 10,
		MaxConns:   100_000,
		AuthWithin: 5 * time.Second,
		Ping:       54 * time.Second,
		Check:      30 * time.Second,
		Refresh:    time.Second,
		Repair:     3 * time.Second,
		Drain:      2 * time.Second,
		ComeBack:   2 * time.Second,
		Timeout:    5 * time.Second,
	}
}

// Validate reports what may not be.
func (c Config) Validate() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	listen := func(key, addr string) {
		err := address.CheckListen(addr)
		want(err == nil, "%s: %v", key, err)
	}
	listen("websocket.listen", c.WebSocket.Listen)
	want(httpd.CheckOrigins(c.WebSocket.AllowedOrigins) == nil, "websocket.allowed_origins: %v", httpd.CheckOrigins(c.WebSocket.AllowedOrigins))
	want(len(c.TCP.Listen) > 0, "tcp.listen: want host:port, one at least")
	for _, addr := range c.TCP.Listen {
		listen("tcp.listen", addr)
	}
	want(bits.OnesCount(uint(c.Buckets)) == 1 && c.Buckets > 0 && c.Buckets <= 4096, "buckets: %d: want a power of two up to 4096", c.Buckets)
	want(c.QueueBytes >= 64<<10, "queue_bytes: %d: want at least 65536, the largest frame", c.QueueBytes)
	want(c.MaxConns > 0, "max_connections: %d: want 1 or more", c.MaxConns)
	want(c.AuthWithin >= 100*time.Millisecond, "auth_within: %v: want 100ms or more", c.AuthWithin)
	want(c.Ping >= time.Second, "ping: %v: want 1s or more", c.Ping)
	want(c.Check >= 100*time.Millisecond, "session_check: %v: want 100ms or more", c.Check)
	want(c.Refresh >= 100*time.Millisecond, "refresh: %v: want 100ms or more", c.Refresh)
	want(c.Repair >= 10*time.Millisecond, "repair: %v: want 10ms or more", c.Repair)
	want(c.Drain >= 0, "drain: %v: want 0s or more", c.Drain)
	want(c.ComeBack >= 100*time.Millisecond && c.ComeBack <= time.Hour, "come_back: %v: want 100ms to 1h", c.ComeBack)
	want(c.Timeout >= 100*time.Millisecond, "timeout: %v: want 100ms or more", c.Timeout)
	return errors.Join(errs...)
}
