package observability

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/net/html"
)

// tracesOf is an admin server that keeps traces, with these spans.
func tracesOf(t *testing.T, spans ...tracetest.SpanStub) http.Handler {
	t.Helper()
	cfg := traceAll()
	cfg.Trace.Keep = 2 * listMost
	o := setup(t, cfg, io.Discard)
	for _, s := range spans {
		o.kept.OnEnd(s.Snapshot())
	}
	return adminOf(t, o)
}

func adminOf(t *testing.T, o *Observability) http.Handler {
	t.Helper()
	a, err := NewAdmin("127.0.0.1:0", o, NewHealth(), func() any { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a.http.Handler
}

// ask is one request, with "name: value" headers.
func ask(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// asJSON asks for an answer as a tool does.
func asJSON[T any](t *testing.T, h http.Handler, target string) (status int, v T) {
	t.Helper()
	w := ask(h, target, "Accept: application/json")
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: content type %q", target, got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s: %v in %s", target, err, w.Body)
	}
	return w.Code, v
}

// elements are those of a page with the tag, in order.
func elements(t *testing.T, w *httptest.ResponseRecorder, tag string) (found []*html.Node) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == tag {
			found = append(found, n)
		}
	}
	return found
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// textOf is what an element shows, with single spaces.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// placed gives a stub a name, a layer and a place in time, in milliseconds after the epoch.
func placed(s tracetest.SpanStub, name, layer string, from, to int) tracetest.SpanStub {
	s.Name = name
	s.Resource = resource.NewSchemaless(attribute.String("service.name", "gochat-"+layer), attribute.String("service.instance.id", layer+"-1"))
	s.StartTime, s.EndTime = epoch.Add(time.Duration(from)*time.Millisecond), epoch.Add(time.Duration(to)*time.Millisecond)
	return s
}

func with(s tracetest.SpanStub, attributes ...attribute.KeyValue) tracetest.SpanStub {
	s.Attributes = append(s.Attributes, attributes...)
	return s
}

func failed(s tracetest.SpanStub, reason string) tracetest.SpanStub {
	s.Status = sdktrace.Status{Code: codes.Error, Description: reason}
	return s
}

// message is a trace as a message makes it, ended from the inside out; its push failed.
func message(trace, from int) []tracetest.SpanStub {
	return []tracetest.SpanStub{
		with(placed(stub(trace, 3, 2), "commit", "logic", from+10, from+20), attribute.Int64("gochat.message.id", 7000+int64(trace))),
		placed(stub(trace, 2, 1), "Logic/Send", "logic", from+5, from+40),
		failed(placed(stub(trace, 5, 4), "Connect/Push", "task", from+60, from+80), "node away"),
		with(placed(stub(trace, 4, 3), "process", "task", from+50, from+100), attribute.String("messaging.message.id", fmt.Sprint(7000+trace))),
		placed(stub(trace, 1, 0), "POST /v1/rooms/:id/messages", "api", from, from+50),
	}
}

