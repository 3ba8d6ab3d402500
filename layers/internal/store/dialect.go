package store

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// dialect is the database's name in traces and in the migrations' directories.
type dialect string

const (
	postgres   dialect = "postgres"
	sqliteFile dialect = "sqlite"
)

func (d dialect) gorm(db *sql.DB) gorm.Dialector {
	if d == postgres {
		return gormpostgres.New(gormpostgres.Config{Conn: db})
	}
	return &sqlite.Dialector{Conn: db}
}

func (s *Store) openPostgres(cfg Config) error {
	s.dialect = postgres
	db, err := postgresPool(cfg.URL)
	if err != nil {
		return err
	}
	s.read, err = s.pool(db, cfg.maxConns())
	s.write = s.read
	return err
}

func postgresPool(address string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	db := stdlib.OpenDB(*config)
	db.SetConnMaxLifetime(30 * time.Minute) // so that connections spread again after a failover
	return db, nil
}

// openSQLite opens one connection that writes and others that read beside it. The writer comes first: it turns the
// file's mode to WAL, which needs the file alone.
func (s *Store) openSQLite(cfg Config) (err error) {
	s.dialect = sqliteFile
	s.writing = make(chan struct{}, 1)
	writer, err := sqlitePool(cfg.URL)
	if err != nil {
		return err
	}
	if s.write, err = s.pool(writer, 1); err != nil {
		return err
	}
	readers, err := sqlitePool(cfg.URL, "query_only(1)")
	if err != nil {
		return err
	}
	s.read, err = s.pool(readers, cfg.maxConns())
	return err
}

func sqlitePool(address string, pragmas ...string) (*sql.DB, error) {
	path := strings.TrimPrefix(address, sqliteScheme)
	options := url.Values{
		// Another process, such as one that migrates, may hold the file for a moment.
		"_pragma": append([]string{"busy_timeout(10000)", "journal_mode(WAL)",
			// NORMAL hands each commit to the operating system, so it survives the death of the process.
			"synchronous(NORMAL)", "foreign_keys(1)"}, pragmas...),
		// A transaction that reads first and writes later would fail when another one wrote in between.
		"_txlock": {"immediate"},
	}
	return sql.Open(sqlite.DriverName, "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
}

// raced reports whether another transaction made this one fail, so that a new try may succeed.
func raced(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return true
	case "23505": // unique violation: the same client id, committed after this transaction looked
		return pg.ConstraintName == "messages_sender_client"
	}
	return false
}

// column is one column of a batch of rows.
type column struct {
	name  string
	kind  string // PostgreSQL's type
	array any    // PostgreSQL's form of all values
	value func(row int) any
	rows  int
}

func col[R, T any](name, kind string, rows []R, value func(R) T) column {
	values := make([]T, len(rows))
	for i, r := range rows {
		values[i] = value(r)
	}
	return column{
		name: name,
		kind: kind,
		array: pgtype.Array[T]{
			Elements: values,
			Dims:     []pgtype.ArrayDimension{{Length: int32(len(rows)), LowerBound: 1}},
			Valid:    true,
		},
		value: func(row int) any { return values[row] },
		rows:  len(rows),
	}
}

// maxRows is how many rows one statement takes. PostgreSQL's arrays have no bound near it. SQLite takes 32,766
// parameters, but its driver seeks each one among all of them: several short statements cost less processor time
// than a long one.
func (d dialect) maxRows() int {
	if d == postgres {
		return 10_000
	}
	return 128
}

// with begins a statement with a table v of the columns: at least one row, at most maxRows of them. For PostgreSQL each
// column is one array, so that the statement reads the same for any number of rows and is prepared once.
func (d dialect) with(columns ...column) (text string, args []any) {
	var b strings.Builder
	b.WriteString("WITH v (")
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.name)
	}
	if d == postgres {
		b.WriteString(") AS (SELECT * FROM unnest(")
		for i, c := range columns {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("?::" + c.kind + "[]")
			args = append(args, c.array)
		}
		b.WriteString(")) ")
		return b.String(), args
	}
	b.WriteString(") AS (VALUES ")
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	for i := range columns[0].rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(row)
		for _, c := range columns {
			args = append(args, c.value(i))
		}
	}
	b.WriteString(") ")
	return b.String(), args
}
