package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"time"

	"gochat/layers/internal/canary"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/record"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/session"
	"gochat/observability"
)

// Addresses are what a process has bound. What its layers do not serve is empty.
type Addresses struct {
	Page, API, WebSocket string
	TCP                  []string
	Admin                string
	DemoUsers            bool // demo, test and admin may log in
}

// Options are what a run is told besides its configuration.
type Options struct {
	Layers []string  // some of All()
	Log    io.Writer // JSON lines
	// Ready is called once every layer works.
	Ready func(Addresses)

	seams seams
}

// process is one run.
type process struct {
	cfg    Config
	layers []string
	seams  seams
	seen   *observability.Observability
	health *observability.Health
	log    *slog.Logger
	life   *lifecycle
	bound  Addresses
	// ownDatabase says that the database is this process's own, in the data directory of up.
	ownDatabase bool

	discovery *discovery.Client
	member    *discovery.Membership
	server    *rpc.Server
	admin     *observability.Admin
	remembers *record.Task // what the task layer has done; nil without it
	views     map[string]*discovery.View

	canary *canary.Canary // of connect; nil if there is none
}

// Run runs the layers until ctx ends, then drains them in the reverse order of their start and answers what went
// wrong. It waits for dependencies that are away, and says for which.
func Run(ctx context.Context, cfg Config, o Options) error {
	if err := cfg.check(o.Layers); err != nil {
		return err
	}
	return run(ctx, cfg, o, func(*process) error { return nil })
}

// heapBallast makes the first collection come when twice as much is in use.
const heapBallast = 32 << 20

// run calls prepare once the admin server answers, for dependencies that live in the process.
func run(ctx context.Context, cfg Config, o Options, prepare func(*process) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1) // the first part that ended by itself
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
		cancel()
	}
	// A process that holds little would collect its garbage all the time; this, never touched, is no memory.
	ballast := make([]byte, heapBallast)
	defer runtime.KeepAlive(ballast)
	seen, err := observability.Setup(ctx, observability.Config{Log: cfg.Log, Trace: cfg.Trace}, o.Log)
	if err != nil {
		return fmt.Errorf("set up observability: %w", err)
	}
	p := &process{
		cfg: cfg, layers: o.Layers, seams: o.seams, seen: seen, health: observability.NewHealth(), log: seen.Log(),
		life:  &lifecycle{log: seen.Log(), fail: fail},
		views: make(map[string]*discovery.View),
	}
	p.life.closing("observability", func() error { return seen.Shutdown(context.WithoutCancel(ctx)) })
	err = p.work(ctx, o, prepare)
	if stopErr := p.life.stop(); err == nil {
		err = stopErr
	}
	select {
	case first := <-failed:
		return first // whatever else went wrong followed from it
	default:
		return err
	}
}

// work starts everything, is ready, and returns when it is told to stop.
func (p *process) work(ctx context.Context, o Options, prepare func(*process) error) error {
	p.health.Set("start", errors.New("starting"))
	if err := p.startAdmin(); err != nil {
		return err
	}
	err := prepare(p)
	if err == nil {
		err = p.start(ctx)
	}
	if ctx.Err() != nil {
		return nil // told to stop while it still waited for something
	}
	if err != nil {
		return err
	}
	p.health.Set("start", nil)
	p.log.Info("ready", "layers", p.layers, "page", p.bound.Page, "api", p.bound.API, "websocket", p.bound.WebSocket,
		"tcp", p.bound.TCP, "admin", p.bound.Admin)
	if o.Ready != nil {
		o.Ready(p.bound)
	}
	<-ctx.Done()
	p.log.Info("stopping")
	p.health.Set("start", errors.New("stopping"))
	return nil
}

func (p *process) has(layer string) bool { return slices.Contains(p.layers, layer) }

func (p *process) startAdmin() error {
	admin, err := observability.NewAdmin(p.cfg.Admin.Listen, p.seen, p.health, func() any { return Redacted(p.cfg) })
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	p.admin, p.bound.Admin = admin, admin.Addr()
	p.life.run("admin", admin.Run)
	return nil
}

// start brings up what the layers rest on, then the layers.
func (p *process) start(ctx context.Context) error {
	if err := p.startCluster(ctx); err != nil {
		return err
	}
	steps := []struct {
		layer string
		start func(context.Context) error
	}{
		{contract.LayerLogic, p.startLogic},
		{contract.LayerTask, p.startTask}, // before connect, so that pushes go on while connect drains
		{contract.LayerConnect, p.startConnect},
		{contract.LayerAPI, p.startAPI},
		{contract.LayerSite, p.startSite},
	}
	for _, step := range steps {
		if p.has(step.layer) {
			if err := step.start(ctx); err != nil {
				return err
			}
		}
	}
	// It ends first. Nothing waits for it: what it needs may be in processes that wait for this one.
	if p.canary != nil {
		p.life.run("canary", p.canary.Run)
	}
	return nil
}

