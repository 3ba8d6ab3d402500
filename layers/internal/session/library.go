package session

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// ConfigureLibrary sets where go-redis logs, which it keeps for the whole process. Only a program's main part calls
// it, once, before anything else of this package is used.
func ConfigureLibrary(log *slog.Logger) { redis.SetLogger(libraryLog{log.With("lib", "go-redis")}) }

// libraryLog hands go-redis's log on at debug level: a lost connection is reported by who used it.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, v...))
}
