package observability

import (
	"bytes"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
)

//go:embed tracepages.html
var tracePagesFile embed.FS

// TracesPath is where the admin server lists the kept traces; with a slash and its id, that of one trace.
const TracesPath = "/debug/traces"

const (
	listMost  = 500 // traces that a list shows; it says how many more there are
	depthMost = 12  // steps of indentation, for the width of a phone
)

// tracePages answers /debug/traces, the list of the kept traces, and /debug/traces/{traceID}, the waterfall of one,
// for people as pages without scripts and for tools as JSON ("Accept: application/json" or "?format=json").
type tracePages struct {
	store    *traceStore // nil if none is kept
	disabled bool        // by OTEL_SDK_DISABLED
	pages    *template.Template
}

func newTracePages(o *Observability) (*tracePages, error) {
	pages, err := template.New("").Funcs(template.FuncMap{
		"readable": readable, "layer": layerOf, "ink": ink,
		"indent":  func(depth int) string { return fmt.Sprintf("%.1f", 1.2*float64(min(depth, depthMost))) },
		"percent": func(v float64) string { return fmt.Sprintf("%.3f", v) },
		"clock":   func(t time.Time) string { return t.Format("2006-01-02 15:04:05.000") },
		"rfc":     func(t time.Time) string { return t.Format(time.RFC3339Nano) },
		"path":    func(traceID string) string { return TracesPath + "/" + traceID },
	}).ParseFS(tracePagesFile, "tracepages.html")
	if err != nil {
		return nil, fmt.Errorf("read the pages of traces: %w", err)
	}
	return &tracePages{store: o.kept, disabled: o.disabled, pages: pages}, nil
}

func (p *tracePages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+TracesPath, p.serveList)
	mux.HandleFunc("GET "+TracesPath+"/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, TracesPath, http.StatusMovedPermanently)
	})
	mux.HandleFunc("GET "+TracesPath+"/{traceID}", p.serveTrace)
}

// page is one answer: as JSON it is whichever of the last three it has.
type page struct {
	Nonce   string // lets the page's own styles in, and no others
	Title   string
	Filters filters
	List    *listAnswer
	Trace   *traceDetail
	Words   *words
}

// words stand where traces would, and say why there are none.
type words struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// listAnswer is the list as JSON.
type listAnswer struct {
	Traces []traceSummary `json:"traces"` // that fit, the newest first
	More   int            `json:"more"`   // that fit and are not among them
	Kept   int            `json:"kept"`   // whether they fit or not
}

// filters are the query of a list: what a trace must be, all of it.
type filters struct {
	Q        string        // as typed: a trace id or a message id
	Errors   bool          // a span with an error
	Messages bool          // a span that names a message
	Min      time.Duration // that it took at least
}

func readFilters(r *http.Request) (filters, error) {
	query := r.URL.Query()
	f := filters{Q: strings.TrimSpace(query.Get("q")), Errors: on(query.Get("error")), Messages: on(query.Get("messages"))}
	if least := strings.TrimSpace(query.Get("min")); least != "" {
		var err error
		if f.Min, err = time.ParseDuration(least); err != nil || f.Min < 0 {
			return f, fmt.Errorf("min=%s is no duration: want one like 50ms or 1.5s", short(least))
		}
	}
	if _, isTrace := parseTraceID(f.Q); f.Q != "" && !isTrace && strings.Trim(f.Q, "0123456789") != "" {
		return f, errors.New(short(f.Q) + " is neither a trace id, which has 32 hexadecimal digits, nor a message id, which is a number")
	}
	return f, nil
}

func on(v string) bool { return v != "" && v != "0" && v != "false" }

// short keeps what was typed from filling an answer.
func short(s string) string { return strconv.Quote((&keeper{}).text(s)) }

func (f filters) fit(t traceSummary) bool {
	return (!f.Errors || t.Errors > 0) && (!f.Messages || len(t.MessageIDs) > 0) && t.Took >= f.Min
}

func parseTraceID(s string) (id trace.TraceID, ok bool) {
	id, err := trace.TraceIDFromHex(strings.ToLower(s))
	return id, err == nil
}

