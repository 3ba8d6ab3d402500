package site

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// What a request asked for, as the metric names it.
const (
	kindPage   = "page"
	kindAsset  = "asset"
	kindConfig = "config"
	kindNone   = "none"
)

// hostPattern admits names, IPv4 and bracketed IPv6 addresses with an optional port, and nothing that could end a
// directive of the Content-Security-Policy that the host is written into.
var hostPattern = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

func validHost(host string) bool { return len(host) <= 255 && hostPattern.MatchString(host) }

// counted counts each answer.
type counted struct{ site *Site }

func (h counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, code: http.StatusOK}
	kind := h.site.serve(rec, r)
	h.site.requests.WithLabelValues(kind, strconv.Itoa(rec.code)).Inc()
}

type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// serve puts the security headers on every answer, errors included.
func (s *Site) serve(w http.ResponseWriter, r *http.Request) (kind string) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if !validHost(r.Host) {
		h.Set("Content-Security-Policy", policy(""))
		http.Error(w, "bad host", http.StatusBadRequest)
		return kindNone
	}
	h.Set("Content-Security-Policy", policy(s.connectSources(r.Host)))
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return kindNone
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "config.json" {
		s.serveConfig(w)
		return kindConfig
	}
	if f, found := s.files[name]; found && name != indexPath {
		f.serve(w, r)
		return kindAsset
	}
	if name != "" && name != indexPath { // the page has no places of its own
		http.Error(w, "not found", http.StatusNotFound)
		return kindNone
	}
	index, built := s.files[indexPath]
	if !built {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(notBuilt)) // an error is the client's having gone
		return kindPage
	}
	index.serve(w, r)
	return kindPage
}

const notBuilt = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>gochat</title></head><body>
<h1>The chat page is not built</h1>
<p>Run <code>make page</code>, then <code>make build</code>, and start gochat again. The other layers work without it.</p>
</body></html>
`

// pageConfig tells the page where to connect. An empty URL means the page's own host with the port, save the last.
type pageConfig struct {
	APIURL        string `json:"apiUrl"`
	WebSocketURL  string `json:"websocketUrl"`
	APIPort       int    `json:"apiPort"`
	WebSocketPort int    `json:"websocketPort"`
	TracesURL     string `json:"tracesUrl"` // of Ports
}

func (s *Site) serveConfig(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(pageConfig{ // an error is the client's having gone
		APIURL: s.cfg.APIURL, WebSocketURL: s.cfg.WebSocketURL, APIPort: s.ports.API, WebSocketPort: s.ports.WebSocket,
		TracesURL: s.ports.TracesURL,
	})
}

// policy allows the page its own files and the two connections it needs. Nothing inline, nothing from elsewhere.
func policy(connect string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" + connect +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// connectSources are the origins of API and websocket for a page loaded from host. By Content Security Policy 3 a
// source of http also matches https, and ws matches wss.
func (s *Site) connectSources(host string) string {
	return " " + source(s.cfg.APIURL, "http", host, s.ports.API) + " " + source(s.cfg.WebSocketURL, "ws", host, s.ports.WebSocket)
}

func source(configured, scheme, host string, port int) string {
	if configured != "" {
		u, err := url.Parse(configured)
		if err != nil { // Validate has parsed it
			return "'none'"
		}
		return u.Scheme + "://" + u.Host
	}
	name := (&url.URL{Host: host}).Hostname()
	if strings.Contains(name, ":") {
		name = "*" // a source has no way to write an IPv6 address
	}
	return scheme + "://" + name + ":" + strconv.Itoa(port)
}
