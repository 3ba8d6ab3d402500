package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"gochat/layers/internal/contract"
)

const securityScheme = "bearer"

// v1 registers the routes under /v1. What a route takes and answers, and what /v1/openapi.json says of it, come
// from the same types.
type v1 struct {
	api   *API
	huma  huma.API
	logic contract.Logic
}

func (a *API) v1Routes(engine *gin.Engine) error {
	config := huma.DefaultConfig("gochat", "1")
	// huma's own pages are off: the documentation page loads scripts from elsewhere, and its OpenAPI handler
	// builds the document during requests without a lock.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.AllowAdditionalPropertiesByDefault = true // an older server answers a newer client
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		securityScheme: {Type: "http", Scheme: "bearer", Description: "The token that register and login answer."},
	}
	config.Transformers = []huma.Transformer{translate}
	config.Formats = map[string]huma.Format{"application/json": strictJSON(), "json": strictJSON()}
	v := &v1{api: a, huma: humagin.New(engine, config), logic: a.logic}
	v.huma.UseMiddleware(v.enter)
	v.accounts()
	v.rooms()
	v.messages()

	// huma registers the schemas of its own errors, which no route answers.
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(v.huma.OpenAPI().Components.Schemas.Map(), unused)
	}
	document, err := json.Marshal(v.huma.OpenAPI())
	if err != nil {
		return err
	}
	engine.GET("/v1/openapi.json", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", document) })
	return nil
}

// strictJSON refuses what is not UTF-8, in whose place encoding/json would put U+FFFD without a word.
func strictJSON() huma.Format {
	format := huma.DefaultJSONFormat
	unmarshal := format.Unmarshal
	format.Unmarshal = func(data []byte, v any) error {
		if !utf8.Valid(data) {
			return errors.New("the body is not UTF-8")
		}
		return unmarshal(data, v)
	}
	return format
}

// view is huma.Context by a name that leaves the method Context free to be redefined.
type view = huma.Context

// request is huma's view of a request with what we know better.
type request struct {
	view
	ctx    context.Context
	status int // in place of the one huma is about to set; 0 keeps huma's
}

func (r *request) Context() context.Context { return r.ctx }

func (r *request) SetStatus(status int) {
	if r.status != 0 {
		status = r.status
	}
	r.view.SetStatus(status)
}

// SetReadDeadline does nothing: the server bounds the reading of bodies, and a deadline for the body alone would
// end the request's context while logic is still at work.
func (r *request) SetReadDeadline(time.Time) error { return nil }

// tokenKey holds the bearer token of a route that wants one.
type tokenKey struct{}

// enter asks for the token before anything else of the request is looked at.
func (v *v1) enter(h huma.Context, next func(huma.Context)) {
	r := &request{view: h, ctx: h.Context()}
	if len(h.Operation().Security) > 0 {
		token := bearer(h.Header("Authorization"))
		if token == "" {
			e := &contract.Error{Code: contract.Unauthenticated, Message: "want Authorization: Bearer and a token"}
			newProblem(r.ctx, e).write(h.SetHeader, h.SetStatus, h.BodyWriter())
			return
		}
		r.ctx = context.WithValue(r.ctx, tokenKey{}, token)
	}
	next(r)
}

// bearer is the token of an Authorization header, "" if there is none. The scheme may be in any case (RFC 9110).
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// translate puts our problem in the place of huma's error.
func translate(h huma.Context, _ string, body any) (any, error) {
	model, ok := body.(*huma.ErrorModel)
	if !ok {
		return body, nil
	}
	p := problemOf(h.Context(), model)
	h.(*request).status = p.Status
	return p, nil
}

// operation describes a route; status is that of success. Every route can fail, and always in the same shape.
func (v *v1) operation(method, path, id, summary string, status int) huma.Operation {
	schema := huma.SchemaFromType(v.huma.OpenAPI().Components.Schemas, reflect.TypeFor[problem]())
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, DefaultStatus: status,
		Responses: map[string]*huma.Response{"default": {
			Description: "The request failed; code says why.",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: schema}},
		}},
	}
}

// open registers a route that anyone may call.
func open[I, O any](v *v1, op huma.Operation, call func(context.Context, *I) (*O, error)) {
	huma.Register(v.huma, op, func(ctx context.Context, in *I) (*O, error) {
		bounded, cancel := context.WithTimeout(ctx, v.api.cfg.Timeout)
		defer cancel()
		out, err := call(bounded, in)
		if err != nil {
			return nil, newProblem(ctx, v.api.explain(ctx, err))
		}
		return out, nil
	})
}

// authorized registers a route that wants a token. Whether it is good is for logic to say.
func authorized[I, O any](v *v1, op huma.Operation, call func(context.Context, contract.Credential, *I) (*O, error)) {
	op.Security = []map[string][]string{{securityScheme: {}}}
	open(v, op, func(ctx context.Context, in *I) (*O, error) {
		token, _ := ctx.Value(tokenKey{}).(string)
		return call(ctx, contract.Credential{Token: token}, in)
	})
}

// answer is an answer with a body.
type answer[T any] struct{ Body T }

// nothing is the input of a route without one, and the answer that has nothing to say (204).
type nothing struct{}

// Page is the query of a list that is read in pages. Like the other parts of requests that are embedded, it is
// exported for huma alone, which looks into no embedded type that is not.
type Page struct {
	Limit int `query:"limit" minimum:"1" maximum:"200" doc:"How many at most."`
}

// rfc3339 is the time in UTC with milliseconds.
func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
