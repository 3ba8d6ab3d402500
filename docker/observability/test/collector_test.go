// Package observability runs the Collector of docker/compose.yml, made of the same components, with its own configuration on
// loopback: what it is sent comes out as the configuration means it to.
package observability

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/connector/spanmetricsconnector"
	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/filelogreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/batchprocessor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const within = 60 * time.Second // for what takes a second or two

// components are those that collector.yml names.
func components() (f otelcol.Factories, err error) {
	f.Telemetry = otelconftelemetry.NewFactory()
	if f.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory(), filelogreceiver.NewFactory()); err != nil {
		return f, err
	}
	if f.Processors, err = otelcol.MakeFactoryMap[processor.Factory](memorylimiterprocessor.NewFactory(), batchprocessor.NewFactory(), tailsamplingprocessor.NewFactory()); err != nil {
		return f, err
	}
	if f.Connectors, err = otelcol.MakeFactoryMap[connector.Factory](spanmetricsconnector.NewFactory()); err != nil {
		return f, err
	}
	if f.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](otlpexporter.NewFactory(), otlphttpexporter.NewFactory(), prometheusexporter.NewFactory()); err != nil {
		return f, err
	}
	f.Extensions, err = otelcol.MakeFactoryMap[extension.Factory](healthcheckextension.NewFactory())
	return f, err
}

// collector is one with the configuration of the file, in which these keys (a::b::c: value) are changed.
func collector(t *testing.T, file string, changed ...string) *otelcol.Collector {
	t.Helper()
	uris := []string{"file:" + file}
	for _, one := range changed {
		uris = append(uris, "yaml:"+one)
	}
	c, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo:               component.BuildInfo{Command: "collector", Version: "test"},
		Factories:               components,
		DisableGracefulShutdown: true,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs: uris, ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory(), yamlprovider.NewFactory()},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const ours = "../collector.yml"

// TestConfigurationIsValid by the Collector's own word, and is not with a mistake in it.
func TestConfigurationIsValid(t *testing.T) {
	if err := collector(t, ours).DryRun(t.Context()); err != nil {
		t.Error(err)
	}
	for _, mistake := range []string{
		"processors::tail_sampling::decision_wait: soon",
		"processors::tail_sampling::policies: [{ name: errors, type: status_code, status_codes: [ERROR] }]",
		"service::pipelines::traces::exporters: [otlp_grpc/nowhere]",
		"exporters::prometheus::endpoin: 0.0.0.0:8889",
	} {
		if err := collector(t, ours, mistake).DryRun(t.Context()); err == nil {
			t.Errorf("%s: no error", mistake)
		}
	}
}

// sink takes what the Collector sends on: spans as Tempo, lines as Loki.
type sink struct {
	ptraceotlp.UnimplementedGRPCServer
	mu     sync.Mutex
	traces map[string]int // by kind, each once
	lines  []plog.LogRecord
	of     []pcommon.Resource // of each line
}

func (s *sink) Export(_ context.Context, r ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.Traces().ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				s.traces[span.Name()]++
			}
		}
	}
	return ptraceotlp.NewExportResponse(), nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	packed, err := gzip.NewReader(r.Body)
	if err == nil {
		body, err = io.ReadAll(packed)
	}
	request := plogotlp.NewExportRequest()
	if err == nil {
		err = request.UnmarshalProto(body)
	}
	if err != nil || r.URL.Path != "/otlp/v1/logs" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.Logs().ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, line := range scope.LogRecords().All() {
				s.lines, s.of = append(s.lines, line), append(s.of, resource.Resource())
			}
		}
	}
}

