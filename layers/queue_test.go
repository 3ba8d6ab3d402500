package layers

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/queue"
	queueredis "gochat/layers/internal/queue/redis"
	"gochat/layers/internal/session"
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
		{"redis, by default its database 0", DriverRedis, "redis://127.0.0.1:6379/", ""},
		{"redis of no number", DriverRedis, "redis://:secret@127.0.0.1:6379/abc", "db is not a number"},
		{"redis of a number and more", DriverRedis, "redis://:secret@127.0.0.1:6379/1abc", "db is not a number"},
		{"redis of a negative number", DriverRedis, "redis://:secret@127.0.0.1:6379/-1", "db is not a number"},
		{"redis with a password that is not escaped", DriverRedis, "redis://u:12/secret@127.0.0.1:6379", "db is not a number"},
		{"redis with a query", DriverRedis, "redis://127.0.0.1:6379/1?db=2", "another form"},
		{"redis, a Cluster", DriverRedis, "redis://127.0.0.1:6379,127.0.0.2:6379", ""},
		{"redis, a database of a Cluster", DriverRedis, "redis://127.0.0.1:6379,127.0.0.2:6379/1", "Cluster"},
		{"redis without a port", DriverRedis, "redis://127.0.0.1", "host:port"},
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

// TestQueueRedis: a URL says all of which Redis the queue has, and without one it has that of the sessions.
func TestQueueRedis(t *testing.T) {
	shared := session.Config{Addrs: []string{"h:1"}, Master: "m", Username: "s", Password: "t", DB: 3}
	queueOf := queue.Defaults()
	for name, c := range map[string]struct {
		url  string
		want queueredis.Config
	}{
		"shared":       {"", queueredis.Config{Addrs: []string{"h:1"}, MasterName: "m", Username: "s", Password: "t", DB: 3}},
		"its own":      {"redis://u:p@o:2/15", queueredis.Config{Addrs: []string{"o:2"}, Username: "u", Password: "p", DB: 15}},
		"its database": {"redis://o:2", queueredis.Config{Addrs: []string{"o:2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Config = queueOf
			got, err := QueueConfig{Driver: DriverRedis, URL: c.url, Config: queueOf}.redis(shared)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// TestTaskOnEachQueue: the task layer reads every partition of every driver, and what it cannot handle is found where
// operators look. etcd says who reads a partition, unless the driver needs nobody to.
func TestTaskOnEachQueue(t *testing.T) {
	for driver, owned := range map[string]float64{DriverRedis: 16, DriverRabbitMQ: 16, DriverKafka: 0} {
		t.Run(driver, func(t *testing.T) {
			cfg := embeddedBackend(t).config()
			cfg.Queue.Driver = driver
			cfg.Queue.URL, _ = broker(t, driver)
			cfg.Queue.Partitions = 16
			r := start(t, cfg, contract.LayerTask)
			publishToAll(t, cfg, "no delivery")
			var aside []AsideItem
			eventually(t, "an item of each partition is set aside", func() bool {
				var err error
				aside, err = QueueAside(t.Context(), cfg, 100)
				return err == nil && len(aside) >= cfg.Queue.Partitions
			})
			found := make(map[int]bool)
			for _, a := range aside {
				found[a.Partition] = true
				if queue.Partition(a.Key, cfg.Queue.Partitions) != a.Partition || string(a.Body) != "no delivery" ||
					a.Headers[contract.HeaderTraceparent] == "" || !strings.Contains(a.Reason, "delivery") || a.At.IsZero() {
					t.Errorf("set aside: %+v", a)
				}
			}
			if len(found) != cfg.Queue.Partitions {
				t.Errorf("items of %d partitions, want all %d", len(found), cfg.Queue.Partitions)
			}
			if some, err := QueueAside(t.Context(), cfg, 3); err != nil || len(some) != 3 || some[0].At.Before(some[2].At) {
				t.Errorf("the last three are %+v (%v)", some, err)
			}
			if got := metric(t, r, "gochat_discovery_owned", `name="deliveries"`); got != owned {
				t.Errorf("%v partitions are owned by way of etcd, want %v", got, owned)
			}
			if ok, reasons := readiness(r.Admin); !ok {
				t.Errorf("not ready: %v", reasons)
			}
		})
	}
}

// publishToAll publishes the body once to each partition.
func publishToAll(t *testing.T, cfg Config, body string) {
	t.Helper()
	q, err := cfg.Queue.open(cfg.Redis, nil, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[int]string)
	for i := 1; len(keys) < cfg.Queue.Partitions; i++ {
		key := fmt.Sprint("room:", i)
		keys[queue.Partition(key, cfg.Queue.Partitions)] = key
	}
	var items []queue.Item
	for _, key := range keys {
		items = append(items, queue.Item{
			Key: key, Body: []byte(body), Headers: map[string]string{contract.HeaderTraceparent: "00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01"},
		})
	}
	if err := errors.Join(q.Publish(t.Context(), items), q.Close()); err != nil {
		t.Fatal(err)
	}
}
