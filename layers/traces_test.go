package layers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gochat/e2e/browser"
	"gochat/layers/internal/testclient"
	"gochat/observability"
)

// shownTrace is what /debug/traces says of a trace, as far as the tests read it.
type shownTrace struct {
	TraceID  string      `json:"traceId"`
	Root     string      `json:"root"`
	Services []string    `json:"services"`
	Spans    []shownSpan `json:"spans"`
}

type shownSpan struct {
	Name          string `json:"name"`
	Kind          string `json:"kind"`
	Service       string `json:"service"`
	ParentID      string `json:"parentId"`
	ParentMissing bool   `json:"parentMissing"`
}

// fetch is a GET that has to answer.
func fetch(t testing.TB, url string) (status int, body []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// awaitTrace waits until a trace has spans of the services, and all that they belong to: they end after the message has
// come.
func awaitTrace(t testing.TB, admin, id string, services ...string) (trace shownTrace) {
	t.Helper()
	eventually(t, fmt.Sprintf("trace %q of %v at /debug/traces", id, services), func() bool {
		trace = shownTrace{}
		status, body := fetch(t, "http://"+admin+"/debug/traces/"+id+"?format=json")
		if status == http.StatusOK {
			if err := json.Unmarshal(body, &trace); err != nil {
				t.Fatal(err)
			}
		}
		return !slices.ContainsFunc(services, func(s string) bool { return !slices.Contains(trace.Services, s) }) &&
			!slices.ContainsFunc(trace.Spans, func(s shownSpan) bool { return s.ParentMissing })
	})
	return trace
}

// TestTracesInUp: the trace id in a message's frame leads to where the message went, whichever way it was sent.
func TestTracesInUp(t *testing.T) {
	cfg := upConfig()
	cfg.Trace = UpDefaults().Trace
	r := up(t, t.TempDir(), cfg)
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	socket := testclient.WebSocket(t, r.WebSocket)
	socket.Enter(t, bob, 1)

	ann.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "by REST"}, nil)
	id := socket.AwaitText(t, "by REST").Str("traceId")
	trace := awaitTrace(t, r.Admin, id, "gochat-api", "gochat-logic")
	if root := trace.Spans[0]; trace.TraceID != id || trace.Root != "POST /v1/rooms/:id/messages" || root.Name != trace.Root || root.Kind != "server" ||
		root.Service != "gochat-api" || root.ParentID != "" {
		t.Errorf("trace %+v: want it to begin with the request", trace)
	}
	status, page := fetch(t, "http://"+r.Admin+"/debug/traces/"+id)
	if status != http.StatusOK || !strings.Contains(string(page), "POST /v1/rooms/:id/messages") || strings.Contains(string(page), "by REST") {
		t.Errorf("%d, want a page that names the request and not the text: %s", status, page)
	}
	if _, list := fetch(t, "http://"+r.Admin+"/debug/traces"); !strings.Contains(string(list), `href="/debug/traces/`+id+`"`) {
		t.Errorf("the list does not lead to the trace: %s", list)
	}

	sender := testclient.WebSocket(t, r.WebSocket)
	sender.Enter(t, ann, 1)
	sender.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "by websocket", "clientId": "c1"})
	id = socket.AwaitText(t, "by websocket").Str("traceId")
	if trace := awaitTrace(t, r.Admin, id, "gochat-connect", "gochat-logic"); slices.Contains(trace.Services, "gochat-api") {
		t.Errorf("%v: what came by a socket has been through api", trace.Services)
	}
}