// TestCollector runs it: of many spans come through those of traces with an error, slow ones, second attempts and about a tenth of the
// rest; of all of them there are metrics; lines of gochat come with their trace and level, those of others do not.
func TestCollector(t *testing.T) {
	s := &sink{traces: make(map[string]int)}
	tempo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loki := httptest.NewServer(s)
	t.Cleanup(loki.Close)
	logs := t.TempDir()
	file := filepath.Join(logs, "some-json.log")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in, metrics, health := freeAddr(t), freeAddr(t), freeAddr(t)
	c := collector(t, ours,
		"receivers::otlp::protocols::grpc::endpoint: "+in,
		"receivers::otlp::protocols::http::endpoint: "+freeAddr(t),
		"receivers::file_log::include: ["+logs+"/*.log]",
		"receivers::file_log::poll_interval: 100ms",
		"exporters::otlp_grpc/tempo::endpoint: "+tempo.Addr().String(),
		"exporters::otlp_http/loki::endpoint: "+loki.URL+"/otlp",
		"exporters::prometheus::endpoint: "+metrics,
		"extensions::health_check::endpoint: "+health,
		"connectors::spanmetrics::metrics_flush_interval: 500ms",
		"processors::tail_sampling::decision_wait: 2s",
		"service::telemetry::metrics::level: none",
	)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the collector is well", func() bool { return strings.Contains(get("http://"+health), "available") })

	// Only now: the collector has set gRPC's logger.
	server := grpc.NewServer()
	ptraceotlp.RegisterGRPCServer(server, s)
	go func() { _ = server.Serve(tempo) }()
	t.Cleanup(server.Stop)

	const each = 400
	send(t, in, each)
	line := func(v string) string {
		return fmt.Sprintf(`{"log":%q,"stream":"stderr","time":"2026-01-02T03:04:05.678Z"}`+"\n", v+"\n")
	}
	appended := line(`{"time":"2026-01-02T03:04:05.6Z","level":"WARN","msg":"ours","layer":"connect","instance":"connect-7","trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"0102030405060708"}`) +
		line(`{"level":"ERROR","msg":"another's"}`) + line("no JSON at all") + line(`{"level":"INFO","msg":"without a trace","layer":"logic","instance":"logic-1"}`)
	time.Sleep(time.Second) // the file has been seen: it is read from its end
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(appended)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}

	count := func(name string) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.traces[name]
	}
	eventually(t, "the traces that are kept", func() bool {
		return count("failed") == each && count("slow") == each && count("second attempt") == each && count("well") > 0
	})
	eventually(t, "metrics of all spans", func() bool {
		return strings.Contains(get("http://"+metrics+"/metrics"), `span_name="well"`) && spans(get("http://"+metrics+"/metrics"), "well") == each
	})
	time.Sleep(2 * time.Second) // as long as a decision takes: no more come
	if n := count("well"); n < each/40 || n > each/4 {
		t.Errorf("%d of %d traces in which all is well were kept, want about a tenth", n, each)
	}
	eventually(t, "both lines of gochat", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.lines) >= 2 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) != 2 {
		t.Errorf("%d lines, want the two of gochat", len(s.lines))
	}
	for i, l := range s.lines {
		service, instance := str(s.of[i].Attributes(), "service.name"), str(s.of[i].Attributes(), "service.instance.id")
		switch msg := str(l.Attributes(), "msg"); msg {
		case "ours":
			if l.SeverityNumber() != plog.SeverityNumberWarn || l.TraceID().String() != "0102030405060708090a0b0c0d0e0f10" || service != "connect" || instance != "connect-7" {
				t.Errorf("got %s %s of %s %s", l.SeverityNumber(), l.TraceID(), service, instance)
			}
		case "without a trace":
			if !l.TraceID().IsEmpty() || service != "logic" {
				t.Errorf("got %s of %s", l.TraceID(), service)
			}
		default:
			t.Errorf("a line %q", msg)
		}
	}
}

// str is the attribute's value, "" if there is none.
func str(of pcommon.Map, key string) string {
	if v, has := of.Get(key); has {
		return v.AsString()
	}
	return ""
}

// send has traces of four kinds, so many of each, by one span.
func send(t *testing.T, addr string, each int) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	all := ptrace.NewTraces()
	resource := all.ResourceSpans().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", "gochat-connect")
	into := resource.ScopeSpans().AppendEmpty().Spans()
	for i := range each {
		for kind, name := range []string{"well", "failed", "slow", "second attempt"} {
			span := into.AppendEmpty()
			span.SetName(name)
			// Whether a trace is one of the tenth is said by its id.
			span.SetTraceID(pcommon.TraceID{byte(i), byte(i >> 8), byte(kind), byte(i * 37), byte(i * 101), 9, 9, byte(i * 7), byte(i * 13), byte(i * 29), 1, byte(i * 31), 1, byte(i * 17), 1, 1})
			span.SetSpanID(pcommon.SpanID{byte(i), byte(i >> 8), byte(kind), 1})
			took := 10 * time.Millisecond
			switch name {
			case "failed":
				span.Status().SetCode(ptrace.StatusCodeError)
			case "slow":
				took = 300 * time.Millisecond
			case "second attempt":
				span.Attributes().PutInt("gochat.attempt", 2)
			}
			end := time.Now()
			span.SetStartTimestamp(pcommon.NewTimestampFromTime(end.Add(-took)))
			span.SetEndTimestamp(pcommon.NewTimestampFromTime(end))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := ptraceotlp.NewGRPCClient(conn).Export(ctx, ptraceotlp.NewExportRequestFromTraces(all)); err != nil {
		t.Fatal(err)
	}
}

// spans is how many spans of the name the metrics have counted.
func spans(metrics, name string) (n int) {
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "calls_total{") && strings.Contains(line, `span_name="`+name+`"`) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " # ")
			_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		}
	}
	return n
}

// get is what the URL answers, "" if it does not.
func get(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// freeAddr is one that nobody listened at a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
