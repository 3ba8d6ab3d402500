package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"gochat/layers/internal/queue"
	"gochat/observability"
)

const (
	group    = "task"
	consumer = "owner"

	readTimeout = 3 * time.Second // of one reply
	opTimeout   = 5 * time.Second // of one operation with its retries, where the caller sets no bound
)

// Queue is a queue.Queue.
type Queue struct {
	cfg       Config
	ownership queue.Ownership
	log       *slog.Logger
	readings  *queue.Readings
	client    goredis.UniversalClient
	script    *goredis.Script
	streams   []string // by partition
}

var _ queue.Queue = (*Queue)(nil)

// New does not need Redis to be up: what fails until it is, says so. ownership may be nil for an instance that only
// publishes. Metrics are registered, so a Registerer takes one Queue.
func New(cfg Config, ownership queue.Ownership, tel observability.Telemetry) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("redis queue: %w", err)
	}
	q := &Queue{
		cfg:       cfg,
		ownership: ownership,
		log:       tel.Log,
		readings:  queue.NewReadings(cfg.Config, tel),
		script:    goredis.NewScript(publishScript),
		client: goredis.NewUniversalClient(&goredis.UniversalOptions{
			Addrs:      slices.Clone(cfg.Addrs), // a Cluster client appends to it
			MasterName: cfg.MasterName,
			Username:   cfg.Username,
			Password:   cfg.Password,
			DB:         cfg.DB,

			DialTimeout:           2 * time.Second,
			DialerRetries:         1, // an operation is repeated as a whole
			ReadTimeout:           readTimeout,
			WriteTimeout:          readTimeout,
			ContextTimeoutEnabled: true,
			// On a Cluster every partition may be read by itself. Publishing, acknowledging and asking share the rest.
			PoolSize:         cfg.Partitions + 16,
			PipelinePoolSize: -1,
			DisableIdentity:  true,
			// Redis 7.0 does not know them.
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}),
	}
	for p := range cfg.Partitions {
		q.streams = append(q.streams, "gochat:deliveries:{"+strconv.Itoa(p)+"}")
	}
	return q, nil
}

// System implements queue.Queue.
func (q *Queue) System() string { return "redis" }

// Ping fails if Redis does not answer, or if a partition owned here could not be read or acknowledged at the last
// attempt, as when Redis answers but is a replica, or is out of memory.
func (q *Queue) Ping(ctx context.Context) error {
	if err := q.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("ping redis: %w", err)
	}
	return q.readings.Failing()
}

// cluster is true if one command cannot span partitions.
func (q *Queue) cluster() bool {
	_, is := q.client.(*goredis.ClusterClient)
	return is
}

// Close implements queue.Queue.
func (q *Queue) Close() error { return q.client.Close() }

// missing is true if err says that the stream or its group is not there: Redis is new, or was wiped.
func missing(err error) bool {
	return goredis.HasErrorPrefix(err, "NOGROUP") || goredis.HasErrorPrefix(err, "UNBLOCKED")
}

// answered is true if Redis has answered that it will not.
func answered(err error) bool {
	var refusal goredis.Error
	return errors.As(err, &refusal)
}

// ignoring is err unless it is one of those that are an answer.
func ignoring(err error, is ...func(error) bool) error {
	for _, ok := range is {
		if ok(err) {
			return nil
		}
	}
	return err
}

func isNil(err error) bool { return errors.Is(err, goredis.Nil) }