// startCluster makes this process a member: a lease, a node number, and a port for the other layers.
func (p *process) startCluster(ctx context.Context) error {
	tel, err := p.seen.Layer("cluster", hostName())
	if err != nil {
		return err
	}
	if p.discovery, err = discovery.Open(p.cfg.Etcd, tel); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	p.life.closing("etcd client", p.discovery.Close)
	if err := await(ctx, "etcd", p.health, p.log, p.discovery.Ping); err != nil {
		return err
	}
	if p.member, err = p.discovery.Join(ctx); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	p.life.run("membership", p.member.Run)
	p.health.Watch("etcd", func(ctx context.Context) error {
		if _, alive := p.member.Number(); !alive {
			return fmt.Errorf("the lease is lost, no ids are issued: %w", p.discovery.Ping(ctx))
		}
		return nil
	})
	if err := p.serveWhere(ctx, tel); err != nil {
		return err
	}
	if !p.has(contract.LayerLogic) && !p.has(contract.LayerConnect) && !p.has(contract.LayerTask) {
		return nil
	}
	if p.server, err = rpc.NewServer(p.cfg.RPC, p.log); err != nil {
		return err
	}
	return nil
}

// hostName names the process before it has a number.
func hostName() string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "unknown"
}

// view is the picture of a layer's nodes, kept from the first time it is asked for.
func (p *process) view(ctx context.Context, layer string) (*discovery.View, error) {
	if v := p.views[layer]; v != nil {
		return v, nil
	}
	v, err := p.discovery.Watch(context.WithoutCancel(ctx), layer) // until the client is closed
	if err != nil {
		return nil, fmt.Errorf("watch %s nodes: %w", layer, err)
	}
	p.views[layer] = v
	return v, nil
}

// telemetry is by what a layer is seen, as the node that it is now.
func (p *process) telemetry(layer string) (observability.Telemetry, error) {
	instance := layer
	if number, alive := p.member.Number(); alive {
		instance = fmt.Sprintf("%s-%d", layer, number)
	}
	return p.seen.Layer(layer, instance)
}

// sessions opens a layer's own access to what is in Redis.
func (p *process) sessions(ctx context.Context, layer string, tel observability.Telemetry) (*session.Store, error) {
	s, err := session.Open(p.cfg.Redis, tel)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	p.life.closing(layer+" redis", s.Close)
	return s, p.awaitAndWatch(ctx, layer+": redis", s.Ping)
}

// awaitAndWatch waits until a dependency answers; from then on readiness asks it anew each time.
func (p *process) awaitAndWatch(ctx context.Context, what string, ask func(context.Context) error) error {
	if err := await(ctx, what, p.health, p.log, ask); err != nil {
		return err
	}
	p.health.Watch(what, ask)
	return nil
}

// queue opens a layer's own end of the queue. One that only publishes has no owner.
func (p *process) queue(ctx context.Context, layer string, owner queue.Ownership, tel observability.Telemetry) (queue.Queue, error) {
	q, err := p.cfg.Queue.open(p.cfg.Redis, owner, tel)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	p.life.closing(layer+" queue", q.Close)
	return seam(p.seams.queue, q), p.awaitAndWatch(ctx, layer+": queue", q.Ping)
}

// Bounds of the end.
const (
	rpcDrain   = 5 * time.Second
	leaveGrace = 300 * time.Millisecond // for others to see that a node has left before it stops answering
)

// serve starts the rpc server when the last layer that it serves has been added to it: they are added in this order.
func (p *process) serve(last string) {
	order := []string{contract.LayerLogic, contract.LayerTask, contract.LayerConnect}
	if slices.ContainsFunc(order[slices.Index(order, last)+1:], p.has) {
		return
	}
	p.life.run("rpc", func(ctx context.Context) error { return p.server.Run(ctx, rpcDrain) })
}

// leave makes it known that a layer answers no more, and gives others the time to see it.
func (p *process) leave(layer string, grace time.Duration) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), waitMost)
		defer cancel()
		if err := p.member.Deregister(ctx, layer); err != nil {
			p.log.Warn("node not deregistered, its lease's end does it", "layer", layer, "err", err)
		}
		time.Sleep(grace)
		return nil
	}
}
