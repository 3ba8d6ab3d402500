package layers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"gochat/layers/internal/embedded"
	"gochat/layers/internal/store"
)

// UpOptions are what Up is told besides the configuration.
type UpOptions struct {
	Options
	DataDir string // made if it does not exist
}

// Up runs all layers in this process, with the etcd, the Redis and the database that they need: whatever the
// configuration names none of lives in the process, with its data in DataDir. Sessions and what waits in the queue
// are in memory and end with the process; users, rooms and messages stay. A message that was queued and not pushed
// when the process died is in the history, where its addressees find it.
func Up(ctx context.Context, cfg Config, o UpOptions) error {
	o.Layers = All()
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(o.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if cfg.RPC.Secret == "" {
		cfg.RPC.Secret = rand.Text()
	}
	return run(ctx, cfg, o.Options, func(p *process) error { return p.embed(ctx, o.DataDir) })
}

// lockDir keeps two processes from sharing a data directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another gochat", dir), f.Close())
	}
	return f, nil
}

// embed starts what the configuration names none of, and points the configuration there.
func (p *process) embed(ctx context.Context, dir string) error {
	if len(p.cfg.Etcd.Endpoints) == 0 {
		etcd, err := embedded.StartEtcd(ctx, filepath.Join(dir, "etcd"))
		if err != nil {
			return fmt.Errorf("start embedded etcd: %w", err)
		}
		p.life.run("embedded etcd", etcd.Run)
		p.cfg.Etcd.Endpoints = []string{etcd.Endpoint()}
	}
	if len(p.cfg.Redis.Addrs) == 0 {
		redis, err := embedded.StartRedis()
		if err != nil {
			return fmt.Errorf("start embedded redis: %w", err)
		}
		p.life.closing("embedded redis", func() error { redis.Close(); return nil })
		p.cfg.Redis.Addrs, p.cfg.Redis.Password = []string{redis.Addr()}, redis.Password()
	}
	if p.cfg.Database.URL == "" {
		file := filepath.Join(dir, "gochat.db")
		p.ownDatabase = true
		p.cfg.Database.URL = "sqlite:" + file
		if _, err := store.MigrateUp(ctx, p.cfg.Database); err != nil {
			return fmt.Errorf("migrate %s: %w", file, err)
		}
	}
	return nil
}