// TestTraceLink goes from a message on the page to its waterfall, which needs no script and breaks no policy.
func TestTraceLink(t *testing.T) {
	cfg := upConfig()
	cfg.Trace = UpDefaults().Trace
	r := up(t, t.TempDir(), cfg)
	demo, _ := login(t, r, "demo", "111111")
	var receipt struct {
		TraceID string `json:"traceId"`
	}
	demo.Must(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "Where did this go?"}, &receipt)
	trace := awaitTrace(t, r.Admin, receipt.TraceID, "gochat-api", "gochat-logic")
	waterfall := "http://" + r.Admin + "/debug/traces/" + receipt.TraceID

	b := openBrowser(t, r.Page)
	b.Login(t, "demo", "111111")
	b.Click(t, "message-details")
	b.Shows(t, "details-trace", receipt.TraceID)
	t.Run("details", func(t *testing.T) { look(t, b, "details", "details-trace") })
	href := browser.Eval[string](t, b, `document.querySelector('[data-testid="details-trace"]').href`)
	if href != waterfall {
		t.Errorf("the message links to %q, want %q", href, waterfall)
	}
	b.Do(t, chromedp.Navigate(waterfall))
	if got := browser.Eval[int](t, b, `document.querySelectorAll('.spans > li').length`); got < len(trace.Spans) { // more may have come since
		t.Errorf("%d rows, want %d", got, len(trace.Spans))
	}
	for _, c := range []struct {
		name string
		see  chromedp.Action[chromedp.Void]
	}{
		{"light", scheme("light")},
		{"dark", scheme("dark")},
		{"phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.Do(t, c.see)
			lookAtBars(t, b)
			b.ClickOn(t, ".spans > li summary")
			if browser.Eval[string](t, b, `document.querySelector('.spans .more').innerText`) == "" {
				t.Error("a span shows no details")
			}
			picture(t, b, "trace-"+c.name)
			b.ClickOn(t, ".spans > li summary")
			b.Do(t, chromedp.Navigate("http://"+r.Admin+"/debug/traces"))
			if wide := browser.Eval[int](t, b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
				t.Errorf("the list is %d px wider than its window", wide)
			}
			picture(t, b, "traces-"+c.name)
			b.Do(t, chromedp.Navigate(waterfall))
		})
	}
	b.Faultless(t)
}

// lookAtBars checks that every bar can be seen, within its lane, and that nothing needs scrolling sideways.
func lookAtBars(t *testing.T, b *browser.Browser) {
	t.Helper()
	if wide := browser.Eval[int](t, b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
		t.Errorf("the page is %d px wider than its window", wide)
	}
	hidden := browser.Eval[[]string](t, b, `[...document.querySelectorAll('.spans .bar')].filter(bar => {
		const r = bar.getBoundingClientRect(), lane = bar.parentElement.getBoundingClientRect()
		return !(r.width >= 2 && r.height > 4 && r.left >= lane.left - 0.5 && r.right <= lane.right + 0.5)
	}).map(bar => bar.id)`)
	if len(hidden) > 0 {
		t.Errorf("bars %v cannot be seen in their lanes", hidden)
	}
}

// TestWhoIsShownTraces: the page links to traces where whoever opens it on this machine finds all of them.
func TestWhoIsShownTraces(t *testing.T) {
	for _, c := range []struct {
		name   string
		keep   int
		admin  string
		layers []string
		want   string
	}{
		{"up", 500, "127.0.0.1:9100", All(), "http://127.0.0.1:9100/debug/traces"},
		{"none are kept", 0, "127.0.0.1:9100", All(), ""},
		{"the admin server is for others too", 500, "192.0.2.1:9100", All(), ""},
		{"on every address", 500, "[::]:9100", All(), ""},
		{"some layers are elsewhere", 500, "127.0.0.1:9100", []string{"api", "connect", "site"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			cfg.Trace.Keep = c.keep
			seen, err := observability.Setup(t.Context(), observability.Config{Log: cfg.Log, Trace: cfg.Trace}, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			p := &process{cfg: cfg, layers: c.layers, seen: seen, bound: Addresses{Admin: c.admin}}
			if got := p.sitePorts().TracesURL; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := UpDefaults().Trace.Keep; got != 500 {
		t.Errorf("up keeps %d traces, want 500", got)
	}
	if got := Defaults().Trace.Keep; got != 0 {
		t.Errorf("run keeps %d traces, want none", got)
	}
}
