package rabbitmq_test

import (
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/queue/rabbitmq"
	"gochat/observability"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*rabbitmq.Config)
		wrong  string // "" if nothing is
	}{
		{"one host", func(*rabbitmq.Config) {}, ""},
		{"several hosts", func(c *rabbitmq.Config) { c.URL = "amqps://u:p@a:1,b,c:3/v%2Fh" }, ""},
		{"no URL", func(c *rabbitmq.Config) { c.URL = "" }, "url"},
		{"another scheme", func(c *rabbitmq.Config) { c.URL = "http://u:hidden@host/" }, "url"},
		{"no URL at all", func(c *rabbitmq.Config) { c.URL = "amqp://u:hidden%zz@host/" }, "url"},
		{"an empty host", func(c *rabbitmq.Config) { c.URL = "amqp://u:hidden@a:1,/" }, "url"},
		{"prefix", func(c *rabbitmq.Config) { c.Prefix = strings.Repeat("p", 201) }, "prefix"},
		{"heartbeat", func(c *rabbitmq.Config) { c.Heartbeat = 1500 * time.Millisecond }, "heartbeat"},
		{"batch", func(c *rabbitmq.Config) { c.Batch = 0 }, "batch"},
	} {
		cfg := rabbitmq.DefaultConfig()
		cfg.URL = "amqp://user:password@host:5672/"
		c.change(&cfg)
		q, err := rabbitmq.New(cfg, nil, observability.Discard())
		if err == nil {
			_ = q.Close()
		}
		switch {
		case c.wrong == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "hidden")):
			t.Errorf("%s: %v, want an error about %s without the password", c.name, err, c.wrong)
		}
	}
}
