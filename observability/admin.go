package observability

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	adminWriteLimit = 75 * time.Second // a profile of 30 s, or of a minute, must fit in
	adminDrainLimit = 5 * time.Second
	adminBodyLimit  = 64 << 10 // bytes; net/http/pprof parses forms, whatever the method
)

// Admin answers operators for one process: /metrics, /healthz, /readyz, /debug/pprof/, /debug/config, /debug/metrics and
// /debug/traces. It asks for no password: it belongs on loopback or a network that only operators reach.
type Admin struct {
	listener net.Listener
	http     *http.Server
	mux      *http.ServeMux
}

// NewAdmin binds listen ("host:port", port 0 for a free one), so that the address is known before Run serves it.
// config gives what /debug/config shows, without its secrets; it is called for each request, concurrently.
func NewAdmin(listen string, o *Observability, health *Health, config func() any) (*Admin, error) {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("admin: listen: %w", err)
	}
	// OpenMetrics is what carries exemplars. One broken collector must not hide the rest.
	metrics := promhttp.HandlerFor(o.Gatherer(), promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelWarn),
	})
	traces, err := newTracePages(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admin: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	traces.register(mux)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", health.serve)
	mux.HandleFunc("GET /debug/metrics", o.catalog.serve)
	mux.HandleFunc("GET /debug/config", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, config()) })
	// Without cmdline, which would show the secrets given as flags.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return &Admin{
		listener: listener,
		mux:      mux,
		http: &http.Server{
			Handler:           http.MaxBytesHandler(mux, adminBodyLimit),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      adminWriteLimit,
			IdleTimeout:       2 * time.Minute, // longer than most scrape intervals
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Handle has h answer what matches the pattern, which nothing has been mounted at. It may be called while Run serves.
func (a *Admin) Handle(pattern string, h http.Handler) { a.mux.Handle(pattern, h) }

// Addr is the address that was bound.
func (a *Admin) Addr() string { return a.listener.Addr().String() }

// Close releases the port of a server that will not be run.
func (a *Admin) Close() error { return errors.Join(a.http.Close(), a.listener.Close()) }

// Run serves until ctx ends, then finishes the requests in flight, for five seconds at most. It returns nil after a
// full drain.
func (a *Admin) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- a.http.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin: serve %s: %w", a.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminDrainLimit)
	defer cancel()
	err := a.http.Shutdown(drain)
	if err != nil {
		_ = a.http.Close() // what did not finish in time is cut, and said below
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("admin: drain %s: %w", a.Addr(), err)
	}
	return nil
}

func (h *Health) serve(w http.ResponseWriter, r *http.Request) {
	results, ready := h.Check(r.Context())
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, Readiness{ready, results})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client is gone: nobody is left to tell
}
