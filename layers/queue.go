package layers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
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
			errs = append(errs, c.checkURL("redis", "redis://user:password@host:port/db"))
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

func (c QueueConfig) checkURL(scheme, want string) error {
	u, err := url.Parse(c.URL)
	if err == nil && u.Scheme == scheme && !slices.ContainsFunc(strings.Split(u.Host, ","), func(addr string) bool {
		return address.CheckDial(addr) != nil
	}) {
		return nil
	}
	return config.Invalid("url", "(not shown)", want)
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
		return queueredis.New(c.redis(shared), owner, tel)
	}
}

func (c QueueConfig) rabbitMQ() rabbitmq.Config {
	r := rabbitmq.DefaultConfig()
	r.Config, r.URL = c.Config, c.URL
	return r
}

// redis is the driver's configuration: the queue's own server, or the one that keeps the sessions.
func (c QueueConfig) redis(shared session.Config) queueredis.Config {
	r := queueredis.Config{
		Config: c.Config,
		Addrs:  shared.Addrs, MasterName: shared.Master, Username: shared.Username, Password: shared.Password, DB: shared.DB,
	}
	if u, err := url.Parse(c.URL); err == nil && c.URL != "" {
		password, _ := u.User.Password()
		r.Addrs, r.MasterName = strings.Split(u.Host, ","), ""
		r.Username, r.Password = u.User.Username(), password
		r.DB = 0
		_, _ = fmt.Sscanf(strings.Trim(u.Path, "/"), "%d", &r.DB) // no number is database 0
	}
	return r
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
