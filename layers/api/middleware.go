package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
)

// answerTrace names the request's trace in the answer, so that a client can report what it saw. Without a valid
// trace, none that came in and none that was made, it adds nothing.
func answerTrace(propagator propagation.TextMapPropagator) gin.HandlerFunc {
	return func(c *gin.Context) {
		propagator.Inject(c.Request.Context(), propagation.HeaderCarrier(c.Writer.Header()))
	}
}

// outcomeKey holds, for a seed's route, the status that the same outcome has under /v1.
type outcomeKey struct{}

// observe counts and times the request once it is answered, a panic that cut it included.
func (a *API) observe(c *gin.Context) {
	start := time.Now()
	defer func() {
		ctx, took := c.Request.Context(), time.Since(start)
		route, method := c.FullPath(), knownMethod(c.Request.Method)
		if route == "" {
			route = "none"
		}
		status := c.Writer.Status()
		if outcome, found := c.Get(outcomeKey{}); found {
			status = outcome.(int)
		}
		a.metrics.answered(ctx, route, method, status, took)
		if a.log.Enabled(ctx, slog.LevelDebug) {
			a.log.LogAttrs(ctx, slog.LevelDebug, "request", slog.String("method", method), slog.String("route", route),
				slog.Int("status", status), slog.Duration("took", took))
		}
	}()
	c.Next()
}

// knownMethod keeps the method label closed: a client may send any word.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// recover answers a panic as an internal error. An answer that was begun is cut instead: completed, it would pass
// for a whole one.
func (a *API) recover(c *gin.Context) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		ctx := c.Request.Context()
		if err, ok := v.(error); ok && clientGone(err) {
			panic(http.ErrAbortHandler)
		}
		a.log.LogAttrs(ctx, slog.LevelError, "handler panicked", slog.String("route", c.FullPath()),
			slog.String("err", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
		trace.SpanFromContext(ctx).SetStatus(codes.Error, "panic")
		e := &contract.Error{Code: contract.Internal, Message: "internal error"}
		c.Abort()
		switch {
		case c.Writer.Written():
			c.Set(outcomeKey{}, http.StatusInternalServerError)
			panic(http.ErrAbortHandler)
		case isV1(c.Request):
			writeProblem(c, newProblem(ctx, e))
		default:
			seedFail(c, e, http.StatusInternalServerError)
		}
	}()
	c.Next()
}

// clientGone tells an answer that could not be written from a fault of ours: huma panics on both.
func clientGone(err error) bool {
	var write *net.OpError
	return errors.Is(err, http.ErrAbortHandler) || errors.As(err, &write)
}

func writeProblem(c *gin.Context, p *problem) { p.write(c.Header, c.Status, c.Writer) }
