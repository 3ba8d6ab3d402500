package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"gochat/migrations"
)

// MigrationState is one migration the program knows.
type MigrationState struct {
	Name      string // of its file
	Applied   bool
	AppliedAt time.Time // UTC; zero if it is not applied
}

// MigrateUp applies what is pending, each migration in a transaction of its own, and answers the names of those
// applied, also if a later one failed. Concurrent calls on PostgreSQL wait for one another.
func MigrateUp(ctx context.Context, cfg Config) (applied []string, err error) {
	err = migrate(ctx, cfg, func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			results = partial.Applied
		}
		for _, r := range results {
			applied = append(applied, path.Base(r.Source.Path))
		}
		return err
	})
	return applied, err
}

// MigrateDown reverts the migration applied last, and answers its name; "" if none was applied. What the migration
// made is gone with all its data.
func MigrateDown(ctx context.Context, cfg Config) (reverted string, err error) {
	err = migrate(ctx, cfg, func(p *goose.Provider) error {
		result, err := p.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return err
		}
		reverted = path.Base(result.Source.Path)
		return nil
	})
	return reverted, err
}

// MigrateStatus answers every migration the program knows, in order.
func MigrateStatus(ctx context.Context, cfg Config) (states []MigrationState, err error) {
	err = migrate(ctx, cfg, func(p *goose.Provider) error {
		status, err := p.Status(ctx)
		for _, m := range status {
			state := MigrationState{Name: path.Base(m.Source.Path), Applied: m.State == goose.StateApplied}
			if state.Applied {
				state.AppliedAt = m.AppliedAt.UTC()
			}
			states = append(states, state)
		}
		return err
	})
	return states, err
}

func migrate(ctx context.Context, cfg Config, work func(*goose.Provider) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("migrate database: %w", err)
		}
	}()
	if err := cfg.check(); err != nil {
		return err
	}
	var db *sql.DB
	var options []goose.ProviderOption
	d := postgres
	if strings.HasPrefix(cfg.URL, sqliteScheme) {
		d = sqliteFile
		db, err = sqlitePool(cfg.URL)
	} else if db, err = postgresPool(cfg.URL); err == nil {
		var locker lock.SessionLocker
		locker, err = lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		options = append(options, goose.WithSessionLocker(locker))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	p, err := provider(d, db, options...)
	if err != nil {
		return err
	}
	return work(p)
}

func provider(d dialect, db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations.FS, string(d))
	if err != nil {
		return nil, err
	}
	gooseDialect := goose.DialectPostgres
	if d == sqliteFile {
		gooseDialect = goose.DialectSQLite3
	}
	return goose.NewProvider(gooseDialect, db, files, append(options, goose.WithDisableGlobalRegistry(true))...)
}

// CheckSchema reports whether the database has exactly the migrations that the program knows. It changes nothing.
func (s *Store) CheckSchema(ctx context.Context) (err error) {
	ctx, end := s.begin(ctx, "check schema")
	defer end(&err)
	p, err := provider(s.dialect, s.pools[0])
	if err != nil {
		return err
	}
	exists := `SELECT to_regclass('goose_db_version') IS NOT NULL`
	if s.dialect == sqliteFile {
		exists = `SELECT count(*) > 0 FROM sqlite_master WHERE name = 'goose_db_version'`
	}
	var migrated bool
	if err := s.query(ctx).Raw(exists).Scan(&migrated).Error; err != nil {
		return err
	}
	var versions []int64
	if migrated {
		const applied = `SELECT version_id FROM goose_db_version WHERE is_applied AND version_id > 0`
		if err := s.query(ctx).Raw(applied).Scan(&versions).Error; err != nil {
			return err
		}
	}
	unknown := make(map[int64]bool, len(versions))
	for _, v := range versions {
		unknown[v] = true
	}
	pending := 0
	for _, source := range p.ListSources() {
		if !unknown[source.Version] {
			pending++
		}
		delete(unknown, source.Version)
	}
	switch {
	case len(unknown) > 0:
		return errors.New("the database is newer than this program; run a newer gochat")
	case pending > 0:
		return fmt.Errorf("%d migrations are pending; run gochat migrate up", pending)
	}
	return nil
}
