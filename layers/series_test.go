package layers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"gochat/e2e/traces"
	"gochat/layers/internal/testclient"
)

// series are the names and labels of all that /metrics shows, but for the rooms by their number: those are counted.
func series(t *testing.T, r *running) (all map[string]bool, rooms int) {
	t.Helper()
	resp, err := http.Get("http://" + r.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all = make(map[string]bool)
	shown := make(map[string]bool)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), " ")
		switch {
		case strings.HasPrefix(name, "#"):
		case strings.Contains(name, "room="):
			_, room, _ := strings.Cut(name, "room=")
			shown[room] = true
		default:
			all[name] = true
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all, len(shown)
}

// comeAndGo has a user come, write a note and go; or, with all, chat in a room of their own, with themselves, and wrongly.
func comeAndGo(t *testing.T, r *running, name string, all bool) {
	u := testclient.Register(t, r.api(), name)
	if !all {
		c := testclient.TCP(t, r.TCP[0])
		defer c.Close()
		c.Send(t, map[string]any{"op": 6, "authToken": u.Token})
		c.Send(t, map[string]any{"op": 2, "toUserId": u.ID, "msg": "note to self", "clientId": "1"})
		c.AwaitOp(t, 20)
		return
	}
	var room struct{ ID int }
	u.Must(t, http.MethodPost, "/v1/rooms", map[string]any{"name": "of " + name}, &room)
	dial := func() *testclient.Conn { return testclient.TCP(t, r.TCP[0]) }
	if u.ID%2 == 0 {
		dial = func() *testclient.Conn { return testclient.WebSocket(t, r.WebSocket) }
	}
	c := dial()
	defer c.Close()
	c.Send(t, map[string]any{"op": 6, "authToken": u.Token, "roomId": room.ID})
	c.Send(t, map[string]any{"op": 3, "roomId": room.ID, "msg": "I am " + name, "clientId": "1"})
	c.AwaitOp(t, 20)
	c.Send(t, map[string]any{"op": 2, "toUserId": u.ID, "msg": "note to self", "clientId": "2"})
	c.Send(t, map[string]any{"op": u.ID + 1000})
	c.Send(t, map[string]any{"op": 13, "conversation": fmt.Sprint("room:", room.ID), "seq": 1})
	c.Send(t, map[string]any{"op": 12, "resume": map[string]int{fmt.Sprint("dm:", u.ID, ":", u.ID): 0}})
	c.AwaitOp(t, 22)
	_, _ = u.Do(t, http.MethodGet, fmt.Sprint("/v1/rooms/", room.ID, "/messages"), nil)
	_, _ = u.Do(t, http.MethodGet, fmt.Sprint("/v1/no/such/path/", u.ID), nil)
}

// TestSeries: what is measured does not grow with users and rooms. It is not parallel: so many are too much for who measures times.
func TestSeries(t *testing.T) {
	r := start(t, embeddedBackend(t).config(), All()...)
	visits := func(from, to, chats int) { // one in so many chats
		const workers, some = 32, 500
		for ; from < to; from += some {
			last := min(from+some, to)
			t.Run(fmt.Sprint("visitors from ", from), func(t *testing.T) { // whose connections are kept until its end
				var visiting sync.WaitGroup
				for worker := range workers {
					visiting.Go(func() {
						for i := from + worker; i < last; i += workers {
							comeAndGo(t, r, fmt.Sprint("visitor-", i), i%chats == 0)
						}
					})
				}
				visiting.Wait()
			})
		}
	}
	visits(0, 300, 2)
	before, _ := series(t, r)
	visits(300, 10_300, 10)
	after, rooms := series(t, r)
	var more []string
	for name := range after {
		if !before[name] {
			more = append(more, name)
		}
	}
	t.Logf("%d series before, %d after, and those of %d rooms", len(before), len(after), rooms)
	// The first three hundred have met nearly all methods, codes and buckets. A series for each room would be a thousand.
	if len(more) > 150 {
		t.Errorf("%d series more, as %v", len(more), more[:20])
	}
	if rooms > 20 {
		t.Errorf("%d rooms have series, want 20 at most", rooms)
	}
	somebody := regexp.MustCompile(`visitor-|dm:|room:|token`)
	for name := range after {
		if somebody.MatchString(name) {
			t.Errorf("a series names somebody: %s", name)
		}
	}
}

