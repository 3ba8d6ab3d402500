package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"gochat/layers/api"
	"gochat/layers/connect"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	queueredis "gochat/layers/internal/queue/redis"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/session"
	"gochat/layers/internal/store"
	"gochat/layers/logic"
	"gochat/layers/site"
	"gochat/layers/task"
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
}

// process is one run.
type process struct {
	cfg    Config
	layers []string
	seen   *observability.Observability
	health *observability.Health
	log    *slog.Logger
	life   *lifecycle
	bound  Addresses

	discovery *discovery.Client
	member    *discovery.Membership
	server    *rpc.Server
	views     map[string]*discovery.View
}

// Run runs the layers until ctx ends, then drains them in the reverse order of their start and answers what went
// wrong. It waits for dependencies that are away, and says for which.
func Run(ctx context.Context, cfg Config, o Options) error {
	if err := cfg.check(o.Layers); err != nil {
		return err
	}
	return run(ctx, cfg, o, func(*process) error { return nil })
}

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
	seen, err := observability.Setup(ctx, observability.Config{Log: cfg.Log, Trace: cfg.Trace}, o.Log)
	if err != nil {
		return fmt.Errorf("set up observability: %w", err)
	}
	p := &process{
		cfg: cfg, layers: o.Layers, seen: seen, health: observability.NewHealth(), log: seen.Log(),
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
	p.bound.Admin = admin.Addr()
	p.life.run("admin", admin.Run)
	return nil
}

