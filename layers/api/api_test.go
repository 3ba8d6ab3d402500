package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testlog"
	"gochat/observability"
)

func TestConfig(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"defaults", func(*Config) {}, ""},
		{"origins", func(c *Config) { c.AllowedOrigins = []string{"*", "https://chat.example", "http://[::1]:8080"} }, ""},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "listen"},
		{"no such port", func(c *Config) { c.Listen = "127.0.0.1:99999" }, "listen"},
		{"origin without a scheme", func(c *Config) { c.AllowedOrigins = []string{"chat.example"} }, "allowed_origins"},
		{"origin with a path", func(c *Config) { c.AllowedOrigins = []string{"https://chat.example/"} }, "allowed_origins"},
		{"no timeout", func(c *Config) { c.Timeout = 0 }, "timeout"},
		{"timeout without an end", func(c *Config) { c.Timeout = time.Hour }, "timeout"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			c.change(&cfg)
			err := cfg.Validate()
			if (c.want == "") != (err == nil) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestNewReportsAPortThatIsTaken(t *testing.T) {
	cfg := Defaults()
	cfg.Listen = "127.0.0.1:0"
	first, err := New(cfg, &scripted{}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = first.Addr()
	if _, err := New(cfg, &scripted{}, observability.Discard()); err == nil {
		t.Error("a second API bound the same port")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(cfg, &scripted{}, observability.Discard())
	if err != nil {
		t.Fatalf("the port was not released: %v", err)
	}
	_ = again.Close()
}

// The end of the context lets the request in flight be answered.
func TestRunDrains(t *testing.T) {
	called, release := make(chan struct{}), make(chan struct{})
	cfg := Defaults()
	cfg.Listen = "127.0.0.1:0"
	a, err := New(cfg, &scripted{reply: func(context.Context, string, any) (any, error) {
		close(called)
		<-release
		return &lobby, nil
	}}, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+a.Addr()+"/v1/rooms/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer T")
	answered := make(chan string, 1)
	go func() {
		answer, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = answer.Body.Close()
		answered <- answer.Status
	}()
	<-called
	end()
	deadline := time.Now().Add(10 * time.Second)
	for { // the port is closed first
		conn, err := net.Dial("tcp", a.Addr())
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the port is still open")
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	if got := <-answered; got != "200 OK" {
		t.Errorf("got %s, want 200 OK", got)
	}
	if err := <-ran; err != nil {
		t.Errorf("run: %v", err)
	}
}

// Logic that does not answer costs a client the timeout, not forever.
func TestTimeout(t *testing.T) {
	base := start(t, &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}, observability.Discard(), func(c *Config) { c.Timeout = 20 * time.Millisecond })
	isProblem(t, do(t, "GET", base+"/v1/me", "", "Authorization: Bearer T"), 503, contract.Unavailable)
	if g := do(t, "POST", base+"/user/checkAuth", `{"authToken":"T"}`); g.status != 200 || g.body["code"] != 1.0 {
		t.Errorf("got %d %s, want status 200, code 1", g.status, g.raw)
	}
}

// A client that sends its header a byte a second is cut off, and is told nothing that would pass for an answer.
func TestSlowHeaderIsCutOff(t *testing.T) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(start(t, house(), observability.Discard()), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for _, b := range []byte("GET /v1/me HTTP/1.1\r\nHost: a\r\nX-Slow: " + strings.Repeat("x", 100)) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	said, err := io.ReadAll(conn)
	close(stop)
	<-stopped
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
	if strings.Contains(string(said), "200") {
		t.Errorf("got %q", said)
	}
}

const (
	incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traceID  = "0af7651916cd43dd8448eb211c80319c"
)

func TestTraceIsPropagatedAndAnswered(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	recording := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	silent := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	cases := []struct {
		name    string
		traces  trace.TracerProvider // nil is the noop one
		sent    string
		traceID string // "" is any, "none" is no header
		sampled bool
	}{
		{"noop, one came in", nil, incoming, traceID, true},
		{"noop, none came in", nil, "", "none", false},
		{"noop, nonsense came in", nil, "00-zz-11-01", "none", false},
		{"recording, one came in", recording, incoming, traceID, true},
		{"recording, none came in", recording, "", "", true},
		{"not sampling, none came in", silent, "", "", false},
	}
	requests := []struct{ method, path, body string }{
		{"GET", "/v1/me", ""}, {"POST", "/v1/login", "{bad"}, {"GET", "/v1/nothing", ""}, {"DELETE", "/v1/me", ""}, {"GET", "/v1/openapi.json", ""},
		{"POST", "/user/checkAuth", `{"authToken":"T"}`}, {"POST", "/user/nothing", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tel := observability.Discard()
			if c.traces != nil {
				tel.Traces = c.traces
			}
			var inLogic trace.SpanContext
			base := start(t, &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
				inLogic = trace.SpanContextFromContext(ctx)
				return nil, contract.Errorf(contract.NotFound, "nobody")
			}}, tel)
			for _, r := range requests {
				headers := []string{"Authorization: Bearer T"}
				if c.sent != "" {
					headers = append(headers, "Traceparent: "+c.sent)
				}
				inLogic = trace.SpanContext{}
				g := do(t, r.method, base+r.path, r.body, headers...)
				answered := g.header.Get("Traceparent")
				if c.traceID == "none" {
					if answered != "" || g.body["traceId"] != nil {
						t.Errorf("%s: answered %q, body %s, want no trace", r.path, answered, g.raw)
					}
					continue
				}
				parts := strings.Split(answered, "-")
				if len(parts) != 4 || !strings.Contains(parts[1], c.traceID) || (parts[3] == "01") != c.sampled {
					t.Errorf("%s: answered %q, want trace %q, sampled %v", r.path, answered, c.traceID, c.sampled)
					continue
				}
				if g.header.Get("Content-Type") == "application/problem+json" && g.body["traceId"] != parts[1] {
					t.Errorf("%s: answered %q, body %s", r.path, answered, g.raw)
				}
				if inLogic.IsValid() && inLogic.TraceID().String() != parts[1] {
					t.Errorf("%s: logic saw trace %s, the client %s", r.path, inLogic.TraceID(), parts[1])
				}
				if logged := strings.HasPrefix(r.path, "/v1/me") && r.method == "GET"; logged && !inLogic.IsValid() {
					t.Errorf("%s: logic saw no trace", r.path)
				}
			}
		})
	}
	t.Run("a server span for each route", func(t *testing.T) {
		names := map[string]bool{}
		for _, s := range recorder.Ended() {
			names[s.Name()] = true
			if s.SpanKind() != trace.SpanKindServer {
				t.Errorf("%s is a %s span", s.Name(), s.SpanKind())
			}
		}
		for _, want := range []string{"GET /v1/me", "POST /user/checkAuth", "POST /v1/login"} {
			if !names[want] {
				t.Errorf("got spans %v, want %s", names, want)
			}
		}
	})
}