// TestLogsSaveNoSecrets loads a system that logs and traces all it can, and looks for what must not be in its log, its spans
// and its metrics.
func TestLogsSaveNoSecrets(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	cfg.Log.Level, cfg.Trace.SampleRatio = "debug", 1
	spans := collector(t)
	r := node{Layers: All(), Config: cfg, Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL, "OTEL_BSP_SCHEDULE_DELAY=100"}}.spawn(t)
	secrets := map[string]string{"the rpc secret": cfg.RPC.Secret, "Redis' password": cfg.Redis.Password}
	var people []*testclient.User
	for i := range 5 {
		u := testclient.Register(t, r.api(), fmt.Sprint("discreet-", i))
		people = append(people, u)
		secrets["a token"+u.Name] = u.Token
	}
	const password, text, name = "only I know this one", "between you and me, and nobody else", "a client's own name"
	secrets["a password"], secrets["a text"], secrets["a client's name of a message"] = password, text, name
	secrets["the password of all"] = "secret-password" // see testclient.Register
	people[0].Do(t, http.MethodPost, "/v1/login", map[string]any{"name": "discreet-0", "password": password})
	people[0].Do(t, http.MethodPost, "/v1/register", map[string]any{"name": "discreet-0", "password": password})
	people[0].Do(t, http.MethodPost, "/user/login", map[string]any{"userName": "discreet-1", "passWord": password})
	people[0].Do(t, http.MethodPost, "/push/push", map[string]any{"op": 2, "msg": text, "toUserId": "999999", "roomId": 1, "authToken": people[0].Token})
	people[0].Do(t, http.MethodPost, "/v1/rooms/1/messages", map[string]any{"msg": text})
	people[0].Do(t, http.MethodPost, "/v1/rooms/1/messages", "not an object: "+text)
	var conns []*testclient.Conn
	for i, u := range people {
		c := testclient.TCP(t, r.TCP[0])
		if i%2 == 0 {
			c = testclient.WebSocket(t, r.WebSocket)
		}
		c.Enter(t, u, 1)
		conns = append(conns, c)
	}
	for i, c := range conns {
		for n := range 50 {
			c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": text, "clientId": fmt.Sprint(name, n)})
			c.Send(t, map[string]any{"op": 2, "toUserId": people[(i+1)%5].ID, "msg": text})
			c.Send(t, map[string]any{"op": 2, "toUserId": 999_999, "msg": text})
			c.Send(t, map[string]any{"op": 3, "roomId": 999_999, "msg": text})
			c.Send(t, map[string]any{"op": "three", "msg": text, "authToken": people[0].Token})
		}
	}
	for _, c := range conns {
		c.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "the last", "clientId": "the last"})
		c.Await(t, "the last ack", func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == "the last" })
	}
	stranger := testclient.TCP(t, r.TCP[0])
	stranger.Send(t, map[string]any{"op": 6, "authToken": "a token that is none, of somebody"})
	stranger.AwaitEnd(t)
	secrets["a token that is none"] = "a token that is none"
	metrics := openMetrics(t, r)
	if !strings.Contains(metrics, "gochat_messages_accepted_total") || !strings.Contains(metrics, "trace_id=") {
		t.Errorf("the metrics have no messages or no exemplars, and say nothing:\n%s", metrics)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	log := r.log.String()
	lines, traced := 0, 0
	for line := range strings.Lines(log) {
		var event struct {
			Time, Level, Msg string
			Trace            string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Time == "" || event.Level == "" || event.Msg == "" {
			t.Errorf("a line is no event: %v: %s", err, line)
		}
		lines++
		if event.Trace != "" {
			traced++
		}
	}
	if lines < 20 || traced == 0 {
		t.Errorf("%d lines of log, %d with a trace, are too few to say anything:\n%s", lines, traced, log)
	}
	var attributes strings.Builder
	of := make(map[string]int)
	for _, span := range spans.Find(func(*traces.Span) bool { return true }) {
		of[span.Name]++
		fmt.Fprintln(&attributes, span.Name)
		for key, value := range span.Attrs {
			fmt.Fprintln(&attributes, key, value)
		}
	}
	for _, name := range []string{"receive frame", "POST /push/push", "POST /v1/login", "commit", "process gochat.deliveries", "fan-out bucket"} {
		if of[name] == 0 {
			t.Errorf("no span %q among %v", name, of)
		}
	}
	for what, secret := range secrets {
		if secret == "" {
			t.Errorf("%s is empty, which is no secret", what)
			continue
		}
		for where, text := range map[string]string{"the log": log, "a span": attributes.String(), "the metrics": metrics} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// openMetrics is all that /metrics says, exemplars too.
func openMetrics(t *testing.T, r *running) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.Admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
