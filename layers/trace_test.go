package layers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	frames "gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testotlp"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// traced is a process for each layer, two of them of connect, that send all their spans to one endpoint.
type traced struct {
	spans    *testotlp.Collector
	store    *store.Store
	cfg      Config
	api      *running
	logic    *running
	task     *running
	connects [2]*running
}

func (s *traced) all() []*running {
	return []*running{s.api, s.logic, s.task, s.connects[0], s.connects[1]}
}

// startTraced starts them, with the queue on the driver, each spoiled like that.
func startTraced(t *testing.T, driver, spoiled string) *traced {
	t.Helper()
	b := migrated(t, backend{etcd: testdeps.Etcd(t).Endpoint(), redis: testdeps.Redis(t).Addr(), database: testdeps.Postgres(t)})
	s := &traced{spans: testotlp.Start(t), cfg: b.config()}
	s.cfg.Trace.SampleRatio = 1
	s.cfg.Queue.Driver = driver
	if driver != DriverRedis {
		s.cfg.Queue.URL, _ = broker(t, driver)
	}
	var err error
	if s.store, err = store.Open(store.Config{URL: b.database}, observability.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	s.logic = s.spawn(t, spoiled, contract.LayerLogic)
	s.task = s.spawn(t, spoiled, contract.LayerTask)
	for i := range s.connects {
		s.connects[i] = s.spawn(t, spoiled, contract.LayerConnect)
	}
	s.api = s.spawn(t, spoiled, contract.LayerAPI)
	return s
}

func (s *traced) spawn(t *testing.T, spoiled, layer string) *running {
	t.Helper()
	return node{Layers: []string{layer}, Config: s.cfg, Spoiled: spoiled, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.spans.URL, "OTEL_BSP_SCHEDULE_DELAY=100"}}.spawn(t)
}

// tracedMessage is a message as its sender and its receivers know it.
type tracedMessage struct {
	root    string // the span that its trace begins with
	id      string
	traceID string
	seq     int
	conv    string
	frames  []testclient.Frame // as clients got them
	nodes   int                // that hold a receiver, or the sender
	spared  int                // connections that get no copy: the sender's
	routed  bool               // the node that was asked has passed it on: only it knew which conversation it is of
}

// edge is spans that a trace has under others: "service name KIND".
type edge struct {
	name, parent string
	want         int // of them; -1 is one for each bucket with a receiver
}

type object = map[string]any

