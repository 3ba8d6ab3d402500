package observability

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// startAdmin runs an admin server until the test ends and answers its base URL.
func startAdmin(t *testing.T, o *Observability, health *Health) string {
	t.Helper()
	a, err := NewAdmin("127.0.0.1:0", o, health, func() any { return map[string]string{"database": "••••"} })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return "http://" + a.Addr()
}

func get(t *testing.T, url string, header http.Header) (status int, contentType, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(b)
}

func TestAdminRoutes(t *testing.T) {
	o := setup(t, DefaultConfig(), io.Discard)
	health := NewHealth()
	health.Set("logic: database", nil)
	base := startAdmin(t, o, health)
	for _, tc := range []struct {
		path     string
		status   int
		contains string
	}{
		{"/healthz", 200, "ok"},
		{"/readyz", 200, `"name": "logic: database"`},
		{"/metrics", 200, "gochat_build_info{"},
		{"/debug/config", 200, `"database": "••••"`},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile:"},
		{"/debug/pprof/profile?seconds=1", 200, ""},
		{"/debug/pprof/cmdline", 404, ""}, // flags may hold secrets
		{"/debug/traces", 404, "trace.keep"},
		{"/", 404, ""},
	} {
		status, _, body := get(t, base+tc.path, nil)
		if status != tc.status || !strings.Contains(body, tc.contains) {
			t.Errorf("GET %s: %d, want %d and %q in %.200q", tc.path, status, tc.status, tc.contains, body)
		}
	}
}

func TestAMinuteOfProfileFits(t *testing.T) {
	a, err := NewAdmin("127.0.0.1:0", setup(t, DefaultConfig(), io.Discard), NewHealth(), func() any { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if a.http.WriteTimeout <= time.Minute {
		t.Errorf("an answer may take %v: want more than a minute, which pprof refuses beforehand", a.http.WriteTimeout)
	}
}

// counted counts what is read of it.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// TestABodyIsBounded: pprof reads a form even of a GET, up to 32 MB into memory and the rest onto the disk.
func TestABodyIsBounded(t *testing.T) {
	a, err := NewAdmin("127.0.0.1:0", setup(t, DefaultConfig(), io.Discard), NewHealth(), func() any { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for name, tc := range map[string]struct{ body, least, most int }{
		"allowed":   {adminBodyLimit / 2, adminBodyLimit / 2, adminBodyLimit},
		"too large": {16 * adminBodyLimit, adminBodyLimit, adminBodyLimit + 1}, // one more tells that it is
	} {
		t.Run(name, func(t *testing.T) {
			body := &counted{Reader: strings.NewReader("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" +
				strings.Repeat("a", tc.body) + "\r\n--x--\r\n")}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/goroutine", body)
			r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
			a.http.Handler.ServeHTTP(httptest.NewRecorder(), r)
			if body.n < tc.least || body.n > tc.most {
				t.Errorf("read %d bytes of a body of %d, want from %d to %d", body.n, tc.body, tc.least, tc.most)
			}
		})
	}
}

func TestMetricsCarryExemplars(t *testing.T) {
	o := setup(t, DefaultConfig(), io.Discard)
	h := promauto.With(layer(t, o, "api", "api-1").Metrics).NewHistogram(prometheus.HistogramOpts{Name: "gochat_test_seconds"})
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(0.2, prometheus.Labels{"trace_id": "0af7651916cd43dd8448eb211c80319c"})
	base := startAdmin(t, o, NewHealth())
	_, contentType, body := get(t, base+"/metrics", http.Header{"Accept": {"application/openmetrics-text"}})
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.Contains(body, `# {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.2`) {
		t.Errorf("answered %s without the exemplar", contentType)
	}
}

func TestReadiness(t *testing.T) {
	waiting := errors.New("waiting for etcd at 127.0.0.1:2379")
	for _, tc := range []struct {
		name   string
		set    func(*Health)
		status int
		want   []CheckResult
	}{
		{"nothing said yet", func(*Health) {}, 503, nil},
		{"all ready, by name", func(h *Health) {
			h.Watch("logic: redis", func(context.Context) error { return nil })
			h.Set("logic: database", nil)
		}, 200, []CheckResult{{"logic: database", true, ""}, {"logic: redis", true, ""}}},
		{"one not", func(h *Health) { h.Set("a", nil); h.Set("b", waiting) },
			503, []CheckResult{{"a", true, ""}, {"b", false, waiting.Error()}}},
		{"the last word counts", func(h *Health) {
			h.Set("a", waiting)
			h.Watch("a", func(context.Context) error { return nil })
		}, 200, []CheckResult{{"a", true, ""}}},
		{"draining", func(h *Health) {
			h.Watch("a", func(context.Context) error { return nil })
			h.Set("a", errors.New("draining"))
		}, 503, []CheckResult{{"a", false, "draining"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			health := NewHealth()
			tc.set(health)
			status, _, body := get(t, startAdmin(t, setup(t, DefaultConfig(), io.Discard), health)+"/readyz", nil)
			var got struct {
				Ready  bool
				Checks []CheckResult
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			want, _ := json.Marshal(tc.want)
			if checks, _ := json.Marshal(got.Checks); status != tc.status || got.Ready != (status == 200) || string(checks) != string(want) {
				t.Errorf("%d %s, want %d %s", status, body, tc.status, want)
			}
		})
	}
}

func TestChecksAreBoundedAndConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := NewHealth()
		for _, name := range []string{"a", "b"} {
			health.Watch(name, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		}
		start := time.Now()
		results, ready := health.Check(t.Context())
		if took := time.Since(start); took != checkLimit {
			t.Errorf("took %v, want %v for both together", took, checkLimit)
		}
		if ready || results[0].Ready || results[1].Ready {
			t.Errorf("%+v: want neither ready", results)
		}
	})
}

func TestACheckThatHangsIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := NewHealth()
		release := make(chan struct{})
		var asked atomic.Int32
		health.Watch("a", func(context.Context) error { asked.Add(1); <-release; return nil }) // does not heed its context
		for range 3 {
			if results, ready := health.Check(t.Context()); ready || results[0].Reason != "no answer in time" {
				t.Errorf("%+v, want no answer in time", results)
			}
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times while the first question was open, want once", asked.Load())
		}
		close(release)
		synctest.Wait()
		if _, ready := health.Check(t.Context()); !ready || asked.Load() != 2 {
			t.Errorf("ready %v, asked %d times: want the next question to be asked and answered", ready, asked.Load())
		}
	})
}

// The request that asked first may go away; whoever joined it still gets a true answer.
func TestAnAnswerOutlivesWhoAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := NewHealth()
		health.Watch("a", func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		first, leave := context.WithCancel(t.Context())
		go health.Check(first)
		synctest.Wait()
		leave()
		if results, ready := health.Check(t.Context()); !ready {
			t.Errorf("%+v, want ready", results)
		}
	})
}

