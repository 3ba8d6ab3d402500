package traces

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is one as it came. Ids are lower-case hex, Parent is "" for a root.
type Span struct {
	TraceID, ID, Parent string
	Service, Instance   string
	Name, Kind          string // Kind as SERVER, CLIENT, PRODUCER, CONSUMER or INTERNAL
	Start, End          time.Time
	Attrs               map[string]string // values in words: 42, true
	Links               []Link
	Failed              bool
}

// Link names another span.
type Link struct{ TraceID, ID string }

// Int is a number among the attributes, 0 if there is none.
func (s *Span) Int(key string) (n int) {
	_, _ = fmt.Sscan(s.Attrs[key], &n)
	return n
}

// Collector is a trace endpoint: it keeps the spans that processes send it over OTLP/HTTP.
type Collector struct {
	URL string // where processes reach it, as OTEL_EXPORTER_OTLP_ENDPOINT

	server *http.Server
	mu     sync.Mutex
	spans  map[string][]*Span // by trace id
	count  int
}

// Listen starts one on the address, host:port, with port 0 on a free one. Close ends it.
func Listen(addr string) (*Collector, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Collector{URL: "http://" + l.Addr().String(), spans: make(map[string][]*Span)}
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = c.server.Serve(l) }() // until Close
	return c, nil
}

// Close ends it. What it has stays.
func (c *Collector) Close() error { return c.server.Close() }

// Trace answers the spans of one trace that have come, by their start.
func (c *Collector) Trace(id string) []*Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := slices.Clone(c.spans[id])
	slices.SortStableFunc(spans, func(a, b *Span) int { return a.Start.Compare(b.Start) })
	return spans
}

// Find answers all spans that match.
func (c *Collector) Find(match func(*Span) bool) (found []*Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, spans := range c.spans {
		for _, s := range spans {
			if match(s) {
				found = append(found, s)
			}
		}
	}
	return found
}

// Count is how many spans have come.
func (c *Collector) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// ServeHTTP takes one export request.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "want an export request on /v1/traces", http.StatusBadRequest)
		return
	}
	c.add(&request)
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK) // an empty answer is one that took all
}

func (c *Collector) add(request *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range request.ResourceSpans {
		of := attributes(rs.Resource.Attributes)
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				span := read(s)
				span.Service, span.Instance = of["service.name"], of["service.instance.id"]
				c.spans[span.TraceID] = append(c.spans[span.TraceID], span)
				c.count++
			}
		}
	}
}

func read(s *otlp.Span) *Span {
	span := &Span{
		TraceID: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Name: s.Name, Kind: strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"),
		Start: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)),
		Attrs: attributes(s.Attributes), Failed: s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR,
	}
	for _, l := range s.Links {
		span.Links = append(span.Links, Link{hex.EncodeToString(l.TraceId), hex.EncodeToString(l.SpanId)})
	}
	return span
}

func attributes(list []*common.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			m[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[a.Key] = fmt.Sprint(v.IntValue)
		case *common.AnyValue_DoubleValue:
			m[a.Key] = fmt.Sprint(v.DoubleValue)
		case *common.AnyValue_BoolValue:
			m[a.Key] = fmt.Sprint(v.BoolValue)
		default:
			m[a.Key] = a.Value.String()
		}
	}
	return m
}
