// Package observability is how the layers are seen: logs, metrics and traces handed to every New as one
// Telemetry, and the admin server that answers for a process. It imports nothing else of gochat.
package observability

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Telemetry is what a component is given to be seen by. None of the three is ever nil.
type Telemetry struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Traces  trace.TracerProvider
}

// Discard is a Telemetry that keeps nothing, with a registry of its own: for tests and for commands that end at
// once.
func Discard() Telemetry {
	return Telemetry{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Traces: noop.NewTracerProvider()}
}