// serveList answers the traces that fit. A search answers the one that it finds, at its own address.
func (p *tracePages) serveList(w http.ResponseWriter, r *http.Request) {
	if p.store == nil {
		p.render(w, r, http.StatusNotFound, page{Title: "traces", Words: p.none()})
		return
	}
	f, err := readFilters(r)
	if err != nil {
		p.render(w, r, http.StatusBadRequest, page{Title: "traces", Filters: f, Words: &words{"This cannot be looked for", err.Error()}})
		return
	}
	var found []traceSummary
	kept := p.store.all()
	id, byTrace := parseTraceID(f.Q)
	for _, t := range kept {
		if byTrace && t.id != id {
			continue
		}
		sum := summarize(t)
		if f.Q == "" && f.fit(sum) || byTrace || f.Q != "" && slices.Contains(sum.MessageIDs, f.Q) {
			found = append(found, sum)
		}
	}
	switch {
	case f.Q != "" && len(found) == 0:
		p.render(w, r, http.StatusNotFound, page{Title: "traces", Filters: f, Words: p.missing(f.Q, byTrace)})
		return
	case f.Q != "" && len(found) == 1:
		to := TracesPath + "/" + found[0].TraceID
		if r.URL.Query().Get("format") == "json" {
			to += "?format=json"
		}
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	newest(found)
	list := &listAnswer{Traces: found[:min(len(found), listMost)], Kept: len(kept)}
	list.More = len(found) - len(list.Traces)
	if len(found) == 0 {
		list.Traces = []traceSummary{}
	}
	p.render(w, r, http.StatusOK, page{Title: "traces", Filters: f, List: list})
}

func (p *tracePages) serveTrace(w http.ResponseWriter, r *http.Request) {
	if p.store == nil {
		p.render(w, r, http.StatusNotFound, page{Title: "traces", Words: p.none()})
		return
	}
	typed := r.PathValue("traceID")
	id, ok := parseTraceID(typed)
	if !ok {
		p.render(w, r, http.StatusBadRequest, page{Title: "traces", Words: &words{
			"This is no trace id", short(typed) + ": want 32 hexadecimal digits that are not all zero"}})
		return
	}
	t, found := p.store.get(id)
	if !found {
		p.render(w, r, http.StatusNotFound, page{Title: "traces", Words: p.missing(id.String(), true)})
		return
	}
	d := detail(t, func(id trace.TraceID) bool { _, kept := p.store.get(id); return kept })
	p.render(w, r, http.StatusOK, page{Title: d.Root, Trace: &d})
}

// none says how traces come to be kept.
func (p *tracePages) none() *words {
	if p.disabled {
		return &words{"No traces are kept", "OTEL_SDK_DISABLED is set, so this process makes none."}
	}
	return &words{"No traces are kept", "The setting trace.keep of this process is 0. It says how many of the latest traces are shown here; gochat up keeps 500."}
}

// missing says why what exists may not be here.
func (p *tracePages) missing(what string, isTrace bool) *words {
	kind := "message"
	if isTrace {
		kind = "trace"
	}
	return &words{
		"No trace of " + kind + " " + what + " is here",
		fmt.Sprintf("It may not have been sampled (trace.sample_ratio), it may have made room for newer ones (%d are kept, trace.keep), "+
			"its spans may have ended in another process, or none of them has ended yet.", p.store.most),
	}
}

func (p *tracePages) render(w http.ResponseWriter, r *http.Request, status int, show page) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Vary", "Accept")
	show.Nonce = rand.Text()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+show.Nonce+"'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	if wantsJSON(r) {
		switch {
		case show.List != nil:
			writeJSON(w, status, show.List)
		case show.Trace != nil:
			writeJSON(w, status, show.Trace)
		default:
			writeJSON(w, status, show.Words)
		}
		return
	}
	var body bytes.Buffer
	if err := p.pages.ExecuteTemplate(&body, "page", show); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the client is gone: nobody is left to tell
}

// wantsJSON reports whether a tool asks: a browser accepts anything, but names text/html.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return r.URL.Query().Get("format") == "json" || strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// newest sorts traces by their starts.
func newest(traces []traceSummary) {
	slices.SortStableFunc(traces, func(a, b traceSummary) int { return b.Start.Compare(a.Start) })
}

// readable has three digits, which is what a person compares.
func readable(d time.Duration) string {
	unit, name := time.Second, "s"
	switch {
	case d < time.Millisecond:
		unit, name = time.Microsecond, "µs"
	case d < time.Second:
		unit, name = time.Millisecond, "ms"
	}
	v := float64(d) / float64(unit)
	digits := 0
	switch {
	case v == 0:
		return "0"
	case v < 10:
		digits = 2
	case v < 100:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, name)
}

// ink is the colour of a service. By the first letter, each layer has the same one everywhere, and one of its own.
func ink(service string) int {
	const inks = 5
	for _, first := range layerOf(service) {
		return int(first) % inks
	}
	return 0
}

// layerOf is how a service is called in a row.
func layerOf(service string) string { return strings.TrimPrefix(service, "gochat-") }
