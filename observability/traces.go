package observability

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Spans that wait for export. One fan-out to many nodes ends hundreds at once, so both are above the SDK's defaults;
// OTEL_BSP_* overrides them.
const (
	spanQueue = 16384
	spanBatch = 2048
)

// flushLimit bounds Shutdown where the caller's context does not.
const flushLimit = 5 * time.Second

// traceEnv is what the OTEL_* variables say. Endpoint, headers, certificates and timeouts are left for the exporter
// to read.
type traceEnv struct {
	disabled bool
	endpoint bool   // there is somewhere to send to
	protocol string // grpc, http/protobuf or http/json
	sampler  bool   // the SDK takes the sampler from the environment
}

// readTraceEnv refuses what the SDK would only complain of, on standard error and past our log.
func readTraceEnv() (traceEnv, error) {
	env := traceEnv{disabled: strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true")}
	if env.disabled {
		return env, nil
	}
	var err error
	if env.sampler, err = readSampler(); err != nil {
		return env, err
	}
	// The SDK reads these again for each layer's provider, where a fault can no longer be returned.
	if _, err := resource.New(context.Background(), resource.WithFromEnv()); err != nil {
		return env, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return env, nil
	case "", "otlp":
	default:
		return env, fmt.Errorf("OTEL_TRACES_EXPORTER %q: want otlp or none", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		endpoint := getenv(name)
		if endpoint == "" {
			continue
		}
		// Neither the value nor the parser's error, which quotes it: it may hold a password.
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return env, fmt.Errorf("%s: want http://host:port or https://host:port", name)
		}
		env.endpoint = true
	}
	env.protocol = cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	switch env.protocol {
	case "grpc", "http/protobuf", "http/json":
		return env, nil
	}
	return env, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL %q: want grpc, http/protobuf or http/json", env.protocol)
}

func readSampler() (set bool, err error) {
	switch name := strings.ToLower(getenv("OTEL_TRACES_SAMPLER")); name {
	case "":
		return false, nil
	case "always_on", "always_off", "parentbased_always_on", "parentbased_always_off":
		return true, nil
	case "traceidratio", "parentbased_traceidratio":
		arg := cmp.Or(getenv("OTEL_TRACES_SAMPLER_ARG"), "1")
		if ratio, err := strconv.ParseFloat(arg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			return true, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG %q: want 0 to 1", arg)
		}
		return true, nil
	default:
		return true, fmt.Errorf("OTEL_TRACES_SAMPLER %q: no such sampler", name)
	}
}

func getenv(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// pipeline is the one way out for the spans of every layer: a bounded queue that drops when it is full, and an
// exporter. ended − exported − failed is what waits or was dropped.
//
// The SDK's processor has a goroutine that each span would wake, which costs more than the span. So they gather for a
// moment, and wake it together.
type pipeline struct {
	sdktrace.SpanProcessor
	ended    prometheus.Counter
	exporter *exporter

	mu       sync.Mutex
	gathered []sdktrace.ReadOnlySpan
	timer    *time.Timer // set while some have gathered
	stopped  bool

	handing sync.Mutex // held while what has gathered goes to the processor; taken before mu
}

const (
	spanGather    = 50 * time.Millisecond
	spansGathered = 512 // so many go at once
)

func startPipeline(ctx context.Context, protocol string, log *slog.Logger, metrics prometheus.Registerer) (*pipeline, error) {
	var client otlptrace.Client
	if protocol == "grpc" {
		client = otlptracegrpc.NewClient()
	} else {
		client = otlptracehttp.NewClient()
	}
	otlp, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("otlp exporter: %w", err)
	}
	to := promauto.With(metrics)
	e := &exporter{
		SpanExporter: otlp,
		log:          log,
		exported:     to.NewCounter(prometheus.CounterOpts{Name: "gochat_trace_spans_exported_total", Help: "Spans taken by the trace endpoint."}),
		failed:       to.NewCounter(prometheus.CounterOpts{Name: "gochat_trace_spans_failed_total", Help: "Spans lost since the trace endpoint did not take them."}),
		closed:       make(chan struct{}),
	}
	e.cut, e.cutNow = context.WithCancel(context.Background())
	var opts []sdktrace.BatchSpanProcessorOption
	if getenv("OTEL_BSP_MAX_QUEUE_SIZE") == "" {
		opts = append(opts, sdktrace.WithMaxQueueSize(spanQueue))
	}
	if getenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") == "" {
		opts = append(opts, sdktrace.WithMaxExportBatchSize(spanBatch))
	}
	p := &pipeline{
		SpanProcessor: sdktrace.NewBatchSpanProcessor(e, opts...),
		ended:         to.NewCounter(prometheus.CounterOpts{Name: "gochat_trace_spans_ended_total", Help: "Sampled spans that ended."}),
		exporter:      e,
	}
	p.timer = time.AfterFunc(time.Hour, p.handOver)
	p.timer.Stop()
	return p, nil
}

// OnEnd never blocks for long: the span is dropped if the queue is full.
func (p *pipeline) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	p.ended.Inc()
	p.mu.Lock()
	p.gathered = append(p.gathered, s)
	n, stopped := len(p.gathered), p.stopped
	if n == 1 && !stopped {
		p.timer.Reset(spanGather)
	}
	p.mu.Unlock()
	if n >= spansGathered || stopped {
		p.handOver()
	}
}

// handOver gives the processor what has gathered.
func (p *pipeline) handOver() {
	p.handing.Lock()
	defer p.handing.Unlock()
	p.mu.Lock()
	gathered := p.gathered
	p.gathered = nil
	p.timer.Stop()
	p.mu.Unlock()
	for _, s := range gathered {
		p.SpanProcessor.OnEnd(s)
	}
}

// ForceFlush implements sdktrace.SpanProcessor.
func (p *pipeline) ForceFlush(ctx context.Context) error {
	p.handOver()
	return p.SpanProcessor.ForceFlush(ctx)
}

// stop flushes, cuts off what has not been sent in time, and waits for the export goroutine.
func (p *pipeline) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.handOver()
	err := p.SpanProcessor.Shutdown(ctx)
	p.exporter.cutNow()
	<-p.exporter.closed // the processor's goroutine closes the exporter last
	return err
}

// exporter keeps export errors to itself: the SDK would hand them to a handler that is global to the program. It is
// never called concurrently.
type exporter struct {
	sdktrace.SpanExporter
	log              *slog.Logger
	exported, failed prometheus.Counter
	failing          bool // said once when it begins and once when it ends, not for each batch
	cut              context.Context
	cutNow           context.CancelFunc
	closed           chan struct{}
}

func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.cut, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.failed.Add(float64(len(spans)))
	} else {
		e.exported.Add(float64(len(spans)))
	}
	switch {
	case err != nil && !e.failing:
		e.log.Warn("trace endpoint does not take spans", "err", err)
	case err == nil && e.failing:
		e.log.Info("trace endpoint takes spans again")
	}
	e.failing = err != nil
	return nil
}

func (e *exporter) Shutdown(ctx context.Context) error {
	defer close(e.closed)
	return e.SpanExporter.Shutdown(ctx)
}
