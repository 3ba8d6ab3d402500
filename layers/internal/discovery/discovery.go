package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"gochat/layers/internal/address"
	"gochat/layers/internal/contract"
	"gochat/observability"
)

// callTimeout bounds one exchange with etcd; what matters is tried again.
const callTimeout = 2 * time.Second

// Config says where etcd is and how long a silent process counts as alive.
type Config struct {
	Endpoints   []string      `koanf:"endpoints" doc:"etcd's addresses: http://host:port, https://host:port or unix:///path"`
	Username    string        `koanf:"username" doc:"etcd user, if etcd asks for one"`
	Password    string        `koanf:"password" doc:"the etcd user's password" secret:"true"`
	Prefix      string        `koanf:"prefix" doc:"the folder of etcd that this cluster lives in"`
	LeaseTTL    time.Duration `koanf:"lease_ttl" doc:"how long a silent process counts as alive; whole seconds"`
	DialTimeout time.Duration `koanf:"dial_timeout" doc:"how long one attempt to connect to etcd may take"`
}

// Defaults is a Config that lacks only Endpoints.
func Defaults() Config {
	return Config{Prefix: "/gochat", LeaseTTL: 5 * time.Second, DialTimeout: 2 * time.Second}
}

// Validate names everything that is wrong. Open, not Validate, wants endpoints.
func (c Config) Validate() error {
	var errs []error
	for _, endpoint := range c.Endpoints {
		if err := address.CheckEndpoint(endpoint); err != nil {
			errs = append(errs, fmt.Errorf("endpoints: %w", err))
		}
	}
	if !strings.HasPrefix(c.Prefix, "/") || strings.HasSuffix(c.Prefix, "/") {
		errs = append(errs, fmt.Errorf("prefix %q: want /name, without a slash at the end", c.Prefix))
	}
	if c.LeaseTTL < time.Second || c.LeaseTTL%time.Second != 0 {
		errs = append(errs, fmt.Errorf("lease_ttl %v: want whole seconds, at least 1s", c.LeaseTTL))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, fmt.Errorf("dial_timeout %v: want more than 0", c.DialTimeout))
	}
	// The one that is set is named, so that its source is.
	switch {
	case c.Username != "" && c.Password == "":
		errs = append(errs, errors.New("username: set, but etcd.password is not: want both or neither"))
	case c.Username == "" && c.Password != "":
		errs = append(errs, errors.New("password: set, but etcd.username is not: want both or neither"))
	}
	return errors.Join(errs...)
}

// Client is one process's connection to etcd. Its methods may be called from any goroutine.
type Client struct {
	cfg     Config
	etcd    *clientv3.Client
	auth    *login
	log     *slog.Logger
	metrics *metrics

	// resynced wakes the keeper of the lease: who has lost sight of etcd may have lost the lease as well.
	resynced chan struct{}

	ctx   context.Context // ends with Close, and the views with it
	end   context.CancelFunc
	mu    sync.Mutex // guards the first Add of views against Close's Wait
	views sync.WaitGroup
}

// Open makes a client. It neither waits for etcd nor fails if etcd is away.
func Open(cfg Config, tel observability.Telemetry) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("etcd: endpoints: want at least one address of etcd")
	}
	settings := clientv3.Config{
		Endpoints:   cfg.Endpoints,
		DialTimeout: cfg.DialTimeout,
		// A peer that has vanished without closing its connection is noticed and left for another.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(), // what fails is returned, and logged where it is dealt with
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// gRPC's own default waits up to two minutes between attempts: far longer than etcd takes to return.
			Backoff:           grpcbackoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: cfg.DialTimeout,
		})},
	}
	var etcd *clientv3.Client
	auth := &login{user: cfg.Username, password: cfg.Password, conn: func() *grpc.ClientConn { return etcd.ActiveConnection() }}
	if cfg.Username != "" {
		settings.DialOptions = append(settings.DialOptions, grpc.WithPerRPCCredentials(auth), grpc.WithChainUnaryInterceptor(auth.unary))
	}
	etcd, err := clientv3.New(settings)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	ctx, end := context.WithCancel(context.Background()) // Not of a caller: Close ends it.
	return &Client{
		cfg:      cfg,
		etcd:     etcd,
		auth:     auth,
		log:      tel.Log,
		metrics:  newMetrics(tel.Metrics),
		resynced: make(chan struct{}, 1),
		ctx:      ctx,
		end:      end,
	}, nil
}

// Close ends every view, waits for them, and closes the connection. Whoever has joined ends Membership.Run first.
func (c *Client) Close() error {
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.views.Wait()
	if err := c.etcd.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Ping reports whether etcd answers with a quorum behind it.
func (c *Client) Ping(ctx context.Context) error {
	if _, err := c.etcd.Get(ctx, c.cfg.Prefix, clientv3.WithLimit(1), clientv3.WithKeysOnly()); err != nil {
		return fmt.Errorf("ping etcd: %w", err)
	}
	return nil
}

// nodesFolder holds a key for each node of the layer, "connect-17", with its address as value.
func (c *Client) nodesFolder(layer string) string { return c.cfg.Prefix + "/nodes/" + layer + "/" }

// numbersFolder holds a key for each leased node number.
func (c *Client) numbersFolder() string { return c.cfg.Prefix + "/numbers/" }

func checkName(what, name string) error {
	if name == "" || strings.ContainsAny(name, "/ ") {
		return contract.Errorf(contract.BadRequest, "%s %q: want a name without slash or space", what, name)
	}
	return nil
}
