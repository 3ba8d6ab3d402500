package layers

import (
	"context"
	"io"
	"slices"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/record"
	"gochat/layers/internal/rpc"
	"gochat/layers/internal/where"
	"gochat/observability"
)

type (
	// WhereOptions say which message Where looks for, and whom it asks.
	WhereOptions = where.Options
	// WhereUsageError is a mistake in WhereOptions.
	WhereUsageError = where.UsageError
)

// Where prints where a message is. It fails with a *WhereUsageError before it has asked, and with any other error if
// it cannot ask, or if the message is unknown or has expired.
func Where(ctx context.Context, o WhereOptions, out io.Writer) error { return where.Run(ctx, o, out) }

// serveWhere has the admin server answer where messages are, by asking all logic and all task nodes.
func (p *process) serveWhere(ctx context.Context, tel observability.Telemetry) error {
	asks := []string{contract.LayerLogic, contract.LayerTask, contract.LayerConnect, contract.LayerAPI}
	if !slices.ContainsFunc(asks, p.has) {
		return nil // it need not know the secret of the others
	}
	logics, err := p.view(ctx, contract.LayerLogic)
	if err != nil {
		return err
	}
	tasks, err := p.view(ctx, contract.LayerTask)
	if err != nil {
		return err
	}
	clients := rpc.NewClients(p.cfg.RPC, tel)
	toLogic, toTask := clients.Logic(peers(logics)), clients.Task(peers(tasks))
	p.life.closing("where clients", func() error { _ = toTask.Close(); return toLogic.Close() })
	p.admin.Handle(where.Pattern, where.Handler(toLogic, toTask, p.log))
	return nil
}

// serveTask has the rpc server answer what this process's task layer has done. It needs nothing of that layer, so that
// the layers that share the server need not wait for what the task layer waits for.
func (p *process) serveTask(ctx context.Context, tel observability.Telemetry) error {
	p.remembers = record.NewTask(p.cfg.Record, tel)
	if err := p.server.ServeTask(p.remembers, tel); err != nil {
		return err
	}
	p.serve(contract.LayerTask)
	if p.has(contract.LayerLogic) && !p.has(contract.LayerConnect) {
		return p.registerLast(ctx, contract.LayerLogic)
	}
	return nil
}
