package layers

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gochat/layers/api/seedtest"
	"gochat/layers/internal/testclient"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSeedREST plays the exchanges of the seed's eight routes against the running system.
func TestSeedREST(t *testing.T) {
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm(t, start(t, patient(make(t).config()), All()...))
			seedtest.Run(t, r.api(), os.DirFS("api/testdata/seed"))
		})
	}
}

// TestSeedOps plays a session of the seed's client on each transport and backend. What the two people are sent is,
// but for ids and times, the same everywhere, and kept in testdata/golden.
func TestSeedOps(t *testing.T) {
	for name, make := range backends() {
		for _, transport := range transports {
			t.Run(name+"/"+transport, func(t *testing.T) {
				t.Parallel()
				r := calm(t, start(t, patient(make(t).config()), All()...))
				session := &seedSession{t: t, r: r, transport: transport}
				session.play()
				golden(t, "ops.json", session.frames())
				golden(t, "packets-"+transport+".txt", session.packets())
			})
		}
	}
}

// seedSession is two people who use the seed's client.
type seedSession struct {
	t         *testing.T
	r         *running
	transport string
	steps     []step
}

type step struct {
	name string
	got  packet
	raw  bool // every byte is known in advance
}

func (s *seedSession) got(name string, p packet)   { s.steps = append(s.steps, step{name, p, false}) }
func (s *seedSession) bytes(name string, p packet) { s.steps = append(s.steps, step{name, p, true}) }

func (s *seedSession) play() {
	ann, bob := testclient.Register(s.t, s.r.api(), "ann"), testclient.Register(s.t, s.r.api(), "bob")
	if ann.ID != 1 || bob.ID != 2 {
		s.t.Fatalf("got users %d and %d of an empty system, want 1 and 2", ann.ID, bob.ID)
	}
	a, b := dial(s.t, s.r, s.transport), dial(s.t, s.r, s.transport)
	if s.transport == "websocket" { // its first message has no op
		a.say(map[string]any{"authToken": ann.Token, "roomId": 1})
	} else {
		a.say(map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1, "userId": 99, "userName": "mallory"})
	}
	s.bytes("op 5 to ann, who enters", a.online(ann, 1))
	b.say(map[string]any{"op": 6, "authToken": bob.Token, "roomId": 1})
	s.bytes("op 5 to ann, since bob enters", a.online(bob, 1))

	// The page sends all of these fields.
	a.say(map[string]any{"op": 3, "authToken": ann.Token, "roomId": 1, "msg": "hello, everybody", "fromUserId": 2, "fromUserName": "bob"})
	s.got("op 3 to bob, sent by ann's frame, which says that it is bob's", b.text("hello, everybody"))
	s.got("op 3 to ann, her own", a.text("hello, everybody"))
	push := func(path string, body map[string]any) {
		s.t.Helper()
		body["authToken"] = ann.Token
		if got := seedCall(s.t, s.r, path, body); got.Code != 0 || got.Message != "ok" {
			s.t.Errorf("%s: got %+v, want ok", path, got)
		}
	}
	push("/push/pushRoom", map[string]any{"msg": "by pushRoom", "roomId": 1, "op": 3})
	s.got("op 3 to bob after /push/pushRoom", b.text("by pushRoom"))
	push("/push/push", map[string]any{"msg": "by push", "toUserId": "2", "roomId": 1, "op": 2})
	s.got("op 2 to bob after /push/push", b.text("by push"))
	s.got("op 2 to ann, who sent it elsewhere", a.text("by push"))
	push("/push/count", map[string]any{"roomId": 1, "op": 4})
	s.bytes("op 4 to bob after /push/count", b.op(4))
	b.forget()
	push("/push/getRoomInfo", map[string]any{"roomId": 1, "op": 5})
	s.bytes("op 5 to bob after /push/getRoomInfo", b.online(ann, 1))

	a.forget()
	_ = b.conn.Close() // it has been read to the end
	s.bytes("op 5 to ann, since bob leaves", a.next("op 5 without bob", func(f testclient.Frame) bool {
		return f.Op() == 5 && f.Int("count") == 1
	}))
	a.say(map[string]any{"op": 10})
	s.bytes("op 11 to ann, who asks by op 10", a.op(11))
	a.say(map[string]any{"op": 99})
	s.got("op 21 to ann, who sends an op that is none", a.op(21))
	for _, p := range a.frames {
		if p.frame(s.t).Op() == 0 {
			s.t.Errorf("a frame without an op: %s", p)
		}
	}
}

