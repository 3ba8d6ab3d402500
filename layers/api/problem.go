package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
)

// statusOf is the HTTP status of a code word. A code of a later version is ours to have known: 500.
func statusOf(code contract.Code) int {
	switch code {
	case contract.BadRequest:
		return http.StatusBadRequest
	case contract.Unauthenticated, contract.SessionEnded, contract.Replaced:
		return http.StatusUnauthorized
	case contract.Forbidden:
		return http.StatusForbidden
	case contract.NotFound:
		return http.StatusNotFound
	case contract.Conflict:
		return http.StatusConflict
	case contract.TooLarge:
		return http.StatusRequestEntityTooLarge
	case contract.RateLimited:
		return http.StatusTooManyRequests
	case contract.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// problem is the body of every error under /v1: problem details of RFC 9457 with the code word that every
// transport uses.
type problem struct {
	Type         string       `json:"type" doc:"Always about:blank: the code says what kind of error it is."`
	Title        string       `json:"title" doc:"The status in words."`
	Status       int          `json:"status" doc:"The HTTP status."`
	Detail       string       `json:"detail" doc:"A sentence for people."`
	Code         string       `json:"code" doc:"The code word. New ones may be added, none is ever renamed." example:"rate_limited"`
	TraceID      string       `json:"traceId,omitempty" doc:"32 hex digits; name it when reporting the error."`
	Errors       []fieldError `json:"errors,omitempty" nullable:"false" doc:"What was wrong with each part of the request."`
	RetryAfterMs int64        `json:"retryAfterMs,omitempty" doc:"When another try may succeed."`
}

type fieldError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" example:"body.name"`
}

func newProblem(ctx context.Context, e *contract.Error) *problem {
	p := &problem{Type: "about:blank", Detail: e.Message, Code: string(e.Code), RetryAfterMs: e.RetryAfter.Milliseconds()}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		p.TraceID = span.TraceID().String()
	}
	p.setStatus(statusOf(e.Code))
	return p
}

func (p *problem) setStatus(status int) { p.Status, p.Title = status, http.StatusText(status) }

// Error, GetStatus, GetHeaders and ContentType are what huma asks of an error that a handler returns.

func (p *problem) Error() string             { return p.Code + ": " + p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }

func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfterSeconds(p.RetryAfterMs))
	}
	return h
}

// retryAfterSeconds rounds up, and says a second where nothing is known: the header counts in whole ones.
func retryAfterSeconds(ms int64) string { return strconv.FormatInt(max(1, (ms+999)/1000), 10) }

var (
	_ huma.StatusError       = (*problem)(nil)
	_ huma.HeadersError      = (*problem)(nil)
	_ huma.ContentTypeFilter = (*problem)(nil)
)

// write answers with the problem where no huma handler does.
func (p *problem) write(header func(name, value string), status func(int), body io.Writer) {
	for name, values := range p.GetHeaders() {
		header(name, values[0])
	}
	header("Content-Type", p.ContentType(""))
	status(p.Status)
	_ = json.NewEncoder(body).Encode(p) // fails only if the client has left
}

// problemOf says in our words what huma found wrong with a request. The values that it echoes stay out: a wrong
// body may hold a password.
func problemOf(ctx context.Context, model *huma.ErrorModel) *problem {
	code, status := contract.BadRequest, http.StatusBadRequest
	switch model.Status {
	case http.StatusRequestEntityTooLarge:
		code, status = contract.TooLarge, model.Status
	case http.StatusUnsupportedMediaType, http.StatusRequestTimeout:
		status = model.Status
	}
	p := newProblem(ctx, &contract.Error{Code: code, Message: model.Detail})
	p.setStatus(status)
	for _, d := range model.Errors {
		p.Errors = append(p.Errors, fieldError{Message: d.Message, Location: d.Location})
	}
	return p
}
