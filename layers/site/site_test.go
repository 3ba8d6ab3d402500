package site

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	dto "github.com/prometheus/client_model/go"

	"gochat/observability"
)

const tracesURL = "http://127.0.0.1:9100/debug/traces"

var script = strings.Repeat("console.log('gochat');\n", 200)

func builtPage() fs.FS {
	return fstest.MapFS{
		".keep":                {},
		"index.html":           {Data: []byte("<!doctype html><title>gochat</title>")},
		"favicon.svg":          {Data: []byte("<svg/>")},
		"assets/index-a1b2.js": {Data: []byte(script)},
	}
}

func newSite(t *testing.T, cfg Config, page fs.FS) *Site {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	s, err := build(cfg, Ports{API: 7070, WebSocket: 7000, TracesURL: tracesURL}, observability.Discard(), page)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.server.Close() })
	return s
}

// ask sends a request for http://chat.example:8080 straight to the handler.
func ask(s *Site, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "chat.example:8080"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRoutes(t *testing.T) {
	built := newSite(t, Defaults(), builtPage())
	bare := newSite(t, Defaults(), fstest.MapFS{".keep": {}})
	const immutable = "public, max-age=31536000, immutable"
	for name, c := range map[string]struct {
		site         *Site
		method, path string
		code         int
		kind, keep   string // of the content; Cache-Control
		body         string // a part of it
	}{
		"root":                         {built, "GET", "/", 200, "text/html; charset=utf-8", "no-cache", "<title>gochat"},
		"index by name":                {built, "GET", "/index.html", 200, "text/html; charset=utf-8", "no-cache", "<title>gochat"},
		"no place of the page":         {built, "GET", "/debug/pprof/", 404, "text/plain; charset=utf-8", "", "not found"},
		"script":                       {built, "GET", "/assets/index-a1b2.js", 200, "text/javascript; charset=utf-8", immutable, "console.log"},
		"file outside assets":          {built, "GET", "/favicon.svg", 200, "image/svg+xml", "no-cache", "<svg/>"},
		"missing asset":                {built, "GET", "/assets/index-0000.js", 404, "text/plain; charset=utf-8", "", "not found"},
		"missing asset without a type": {built, "GET", "/assets/index", 404, "text/plain; charset=utf-8", "", "not found"},
		"missing file":                 {built, "GET", "/robots.txt", 404, "text/plain; charset=utf-8", "", "not found"},
		"hidden file":                  {built, "GET", "/.keep", 404, "text/plain; charset=utf-8", "", "not found"},
		"out of the root":              {built, "GET", "/assets/../../site.go", 404, "text/plain; charset=utf-8", "", "not found"},
		"config":                       {built, "GET", "/config.json", 200, "application/json", "no-store", `"apiPort":7070`},
		"head":                         {built, "HEAD", "/", 200, "text/html; charset=utf-8", "no-cache", ""},
		"post":                         {built, "POST", "/", 405, "text/plain; charset=utf-8", "", "not allowed"},
		"delete config":                {built, "DELETE", "/config.json", 405, "text/plain; charset=utf-8", "", "not allowed"},
		"not built":                    {bare, "GET", "/", 503, "text/html; charset=utf-8", "no-store", "make page"},
		"not built, asset":             {bare, "GET", "/assets/index-a1b2.js", 404, "text/plain; charset=utf-8", "", "not found"},
		"not built, config":            {bare, "GET", "/config.json", 200, "application/json", "no-store", `"websocketPort":7000`},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(c.site, c.method, c.path)
			if r.StatusCode != c.code {
				t.Errorf("status: got %d, want %d", r.StatusCode, c.code)
			}
			if got := r.Header.Get("Content-Type"); got != c.kind {
				t.Errorf("content type: got %q, want %q", got, c.kind)
			}
			if got := r.Header.Get("Cache-Control"); got != c.keep {
				t.Errorf("cache control: got %q, want %q", got, c.keep)
			}
			if got := text(t, r); !strings.Contains(got, c.body) || (c.method == "HEAD" && len(got) > 0 && c.code == 200) {
				t.Errorf("body: got %q, want %q in it", got, c.body)
			}
			if c.code == 405 && r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("allow: got %q", r.Header.Get("Allow"))
			}
			for header, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if got := r.Header.Get(header); got != want {
					t.Errorf("%s: got %q, want %q", header, got, want)
				}
			}
			csp := r.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("policy %q lacks %q", csp, want)
				}
			}
			if strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q allows what is inline", csp)
			}
		})
	}
}

