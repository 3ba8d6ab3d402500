package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"gochat/observability"
)

const (
	postgresScheme = "postgres://"
	sqliteScheme   = "sqlite:"
)

// Config says which database, and how much of it may be used at once.
type Config struct {
	URL      string `koanf:"url" doc:"postgres://USER:PASSWORD@HOST/DATABASE or sqlite:PATH"`
	MaxConns int    `koanf:"max_conns" doc:"connections in use at once; 0 is 16"`
}

// Validate reports what is wrong with the configuration and what is allowed. It does not repeat the URL, which
// may hold a password.
func (c Config) Validate() error {
	path, isSQLite := strings.CutPrefix(c.URL, sqliteScheme)
	switch {
	case c.URL == "": // whoever needs a database says so when it is opened
	case !isSQLite && !strings.HasPrefix(c.URL, postgresScheme):
		return errors.New("url: want postgres://USER:PASSWORD@HOST/DATABASE or sqlite:PATH")
	case isSQLite && (path == "" || strings.Contains(path, ":memory:")):
		return errors.New("url: want sqlite:PATH with the path of a file")
	case c.MaxConns < 0:
		return fmt.Errorf("max_conns: %d is negative; want the connections in use at once, or 0 for %d", c.MaxConns, defaultMaxConns)
	}
	return nil
}

// check is Validate, and that there is a database.
func (c Config) check() error {
	if c.URL == "" {
		return errors.New("database: url: want postgres://USER:PASSWORD@HOST/DATABASE or sqlite:PATH")
	}
	return c.Validate()
}

const defaultMaxConns = 16

func (c Config) maxConns() int {
	if c.MaxConns == 0 {
		return defaultMaxConns
	}
	return c.MaxConns
}

// Store is safe for concurrent use.
type Store struct {
	dialect dialect
	read    *gorm.DB
	write   *gorm.DB // the same as read but for SQLite
	pools   []*sql.DB

	// writing holds a token while SQLite is written to: of its many connections one can write, and the wait for a
	// turn must end with the caller's ctx. Nil for PostgreSQL, whose own locks do better.
	writing chan struct{}

	telemetry telemetry
}

// Open does not need the database to be there: see Ping. It never migrates: see MigrateUp and CheckSchema. A SQLite
// file that does not exist is made; its directory must exist. The caller closes the Store.
func Open(cfg Config, tel observability.Telemetry) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open database: %w", err)
		}
	}()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Store{}
	defer func() {
		if err != nil {
			_ = s.Close() // what failed is said by err
		}
	}()
	if strings.HasPrefix(cfg.URL, sqliteScheme) {
		err = s.openSQLite(cfg)
	} else {
		err = s.openPostgres(cfg)
	}
	if err != nil {
		return nil, err
	}
	s.telemetry = newTelemetry(tel, s.dialect)
	tel.Metrics.MustRegister(collectors.NewDBStatsCollector(s.pools[0], "gochat"))
	return s, nil
}

// pool adds a pool of connections, none of which is made yet.
func (s *Store) pool(db *sql.DB, conns int) (*gorm.DB, error) {
	s.pools = append(s.pools, db)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return gorm.Open(s.dialect.gorm(db), &gorm.Config{
		Logger:                 logger.Discard, // errors are returned
		DisableAutomaticPing:   true,
		SkipDefaultTransaction: true,
		// PrepareStmt stays off: pgx keeps the statements of each connection, while gorm's cache prepares anew in
		// every transaction.
	})
}

// Close waits for the calls that run and closes the connections.
func (s *Store) Close() error {
	var errs []error
	for _, p := range s.pools {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) (err error) {
	ctx, end := s.begin(ctx, "ping database")
	defer end(&err)
	return s.pools[0].PingContext(ctx)
}

// query is a handle for one statement that reads.
func (s *Store) query(ctx context.Context) *gorm.DB {
	handle := s.read.WithContext(s.uninterrupted(ctx))
	if err := ctx.Err(); err != nil {
		_ = handle.AddError(err) // the statement is not run and answers it
	}
	return handle
}

// uninterrupted is the ctx that the driver gets. The SQLite driver interrupts whatever its connection runs when ctx
// ends, which may by then be another call's statement, or a rollback; and it answers success for a statement
// that it did not begin. Statements on SQLite are short: they are not begun after ctx has ended, and not interrupted.
func (s *Store) uninterrupted(ctx context.Context) context.Context {
	if s.dialect == sqliteFile {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// update runs one statement that writes.
func (s *Store) update(ctx context.Context, statement func(db *gorm.DB) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.writing != nil {
		select {
		case s.writing <- struct{}{}:
			defer func() { <-s.writing }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return statement(s.write.WithContext(s.uninterrupted(ctx)))
}

// maxAttempts is how often a transaction is tried that others get in the way of. Each failure means that another
// one was committed, so a few suffice.
const maxAttempts = 16

// transact runs the statements in one transaction; again from the start, if concurrent ones made it fail.
func (s *Store) transact(ctx context.Context, statements func(tx *gorm.DB) error) error {
	return s.retry(ctx, func(db *gorm.DB) error {
		return db.Transaction(func(tx *gorm.DB) error {
			if err := statements(tx); err != nil {
				return err
			}
			return ctx.Err()
		})
	})
}

// retry runs what is a transaction by itself, again if concurrent ones made it fail.
func (s *Store) retry(ctx context.Context, transaction func(db *gorm.DB) error) error {
	for attempt := 1; ; attempt++ {
		err := s.update(ctx, transaction)
		if err == nil || attempt == maxAttempts || !raced(err) {
			return err
		}
		s.telemetry.retries.Inc()
	}
}
