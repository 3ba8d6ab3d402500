package layers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"gochat/layers/internal/address"
	"gochat/layers/internal/config"
	"gochat/layers/internal/queue"
	queuekafka "gochat/layers/internal/queue/kafka"
	"gochat/layers/internal/queue/rabbitmq"
	queueredis "gochat/layers/internal/queue/redis"
	"gochat/layers/internal/session"
	"gochat/observability"
)

// QueueConfig is how deliveries travel from logic to task.
type QueueConfig struct {
	Driver string `koanf:"driver" doc:"redis, rabbitmq or kafka"`
	URL    string `koanf:"url" secret:"true" doc:"redis://user:password@host:port/db, empty takes the redis section's servers; amqp://user:password@host:port/vhost; kafka://user:password@host:9092,host2:9092?tls=true&sasl=scram-sha-512"`
	queue.Config
}

// The queue drivers.
const (
	DriverRedis    = "redis"    // Redis Streams
	DriverRabbitMQ = "rabbitmq" // quorum queues
	DriverKafka    = "kafka"
)

// Validate reports what may not be.
func (c QueueConfig) Validate() error {
	var errs []error
	switch c.Driver {
	case DriverRedis:
		if c.URL != "" {
			if _, err := parseRedisURL(c.URL); err != nil {
				errs = append(errs, config.Invalid("url", "(not shown)", fmt.Sprintf("redis://user:password@host:port/db (%v)", err)))
			}
		}
	case DriverRabbitMQ:
		if rabbitmq.CheckURL(c.URL) != nil {
			errs = append(errs, config.Invalid("url", "(not shown)", "amqp://user:password@host:port/vhost"))
		}
	case DriverKafka:
		if _, err := queuekafka.ParseURL(c.URL); err != nil {
			errs = append(errs, config.Invalid("url", "(not shown)", fmt.Sprintf("%s (%v)", queuekafka.URLForm, err)))
		}
	default:
		errs = append(errs, config.Invalid("driver", c.Driver, "redis, rabbitmq or kafka"))
	}
	return errors.Join(append(errs, c.Config.Validate())...)
}

// parseRedisURL is a configuration with what the URL says. Its errors do not show the URL: a password that is not
// escaped may be anywhere in it.
func parseRedisURL(raw string) (queueredis.Config, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "redis" || u.RawQuery != "" || u.Fragment != "" {
		return queueredis.Config{}, errors.New("it has another form")
	}
	c := queueredis.Config{Addrs: strings.Split(u.Host, ","), Username: u.User.Username()}
	c.Password, _ = u.User.Password()
	for _, addr := range c.Addrs {
		if address.CheckDial(addr) != nil {
			return queueredis.Config{}, errors.New("its host is not host:port, the port from 1 to 65535")
		}
	}
	if number := strings.Trim(u.Path, "/"); number != "" {
		db, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return queueredis.Config{}, errors.New("its db is not a number")
		}
		c.DB = int(db)
	}
	if c.DB > 0 && len(c.Addrs) > 1 {
		return queueredis.Config{}, errors.New("several hosts are a Cluster, whose db is 0")
	}
	return c, nil
}

// owned says whether instances read the partitions that a queue.Ownership gives them. Kafka's consumer group divides
// them itself.
func (c QueueConfig) owned() bool { return c.Driver != DriverKafka }

// open makes an instance of the driver. One that only publishes, or whose partitions are not owned, has no owner.
func (c QueueConfig) open(shared session.Config, owner queue.Ownership, tel observability.Telemetry) (queue.Queue, error) {
	switch c.Driver {
	case DriverRabbitMQ:
		return rabbitmq.New(c.rabbitMQ(), owner, tel)
	case DriverKafka:
		cfg, err := queuekafka.ParseURL(c.URL)
		if err != nil {
			return nil, err
		}
		cfg.Config = c.Config
		return queuekafka.New(cfg, tel)
	default:
		cfg, err := c.redis(shared)
		if err != nil {
			return nil, err
		}
		return queueredis.New(cfg, owner, tel)
	}
}

func (c QueueConfig) rabbitMQ() rabbitmq.Config {
	r := rabbitmq.DefaultConfig()
	r.Config, r.URL = c.Config, c.URL
	return r
}

// redis is the driver's configuration: the queue's own server, or the one that keeps the sessions.
func (c QueueConfig) redis(shared session.Config) (queueredis.Config, error) {
	r := queueredis.Config{
		Addrs: shared.Addrs, MasterName: shared.Master, Username: shared.Username, Password: shared.Password, DB: shared.DB,
	}
	if c.URL != "" {
		var err error
		if r, err = parseRedisURL(c.URL); err != nil {
			return r, fmt.Errorf("url: %w", err)
		}
	}
	r.Config = c.Config
	return r, nil
}

// AsideItem is a queue item that could not be handled and was set aside.
type AsideItem = queue.Aside

// QueueAside answers the queue items that were set aside last, latest first, at most limit.
func QueueAside(ctx context.Context, cfg Config, limit int) ([]AsideItem, error) {
	q, err := cfg.Queue.open(cfg.Redis, nil, observability.Discard())
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	items, err := q.SetAside(ctx, limit)
	return items, errors.Join(err, q.Close())
}
