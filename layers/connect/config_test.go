package connect

import (
	"fmt"
	"strings"
	"testing"
)

// TestConfigAddresses: each address is looked at, and the one at fault is told.
func TestConfigAddresses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // the beginning of the error, "" for none
	}{
		{"defaults", func(*Config) {}, ""},
		{"websocket", func(c *Config) { c.WebSocket.Listen = "nonsense" }, `websocket.listen: "nonsense": want host:port`},
		{"the second of tcp", func(c *Config) { c.TCP.Listen = []string{":0", ":70000"} }, `tcp.listen: ":70000": want host:port`},
		{"none of tcp", func(c *Config) { c.TCP.Listen = nil }, "tcp.listen: want host:port, one at least"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			c.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