// check says all that is wrong with the message's trace.
func (s *traced) check(m *tracedMessage) (wrong []string) {
	fault := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	spans := s.spans.Trace(m.traceID)
	byID := make(map[string]*testotlp.Span)
	named := make(map[string][]*testotlp.Span)
	for _, span := range spans {
		if byID[span.ID] != nil {
			fault("two spans have the id %s", span.ID)
		}
		byID[span.ID] = span
		key := strings.TrimPrefix(span.Service, "gochat-") + " " + span.Name + " " + span.Kind
		named[key] = append(named[key], span)
	}
	roots := 0
	for _, span := range spans {
		parent := byID[span.Parent]
		switch {
		case span.Parent == "":
			roots++
			if span.Name != m.root {
				fault("the root is %q, want %q", span.Name, m.root)
			}
		case parent == nil:
			fault("%s %s: its parent has not come", span.Service, span.Name)
		case span.Start.Before(parent.Start):
			fault("%s begins before its parent %s", span.Name, parent.Name)
		}
		for _, key := range []string{"gochat.message.id", "messaging.message.id"} {
			if id, has := span.Attrs[key]; has && id != m.id {
				fault("%s: %s is %s, want %s", span.Name, key, id, m.id)
			}
		}
	}
	if roots != 1 {
		fault("%d roots, want 1", roots)
	}

	caller := "api"
	if m.root == "receive frame" {
		caller = "connect"
	}
	root := caller + " " + m.root + " SERVER"
	edges := []edge{
		{root, "", 1},
		{caller + " Logic/Send CLIENT", root, 1},
		{"logic Logic/Send SERVER", caller + " Logic/Send CLIENT", 1},
	}
	if m.routed {
		edges[2].want, edges[2].parent = 2, "" // that it is a chain shows by each having one parent
		edges = append(edges, edge{"logic Logic/Send CLIENT", "logic Logic/Send SERVER", 1})
	}
	edges = append(edges, []edge{
		{"logic commit INTERNAL", "logic Logic/Send SERVER", 1},
		{"logic send gochat.deliveries PRODUCER", "logic Logic/Send SERVER", 1},
		{"task process gochat.deliveries CONSUMER", "logic send gochat.deliveries PRODUCER", 1},
		{"task Connect/Push CLIENT", "task process gochat.deliveries CONSUMER", m.nodes},
		{"connect Connect/Push SERVER", "task Connect/Push CLIENT", m.nodes},
		{"connect fan-out bucket INTERNAL", "connect Connect/Push SERVER", -1},
	}...)
	for _, e := range edges {
		got := named[e.name]
		switch {
		case e.want >= 0 && len(got) != e.want:
			fault("%d spans %q, want %d", len(got), e.name, e.want)
		case e.want < 0 && (len(got) < m.nodes || len(got) > len(m.frames)+m.spared || m.nodes == 0 && len(got) > 0):
			fault("%d spans %q for %d frames on %d nodes", len(got), e.name, len(m.frames), m.nodes)
		}
		for _, span := range got {
			if e.parent != "" && !slices.Contains(named[e.parent], byID[span.Parent]) {
				fault("%q has another parent than %q", e.name, e.parent)
			}
			if _, has := span.Attrs["gochat.message.id"]; !has && span.Name != "Logic/Send" && span.Name != m.root {
				fault("%q does not say which message", e.name)
			}
		}
	}
	for key, others := range named {
		// What was asked of the database on the way is all there may be besides.
		expected := slices.ContainsFunc(edges, func(e edge) bool { return e.name == key })
		if !expected && (!strings.HasPrefix(key, "logic ") || others[0].Attrs["db.system.name"] == "") {
			fault("%d spans %q, which nobody expects", len(others), key)
		}
	}

	for _, process := range named["task process gochat.deliveries CONSUMER"] {
		producer := byID[process.Parent]
		if producer == nil || !slices.Contains(process.Links, testotlp.Link{TraceID: m.traceID, ID: producer.ID}) {
			fault("the consumer is not linked to the producer")
		}
		if process.Attrs["gochat.attempt"] != "1" {
			fault("attempt %s, want 1", process.Attrs["gochat.attempt"])
		}
		outcome := "pushed"
		if m.nodes == 0 {
			outcome = "offline"
		}
		if got := process.Attrs["gochat.outcome"]; got != outcome {
			fault("outcome %s, want %s", got, outcome)
		}
	}
	written := func(name string) (n int) {
		for _, span := range named[name] {
			n += span.Int("gochat.written") + span.Int("gochat.queued")
		}
		return n
	}
	for _, name := range []string{"task Connect/Push CLIENT", "connect Connect/Push SERVER", "connect fan-out bucket INTERNAL"} {
		if got := written(name); got != len(m.frames) {
			fault("%q wrote %d in all, clients got %d", name, got, len(m.frames))
		}
	}

	for _, f := range m.frames {
		if f.Str("id") != m.id || f.Str("traceId") != m.traceID || f.Int("seq") != m.seq {
			fault("a frame has id %s, trace %s, seq %d", f.Str("id"), f.Str("traceId"), f.Int("seq"))
		}
	}
	for _, server := range named["logic Logic/Send SERVER"] {
		if m.routed && server.Attrs["gochat.message.id"] == "" {
			continue // which has only passed it on
		}
		if server.Attrs["gochat.message.id"] != m.id || server.Int("gochat.seq") != m.seq {
			fault("logic's span says message %s, seq %s", server.Attrs["gochat.message.id"], server.Attrs["gochat.seq"])
		}
		for _, stored := range s.stored(m) {
			if stored.ID.String() != m.id || stored.Traceparent != "00-"+m.traceID+"-"+server.ID+"-01" {
				fault("stored as %s with traceparent %s", stored.ID, stored.Traceparent)
			}
		}
	}
	return wrong
}

