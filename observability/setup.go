package observability

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config is what of telemetry is not said by the standard OTEL_* variables.
type Config struct {
	Log   LogConfig   `koanf:"log"`
	Trace TraceConfig `koanf:"trace"`
}

// LogConfig is the section "log".
type LogConfig struct {
	Level string `koanf:"level" doc:"least level that is logged: debug, info, warn or error"`
}

// TraceConfig is the section "trace".
type TraceConfig struct {
	SampleRatio float64 `koanf:"sample_ratio" doc:"share, 0 to 1, of the requests without a sampled parent that are traced; OTEL_TRACES_SAMPLER overrides it"`
	Keep        int     `koanf:"keep" doc:"how many of the latest traces /debug/traces shows, each in 64 KiB of memory on average at most; 0 keeps none"`
}

// DefaultConfig logs from info on, traces one request in a hundred and keeps no trace.
func DefaultConfig() Config {
	return Config{Log: LogConfig{Level: "info"}, Trace: TraceConfig{SampleRatio: 0.01}}
}

// Validate reports a level that does not exist.
func (c LogConfig) Validate() error {
	_, err := c.level()
	return err
}

func (c LogConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("level %q: want debug, info, warn or error", c.Level)
}

// Validate reports a ratio that is not one, and more traces than are kept.
func (c TraceConfig) Validate() error {
	var errs []error
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		errs = append(errs, fmt.Errorf("sample_ratio %v: want 0 to 1", c.SampleRatio))
	}
	if c.Keep < 0 || c.Keep > keepMost {
		errs = append(errs, fmt.Errorf("keep %d: want 0 to %d", c.Keep, keepMost))
	}
	return errors.Join(errs...)
}

// Observability is what one process is seen by. It is shared by the layers the process runs.
type Observability struct {
	log      *slog.Logger
	registry *prometheus.Registry
	catalog  *catalog
	version  string
	sampler  sdktrace.Sampler // nil if OTEL_TRACES_SAMPLER names one, which the SDK reads itself
	spans    *pipeline        // nil if nothing is exported
	kept     *traceStore      // nil if no trace is kept
	disabled bool             // OTEL_SDK_DISABLED
}

// Setup logs JSON lines to w, which needs no lock of its own, and registers the metrics of the Go runtime, of the
// process and of the build. Spans go where the OTEL_* variables say: with no endpoint in them nothing is exported,
// yet requests still have trace ids. Besides, cfg.Trace.Keep traces are kept in memory. Setup does not wait for the
// endpoint to answer; a variable that cannot be understood is an error. What it starts is ended by Shutdown.
func Setup(ctx context.Context, cfg Config, w io.Writer) (*Observability, error) {
	level, err := cfg.Log.level()
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := cfg.Trace.Validate(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	env, err := readTraceEnv()
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	o := &Observability{
		log:      slog.New(traceHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})}),
		registry: prometheus.NewRegistry(),
		catalog:  &catalog{metrics: make(map[string]Metric)},
		disabled: env.disabled,
	}
	if !env.sampler {
		o.sampler = following{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Trace.SampleRatio))}
	}
	if cfg.Trace.Keep > 0 && !env.disabled {
		o.kept = newTraceStore(cfg.Trace.Keep)
	}
	o.version = o.registerProcess()
	if env.endpoint {
		if o.spans, err = startPipeline(ctx, env.protocol, o.log, o.registerer("")); err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
	}
	return o, nil
}

// registerProcess returns the version it registered.
func (o *Observability) registerProcess() string {
	version, revision, toolchain := "unknown", "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, toolchain = cmp.Or(info.Main.Version, version), info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	o.registerer("").MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	promauto.With(o.registerer("")).NewGauge(prometheus.GaugeOpts{
		Name:        "gochat_build_info",
		Help:        "1, labelled with what was built.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": toolchain},
	}).Set(1)
	return version
}

// Log is the process's own logger, for what belongs to no layer.
func (o *Observability) Log() *slog.Logger { return o.log }

// Gatherer reads every metric of the process.
func (o *Observability) Gatherer() prometheus.Gatherer { return o.registry }

// Layer is the telemetry of one layer: its lines carry layer and instance, its metrics the label layer, and its
// spans belong to the service gochat-LAYER. A process asks once for each.
func (o *Observability) Layer(layer, instance string) (Telemetry, error) {
	if layer == "" || instance == "" {
		return Telemetry{}, fmt.Errorf("telemetry of layer %q, instance %q: both need a name", layer, instance)
	}
	traces, err := o.provider(layer, instance)
	if err != nil {
		return Telemetry{}, fmt.Errorf("telemetry of layer %q: %w", layer, err)
	}
	metrics := o.registerer(layer)
	promauto.With(metrics).NewGauge(prometheus.GaugeOpts{Name: "gochat_layer_info", Help: "1, for each layer of the process."}).Set(1)
	return Telemetry{
		Log:     o.log.With("layer", layer, "instance", instance),
		Metrics: metrics,
		Traces:  traces,
	}, nil
}

// KeepsTraces reports whether the admin server has traces to show.
func (o *Observability) KeepsTraces() bool { return o.kept != nil }

// provider has a resource of its own and shares the pipeline and the kept traces: every span carries the resource it
// was made with, and the exporter groups by it.
func (o *Observability) provider(layer, instance string) (trace.TracerProvider, error) {
	if o.disabled {
		return noop.NewTracerProvider(), nil
	}
	res, err := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "gochat-"+layer),
		attribute.String("service.instance.id", instance),
		attribute.String("service.version", o.version),
	))
	if err != nil {
		return nil, err
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res), sdktrace.WithSampler(o.sampler)}
	if o.spans != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(o.spans))
	}
	if o.kept != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(o.kept))
	}
	return sdktrace.NewTracerProvider(opts...), nil
}

// Shutdown sends the spans that have ended and returns once nothing started by Setup runs any longer. It takes at
// most as long as ctx and five seconds allow; spans not sent by then are lost. It is called once, after the layers
// have stopped.
func (o *Observability) Shutdown(ctx context.Context) error {
	if o.spans == nil {
		return nil
	}
	if err := o.spans.stop(ctx); err != nil {
		return fmt.Errorf("flush spans: %w", err)
	}
	return nil
}

// Propagator is how a trace crosses a process: W3C traceparent and tracestate. Baggage is left out, since a client
// would fill it.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }
