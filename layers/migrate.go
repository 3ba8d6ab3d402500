package layers

import (
	"context"

	"gochat/layers/internal/rpc"
	"gochat/layers/internal/session"
	"gochat/layers/internal/store"

	"log/slog"
)

// MigrationState is one migration and whether, and when, it was applied.
type MigrationState = store.MigrationState

// MigrateUp applies every migration that the database lacks and answers which.
func MigrateUp(ctx context.Context, cfg Config) ([]string, error) {
	return store.MigrateUp(ctx, cfg.Database)
}

// MigrateDown takes back the last migration and answers which it was, "" if there was none.
func MigrateDown(ctx context.Context, cfg Config) (string, error) {
	return store.MigrateDown(ctx, cfg.Database)
}

// MigrateStatus answers every migration, in order.
func MigrateStatus(ctx context.Context, cfg Config) ([]MigrationState, error) {
	return store.MigrateStatus(ctx, cfg.Database)
}

// ConfigureLibraries sets what libraries keep for the whole process. Only main calls it, once, first.
func ConfigureLibraries(log *slog.Logger) {
	rpc.ConfigureLibrary(log)
	session.ConfigureLibrary(log)
}