// stored is the message's row.
func (s *traced) stored(m *tracedMessage) []contract.Message {
	rows, _, err := s.store.History(context.Background(), contract.Conversation(m.conv), int64(m.seq-1), 0, 1)
	if err != nil || len(rows) == 0 {
		return []contract.Message{{}} // which is no row of anybody's
	}
	return rows
}

// complete waits until the message's trace is.
func (s *traced) complete(t *testing.T, m *tracedMessage) {
	t.Helper()
	var wrong []string
	if !testwait.Soon(func() bool { wrong = s.check(m); return len(wrong) == 0 }) {
		t.Errorf("trace %s of message %s:\n\t%s\n%s", m.traceID, m.id, strings.Join(wrong, "\n\t"), s.picture(m.traceID))
	}
}

// picture is the trace in words.
func (s *traced) picture(traceID string) string {
	var b strings.Builder
	for _, span := range s.spans.Trace(traceID) {
		fmt.Fprintf(&b, "%s %s %s %s in %s %v\n", span.Service, span.Name, span.Kind, span.ID, span.Parent, span.Attrs)
	}
	return b.String()
}

// people are connected to both nodes: three each by websocket and by tcp, all in the room.
type people struct {
	users []*testclient.User
	conns []*testclient.Conn
	room  int
}

func (s *traced) people(t *testing.T) *people {
	t.Helper()
	p := &people{}
	for i := range 6 {
		p.users = append(p.users, testclient.Register(t, s.api.api(), fmt.Sprint("traced-", i)))
	}
	var room struct{ ID int }
	p.users[0].Must(t, http.MethodPost, "/v1/rooms", object{"name": "traced"}, &room)
	p.room = room.ID
	for i, u := range p.users {
		node := s.connects[i%2]
		conn := testclient.TCP(t, node.TCP[0])
		if i < 3 {
			conn = testclient.WebSocket(t, node.WebSocket)
		}
		conn.Enter(t, u, p.room)
		p.conns = append(p.conns, conn)
	}
	return p
}

// got are the frames of the message that came to the connections.
func got(t *testing.T, conns []*testclient.Conn, text string) (all []testclient.Frame) {
	t.Helper()
	for _, c := range conns {
		all = append(all, c.AwaitText(t, text))
	}
	return all
}

// known is the message by one of its frames.
func known(root string, nodes int, came []testclient.Frame) *tracedMessage {
	f := came[0]
	return &tracedMessage{root: root, id: f.Str("id"), traceID: f.Str("traceId"), seq: f.Int("seq"), conv: f.Str("conversation"), frames: came, nodes: nodes}
}

