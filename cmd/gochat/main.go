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

// exitCode is 2 for a mistake in the flags of bench, whose 1 means that it has found something.
func exitCode(err error) int {
	if usage := (*layers.BenchUsageError)(nil); errors.As(err, &usage) {
		return 2
	}
	return 1
}
