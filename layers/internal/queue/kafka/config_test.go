package kafka_test

import (
	"reflect"
	"strings"
	"testing"

	"gochat/layers/internal/queue/kafka"
	"gochat/observability"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		name, url        string
		ok               bool
		brokers          []string
		sasl, user, pass string
		tls              bool
	}{
		{name: "one broker", url: "kafka://h:1", ok: true, brokers: []string{"h:1"}},
		{name: "usual port", url: "kafka://h", ok: true, brokers: []string{"h:9092"}},
		{name: "several", url: "kafka://a:1,b,c:3", ok: true, brokers: []string{"a:1", "b:9092", "c:3"}},
		{name: "tls", url: "kafka://h:1?tls=true", ok: true, brokers: []string{"h:1"}, tls: true},
		{name: "no tls", url: "kafka://h:1/?tls=false", ok: true, brokers: []string{"h:1"}},
		{
			name: "password", url: "kafka://u:p%40ss@h:1,i:2?sasl=scram-sha-256&tls=true", ok: true,
			brokers: []string{"h:1", "i:2"}, sasl: "scram-sha-256", user: "u", pass: "p@ss", tls: true,
		},
		{name: "password without mechanism", url: "kafka://u:topsecret@h:1"},
		{name: "mechanism without user", url: "kafka://h:1?sasl=plain"},
		{name: "unknown mechanism", url: "kafka://u:topsecret@h:1?sasl=gssapi"},
		{name: "unknown option", url: "kafka://h:1?acks=0"},
		{name: "unclear tls", url: "kafka://h:1?tls=yes"},
		{name: "path", url: "kafka://h:1/topic"},
		{name: "empty host among others", url: "kafka://a:1,,b:2"},
		{name: "another scheme", url: "http://h:1"},
		{name: "not a URL", url: "kafka://u:topsecret@h:x"},
		{name: "nothing", url: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := kafka.ParseURL(c.url)
			if (err == nil) != c.ok {
				t.Fatalf("error %v, want success %v", err, c.ok)
			}
			if err != nil {
				if strings.Contains(err.Error(), "topsecret") {
					t.Errorf("the error shows the password: %v", err)
				}
				return
			}
			if !reflect.DeepEqual(got.Brokers, c.brokers) || got.SASL != c.sasl || got.User != c.user || got.Pass != c.pass || (got.TLS != nil) != c.tls {
				t.Errorf("got %+v, want %+v", got, c)
			}
			if err := got.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	valid := kafka.DefaultConfig()
	valid.Brokers = []string{"127.0.0.1:9092"}
	for _, c := range []struct {
		name   string
		change func(*kafka.Config)
		ok     bool
	}{
		{"defaults and a broker", func(*kafka.Config) {}, true},
		{"no broker", func(c *kafka.Config) { c.Brokers = nil }, false},
		{"broker without port", func(c *kafka.Config) { c.Brokers = []string{"h"} }, false},
		{"no topic", func(c *kafka.Config) { c.Topic = "" }, false},
		{"no session", func(c *kafka.Config) { c.Session = 0 }, false},
		{"no partitions", func(c *kafka.Config) { c.Partitions = 0 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := valid
			c.change(&cfg)
			q, err := kafka.New(cfg, observability.Discard())
			if (err == nil) != c.ok {
				t.Fatalf("New: %v, want success %v", err, c.ok)
			}
			if err == nil {
				must(t, q.Close())
			}
		})
	}
}
