package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxSocketPath is what the system allows for the path of a unix socket, on the strictest of systems.
const maxSocketPath = 100

// Etcd is an etcd of one member inside this process. It answers on a unix socket in a folder that only this user
// may enter, so that it needs neither a port nor a password.
//
// It begins empty at every start. All that the layers keep in etcd is who is alive at this moment, which nothing
// of a former process is; and a store that is thrown away can neither be damaged by a crash nor need a repair. For
// the same reason nothing is synced to disk.
type Etcd struct {
	server  *embed.Etcd
	socket  string
	scratch string // where the socket is, if dir is too deep for one
	watch   sync.WaitGroup
	closed  sync.Once
	failure chan error // the first thing that it cannot go on after
}

// StartEtcd starts an etcd that keeps its files in dir, which it makes, and returns once it answers. Ending ctx
// ends the waiting, not the etcd. It fails if another process's etcd answers in dir.
func StartEtcd(ctx context.Context, dir string) (_ *Etcd, err error) {
	e := &Etcd{failure: make(chan error, 1)}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if err := e.prepare(dir); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "data")
	cfg.ListenPeerUrls = nil // there are none
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: e.socket}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.TickMs, cfg.ElectionMs = 10, 100 // a single member elects itself: waiting longer buys nothing
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	cfg.QuotaBackendBytes = 64 << 20
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 1000, 100
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	cfg.LogLevel = "fatal"
	// What fails is returned, or comes by Err; what etcd means to end the process for, without a word where nothing is logged, ends Run.
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapcore.NewNopCore(), zap.WithFatalHook(fatal{e})))

	if e.server, err = e.start(func() (*embed.Etcd, error) { return embed.StartEtcd(cfg) }); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-e.server.Server.ReadyNotify():
	case err := <-e.failure:
		e.server = nil // it is not closed: what has failed may be what its end waits for
		return nil, fmt.Errorf("start etcd: %w", err)
	case err := <-e.server.Err():
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		return nil, fmt.Errorf("start etcd: %w", ctx.Err())
	}
	e.watch.Go(func() {
		for err := range e.server.Err() { // closed by Close
			e.fail(err)
		}
	})
	return e, nil
}

// start starts a server on a goroutine of its own, which may end in it.
func (e *Etcd) start(server func() (*embed.Etcd, error)) (*embed.Etcd, error) {
	type result struct {
		server *embed.Etcd
		err    error
	}
	started := make(chan result, 1)
	go func() {
		s, err := server()
		started <- result{s, err}
	}()
	select {
	case r := <-started:
		return r.server, r.err
	case err := <-e.failure:
		return nil, err
	}
}

func (e *Etcd) prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	e.socket = filepath.Join(dir, "etcd.sock")
	if len(e.socket) > maxSocketPath {
		if e.scratch, err = os.MkdirTemp("", "gochat-"); err != nil {
			return fmt.Errorf("start etcd: %w", err)
		}
		e.socket = filepath.Join(e.scratch, "etcd.sock")
	}
	if conn, err := net.DialTimeout("unix", e.socket, time.Second); err == nil {
		_ = conn.Close()
		return fmt.Errorf("start etcd: %s is in use by another process", dir)
	}
	return errors.Join(os.RemoveAll(e.socket), os.RemoveAll(filepath.Join(dir, "data")))
}

// Run returns nil once ctx ends, or before that what the etcd cannot go on after. In the first case the etcd is closed.
func (e *Etcd) Run(ctx context.Context) error {
	select {
	case err := <-e.failure:
		// It is not closed: what has failed may be what its end waits for.
		return err
	case <-ctx.Done():
		e.Close()
		return nil
	}
}

// fail notes the first failure.
func (e *Etcd) fail(err error) {
	select {
	case e.failure <- err:
	default:
	}
}

// fatal is what etcd's logger does in place of ending the process.
type fatal struct{ etcd *Etcd }

// OnWrite implements zapcore.CheckWriteHook: the goroutine may not go on.
func (f fatal) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	said := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(said)
	}
	f.etcd.fail(fmt.Errorf("%s: %v", entry.Message, said.Fields))
	runtime.Goexit()
}

// Endpoint is what a client connects to.
func (e *Etcd) Endpoint() string { return "unix://" + e.socket }

// Close stops the etcd and waits for all of it. Clients are closed first: for those that are not, it waits some
// seconds.
func (e *Etcd) Close() {
	e.closed.Do(func() {
		if e.server != nil {
			e.server.Close()
		}
		e.watch.Wait()
		if e.scratch != "" {
			_ = os.RemoveAll(e.scratch) // holds nothing but a socket
		}
	})
}
