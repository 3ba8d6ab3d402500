// Package httpd is an HTTP server that is safe to leave on a public port: every phase of a request has a
// deadline, bodies are bounded, and ending its context drains it.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of one server. Zero values take the defaults of New.
type Limits struct {
	ReadHeader time.Duration // 5 s
	Read       time.Duration // 15 s, the whole request
	Write      time.Duration // 30 s, from the end of the header to the end of the answer
	Idle       time.Duration // 60 s between requests
	Body       int64         // 1 MiB
	Drain      time.Duration // 10 s for the requests in flight when the context ends
}

// Server listens from New on, so that its address is known and connections queue before Run serves them.
type Server struct {
	listener net.Listener
	http     *http.Server
	drain    time.Duration

	mu    sync.Mutex
	fresh map[net.Conn]struct{} // connections over which nothing has come yet; nil once the server drains
}

// New binds addr ("host:port", port 0 for a free one).
func New(addr string, handler http.Handler, limits Limits, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	body := or(limits.Body, 1<<20)
	s := &Server{
		fresh:    make(map[net.Conn]struct{}),
		listener: l,
		drain:    or(limits.Drain, 10*time.Second),
		http: &http.Server{
			// Not by replacing the request's body: net/http looks at its own one to see whether it was read to the
			// end, and takes what was left unread for the next request otherwise.
			Handler:           http.MaxBytesHandler(handler, body),
			ReadHeaderTimeout: or(limits.ReadHeader, 5*time.Second),
			ReadTimeout:       or(limits.Read, 15*time.Second),
			WriteTimeout:      or(limits.Write, 30*time.Second),
			IdleTimeout:       or(limits.Idle, time.Minute),
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	s.http.ConnState = s.track
	return s, nil
}

// track keeps the connections that browsers open ahead of need: a drain, which would wait for them for seconds,
// closes them.
func (s *Server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.fresh, conn)
	case s.fresh != nil:
		s.fresh[conn] = struct{}{}
	default:
		_ = conn.Close() // it came while the listener was being closed
	}
}

func (s *Server) closeFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.fresh {
		_ = conn.Close() // the server notices and forgets it
	}
	s.fresh = nil
}

func or[T ~int64](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return v
}

// Addr is the address that was bound.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close releases the port of a server that will not be run.
func (s *Server) Close() error { return errors.Join(s.http.Close(), s.listener.Close()) }

// Run serves until ctx ends, then finishes the requests in flight within the drain limit. It returns nil after a
// full drain. Connections that a handler has taken over are that handler's to close.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
	defer cancel()
	s.closeFresh()
	err := s.http.Shutdown(drain)
	if err != nil {
		_ = s.http.Close() // what did not finish in time is cut, and said below
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("drain %s: %w", s.Addr(), err)
	}
	return nil
}

// OriginAllowed reports whether a page may talk to this server from a browser: one of the same host name, whatever
// its port, or one whose origin is in the list, in which * stands for all. What sends no Origin is not a page.
func OriginAllowed(r *http.Request, allowed []string) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(allowed, "*") || slices.Contains(allowed, origin) {
		return true
	}
	from, err := url.Parse(origin)
	return err == nil && (from.Scheme == "http" || from.Scheme == "https") && from.Hostname() != "" && strings.EqualFold(from.Hostname(), hostName(r.Host))
}

// CheckOrigins reports the first that is neither an origin nor *.
func CheckOrigins(allowed []string) error {
	for _, o := range allowed {
		u, err := url.Parse(o)
		if o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || o != u.Scheme+"://"+u.Host) {
			return fmt.Errorf("%q: want scheme://host[:port] or *", o)
		}
	}
	return nil
}

func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