// start brings up what the layers rest on, then the layers.
func (p *process) start(ctx context.Context) error {
	steps := []struct {
		needed bool
		start  func(context.Context) error
	}{
		{p.has(contract.LayerLogic) || p.has(contract.LayerConnect) || p.has(contract.LayerTask) || p.has(contract.LayerAPI), p.startCluster},
		{p.has(contract.LayerLogic), p.startLogic},
		{p.has(contract.LayerConnect), p.startConnect},
		{p.has(contract.LayerTask), p.startTask},
		{p.has(contract.LayerAPI), p.startAPI},
		{p.has(contract.LayerSite), p.startSite},
	}
	for _, step := range steps {
		if step.needed {
			if err := step.start(ctx); err != nil {
				return err
			}
		}
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
	if !p.has(contract.LayerLogic) && !p.has(contract.LayerConnect) {
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
	if p.member != nil {
		if number, alive := p.member.Number(); alive {
			instance = fmt.Sprintf("%s-%d", layer, number)
		}
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

// queue opens a layer's own end of the queue.
func (p *process) queue(ctx context.Context, layer string, owner *discovery.Partitions, tel observability.Telemetry) (*queueredis.Queue, error) {
	var q *queueredis.Queue
	var err error
	if owner == nil {
		q, err = queueredis.New(p.cfg.Queue.redis(p.cfg.Redis), nil, tel)
	} else {
		q, err = queueredis.New(p.cfg.Queue.redis(p.cfg.Redis), owner, tel)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	p.life.closing(layer+" queue", q.Close)
	return q, p.awaitAndWatch(ctx, layer+": queue", q.Ping)
}

// Bounds of the end.
const (
	rpcDrain   = 5 * time.Second
	leaveGrace = 300 * time.Millisecond // for others to see that a node has left before it stops answering
)

// serve starts the rpc server when the last layer that it serves has been added to it.
func (p *process) serve(last string) {
	if last == contract.LayerLogic && p.has(contract.LayerConnect) {
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

func (p *process) startLogic(ctx context.Context) error {
	tel, err := p.telemetry(contract.LayerLogic)
	if err != nil {
		return err
	}
	connects, err := p.view(ctx, contract.LayerConnect)
	if err != nil {
		return err
	}
	logics, err := p.view(ctx, contract.LayerLogic)
	if err != nil {
		return err
	}
	db, err := store.Open(p.cfg.Database, tel)
	if err != nil {
		return err
	}
	p.life.closing("database", db.Close)
	if err := await(ctx, "logic: database", p.health, p.log, db.CheckSchema); err != nil {
		return err
	}
	p.health.Watch("logic: database", db.Ping) // the schema does not go away
	sessions, err := p.sessions(ctx, contract.LayerLogic, tel)
	if err != nil {
		return err
	}
	q, err := p.queue(ctx, contract.LayerLogic, nil, tel)
	if err != nil {
		return err
	}
	clients := rpc.NewClients(p.cfg.RPC, tel)
	toConnect, toLogic := clients.Connect(peers(connects)), clients.Logic(peers(logics))
	p.life.closing("logic clients", func() error { _ = toLogic.Close(); return toConnect.Close() })
	l, err := logic.New(p.cfg.Logic, p.cfg.Auth, logic.Dependencies{
		Store: db, Sessions: sessions, Presence: sessions, Publisher: q, IDs: p.ids(),
		Nodes: connectNodes{connects, toConnect}, Peers: toLogic, Connects: toConnect, Singleton: p.member,
	}, tel)
	if err != nil {
		return fmt.Errorf("logic: %w", err)
	}
	if err := p.server.ServeLogic(l, tel); err != nil {
		return err
	}
	if p.bound.DemoUsers {
		if err := l.MakeDemoUsers(ctx); err != nil {
			return fmt.Errorf("make the demo users: %w", err)
		}
	}
	p.life.run("logic", l.Run)
	p.serve(contract.LayerLogic)
	if !p.has(contract.LayerConnect) {
		return p.registerLast(ctx, contract.LayerLogic)
	}
	return nil
}

// registerLast registers a layer and makes its leaving the first thing of its end.
func (p *process) registerLast(ctx context.Context, layer string) error {
	if _, err := p.member.Register(ctx, layer, p.server.Addr()); err != nil {
		return fmt.Errorf("register %s: %w", layer, err)
	}
	grace := leaveGrace
	if layer == contract.LayerConnect {
		grace = 0 // it has drained: there is nothing left to push to
	}
	p.life.closing(layer+" registration", p.leave(layer, grace))
	return nil
}

func (p *process) startConnect(ctx context.Context) error {
	tel, err := p.telemetry(contract.LayerConnect)
	if err != nil {
		return err
	}
	logics, err := p.view(ctx, contract.LayerLogic)
	if err != nil {
		return err
	}
	routes, err := p.sessions(ctx, contract.LayerConnect, tel)
	if err != nil {
		return err
	}
	toLogic := rpc.NewClients(p.cfg.RPC, tel).Logic(peers(logics))
	p.life.closing("connect clients", toLogic.Close)
	self := func() (contract.NodeRef, bool) {
		node, alive := p.member.Node(contract.LayerConnect)
		return node.Ref, alive
	}
	c, err := connect.New(p.cfg.Connect, toLogic, routes, self, tel)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := p.server.ServeConnect(c, tel); err != nil {
		_ = c.Close() // the other error is the one to tell
		return err
	}
	p.serve(contract.LayerConnect)
	if p.has(contract.LayerLogic) {
		if err := p.registerLast(ctx, contract.LayerLogic); err != nil {
			return err
		}
	}
	// Registered before it accepts and until it has drained: pushes come to it as long as it has connections.
	if err := p.registerLast(ctx, contract.LayerConnect); err != nil {
		_ = c.Close() // the other error is the one to tell
		return err
	}
	if err := p.awaitNodes(ctx, "connect: logic", logics); err != nil {
		return err
	}
	p.bound.WebSocket, p.bound.TCP = c.WebSocketAddr(), c.TCPAddrs()
	p.life.run("connect", c.Run)
	return nil
}

// awaitNodes waits until the view has a node, and from then on watches that it has.
func (p *process) awaitNodes(ctx context.Context, what string, view *discovery.View) error {
	has := func(context.Context) error {
		if len(view.Nodes()) == 0 {
			return fmt.Errorf("no %s node is registered", view.Layer())
		}
		return nil
	}
	return p.awaitAndWatch(ctx, what, has)
}

func (p *process) startTask(ctx context.Context) error {
	tel, err := p.telemetry(contract.LayerTask)
	if err != nil {
		return err
	}
	connects, err := p.view(ctx, contract.LayerConnect)
	if err != nil {
		return err
	}
	tasks, err := p.view(ctx, contract.LayerTask)
	if err != nil {
		return err
	}
	routes, err := p.sessions(ctx, contract.LayerTask, tel)
	if err != nil {
		return err
	}
	// A push to a node that the view has not yet seen would be taken for one to a dead node.
	if err := await(ctx, "task: connect nodes", p.health, p.log, connects.WaitSynced); err != nil {
		return err
	}
	// Nobody calls a task: its address is where its operators find it.
	if _, err := p.member.Register(ctx, contract.LayerTask, p.bound.Admin); err != nil {
		return fmt.Errorf("register task: %w", err)
	}
	q, err := p.queue(ctx, contract.LayerTask, p.member.Partitions("deliveries", tasks), tel)
	if err != nil {
		return err
	}
	toConnect := rpc.NewClients(p.cfg.RPC, tel).Connect(peers(connects))
	p.life.closing("task clients", toConnect.Close)
	t := task.New(p.cfg.Task, q, routes, connectNodes{connects, toConnect}, tel)
	p.life.run("task", t.Run)
	// Before the task drains: the others take its partitions while it does.
	p.life.closing("task registration", p.leave(contract.LayerTask, 0))
	return nil
}

func (p *process) startAPI(ctx context.Context) error {
	tel, err := p.telemetry(contract.LayerAPI)
	if err != nil {
		return err
	}
	logics, err := p.view(ctx, contract.LayerLogic)
	if err != nil {
		return err
	}
	toLogic := rpc.NewClients(p.cfg.RPC, tel).Logic(peers(logics))
	p.life.closing("api clients", toLogic.Close)
	a, err := api.New(p.cfg.API, toLogic, tel)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if err := p.awaitNodes(ctx, "api: logic", logics); err != nil {
		_ = a.Close() // the other error is the one to tell
		return err
	}
	p.bound.API = a.Addr()
	p.life.run("api", a.Run)
	return nil
}

func (p *process) startSite(context.Context) error {
	tel, err := p.telemetry(contract.LayerSite)
	if err != nil {
		return err
	}
	s, err := site.New(p.cfg.Site, p.sitePorts(), tel)
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	p.bound.Page = s.Addr()
	p.life.run("site", s.Run)
	return nil
}