// TestTraces: a message is one trace from the request to the sockets, whichever way it comes and goes.
func TestTraces(t *testing.T) {
	for _, driver := range []string{DriverRedis, DriverRabbitMQ, DriverKafka} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := startTraced(t, driver, "")
			p := s.people(t)
			away := testclient.Register(t, s.api.api(), "away")
			receipt := func(path, text string) *tracedMessage {
				var r struct {
					ID           string
					Conversation string
					Seq          int
					TraceID      string `json:"traceId"`
				}
				p.users[0].Must(t, http.MethodPost, path, map[string]any{"msg": text}, &r)
				return &tracedMessage{id: r.ID, conv: r.Conversation, seq: r.Seq, traceID: r.TraceID}
			}
			t.Run("room by REST", func(t *testing.T) {
				m := receipt(fmt.Sprint("/v1/rooms/", p.room, "/messages"), "by rest")
				m.root, m.nodes, m.frames = "POST /v1/rooms/:id/messages", 2, got(t, p.conns, "by rest")
				s.complete(t, m)
			})
			t.Run("room by websocket", func(t *testing.T) {
				p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "by websocket"})
				s.complete(t, known("receive frame", 2, got(t, p.conns, "by websocket")))
			})
			t.Run("room by tcp", func(t *testing.T) {
				p.conns[5].Send(t, object{"op": 3, "roomId": p.room, "msg": "by tcp", "clientId": "c"})
				m := known("receive frame", 2, got(t, p.conns, "by tcp"))
				if ack := p.conns[5].AwaitOp(t, int(frames.OpAck)); ack.Str("traceId") != m.traceID || ack.Str("id") != m.id {
					t.Errorf("the ack says trace %s, message %s", ack.Str("traceId"), ack.Str("id"))
				}
				s.complete(t, m)
			})
			t.Run("private by tcp", func(t *testing.T) {
				p.conns[3].Send(t, object{"op": 2, "toUserId": p.users[4].ID, "msg": "to you", "clientId": "d"})
				m := known("receive frame", 2, got(t, p.conns[4:5], "to you")) // the sender is on the other node
				m.spared = 1
				s.complete(t, m)
			})
			t.Run("private offline", func(t *testing.T) {
				m := receipt(fmt.Sprint("/v1/users/", away.ID, "/messages"), "for later")
				// The sender's own connection gets it.
				m.root, m.nodes, m.frames = "POST /v1/users/:id/messages", 1, got(t, p.conns[:1], "for later")
				m.routed = true
				s.complete(t, m)
			})
			t.Run("nobody online", func(t *testing.T) {
				var r struct {
					ID, Conversation string
					Seq              int
					TraceID          string `json:"traceId"`
				}
				other := testclient.Register(t, s.api.api(), "other")
				other.Must(t, http.MethodPost, fmt.Sprint("/v1/users/", away.ID, "/messages"), map[string]any{"msg": "for nobody"}, &r)
				s.complete(t, &tracedMessage{root: "POST /v1/users/:id/messages", id: r.ID, conv: r.Conversation, seq: r.Seq, traceID: r.TraceID, routed: true})
			})
			t.Run("seed's room", func(t *testing.T) {
				s.seed(t, "/push/pushRoom", object{"op": 3, "msg": "as ever", "roomId": p.room, "authToken": p.users[1].Token})
				s.complete(t, known("POST /push/pushRoom", 2, got(t, p.conns, "as ever")))
			})
			t.Run("seed's private", func(t *testing.T) {
				s.seed(t, "/push/push", object{"op": 2, "msg": "as ever to you", "toUserId": fmt.Sprint(p.users[4].ID), "roomId": p.room, "authToken": p.users[2].Token})
				// Both have one connection, on the same node.
				m := known("POST /push/push", 1, got(t, []*testclient.Conn{p.conns[4], p.conns[2]}, "as ever to you"))
				m.routed = true
				s.complete(t, m)
			})
			t.Run("request with a trace", func(t *testing.T) {
				const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
				p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "yours", "traceparent": "00-" + parent + "-00f067aa0ba902b7-01"})
				if f := got(t, p.conns, "yours")[0]; f.Str("traceId") != parent {
					t.Errorf("trace %s, want the client's", f.Str("traceId"))
				}
			})
			t.Run("resume", func(t *testing.T) { s.resumes(t, p, away) })
			t.Run("thousand at once", func(t *testing.T) { s.thousand(t, p) })
			s.nothingDropped(t)
		})
	}
}

func (s *traced) seed(t *testing.T, path string, body object) {
	t.Helper()
	status, answer := (&testclient.User{API: s.api.api()}).Do(t, http.MethodPost, path, body)
	var e struct{ Code int }
	if err := json.Unmarshal(answer, &e); err != nil || status != http.StatusOK || e.Code != 0 {
		t.Fatalf("%s: %d %s", path, status, answer)
	}
}

// resumes: who comes back has a trace of its own, linked to those of what they get.
func (s *traced) resumes(t *testing.T, p *people, away *testclient.User) {
	c := testclient.WebSocket(t, s.connects[0].WebSocket)
	c.Send(t, object{"op": 6, "authToken": away.Token, "resume": object{}})
	frame := c.AwaitText(t, "for later")
	eventually(t, "a resume linked to the message's trace", func() bool {
		return len(s.spans.Find(func(span *testotlp.Span) bool {
			return span.Name == "resume" && span.Parent == "" && span.Service == "gochat-connect" && span.Int("gochat.messages") == 2 &&
				slices.ContainsFunc(span.Links, func(l testotlp.Link) bool { return l.TraceID == frame.Str("traceId") })
		})) == 1
	})
}