func TestTheWaterfall(t *testing.T) {
	h := tracesOf(t, append(message(1, 0), placed(stub(1, 6, 77), "late push", "connect", 90, 95))...)
	w := ask(h, "/debug/traces/"+traceID(1).String())
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	var rows []string
	for _, summary := range elements(t, w, "summary") {
		rows = append(rows, textOf(summary))
	}
	want := []string{
		"api POST /v1/rooms/:id/messages unspecified 50.0 ms",
		"logic Logic/Send unspecified 35.0 ms",
		"logic commit unspecified 10.0 ms",
		"task process unspecified 50.0 ms",
		"task Connect/Push unspecified error 20.0 ms",
		"connect late push unspecified parent not here 5.00 ms",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	style := textOf(elements(t, w, "style")[0])
	for i, bar := range []string{"0.000 50.000", "5.000 35.000", "10.000 10.000", "50.000 50.000", "60.000 20.000", "90.000 5.000"} {
		left, width, _ := strings.Cut(bar, " ")
		if rule := fmt.Sprintf("#b%d { left: min(%s%%, calc(100%% - 2px)); width: %s%%; }", i, left, width); !strings.Contains(style, rule) {
			t.Errorf("no rule %s in %s", rule, style[strings.LastIndex(style, "@media"):])
		}
	}
	if !strings.Contains(style, "min-width: 2px") {
		t.Error("a bar may be too short to be seen")
	}
	for i, depth := range []string{"0.0", "1.2", "2.4", "3.6", "4.8", "0.0"} {
		if rule := fmt.Sprintf("#w%d { padding-left: %sem; }", i, depth); !strings.Contains(style, rule) {
			t.Errorf("no rule %s", rule)
		}
	}
	head := textOf(elements(t, w, "main")[0])
	for _, want := range []string{traceID(1).String(), "100 ms", "6 spans", "1 error", "Message 7001", "Status Error: node away", "Service gochat-task, task-1"} {
		if !strings.Contains(head, want) {
			t.Errorf("the page does not say %q: %s", want, head)
		}
	}
}

func TestSeveralRootsAndCircles(t *testing.T) {
	h := tracesOf(t,
		placed(stub(1, 2, 0), "second root", "api", 10, 20), placed(stub(1, 1, 0), "first root", "api", 0, 5),
		placed(stub(1, 3, 4), "a", "api", 30, 40), placed(stub(1, 4, 3), "b", "api", 31, 39), placed(stub(1, 5, 5), "itself", "api", 50, 51))
	_, got := asJSON[traceDetail](t, h, "/debug/traces/"+traceID(1).String())
	var names []string
	for _, s := range got.Spans {
		names = append(names, fmt.Sprintf("%d %s", s.Depth, s.Name))
	}
	if want := []string{"0 first root", "0 second root", "0 a", "1 b", "0 itself"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if got.Root != "first root" {
		t.Errorf("root %q, want the first", got.Root)
	}
}

// TestSpansThatStartTogether stand with the longer one first, and an empty trace has bars.
func TestSpansThatStartTogether(t *testing.T) {
	h := tracesOf(t, placed(stub(1, 1, 0), "short", "api", 0, 0), placed(stub(1, 2, 0), "long", "api", 0, 9), placed(stub(2, 3, 0), "instant", "api", 0, 0))
	_, got := asJSON[traceDetail](t, h, "/debug/traces/"+traceID(1).String())
	if len(got.Spans) != 2 || got.Spans[0].Name != "long" {
		t.Errorf("%+v: want long before short", got.Spans)
	}
	if page := ask(h, "/debug/traces/"+traceID(2).String()).Body.String(); !strings.Contains(page, "width: 0.000%") {
		t.Error("a trace that took no time has no bar")
	}
}

func TestTheList(t *testing.T) {
	ping := placed(stub(1, 1, 0), "ping", "connect", 0, 1)
	broken := failed(placed(stub(2, 1, 0), "GET /v1/me", "api", 1000, 1200), "gone")
	h := tracesOf(t, slices.Concat(message(4, 3000), []tracetest.SpanStub{ping, broken, placed(stub(3, 1, 9), "orphan", "logic", 2000, 2030)})...)
	for _, tc := range []struct {
		query string
		want  []int // ids of traces, in order
	}{
		{"", []int{4, 3, 2, 1}},
		{"?messages=1", []int{4}},
		{"?messages=0", []int{4, 3, 2, 1}},
		{"?error=1", []int{4, 2}},
		{"?min=30ms", []int{4, 3, 2}},
		{"?min=100ms&error=1", []int{4, 2}},
		{"?min=101ms&error=1", []int{2}},
		{"?min=1h", nil},
		{"?q=&min=&x=y", []int{4, 3, 2, 1}},
	} {
		t.Run(tc.query, func(t *testing.T) {
			status, got := asJSON[listAnswer](t, h, "/debug/traces"+tc.query)
			ids := []string{}
			for _, s := range got.Traces {
				ids = append(ids, s.TraceID)
			}
			want := []string{}
			for _, id := range tc.want {
				want = append(want, traceID(id).String())
			}
			if status != 200 || !slices.Equal(ids, want) || got.Kept != 4 || got.More != 0 || got.Traces == nil {
				t.Errorf("%d, %v of %d kept, %d more; want %v of 4", status, ids, got.Kept, got.More, want)
			}
			var links []string
			for _, a := range elements(t, ask(h, "/debug/traces"+tc.query), "a") {
				if id, ok := strings.CutPrefix(attr(a, "href"), "/debug/traces/"); ok {
					links = append(links, id)
				}
			}
			if !slices.Equal(links, want) && len(links)+len(want) > 0 {
				t.Errorf("the page links to %v, want %v", links, want)
			}
		})
	}
	_, got := asJSON[listAnswer](t, h, "/debug/traces?messages=1")
	if s := got.Traces[0]; s.Root != "POST /v1/rooms/:id/messages" || !slices.Equal(s.Services, []string{"gochat-api", "gochat-logic", "gochat-task"}) ||
		s.DurationMs != 100 || s.SpanCount != 5 || s.Errors != 1 || !slices.Equal(s.MessageIDs, []string{"7004"}) || !s.Start.Equal(epoch.Add(3*time.Second)) {
		t.Errorf("summary %+v", s)
	}
	row := textOf(elements(t, ask(h, "/debug/traces"), "li")[0])
	if want := "2026-03-01 12:00:03.000 POST /v1/rooms/:id/messages api logic task 1 error message 7004 5 spans 100 ms"; row != want {
		t.Errorf("row %q, want %q", row, want)
	}
}

func TestALongListIsCut(t *testing.T) {
	var spans []tracetest.SpanStub
	for i := range listMost + 3 {
		spans = append(spans, placed(stub(i+1, 1, 0), "root", "api", i, i+1))
	}
	_, got := asJSON[listAnswer](t, tracesOf(t, spans...), "/debug/traces")
	if len(got.Traces) != listMost || got.More != 3 || got.Kept != listMost+3 || got.Traces[0].TraceID != traceID(listMost+3).String() {
		t.Errorf("%d traces from %s, %d more of %d", len(got.Traces), got.Traces[0].TraceID, got.More, got.Kept)
	}
}

func TestSearch(t *testing.T) {
	twice := with(placed(stub(3, 1, 0), "resume", "connect", 0, 1), attribute.Int64("gochat.message.id", 7002))
	queued := with(placed(stub(4, 1, 0), "process", "task", 0, 1), attribute.String("messaging.message.id", "8000"))
	h := tracesOf(t, slices.Concat(message(1, 0), message(2, 500), []tracetest.SpanStub{twice, queued})...)
	one := "/debug/traces/" + traceID(1).String()
	hex := "abcdef00000000000000000000000001"
	for _, tc := range []struct {
		name, path string
		status     int
		to, says   string // Location, and a part of the answer
	}{
		{"a trace", "?q=" + traceID(1).String(), 302, one, ""},
		{"with blanks", "?q=%20" + traceID(1).String() + "%20", 302, one, ""},
		{"a message", "?q=7001", 302, one, ""},
		{"a message as text, by the queue's name for it", "?q=8000", 302, "/debug/traces/" + traceID(4).String(), ""},
		{"in spite of filters", "?q=7001&min=5h&error=1&messages=1", 302, one, ""},
		{"as JSON", "?q=7001&format=json", 302, one + "?format=json", ""},
		{"a message in two traces", "?q=7002", 200, "", "Traces of message 7002"},
		{"no such trace", "?q=" + hex, 404, "", "No trace of trace " + hex},
		{"no such message", "?q=7009", 404, "", "may not have been sampled"},
		{"a part of a message id", "?q=700", 404, "", "No trace of message 700 is here"},
		{"neither", "?q=hello", 400, "", "&#34;hello&#34; is neither a trace id"},
		{"zeros only", "?q=" + strings.Repeat("0", 32), 404, "", "No trace of message 0"},
		{"no duration", "?min=fast", 400, "", "is no duration"},
		{"a negative duration", "?min=-1s", 400, "", "is no duration"},
		{"a trace's own address", "/" + traceID(1).String(), 200, "", "5 spans"},
		{"in capitals", "/" + strings.ToUpper(hex), 404, "", "No trace of trace " + hex},
		{"not here", "/" + hex, 404, "", "another process"},
		{"malformed", "/12", 400, "", "want 32 hexadecimal digits"},
		{"not hexadecimal", "/" + strings.Repeat("g", 32), 400, "", "want 32 hexadecimal digits"},
		{"nothing", "/", 301, "/debug/traces", ""},
		{"something below", "/" + hex + "/x", 404, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ask(h, "/debug/traces"+tc.path)
			if w.Code != tc.status || w.Header().Get("Location") != tc.to || !strings.Contains(w.Body.String(), tc.says) {
				t.Errorf("%d to %q, want %d to %q with %q in\n%s", w.Code, w.Header().Get("Location"), tc.status, tc.to, tc.says, w.Body)
			}
			if tc.says == "" {
				return
			}
			if len(elements(t, w, "h1")) != 1 || len(elements(t, w, "form")) != 1 {
				t.Error("it is no page that one can go on from")
			}
			if tc.status >= 400 {
				status, said := asJSON[words](t, h, "/debug/traces"+tc.path)
				if status != tc.status || said.Title == "" || said.Detail == "" {
					t.Errorf("as JSON: %d %+v", status, said)
				}
			}
		})
	}
}

// TestNothingInAPageIsAScript: names, values and what was searched for are text, and the policy would stop them if not.
func TestNothingInAPageIsAScript(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>`
	span := failed(with(placed(stub(1, 1, 0), evil, evil, 0, 1), attribute.String(evil, evil), attribute.String("gochat.message.id", evil)), evil)
	span.Events = []sdktrace.Event{{Name: evil, Time: epoch, Attributes: []attribute.KeyValue{attribute.String("e", evil)}}}
	span.Links = []sdktrace.Link{{Attributes: []attribute.KeyValue{attribute.String("l", evil)}}}
	h := tracesOf(t, span)
	for target, times := range map[string]int{ // that the text is seen
		"/debug/traces":                              3,
		"/debug/traces/" + traceID(1).String():       11,
		"/debug/traces?q=%22%3E%3Cscript%3E":         0,
		"/debug/traces?min=%22%3E%3Cscript%3E":       0,
		"/debug/traces/%22%3E%3Cscript%3Ealert(1)":   0,
		"/debug/traces?q=7&x=%22%3E%3Cscript%3E":     0,
		"/debug/traces/" + strings.Repeat("%3C", 32): 0,
	} {
		w := ask(h, target)
		for _, tag := range []string{"script", "img", "iframe", "object"} {
			if found := elements(t, w, tag); len(found) != 0 {
				t.Errorf("%s has a %s: %s", target, tag, w.Body)
			}
		}
		body := textOf(elements(t, w, "body")[0])
		if got := strings.Count(body, strings.Join(strings.Fields(evil), " ")); got < times {
			t.Errorf("%s shows the text %d times, want %d: %s", target, got, times, body)
		}
		policy := w.Header().Get("Content-Security-Policy")
		nonce := attr(elements(t, w, "style")[0], "nonce")
		if want := "default-src 'none'; style-src 'nonce-" + nonce + "'; "; len(nonce) < 20 || !strings.HasPrefix(policy, want) || strings.Contains(policy, "unsafe") ||
			!strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q with nonce %q", target, policy, nonce)
		}
		if again := attr(elements(t, ask(h, target), "style")[0], "nonce"); again == nonce {
			t.Errorf("%s: the same nonce twice", target)
		}
		for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s %q, want %q", target, header, got, want)
			}
		}
		if elsewhere := regexp.MustCompile(`(src|href|action)="?(https?:)?//`).FindString(w.Body.String()); elsewhere != "" || strings.Contains(w.Body.String(), "url(") {
			t.Errorf("%s needs something from elsewhere: %s", target, elsewhere)
		}
		if strings.Contains(w.Body.String(), "ZgotmplZ") {
			t.Errorf("%s: the template refuses a value", target)
		}
	}
}