// frames are the steps as a JSON array, a line each.
func (s *seedSession) frames() []byte {
	var out bytes.Buffer
	for i, step := range s.steps {
		payload := string(step.got.payload)
		if op := step.got.frame(s.t).Op(); op == 2 || op == 3 {
			checkMessage(s.t, step.got.payload)
		}
		payload = normalise(payload)
		before := ",\n"
		if i == 0 {
			before = "[\n"
		}
		fmt.Fprintf(&out, "%s{%q: %s}", before, step.name, payload)
	}
	out.WriteString("\n]\n")
	if !json.Valid(out.Bytes()) {
		s.t.Errorf("not JSON: %s", out.Bytes())
	}
	return out.Bytes()
}

// packets are the bytes of those steps that are the same every time.
func (s *seedSession) packets() []byte {
	var out bytes.Buffer
	for _, step := range s.steps {
		if step.raw {
			fmt.Fprintf(&out, "# %s: %s\n%s\n", step.name, step.got, hex.EncodeToString(step.got.raw))
		}
	}
	return out.Bytes()
}

// messageFields are the fields of a message frame and their JSON types.
var messageFields = map[string]string{
	"code": "number", "msg": "string", "fromUserId": "number", "fromUserName": "string", "toUserId": "number",
	"toUserName": "string", "roomId": "number", "op": "number", "createTime": "string",
	"id": "string", "conversation": "string", "seq": "number", "clientId": "string", "createdAt": "string",
	"traceId": "string", "traceparent": "string",
}

// checkMessage checks that each field is there, that no other is, and the form of those that the golden files
// cannot hold.
func checkMessage(t testing.TB, payload []byte) {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(payload, &fields); err != nil {
		t.Fatalf("message %s: %v", payload, err)
	}
	for name, want := range messageFields {
		got := "nothing"
		switch fields[name].(type) {
		case string:
			got = "string"
		case float64:
			got = "number"
		}
		if got != want {
			t.Errorf("%s is a %s, want a %s, in %s", name, got, want, payload)
		}
	}
	if len(fields) != len(messageFields) {
		t.Errorf("got %d fields, want %d: %s", len(fields), len(messageFields), payload)
	}
	f := testclient.Frame(fields)
	created, err := time.Parse(time.DateTime, f.Str("createTime"))
	if err != nil || time.Since(created).Abs() > time.Minute {
		t.Errorf("createTime %q: want the time in UTC (%v)", f.Str("createTime"), err)
	}
	exact, err := time.Parse("2006-01-02T15:04:05.000Z", f.Str("createdAt"))
	if err != nil || !exact.Truncate(time.Second).Equal(created) {
		t.Errorf("createdAt %q and createTime %q differ (%v)", f.Str("createdAt"), f.Str("createTime"), err)
	}
	if id, err := strconv.ParseInt(f.Str("id"), 10, 64); err != nil || id <= 0 {
		t.Errorf("id %q: want the digits of a positive number", f.Str("id"))
	}
	if parent := f.Str("traceparent"); !traceparentForm.MatchString(parent) || parent[3:35] != f.Str("traceId") {
		t.Errorf("traceparent %q and traceId %q", parent, f.Str("traceId"))
	}
}

var (
	traceparentForm = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)
	varying         = regexp.MustCompile(`"(createTime|id|createdAt|traceId|traceparent)":"[^"]*"`)
)

// normalise takes out what differs from run to run.
func normalise(payload string) string { return varying.ReplaceAllString(payload, `"$1":"…"`) }

// golden compares with the file of that name.
func golden(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", path, got, want)
	}
}

// seedAnswer is the envelope of the seed's routes.
type seedAnswer struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data"`
}

// seedCall posts to one of the seed's routes. Whatever comes of it, the status is 200.
func seedCall(t testing.TB, r *running, path string, body map[string]any) seedAnswer {
	t.Helper()
	status, raw := (&testclient.User{API: r.api()}).Do(t, "POST", path, body)
	var out seedAnswer
	if err := json.Unmarshal(raw, &out); err != nil || status != http.StatusOK {
		t.Fatalf("%s: status %d, body %q: %v", path, status, raw, err)
	}
	return out
}

// TestSeedREST's exchanges are those of every route that the protocol names.
func TestSeedScenariosNameEveryRoute(t *testing.T) {
	files, err := filepath.Glob("api/testdata/seed/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	routes := []string{"/user/register", "/user/login", "/user/checkAuth", "/user/logout",
		"/push/push", "/push/pushRoom", "/push/count", "/push/getRoomInfo"}
	missing := slices.DeleteFunc(routes, func(route string) bool {
		succeeds := regexp.MustCompile(`POST ` + route + ` .*\n200 \{"code":0,`)
		fails := regexp.MustCompile(`POST ` + route + ` .*\n200 \{"code":(1|40000),`)
		return succeeds.MatchString(all.String()) && fails.MatchString(all.String())
	})
	if len(missing) > 0 {
		t.Errorf("no exchange that succeeds and one that fails for %v", missing)
	}
}
