package observability

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// sink is a trace endpoint, over http and over grpc, that remembers the spans it was sent.
type sink struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []sentSpan
}

type sentSpan struct{ service, instance, name, traceID string }

func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		span := sentSpan{}
		for _, a := range rs.Resource.Attributes {
			switch a.Key {
			case "service.name":
				span.service = a.Value.GetStringValue()
			case "service.instance.id":
				span.instance = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, sp := range ss.Spans {
				span.name, span.traceID = sp.Name, string(sp.TraceId)
				s.spans = append(s.spans, span)
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "want an export request on /v1/traces", http.StatusBadRequest)
		return
	}
	reply, _ := s.Export(r.Context(), &request)
	answer, _ := proto.Marshal(reply)
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func (s *sink) sent() []sentSpan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.spans)
}

func (s *sink) startHTTP(t *testing.T) (url string) {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

func (s *sink) startGRPC(t *testing.T) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return "http://" + l.Addr().String()
}

func setup(t *testing.T, cfg Config, w io.Writer) *Observability {
	t.Helper()
	o, err := Setup(t.Context(), cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return o
}

func layer(t *testing.T, o *Observability, name, instance string) Telemetry {
	t.Helper()
	tel, err := o.Layer(name, instance)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func traceAll() Config {
	cfg := DefaultConfig()
	cfg.Trace.SampleRatio = 1
	return cfg
}

// value sums the counters or gauges of that name.
func value(t *testing.T, g prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	for _, m := range family(t, g, name).GetMetric() {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

func family(t *testing.T, g prometheus.Gatherer, name string) *dto.MetricFamily {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	return nil
}

func TestEachLayerIsAServiceOfItsOwn(t *testing.T) {
	for _, tc := range []struct {
		protocol string
		start    func(*sink, *testing.T) string
	}{
		{"", (*sink).startHTTP},
		{"http/protobuf", (*sink).startHTTP},
		{"grpc", (*sink).startGRPC},
	} {
		t.Run("protocol "+tc.protocol, func(t *testing.T) {
			var s sink
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", tc.start(&s, t))
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", tc.protocol)
			o, err := Setup(t.Context(), traceAll(), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			ctx, parent := layer(t, o, "logic", "logic-1").Traces.Tracer("test").Start(t.Context(), "accept")
			_, child := layer(t, o, "task", "task-9").Traces.Tracer("test").Start(ctx, "process")
			child.End()
			parent.End()
			if err := o.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			id := parent.SpanContext().TraceID()
			got, want := s.sent(), []sentSpan{
				{"gochat-logic", "logic-1", "accept", string(id[:])},
				{"gochat-task", "task-9", "process", string(id[:])},
			}
			slices.SortFunc(got, func(a, b sentSpan) int { return strings.Compare(a.name, b.name) })
			if !slices.Equal(got, want) {
				t.Errorf("sent %q, want %q", got, want)
			}
			if ended, exported := value(t, o.Gatherer(), "gochat_trace_spans_ended_total"), value(t, o.Gatherer(), "gochat_trace_spans_exported_total"); ended != 2 || exported != 2 {
				t.Errorf("counted %v ended, %v exported, want 2 of each", ended, exported)
			}
		})
	}
}

func TestWhatIsExported(t *testing.T) {
	for _, tc := range []struct {
		name    string
		env     map[string]string
		ratio   float64
		sampled bool // a span without a parent
		sent    int
	}{
		{"everything at ratio 1", nil, 1, true, 1},
		{"nothing at ratio 0", nil, 0, false, 0},
		{"the environment's sampler wins", map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, 0, true, 1},
		{"with its argument", map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, 1, false, 0},
		{"no exporter", map[string]string{"OTEL_TRACES_EXPORTER": "none"}, 1, true, 0},
		{"no endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, 1, true, 0},
		{"disabled", map[string]string{"OTEL_SDK_DISABLED": "true"}, 1, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s sink
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.startHTTP(t))
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			cfg := DefaultConfig()
			cfg.Trace.SampleRatio = tc.ratio
			var log bytes.Buffer
			o, err := Setup(t.Context(), cfg, &log)
			if err != nil {
				t.Fatal(err)
			}
			_, span := layer(t, o, "api", "api-1").Traces.Tracer("test").Start(t.Context(), "request")
			if got := span.SpanContext().IsSampled(); got != tc.sampled {
				t.Errorf("sampled %v, want %v", got, tc.sampled)
			}
			span.End()
			if err := o.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(s.sent()); got != tc.sent {
				t.Errorf("sent %d spans, want %d", got, tc.sent)
			}
			if log.Len() != 0 {
				t.Errorf("logged %s", &log)
			}
		})
	}
}

func TestASampledParentIsFollowed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Trace.SampleRatio = 0
	o := setup(t, cfg, io.Discard)
	header := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	ctx := Propagator().Extract(t.Context(), header)
	_, span := layer(t, o, "api", "api-1").Traces.Tracer("test").Start(ctx, "request")
	if got := span.SpanContext(); !got.IsSampled() || got.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("span is %v, sampled %v: want the parent's trace", got.TraceID(), got.IsSampled())
	}
}

func TestSetupRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		env  map[string]string
		want string
	}{
		{"level", Config{Log: LogConfig{Level: "loud"}}, nil, `log: level "loud": want debug, info, warn or error`},
		{"ratio", Config{Log: LogConfig{Level: "info"}, Trace: TraceConfig{SampleRatio: 1.5}}, nil, `trace: sample_ratio 1.5: want 0 to 1`},
		{"fewer traces than none", Config{Log: LogConfig{Level: "info"}, Trace: TraceConfig{Keep: -1}}, nil, `trace: keep -1: want 0 to 10000`},
		{"too many traces", Config{Log: LogConfig{Level: "info"}, Trace: TraceConfig{Keep: 10_001}}, nil, `trace: keep 10001: want 0 to 10000`},
		{"sampler", DefaultConfig(), map[string]string{"OTEL_TRACES_SAMPLER": "some"}, `trace: OTEL_TRACES_SAMPLER "some": no such sampler`},
		{"sampler argument", DefaultConfig(), map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"},
			`trace: OTEL_TRACES_SAMPLER_ARG "NaN": want 0 to 1`},
		{"exporter", DefaultConfig(), map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, `trace: OTEL_TRACES_EXPORTER "zipkin": want otlp or none`},
		{"endpoint", DefaultConfig(), map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317"},
			`trace: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: want http://host:port or https://host:port`},
		{"protocol", DefaultConfig(), map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "udp"},
			`trace: OTEL_EXPORTER_OTLP_PROTOCOL "udp": want grpc, http/protobuf or http/json`},
		{"resource", DefaultConfig(), map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "zone"}, `trace: OTEL_RESOURCE_ATTRIBUTES: `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			_, err := Setup(t.Context(), tc.cfg, io.Discard)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestAnEndpointThatFailsIsSaidOnceAndWhenItIsBack(t *testing.T) {
	var s sink
	var mu sync.Mutex
	down := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			http.Error(w, "no", http.StatusBadRequest) // a status that is not tried again
			return
		}
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	var log bytes.Buffer
	o, err := Setup(t.Context(), traceAll(), &log)
	if err != nil {
		t.Fatal(err)
	}
	tracer := layer(t, o, "api", "api-1").Traces.Tracer("test")
	send := func() {
		_, span := tracer.Start(t.Context(), "request")
		span.End()
		if err := o.spans.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	send()
	send()
	mu.Lock()
	down = false
	mu.Unlock()
	send()
	if err := o.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"level":"WARN","msg":"trace endpoint does not take spans"`) ||
		!strings.Contains(lines[1], `"msg":"trace endpoint takes spans again"`) {
		t.Errorf("logged %q, want one line for the fault and one for its end", lines)
	}
	if failed, exported := value(t, o.Gatherer(), "gochat_trace_spans_failed_total"), value(t, o.Gatherer(), "gochat_trace_spans_exported_total"); failed != 2 || exported != 1 {
		t.Errorf("counted %v failed, %v exported, want 2 and 1", failed, exported)
	}
}

// An endpoint that takes the connection and says nothing must not hold up the end of the process.
func TestShutdownIsBounded(t *testing.T) {
	arrived, release := make(chan struct{}, 16), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000") // so that nothing but Shutdown ends the export
	t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "3600000")
	o, err := Setup(t.Context(), traceAll(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, span := layer(t, o, "api", "api-1").Traces.Tracer("test").Start(t.Context(), "request")
	span.End()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := o.Shutdown(ctx); err == nil {
		t.Error("no error, although the spans were not sent")
	}
	if value(t, o.Gatherer(), "gochat_trace_spans_failed_total") != 1 {
		t.Error("the span that was cut off is not counted as failed: its export still runs")
	}
}

func TestLogLines(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{0xcd}})
	traced := trace.ContextWithSpanContext(context.Background(), span)
	for _, tc := range []struct {
		name  string
		level string
		log   func(*slog.Logger)
		want  map[string]any // nil: nothing is logged
	}{
		{"without a span", "info", func(l *slog.Logger) { l.Info("m") },
			map[string]any{"level": "INFO", "msg": "m", "layer": "logic", "instance": "logic-3"}},
		{"with a span", "info", func(l *slog.Logger) { l.With("user", 7).InfoContext(traced, "m") },
			map[string]any{"level": "INFO", "msg": "m", "layer": "logic", "instance": "logic-3", "user": 7.0,
				"trace_id": span.TraceID().String(), "span_id": span.SpanID().String()}},
		{"in a group", "info", func(l *slog.Logger) { l.WithGroup("g").InfoContext(traced, "m", "k", 1) },
			map[string]any{"level": "INFO", "msg": "m", "layer": "logic", "instance": "logic-3",
				"g": map[string]any{"k": 1.0, "trace_id": span.TraceID().String(), "span_id": span.SpanID().String()}}},
		{"below the level", "warn", func(l *slog.Logger) { l.Info("m") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Log.Level = tc.level
			var out bytes.Buffer
			tc.log(layer(t, setup(t, cfg, &out), "logic", "logic-3").Log)
			var got map[string]any
			if out.Len() > 0 {
				if err := json.Unmarshal(out.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
			}
			delete(got, "time")
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(tc.want)
			if !bytes.Equal(a, b) {
				t.Errorf("got %s, want %s", a, b)
			}
		})
	}
}

func TestLayerMetrics(t *testing.T) {
	o := setup(t, DefaultConfig(), io.Discard)
	for _, name := range []string{"api", "task"} { // one name, two layers, one registry
		promauto.With(layer(t, o, name, name+"-1").Metrics).NewCounter(prometheus.CounterOpts{Name: "gochat_test_total"}).Inc()
	}
	for _, name := range []string{"gochat_test_total", "gochat_layer_info"} {
		var layers []string
		for _, m := range family(t, o.Gatherer(), name).GetMetric() {
			for _, l := range m.Label {
				layers = append(layers, l.GetName()+"="+l.GetValue())
			}
		}
		if want := []string{"layer=api", "layer=task"}; !slices.Equal(layers, want) {
			t.Errorf("%s: labels %v, want %v", name, layers, want)
		}
	}
	for _, name := range []string{"gochat_build_info", "go_sync_mutex_wait_total_seconds_total", "go_goroutines", "process_open_fds"} {
		if family(t, o.Gatherer(), name) == nil {
			t.Errorf("no metric %s", name)
		}
	}
	if _, err := o.Layer("api", ""); err == nil {
		t.Error("a layer without an instance was accepted")
	}
}

// eventually polls to a deadline.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
