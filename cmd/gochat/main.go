// Command gochat runs gochat's layers and tends what they rest on.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"gochat/layers"
)

// version is set when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	layers.ConfigureLibraries(slog.New(slog.DiscardHandler))
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gochat:", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is 2 for a mistake in the flags of bench and where, whose 1 means that they have found something, or nothing.
func exitCode(err error) int {
	bench, where := (*layers.BenchUsageError)(nil), (*layers.WhereUsageError)(nil)
	if errors.As(err, &bench) || errors.As(err, &where) {
		return 2
	}
	return 1
}