// thousand messages at once, in rooms and private ones, have as many traces, each complete.
func (s *traced) thousand(t *testing.T, p *people) {
	const each = 1000 / 6
	var sending sync.WaitGroup
	for i, c := range p.conns {
		sending.Go(func() {
			for n := range each {
				frame := object{"op": 3, "roomId": p.room, "msg": fmt.Sprint("one of many ", i, " ", n)}
				if n%2 == 0 {
					frame = object{"op": 2, "toUserId": p.users[(i+1)%6].ID, "msg": fmt.Sprint("one of many ", i, " ", n), "clientId": fmt.Sprint(i, "-", n)}
				}
				if err := c.TrySend(frame); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	ids := make(map[string]bool)
	for i := range p.conns {
		for n := range each {
			text := fmt.Sprint("one of many ", i, " ", n)
			var m *tracedMessage
			if n%2 == 0 {
				m = known("receive frame", 2, got(t, p.conns[(i+1)%6:(i+1)%6+1], text))
				m.spared = 1
			} else {
				m = known("receive frame", 2, got(t, p.conns, text))
			}
			ids[m.traceID] = true
			if s.complete(t, m); t.Failed() {
				return
			}
		}
	}
	if len(ids) != 6*each {
		t.Errorf("%d traces for %d messages", len(ids), 6*each)
	}
}

// nothingDropped: all spans that ended have come.
func (s *traced) nothingDropped(t *testing.T) {
	t.Helper()
	sum := func(name string) (n float64) {
		for _, r := range s.all() {
			n += metric(t, r, name, "")
		}
		return n
	}
	eventually(t, "all spans that ended have come", func() bool {
		return sum("gochat_trace_spans_ended_total") == sum("gochat_trace_spans_exported_total") &&
			int(sum("gochat_trace_spans_exported_total")) == s.spans.Count()
	})
	if failed := sum("gochat_trace_spans_failed_total"); failed != 0 {
		t.Errorf("%v spans lost", failed)
	}
}

// TestTracesCut is the control of TestTraces: cut at any hop, the check fails.
func TestTracesCut(t *testing.T) {
	for _, cut := range slices.Sorted(maps.Keys(spoiled())) {
		if cut == "" || cut == hung {
			continue
		}
		t.Run(cut, func(t *testing.T) {
			t.Parallel()
			s := startTraced(t, DriverRedis, cut)
			p := s.people(t)
			p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "cut", "clientId": "c"})
			m := known("receive frame", 2, got(t, p.conns, "cut"))
			ack := p.conns[0].AwaitOp(t, int(frames.OpAck))
			for _, r := range s.all() { // they send what they have
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
			}
			if m.traceID == "" {
				m.traceID = ack.Str("traceId")
			}
			wrong := s.check(m)
			t.Logf("%d faults, as %v", len(wrong), wrong)
			if len(wrong) == 0 {
				t.Errorf("nothing is wrong:\n%s", s.picture(m.traceID))
			}
		})
	}
}

// TestTraceOfRetry: what a task took and did not push before it was killed is pushed by the next, in the same trace.
func TestTraceOfRetry(t *testing.T) {
	t.Parallel()
	s := startTraced(t, DriverRedis, "")
	p := s.people(t)
	if err := s.task.stop(); err != nil {
		t.Fatal(err)
	}
	first := s.spawn(t, hung, contract.LayerTask)
	p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "again", "clientId": "c"})
	ack := p.conns[0].AwaitOp(t, int(frames.OpAck))
	eventually(t, "a task has taken the message", func() bool { return metric(t, first, "gochat_messages_consumed_total", "") > 0 })
	first.kill()
	s.task = s.spawn(t, "", contract.LayerTask)
	got(t, p.conns, "again")
	eventually(t, "the second attempt, in the message's trace", func() bool {
		return slices.ContainsFunc(s.spans.Trace(ack.Str("traceId")), func(span *testotlp.Span) bool {
			return span.Name == "process gochat.deliveries" && span.Attrs["gochat.attempt"] == "2" && span.Attrs["gochat.message.id"] == ack.Str("id")
		})
	})
}