func TestConnectSources(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		host string
		code int
		want string
	}{
		"own host":             {Config{}, "chat.example:8080", 200, "connect-src 'self' http://chat.example:7070 ws://chat.example:7000;"},
		"own host, no port":    {Config{}, "chat.example", 200, "connect-src 'self' http://chat.example:7070 ws://chat.example:7000;"},
		"IPv6":                 {Config{}, "[::1]:8080", 200, "connect-src 'self' http://*:7070 ws://*:7000;"},
		"configured":           {Config{APIURL: "https://api.example/base", WebSocketURL: "wss://ws.example:444/ws"}, "x", 200, "connect-src 'self' https://api.example wss://ws.example:444;"},
		"one configured":       {Config{APIURL: "https://api.example"}, "h:1", 200, "connect-src 'self' https://api.example ws://h:7000;"},
		"host with directive":  {Config{}, "a; script-src *", 400, "connect-src 'self';"},
		"host with a source":   {Config{}, "a *", 400, "connect-src 'self';"},
		"host with line break": {Config{}, "a\r\nX: y", 400, "connect-src 'self';"},
		"no host":              {Config{}, "", 400, "connect-src 'self';"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.cfg, builtPage())
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = c.host
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code != c.code {
				t.Errorf("status: got %d, want %d", w.Code, c.code)
			}
			if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, c.want) {
				t.Errorf("policy: got %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestConfigJSON(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want pageConfig
	}{
		"ports": {Config{}, pageConfig{APIPort: 7070, WebSocketPort: 7000, TracesURL: tracesURL}},
		"addresses": {Config{APIURL: "https://api.example", WebSocketURL: "wss://ws.example/ws"},
			pageConfig{APIURL: "https://api.example", WebSocketURL: "wss://ws.example/ws", APIPort: 7070, WebSocketPort: 7000, TracesURL: tracesURL}},
	} {
		t.Run(name, func(t *testing.T) {
			var got pageConfig
			if err := json.NewDecoder(ask(newSite(t, c.cfg, builtPage()), "GET", "/config.json").Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestCompressionAndRevalidation(t *testing.T) {
	s := newSite(t, Defaults(), builtPage())
	const asset = "/assets/index-a1b2.js"
	for header, want := range map[string]string{
		"": "", "gzip": "gzip", "br, gzip;q=0.5": "gzip", "GZIP": "gzip", "gzip;q=0": "", "gzip;q=0.0": "", "br": "",
	} {
		r := ask(s, "GET", asset, "Accept-Encoding", header)
		if got := r.Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: got %q, want %q", header, got, want)
		}
		if got := r.Header.Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: vary %q", header, got)
		}
		body := text(t, r)
		if want == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader([]byte(body)))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			body = string(plain)
		}
		if body != script {
			t.Errorf("Accept-Encoding %q: other bytes than the file's", header)
		}
		if again := ask(s, "GET", asset, "Accept-Encoding", header, "If-None-Match", r.Header.Get("ETag")); again.StatusCode != 304 {
			t.Errorf("Accept-Encoding %q: asked again: got %d, want 304", header, again.StatusCode)
		}
	}
	if a, b := ask(s, "GET", asset), ask(s, "GET", asset, "Accept-Encoding", "gzip"); a.Header.Get("ETag") == b.Header.Get("ETag") {
		t.Error("two encodings share a tag")
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		ports Ports
		want  string // a part of the error, "" for none
	}{
		"defaults":              {Defaults(), Ports{API: 7070, WebSocket: 7000}, ""},
		"addresses, no ports":   {Config{"127.0.0.1:0", "http://a", "ws://b/ws"}, Ports{}, ""},
		"no listen":             {Config{}, Ports{API: 7070, WebSocket: 7000}, "listen"},
		"no such port":          {Config{Listen: "127.0.0.1:99999"}, Ports{API: 7070, WebSocket: 7000}, `listen: "127.0.0.1:99999": want host:port`},
		"api not http":          {Config{"127.0.0.1:0", "ftp://a", ""}, Ports{API: 7070, WebSocket: 7000}, "api_url"},
		"api without a host":    {Config{"127.0.0.1:0", "http:///x", ""}, Ports{API: 7070, WebSocket: 7000}, "api_url"},
		"api with a directive":  {Config{"127.0.0.1:0", "http://a;b", ""}, Ports{API: 7070, WebSocket: 7000}, "api_url"},
		"websocket over http":   {Config{"127.0.0.1:0", "", "http://a/ws"}, Ports{API: 7070, WebSocket: 7000}, "websocket_url"},
		"websocket with a user": {Config{"127.0.0.1:0", "", "ws://u:secret@a/ws"}, Ports{API: 7070, WebSocket: 7000}, "websocket_url"},
		"no api port":           {Config{"127.0.0.1:0", "", "ws://b/ws"}, Ports{}, "api port"},
		"websocket port":        {Config{"127.0.0.1:0", "", ""}, Ports{API: 7070, WebSocket: 70000}, "websocket port"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Listen = strings.Replace(c.cfg.Listen, ":8080", ":0", 1)
			s, err := New(c.cfg, c.ports, observability.Discard())
			if err == nil {
				_ = s.server.Close()
			}
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error %q tells a password", err)
			}
		})
	}
}

func TestRun(t *testing.T) {
	s := newSite(t, Defaults(), builtPage())
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	r, err := http.Get("http://" + s.Addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != 200 {
		t.Errorf("got %d, want 200", r.StatusCode)
	}
	var counted dto.Metric
	if err := s.requests.WithLabelValues(kindPage, "200").Write(&counted); err != nil || counted.GetCounter().GetValue() != 1 {
		t.Errorf("requests counted: got %v, %v, want 1", counted.GetCounter().GetValue(), err)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("run: got %v, want nil", err)
	}
}
