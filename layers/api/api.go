// Package api answers clients over HTTP: the seed's eight routes, kept field for field, and /v1. It holds no state
// and decides nothing. A handler reads the request, makes one call to logic, and says the answer in the words of
// the route: an envelope under status 200 for the seed's, a status code and problem JSON under /v1.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/codes"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/address"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/httpd"
	"gochat/observability"
)

// maxTimeout keeps a request within the write deadline of the server.
const maxTimeout = time.Minute

// Config of the api layer.
type Config struct {
	Listen         string        `koanf:"listen" doc:"host:port"`
	AllowedOrigins []string      `koanf:"allowed_origins" doc:"origins of pages that may call besides those of the same host; * allows all"`
	Timeout        time.Duration `koanf:"timeout" doc:"deadline of each call to logic"`
}

// Defaults is a Config for one machine.
func Defaults() Config { return Config{Listen: "127.0.0.1:7070", Timeout: 5 * time.Second} }

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if err := address.CheckListen(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	if err := httpd.CheckOrigins(c.AllowedOrigins); err != nil {
		errs = append(errs, fmt.Errorf("allowed_origins: %w", err))
	}
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		errs = append(errs, fmt.Errorf("timeout: %v: want more than 0, at most %v", c.Timeout, maxTimeout))
	}
	return errors.Join(errs...)
}

// API is the HTTP server of the api layer.
type API struct {
	cfg     Config
	logic   contract.Logic
	log     *slog.Logger
	metrics metrics
	handler http.Handler
	server  *httpd.Server
}

// New binds the port, so that Addr is known and clients queue before Run serves them. A server that will not be
// run is released by Close.
func New(cfg Config, logic contract.Logic, tel observability.Telemetry) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &API{cfg: cfg, logic: logic, log: tel.Log, metrics: newMetrics(tel.Metrics)}
	handler, err := a.routes(tel.Traces)
	if err != nil {
		return nil, err
	}
	a.handler = handler
	// Both deadlines leave logic its whole time: net/http ends a request's context at its read deadline too.
	limits := httpd.Limits{Read: 10*time.Second + cfg.Timeout, Write: 25*time.Second + cfg.Timeout, Body: maxBody}
	a.server, err = httpd.New(cfg.Listen, handler, limits, tel.Log)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return a, nil
}

// Addr is the address that was bound.
func (a *API) Addr() string { return a.server.Addr() }

// Run serves until ctx ends, then finishes the requests in flight. It returns nil after a full drain.
func (a *API) Run(ctx context.Context) error { return a.server.Run(ctx) }

// Close releases the port of an API that will not be run.
func (a *API) Close() error { return a.server.Close() }

// Handler answers without the server's deadlines and without its bound on bodies.
func (a *API) Handler() http.Handler { return a.handler }

func (a *API) routes(traces trace.TracerProvider) (http.Handler, error) {
	gin.SetMode(gin.ReleaseMode) // otherwise gin writes every route to standard output
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false // a path that does not exist is not found, whatever it resembles
	if err := engine.SetTrustedProxies(nil); err != nil {
		return nil, fmt.Errorf("trust no proxy: %w", err)
	}
	propagator := propagation.TraceContext{}
	engine.Use(
		// Outermost, so that the span knows the status of what follows. Its metrics go nowhere: ours cost less.
		otelgin.Middleware("", otelgin.WithTracerProvider(traces), otelgin.WithPropagators(propagator),
			otelgin.WithMeterProvider(metricnoop.NewMeterProvider())),
		answerTrace(propagator),
		a.observe,
		a.recover,
		cors(a.cfg.AllowedOrigins),
	)
	engine.NoRoute(a.noRoute)
	engine.NoMethod(a.noMethod)
	a.seedRoutes(engine)
	if err := a.v1Routes(engine); err != nil {
		return nil, fmt.Errorf("describe /v1: %w", err)
	}
	return engine, nil
}

func isV1(r *http.Request) bool {
	return r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/")
}

func (a *API) noRoute(c *gin.Context) {
	if isV1(c.Request) {
		writeProblem(c, newProblem(c.Request.Context(), &contract.Error{Code: contract.NotFound, Message: "no such path"}))
		return
	}
	c.JSON(http.StatusNotFound, envelope{Code: seedFailure, Message: "no such path"})
}

func (a *API) noMethod(c *gin.Context) {
	if isV1(c.Request) {
		p := newProblem(c.Request.Context(), &contract.Error{Code: contract.BadRequest, Message: "the path does not take this method"})
		p.setStatus(http.StatusMethodNotAllowed)
		writeProblem(c, p)
		return
	}
	seedFail(c, &contract.Error{Code: contract.BadRequest, Message: "use POST"}, http.StatusMethodNotAllowed)
}

// explain is what a client may see of err. A failure of ours, rather than of the caller, is logged here and only
// here, and marks the request's span, which status 200 of a seed's route would leave unmarked.
func (a *API) explain(ctx context.Context, err error) *contract.Error {
	e := contract.AsError(err)
	if statusOf(e.Code) < http.StatusInternalServerError {
		return e
	}
	level := slog.LevelError
	if ctx.Err() != nil {
		level = slog.LevelDebug // the client left, and the call with it
	}
	trace.SpanFromContext(ctx).SetStatus(codes.Error, string(e.Code))
	a.log.LogAttrs(ctx, level, "call to logic failed", slog.String("code", string(e.Code)), slog.Any("err", err))
	return e
}
