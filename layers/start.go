package layers

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	"gochat/layers/api"
	"gochat/layers/connect"
	"gochat/layers/internal/canary"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/discovery"
	"gochat/layers/internal/ids"
	"gochat/layers/internal/queue"
	"gochat/layers/internal/record"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/store"
	"gochat/layers/logic"
	"gochat/layers/site"
	"gochat/layers/task"
	"gochat/observability"
)

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
		Store: db, Sessions: sessions, Presence: sessions, Publisher: q, IDs: ids.New(p.member.Number),
		Nodes: connectNodes{connects, toConnect}, Peers: toLogic, Connects: toConnect, Singleton: p.member,
		Records: record.NewLogic(p.cfg.Record, tel),
	}, tel)
	if err != nil {
		return fmt.Errorf("logic: %w", err)
	}
	p.health.Watch("logic: commit", l.CheckCommit)
	if err := p.server.ServeLogic(seam[contract.LogicService](p.seams.logic, l), tel); err != nil {
		return err
	}
	if p.ownDatabase && p.cfg.onLoopback() {
		if err := p.demoUsers(ctx, l); err != nil {
			return err
		}
	}
	p.life.run("logic", l.Run)
	p.serve(contract.LayerLogic)
	if !p.has(contract.LayerTask) && !p.has(contract.LayerConnect) {
		return p.registerLast(ctx, contract.LayerLogic)
	}
	return nil
}

// demoUsers makes the demo users, and lets them in.
func (p *process) demoUsers(ctx context.Context, l *logic.Logic) error {
	return await(ctx, "logic: demo users", p.health, p.log, func(ctx context.Context) error {
		if err := l.MakeDemoUsers(ctx); err != nil {
			return fmt.Errorf("make the demo users: %w", err)
		}
		open, err := l.DemoUsers(ctx)
		if err != nil {
			return fmt.Errorf("look for demo users: %w", err)
		}
		p.bound.DemoUsers = len(open) > 0
		return nil
	})
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
	c, err := connect.New(p.cfg.Connect, seam[contract.Logic](p.seams.toLogic, toLogic), routes, self, tel)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := p.server.ServeConnect(seam[contract.Connect](p.seams.connect, c), tel); err != nil {
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
		_ = c.Close() // the other error is the one to tell
		return err
	}
	p.bound.WebSocket, p.bound.TCP = c.WebSocketAddr(), c.TCPAddrs()
	p.life.run("connect", c.Run)
	if p.cfg.Canary.On() {
		p.canary = canary.New(p.cfg.Canary, toLogic, self, p.bound.WebSocket, p.bound.TCP, tel)
		p.health.Watch("connect: canary", p.canary.Check)
	}
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
	if err := p.serveTask(ctx, tel); err != nil {
		return err
	}
	connects, err := p.view(ctx, contract.LayerConnect)
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
	// It is called by those who ask where a message is.
	if err := p.makeKnown(ctx, contract.LayerTask, p.server.Addr()); err != nil {
		return err
	}
	owner, err := p.partitions(ctx)
	if err != nil {
		return err
	}
	q, err := p.queue(ctx, contract.LayerTask, owner, tel)
	if err != nil {
		return err
	}
	toConnect := rpc.NewClients(p.cfg.RPC, tel).Connect(peers(connects))
	p.life.closing("task clients", toConnect.Close)
	t := task.New(p.cfg.Task, q, routes, seam[task.Connects](p.seams.toConnect, connectNodes{connects, toConnect}), p.remembers, tel)
	p.life.run("task", t.Run)
	// Before the task drains: the others take its partitions while it does.
	p.life.closing("task registration", p.leave(contract.LayerTask, 0))
	return nil
}

// partitions divides the queue's among the task nodes, for the drivers that have somebody else do so.
func (p *process) partitions(ctx context.Context) (queue.Ownership, error) {
	if !p.cfg.Queue.owned() {
		return nil, nil
	}
	tasks, err := p.view(ctx, contract.LayerTask)
	if err != nil {
		return nil, err
	}
	return p.member.Partitions("deliveries", tasks), nil
}

// makeKnown registers a layer at the address where it answers other layers, or, of one that no other calls, people.
func (p *process) makeKnown(ctx context.Context, layer, addr string) error {
	if _, err := p.member.Register(ctx, layer, addr); err != nil {
		return fmt.Errorf("register %s: %w", layer, err)
	}
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
	a, err := api.New(p.cfg.API, seam[contract.Logic](p.seams.toLogic, toLogic), tel)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if err := p.awaitNodes(ctx, "api: logic", logics); err != nil {
		_ = a.Close() // the other error is the one to tell
		return err
	}
	p.bound.API = a.Addr()
	if err := p.makeKnown(ctx, contract.LayerAPI, a.Addr()); err != nil {
		_ = a.Close() // the other error is the one to tell
		return err
	}
	p.life.run("api", a.Run)
	p.life.closing("api registration", p.leave(contract.LayerAPI, 0))
	return nil
}

func (p *process) startSite(ctx context.Context) error {
	tel, err := p.telemetry(contract.LayerSite)
	if err != nil {
		return err
	}
	s, err := site.New(p.cfg.Site, p.sitePorts(), tel)
	if err != nil {
		return err
	}
	if err := p.makeKnown(ctx, contract.LayerSite, s.Addr()); err != nil {
		_ = s.Close() // the other error is the one to tell
		return err
	}
	p.bound.Page = s.Addr()
	p.life.run("site", s.Run)
	p.life.closing("site registration", p.leave(contract.LayerSite, 0))
	return nil
}

// sitePorts are where the page finds the API and the websocket: what this process has bound, else what it is
// configured to. Traces are shown where the admin server is out of others' reach and the process runs every layer:
// elsewhere it has only parts of them.
func (p *process) sitePorts() site.Ports {
	port := func(bound, configured string) int {
		if bound == "" {
			bound = configured
		}
		_, port, _ := net.SplitHostPort(bound)
		n, _ := strconv.Atoi(port) // 0 if there is none: the page then says that it cannot connect
		return n
	}
	ports := site.Ports{
		API:       port(p.bound.API, p.cfg.API.Listen),
		WebSocket: port(p.bound.WebSocket, p.cfg.Connect.WebSocket.Listen),
	}
	all := !slices.ContainsFunc(All(), func(layer string) bool { return !p.has(layer) })
	if p.seen.KeepsTraces() && all && isLoopback(p.bound.Admin) {
		ports.TracesURL = "http://" + p.bound.Admin + observability.TracesPath
	}
	return ports
}
