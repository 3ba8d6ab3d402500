// Package site serves the chat page. The page is built from web/ into dist/ and embedded, so that the binary is
// all that is deployed; a binary built without it still runs and says how to build the page.
package site

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gochat/layers/internal/address"
	"gochat/layers/internal/httpd"
	"gochat/observability"
)

// all: takes dist/.keep too, which is the only file of a checkout without a built page.
//
//go:embed all:dist
var dist embed.FS

// Config of the site. The two URLs are addresses as a browser sees them; "" is the host that the page was loaded
// from, with the port given by Ports.
type Config struct {
	Listen       string `koanf:"listen" doc:"host:port"`
	APIURL       string `koanf:"api_url" doc:"address of the API as a browser sees it; empty is the page's host with the API's port"`
	WebSocketURL string `koanf:"websocket_url" doc:"address of the websocket as a browser sees it; empty is the page's host with its port"`
}

// Defaults serves the loopback interface, beside an API and a websocket on the same host.
func Defaults() Config { return Config{Listen: "127.0.0.1:8080"} }

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	if err := address.CheckListen(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	if err := checkURL(c.APIURL, "http", "https"); err != nil {
		errs = append(errs, fmt.Errorf("api_url: %w", err))
	}
	if err := checkURL(c.WebSocketURL, "ws", "wss"); err != nil {
		errs = append(errs, fmt.Errorf("websocket_url: %w", err))
	}
	return errors.Join(errs...)
}

// checkURL accepts "" and absolute URLs whose host can stand in a Content-Security-Policy.
func checkURL(raw, scheme, secure string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("want a URL: %w", err)
	case u.Scheme != scheme && u.Scheme != secure:
		return fmt.Errorf("%q: want %s:// or %s://", u.Redacted(), scheme, secure)
	case !validHost(u.Host):
		return fmt.Errorf("%q: want a host", u.Redacted())
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("%q: want no user, query or fragment", u.Redacted())
	}
	return nil
}

// Ports are where API and websocket listen on the host of the page, for the addresses that Config leaves open; and
// where a trace is shown, with its id after a slash, to whoever has opened the page on the machine itself.
type Ports struct {
	API, WebSocket int
	TracesURL      string // "" if the process shows none
}

// Site listens from New on and serves while Run runs.
type Site struct {
	cfg      Config
	ports    Ports
	files    map[string]file
	server   *httpd.Server
	requests *prometheus.CounterVec
}

// New reads the embedded page into memory and binds cfg.Listen.
func New(cfg Config, ports Ports, tel observability.Telemetry) (*Site, error) {
	page, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("open the embedded page: %w", err)
	}
	return build(cfg, ports, tel, page)
}

func build(cfg Config, ports Ports, tel observability.Telemetry, page fs.FS) (*Site, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.APIURL == "" && !validPort(ports.API) {
		return nil, fmt.Errorf("site: api port %d: want 1 to 65535, or set site.api_url", ports.API)
	}
	if cfg.WebSocketURL == "" && !validPort(ports.WebSocket) {
		return nil, fmt.Errorf("site: websocket port %d: want 1 to 65535, or set site.websocket_url", ports.WebSocket)
	}
	files, err := load(page)
	if err != nil {
		return nil, fmt.Errorf("load the page: %w", err)
	}
	s := &Site{
		cfg: cfg, ports: ports, files: files,
		requests: promauto.With(tel.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "gochat_site_requests_total",
			Help: "Requests for the page by what they asked for: page, asset, config or none.",
		}, []string{"kind", "code"}),
	}
	if s.server, err = httpd.New(cfg.Listen, s.Handler(), httpd.Limits{}, tel.Log); err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	if _, built := files[indexPath]; !built {
		tel.Log.Warn("the binary has no chat page; run make page, then make build")
	}
	return s, nil
}

func validPort(p int) bool { return p > 0 && p < 1<<16 }

// Addr is the address that was bound.
func (s *Site) Addr() string { return s.server.Addr() }

// Run serves until ctx ends, then finishes the requests in flight. It returns nil after a full drain.
func (s *Site) Run(ctx context.Context) error { return s.server.Run(ctx) }

// Close releases the port of a Site that will not be run.
func (s *Site) Close() error { return s.server.Close() }

// Handler answers GET and HEAD for the page, its assets and /config.json.
func (s *Site) Handler() http.Handler { return counted{s} }