func TestAdminDrains(t *testing.T) {
	health := NewHealth()
	entered, release := make(chan struct{}), make(chan struct{})
	health.Watch("a", func(context.Context) error { close(entered); <-release; return nil })
	a, err := NewAdmin("127.0.0.1:0", setup(t, DefaultConfig(), io.Discard), health, func() any { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran, answered := make(chan error, 1), make(chan int, 1)
	go func() { ran <- a.Run(ctx) }()
	go func() {
		res, err := http.Get("http://" + a.Addr() + "/readyz")
		if err != nil {
			answered <- 0
			return
		}
		_ = res.Body.Close()
		answered <- res.StatusCode
	}()
	<-entered
	cancel()
	eventually(t, "new connections are refused", func() bool {
		conn, err := net.Dial("tcp", a.Addr())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	if status := <-answered; status != 200 {
		t.Errorf("the request in flight got %d, want 200", status)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if _, err := NewAdmin("256.0.0.1:0", setup(t, DefaultConfig(), io.Discard), health, func() any { return nil }); err == nil {
		t.Error("an address that cannot be bound was accepted")
	}
}

// What is mounted is answered from then on, while the server runs.
func TestAdminHandle(t *testing.T) {
	a, err := NewAdmin("127.0.0.1:0", setup(t, DefaultConfig(), io.Discard), NewHealth(), func() any { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	url := "http://" + a.Addr() + "/admin/things/7"
	if status, _, _ := get(t, url, nil); status != http.StatusNotFound {
		t.Errorf("status %d, want 404: nothing is mounted", status)
	}
	a.Handle("GET /admin/things/{id}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("id")) }))
	if status, _, body := get(t, url, nil); status != http.StatusOK || body != "7" {
		t.Errorf("status %d, %q, want 200 and 7", status, body)
	}
}