func telemetry(level slog.Level) (observability.Telemetry, *testlog.Buffer, *prometheus.Registry) {
	tel, out, reg := observability.Discard(), &testlog.Buffer{}, prometheus.NewRegistry()
	tel.Log, tel.Metrics = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})), reg
	return tel, out, reg
}

func TestServerErrorsAreLoggedOnce(t *testing.T) {
	cases := []struct {
		name string
		err  error
		want int
	}{
		{"internal", errors.New("disk is full"), 1},
		{"unavailable", contract.Errorf(contract.Unavailable, "no logic"), 1},
		{"the caller's", contract.Errorf(contract.Conflict, "taken"), 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range []string{"/v1/login", "/user/login"} {
				tel, out, _ := telemetry(slog.LevelInfo)
				do(t, "POST", start(t, fails(c.err), tel)+path, `{"name":"a","password":"secret-pw","userName":"a","passWord":"secret-pw"}`)
				if got := strings.Count(out.String(), `"level":"ERROR"`); got != c.want || strings.Count(out.String(), "\n") != c.want {
					t.Errorf("%s: got %d errors in %s, want %d", path, got, out, c.want)
				}
				if c.want > 0 && !strings.Contains(out.String(), c.err.Error()) {
					t.Errorf("%s: got %s, want %v", path, out, c.err)
				}
			}
		})
	}
}

