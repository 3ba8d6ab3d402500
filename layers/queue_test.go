package layers

import (
	"strings"
	"testing"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

func TestQueueDrivers(t *testing.T) {
	for _, c := range []struct {
		name, driver, url string
		wrong             string // what the error names, "" if there is none
	}{
		{"redis, shared", DriverRedis, "", ""},
		{"redis of its own", DriverRedis, "redis://:secret@127.0.0.1:6379/1", ""},
		{"redis by the name of kafka", DriverRedis, "kafka://:secret@127.0.0.1:9092", "redis://"},
		{"kafka", DriverKafka, "kafka://127.0.0.1:9092,127.0.0.2:9092", ""},
		{"kafka with a password", DriverKafka, "kafka://u:secret@127.0.0.1?tls=true&sasl=scram-sha-512", ""},
		{"kafka nowhere", DriverKafka, "", "kafka://"},
		{"kafka without a mechanism", DriverKafka, "kafka://u:secret@127.0.0.1:9092", "needs a mechanism"},
		{"kafka by the name of redis", DriverKafka, "redis://:secret@127.0.0.1:6379", "kafka://"},
		{"another", "carrier pigeon", "", DriverKafka},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			cfg.Redis.Addrs = []string{"127.0.0.1:6379"}
			cfg.Queue = QueueConfig{Driver: c.driver, URL: c.url, Config: queue.Defaults()}
			err := cfg.Queue.Validate()
			if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Fatalf("Validate: %v, want an error with %q", err, c.wrong)
			}
			if err != nil {
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the error shows the password: %v", err)
				}
				return
			}
			q, err := cfg.Queue.open(cfg.Redis, nil, observability.Discard())
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if err := q.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}