func TestDetailsOfASpan(t *testing.T) {
	span := with(placed(stub(1, 2, 1), "commit", "logic", 10, 20), attribute.Int("gochat.batch", 3))
	span.Events = []sdktrace.Event{{Name: "retry", Time: epoch.Add(12 * time.Millisecond), Attributes: []attribute.KeyValue{attribute.Int("attempt", 2)}}}
	span.Links = []sdktrace.Link{
		{SpanContext: stub(5, 6, 0).SpanContext, Attributes: []attribute.KeyValue{attribute.String("why", "batch")}}, {SpanContext: stub(7, 8, 0).SpanContext}}
	for range linksMost {
		span.Links = append(span.Links, sdktrace.Link{})
	}
	h := tracesOf(t, span, placed(stub(1, 1, 0), "root", "api", 0, 30), placed(stub(5, 6, 0), "other", "api", 0, 5))
	w := ask(h, "/debug/traces/"+traceID(1).String())
	detailsOf := elements(t, w, "details")
	if len(detailsOf) != 2 || attr(detailsOf[1], "id") != spanID(2).String() {
		t.Fatalf("%d details: %s", len(detailsOf), w.Body)
	}
	text := textOf(detailsOf[1])
	for _, want := range []string{"Service gochat-logic, logic-1", "Began 10.0 ms after the trace, at 2026-03-01 12:00:00.010", "Status Unset",
		"Span " + spanID(2).String(), "Parent " + spanID(1).String(), "Attributes gochat.batch 3", "Events 2.00 ms retry attempt 2",
		"Links trace " + traceID(5).String() + " , span " + spanID(6).String() + " why batch trace " + traceID(7).String(), "Not kept 2 attributes, events or links more"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	var links []string
	for _, a := range elements(t, w, "a") {
		if href := attr(a, "href"); href != "/debug/traces" {
			links = append(links, href)
		}
	}
	if want := []string{"#" + spanID(1).String(), "/debug/traces/" + traceID(5).String() + "#" + spanID(6).String()}; !slices.Equal(links, want) {
		t.Errorf("links %q, want %q: to what is kept, and to nothing else", links, want)
	}
	_, got := asJSON[traceDetail](t, h, "/debug/traces/"+traceID(1).String())
	s := got.Spans[1]
	if s.SpanID != spanID(2).String() || s.ParentID != spanID(1).String() || s.Depth != 1 || s.OffsetMs != 10 || s.DurationMs != 10 || s.NotKept != 2 ||
		s.Kind != "unspecified" || s.Status != "Unset" || !s.Links[0].Kept || s.Links[1].Kept || s.Links[0].TraceID != traceID(5).String() ||
		s.Events[0].Name != "retry" || s.Events[0].OffsetMs != 2 || s.Attributes[0] != (attributeView{"gochat.batch", "3"}) || !s.Start.Equal(epoch.Add(10*time.Millisecond)) {
		t.Errorf("as JSON %+v", s)
	}
}

func TestWhoGetsJSON(t *testing.T) {
	h := tracesOf(t, message(1, 0)...)
	for _, tc := range []struct {
		target, accept string
		json           bool
	}{
		{"/debug/traces", "", false}, {"/debug/traces", "*/*", false}, {"/debug/traces", "application/json", true},
		{"/debug/traces", "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8", false},
		{"/debug/traces?format=json", "text/html", true}, {"/debug/traces?format=xml", "", false},
	} {
		w := ask(h, tc.target, "Accept: "+tc.accept)
		if got := json.Valid(w.Body.Bytes()); got != tc.json || w.Header().Get("Vary") != "Accept" {
			t.Errorf("%s for %q: JSON %t, want %t", tc.target, tc.accept, got, tc.json)
		}
	}
}

func TestNoTracesAreKept(t *testing.T) {
	off := adminOf(t, setup(t, traceAll(), io.Discard))
	t.Setenv("OTEL_SDK_DISABLED", "true")
	cfg := traceAll()
	cfg.Trace.Keep = 5
	disabled := adminOf(t, setup(t, cfg, io.Discard))
	for _, target := range []string{"/debug/traces", "/debug/traces?q=7", "/debug/traces/" + traceID(1).String()} {
		for says, h := range map[string]http.Handler{"trace.keep": off, "OTEL_SDK_DISABLED": disabled} {
			if w := ask(h, target); w.Code != 404 || !strings.Contains(w.Body.String(), says) || len(elements(t, w, "h1")) != 1 {
				t.Errorf("%s: %d, want 404 and %q in %s", target, w.Code, says, w.Body)
			}
			if status, said := asJSON[words](t, h, target); status != 404 || !strings.Contains(said.Detail, says) {
				t.Errorf("%s: %d %+v, want 404 and %q", target, status, said, says)
			}
		}
	}
}

// TestTracesOverTheNetwork goes from real spans of two layers to the page that the admin server serves.
func TestTracesOverTheNetwork(t *testing.T) {
	cfg := traceAll()
	cfg.Trace.Keep = 5
	o := setup(t, cfg, io.Discard)
	base := startAdmin(t, o, NewHealth())
	if _, _, body := get(t, base+"/debug/traces", nil); !strings.Contains(body, "None yet") {
		t.Errorf("before the first span: %s", body)
	}
	ctx, root := layer(t, o, "api", "api-1").Traces.Tracer("test").Start(t.Context(), "request")
	_, child := layer(t, o, "logic", "logic-1").Traces.Tracer("test").Start(ctx, "accept")
	child.SetAttributes(attribute.Int64("gochat.message.id", 42))
	child.End()
	status, _, body := get(t, base+"/debug/traces/"+root.SpanContext().TraceID().String(), nil)
	if status != 200 || !strings.Contains(body, "parent not here") {
		t.Errorf("before the root has ended: %d %s", status, body)
	}
	root.End()
	status, kind, body := get(t, base+"/debug/traces?q=42", nil) // follows the redirect
	if status != 200 || kind != "text/html; charset=utf-8" || !strings.Contains(body, root.SpanContext().SpanID().String()) || strings.Contains(body, "parent not here") {
		t.Errorf("%d %s: %s", status, kind, body)
	}
}

func TestEachLayerHasAColour(t *testing.T) {
	of := map[int]string{}
	for _, service := range []string{"gochat-api", "gochat-logic", "gochat-connect", "gochat-task", "gochat-site"} {
		if other := of[ink(service)]; other != "" {
			t.Errorf("%s and %s have the same colour", service, other)
		}
		of[ink(service)] = service
	}
	if got := ink("gochat-") + ink(""); got != 0 {
		t.Errorf("a service without a name has colour %d, want the first", got)
	}
}

func TestReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 1: "0.00 µs", 812 * time.Microsecond: "812 µs", 9876 * time.Microsecond: "9.88 ms", 45600 * time.Microsecond: "45.6 ms",
		345 * time.Millisecond: "345 ms", 1500 * time.Millisecond: "1.50 s", 90 * time.Second: "90.0 s",
	} {
		if got := readable(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}