func TestLogsHoldNoSecrets(t *testing.T) {
	tel, out, _ := telemetry(slog.LevelDebug)
	base := start(t, fails(errors.New("broken")), tel)
	do(t, "POST", base+"/v1/login?token=secret", `{"name":"a","password":"secret-pw"}`)
	do(t, "POST", base+"/v1/login", `{"password":"secret-pw"`)
	do(t, "GET", base+"/v1/me", "", "Authorization: Bearer secret-token")
	do(t, "POST", base+"/push/pushRoom", `{"authToken":"secret-token","msg":"secret text","roomId":1}`)
	deadline := time.Now().Add(10 * time.Second)
	for strings.Count(out.String(), `"msg":"request"`) < 4 { // written after the answer
		if time.Now().After(deadline) {
			t.Fatalf("got %s, want 4 requests", out)
		}
		time.Sleep(time.Millisecond)
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("got %s", out)
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	tel, out, reg := telemetry(slog.LevelInfo)
	base := start(t, &scripted{reply: func(context.Context, string, any) (any, error) { panic("a bug") }}, tel)
	isProblem(t, do(t, "GET", base+"/v1/me", "", "Authorization: Bearer T"), 500, contract.Internal)
	g := do(t, "POST", base+"/user/checkAuth", `{"authToken":"T"}`)
	if g.status != 200 || g.body["code"] != 1.0 || strings.Contains(string(g.raw), "bug") {
		t.Errorf("got %d %s, want status 200, code 1", g.status, g.raw)
	}
	if strings.Count(out.String(), "a bug") != 2 || !strings.Contains(out.String(), "scripted_test.go") {
		t.Errorf("got %s, want both with a stack", out)
	}
	waitFor(t, reg, "gochat_http_requests_total", map[string]string{"route": "/v1/me", "method": "GET", "code": "500"}, 1)
	waitFor(t, reg, "gochat_http_requests_total", map[string]string{"route": "/user/checkAuth", "method": "POST", "code": "500"}, 1)
}

// An answer that was begun when its handler panicked must not look whole.
func TestPanicCutsAnAnswerThatWasBegun(t *testing.T) {
	tel, out, _ := telemetry(slog.LevelInfo)
	engine := gin.New()
	engine.Use((&API{log: tel.Log}).recover)
	engine.GET("/", func(c *gin.Context) {
		c.String(http.StatusOK, "the first half, ")
		c.Writer.Flush()
		panic("a bug")
	})
	server := httptest.NewServer(engine)
	defer server.Close()
	answer, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if text, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("got %q as a whole answer", text)
	}
	if !strings.Contains(out.String(), "a bug") {
		t.Errorf("got log %s", out)
	}
}

// A client that leaves in the middle of its body is told so as a fault of its own.
func TestBodyThatEndsEarly(t *testing.T) {
	base := start(t, house(), observability.Discard())
	for path, want := range map[string]string{"/v1/login": "HTTP/1.1 400", "/user/login": `{"code":1,`} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"name\":\"a\",\"password\":\"b\"}")
		if err := errors.Join(err, conn.(*net.TCPConn).CloseWrite()); err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.Contains(string(said), want) {
			t.Errorf("%s: got %q, want %s", path, said, want)
		}
	}
}

// waitFor polls, since a request is counted after its answer, and answers the series.
func waitFor(t *testing.T, reg *prometheus.Registry, name string, labels map[string]string, want float64) *dto.Metric {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				matching := 0
				for _, l := range m.GetLabel() {
					if labels[l.GetName()] == l.GetValue() {
						matching++
					}
				}
				count := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				if f.GetName() == name && matching == len(labels) && matching == len(m.GetLabel()) && count == want {
					return m
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s%v = %v in %v", name, labels, want, families)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestMetrics(t *testing.T) {
	tel, _, reg := telemetry(slog.LevelInfo)
	tel.Traces = sdktrace.NewTracerProvider()
	base := start(t, house(), tel)
	do(t, "GET", base+"/v1/rooms/42", "", "Authorization: Bearer T")
	do(t, "GET", base+"/v1/rooms/43", "", "Authorization: Bearer T")
	do(t, "GET", base+"/v1/nothing", "")
	do(t, "GET", base+"/anything/else", "")
	do(t, "BREW", base+"/v1/me", "")
	do(t, "POST", base+"/user/checkAuth", `{"authToken":"T"}`)
	do(t, "POST", base+"/user/register", `{"userName":"a","passWord":"b"}`)
	do(t, "POST", base+"/user/register", `{"userName":"a","passWord":"b"}`)
	cases := []struct {
		route, method, code string
		want                float64
	}{
		{"/v1/rooms/:id", "GET", "401", 2},
		{"none", "GET", "404", 2},
		{"none", "other", "405", 1},
		{"/user/checkAuth", "POST", "401", 1}, // answered 200
		{"/user/register", "POST", "200", 1},
		{"/user/register", "POST", "409", 1}, // answered 200
	}
	for _, c := range cases {
		waitFor(t, reg, "gochat_http_requests_total", map[string]string{"route": c.route, "method": c.method, "code": c.code}, c.want)
	}
	m := waitFor(t, reg, "gochat_http_request_seconds", map[string]string{"route": "/v1/rooms/:id", "method": "GET"}, 2)
	h := m.GetHistogram()
	if len(h.GetBucket()) == 0 || len(h.GetPositiveSpan()) == 0 {
		t.Errorf("got %v, want classic and native buckets", h)
	}
	var exemplar *dto.Exemplar
	for _, b := range h.GetBucket() {
		if b.GetExemplar() != nil {
			exemplar = b.GetExemplar()
		}
	}
	if exemplar == nil || exemplar.GetLabel()[0].GetName() != "trace_id" || len(exemplar.GetLabel()[0].GetValue()) != 32 {
		t.Errorf("got exemplar %v, want a trace", exemplar)
	}
}
