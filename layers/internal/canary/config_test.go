package canary

import (
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil || !Defaults().On() {
		t.Errorf("the defaults: %v, on %v", err, Defaults().On())
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want string // in the error; "" is none
	}{
		{"off", Config{Timeout: time.Hour}, ""},
		{"one decided before the next", Config{Interval: time.Second, Timeout: time.Second}, ""},
		{"too often", Config{Interval: 99 * time.Millisecond, Timeout: 10 * time.Millisecond}, "interval: 99ms"},
		{"too seldom", Config{Interval: 61 * time.Minute, Timeout: time.Second}, "interval: 1h1m"},
		{"negative", Config{Interval: -time.Second, Timeout: time.Second}, "interval: -1s"},
		{"longer than the interval", Config{Interval: time.Second, Timeout: 2 * time.Second}, "timeout: 2s"},
		{"no time", Config{Interval: time.Second}, "timeout: 0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
