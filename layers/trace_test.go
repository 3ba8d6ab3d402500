package layers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/e2e/traces"
	frames "gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// traced is a process for each layer, two of them of connect, that send all their spans to one endpoint.
type traced struct {
	spans    *traces.Collector
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

// collector is a trace endpoint, which ends with the test.
func collector(t testing.TB) *traces.Collector {
	t.Helper()
	c, err := traces.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// startTraced starts them, with the queue on the driver, each spoiled like that, to sample so much of what nobody asks for.
func startTraced(t *testing.T, driver, spoiled string, ratio float64) *traced {
	t.Helper()
	b := migrated(t, backend{etcd: testdeps.Etcd(t).Endpoint(), redis: testdeps.Redis(t).Addr(), database: testdeps.Postgres(t)})
	s := &traced{spans: collector(t), cfg: b.config()}
	s.cfg.Trace.SampleRatio = ratio
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

type object = map[string]any

// held are the users whose connections a message is for, by node.
type held [][]int

// check says all that is wrong with the message's trace, and with the trace that its row names.
func (s *traced) check(m *traces.Message) []string {
	spans := s.spans.Trace(m.TraceID)
	wrong := m.Check(spans, s.cfg.Connect.Buckets)
	if accepted := m.Accepted(spans); accepted != "" {
		stored := s.stored(m)
		if stored.ID.String() != m.ID || stored.Traceparent != "00-"+m.TraceID+"-"+accepted+"-01" {
			wrong = append(wrong, fmt.Sprintf("stored as %s with traceparent %s", stored.ID, stored.Traceparent))
		}
	}
	return wrong
}

// stored is the message's row.
func (s *traced) stored(m *traces.Message) contract.Message {
	rows, _, err := s.store.History(context.Background(), contract.Conversation(m.Conversation), int64(m.Seq-1), 0, 1)
	if err != nil || len(rows) == 0 {
		return contract.Message{} // which is no row of anybody's
	}
	return rows[0]
}

// complete waits until the message's trace is.
func (s *traced) complete(t *testing.T, m *traces.Message) {
	t.Helper()
	var wrong []string
	if !testwait.Soon(func() bool { wrong = s.check(m); return len(wrong) == 0 }) {
		t.Errorf("trace %s of message %s:\n\t%s\n%s", m.TraceID, m.ID, strings.Join(wrong, "\n\t"), traces.Picture(s.spans.Trace(m.TraceID)))
	}
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

// held are some of the people.
func (p *people) held(some ...int) held {
	h := make(held, 2)
	for _, i := range some {
		h[i%2] = append(h[i%2], p.users[i].ID)
	}
	return h
}

// all are all of them.
func (p *people) all() held { return p.held(0, 1, 2, 3, 4, 5) }

// got are the frames of the message that came to the connections.
func got(t *testing.T, conns []*testclient.Conn, text string) (all []testclient.Frame) {
	t.Helper()
	for _, c := range conns {
		all = append(all, c.AwaitText(t, text))
	}
	return all
}

// known is the message by one of its frames.
func known(root string, by held, came []testclient.Frame) *traces.Message {
	f := came[0]
	return &traces.Message{Root: root, ID: f.Str("id"), TraceID: f.Str("traceId"), Seq: f.Int("seq"), Conversation: f.Str("conversation"),
		Frames: framesOf(came), Held: by}
}

// framesOf are what the checker of traces wants to know of them.
func framesOf(came []testclient.Frame) (all []traces.Frame) {
	for _, f := range came {
		all = append(all, traces.Frame{ID: f.Str("id"), TraceID: f.Str("traceId"), Seq: f.Int("seq")})
	}
	return all
}

// TestTraces: a message is one trace from the request to the sockets, whichever way it comes and goes.
func TestTraces(t *testing.T) {
	for _, driver := range []string{DriverRedis, DriverRabbitMQ, DriverKafka} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := startTraced(t, driver, "", 1)
			p := s.people(t)
			away := testclient.Register(t, s.api.api(), "away")
			receipt := func(path, text string) *traces.Message {
				var r struct {
					ID           string
					Conversation string
					Seq          int
					TraceID      string `json:"traceId"`
				}
				p.users[0].Must(t, http.MethodPost, path, map[string]any{"msg": text}, &r)
				return &traces.Message{ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, TraceID: r.TraceID}
			}
			t.Run("room by REST", func(t *testing.T) {
				m := receipt(fmt.Sprint("/v1/rooms/", p.room, "/messages"), "by rest")
				m.Root, m.Held, m.Frames = "POST /v1/rooms/:id/messages", p.all(), framesOf(got(t, p.conns, "by rest"))
				s.complete(t, m)
			})
			t.Run("room by websocket", func(t *testing.T) {
				p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "by websocket"})
				s.complete(t, known("receive frame", p.all(), got(t, p.conns, "by websocket")))
			})
			t.Run("room by tcp", func(t *testing.T) {
				p.conns[5].Send(t, object{"op": 3, "roomId": p.room, "msg": "by tcp", "clientId": "c"})
				m := known("receive frame", p.all(), got(t, p.conns, "by tcp"))
				if ack := p.conns[5].AwaitOp(t, int(frames.OpAck)); ack.Str("traceId") != m.TraceID || ack.Str("id") != m.ID {
					t.Errorf("the ack says trace %s, message %s", ack.Str("traceId"), ack.Str("id"))
				}
				s.complete(t, m)
			})
			t.Run("private by tcp", func(t *testing.T) {
				p.conns[3].Send(t, object{"op": 2, "toUserId": p.users[4].ID, "msg": "to you", "clientId": "d"})
				s.complete(t, known("receive frame", p.held(3, 4), got(t, p.conns[4:5], "to you"))) // the sender is on the other node
			})
			t.Run("private offline", func(t *testing.T) {
				m := receipt(fmt.Sprint("/v1/users/", away.ID, "/messages"), "for later")
				// The sender's own connection gets it.
				m.Root, m.Held, m.Frames = "POST /v1/users/:id/messages", p.held(0), framesOf(got(t, p.conns[:1], "for later"))
				m.Routed, m.Offline = true, true
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
				s.complete(t, &traces.Message{Root: "POST /v1/users/:id/messages", ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, TraceID: r.TraceID, Routed: true, Offline: true})
			})
			t.Run("seed's room", func(t *testing.T) {
				s.seed(t, "/push/pushRoom", object{"op": 3, "msg": "as ever", "roomId": p.room, "authToken": p.users[1].Token})
				s.complete(t, known("POST /push/pushRoom", p.all(), got(t, p.conns, "as ever")))
			})
			t.Run("seed's private", func(t *testing.T) {
				s.seed(t, "/push/push", object{"op": 2, "msg": "as ever to you", "toUserId": fmt.Sprint(p.users[4].ID), "roomId": p.room, "authToken": p.users[2].Token})
				// Both have one connection, on the same node.
				m := known("POST /push/push", p.held(2, 4), got(t, []*testclient.Conn{p.conns[4], p.conns[2]}, "as ever to you"))
				m.Routed = true
				s.complete(t, m)
			})
			t.Run("request with a trace", func(t *testing.T) {
				s.follows(t, p, "4bf92f3577b34da6a3ce929d0e0e4736", "b7ad6b71692033314bf92f3577b34da6")
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
		return len(s.spans.Find(func(span *traces.Span) bool {
			return span.Name == "resume" && span.Parent == "" && span.Service == "gochat-connect" && span.Int("gochat.messages") == 2 &&
				slices.ContainsFunc(span.Links, func(l traces.Link) bool { return l.TraceID == frame.Str("traceId") })
		})) == 1
	})
}

// follows: a message whose frame or whose request names a sampled trace is of that trace, under the span that it names.
func (s *traced) follows(t *testing.T, p *people, byFrame, byRequest string) {
	t.Helper()
	const parent = "00f067aa0ba902b7"
	p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "yours by frame", "traceparent": "00-" + byFrame + "-" + parent + "-01"})
	s.request(t, p, "yours by request", "00-"+byRequest+"-"+parent+"-01")
	frame := known("receive frame", p.all(), got(t, p.conns, "yours by frame"))
	request := known("POST /v1/rooms/:id/messages", p.all(), got(t, p.conns, "yours by request"))
	if frame.TraceID != byFrame || request.TraceID != byRequest {
		t.Errorf("traces %s and %s, want the clients' %s and %s", frame.TraceID, request.TraceID, byFrame, byRequest)
	}
	frame.Parent, request.Parent = parent, parent
	s.complete(t, frame)
	s.complete(t, request)
}

// request sends the room a message by a request with the traceparent, if it is one.
func (s *traced) request(t *testing.T, p *people, text, traceparent string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, fmt.Sprint(s.api.api(), "/v1/rooms/", p.room, "/messages"), strings.NewReader(fmt.Sprintf(`{"msg":%q}`, text)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+p.users[0].Token)
	if traceparent != "" {
		r.Header.Set("traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s: %v", resp.Status, err)
	}
}

// thousand messages at once, in the room and private ones, have as many traces, each complete.
func (s *traced) thousand(t *testing.T, p *people) {
	const messages = 1000
	text := func(n int) string { return fmt.Sprintf("one of many: %d.", n) }
	private := func(n int) bool { return n/6%2 == 0 }
	var sending sync.WaitGroup
	for i, c := range p.conns {
		sending.Go(func() {
			for n := i; n < messages; n += 6 {
				frame := object{"op": 3, "roomId": p.room, "msg": text(n)}
				if private(n) {
					frame = object{"op": 2, "toUserId": p.users[(i+1)%6].ID, "msg": text(n), "clientId": fmt.Sprint(n)}
				}
				if err := c.TrySend(frame); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	ids := make(map[string]bool)
	for n := range messages {
		from, to := n%6, (n+1)%6
		m := known("receive frame", p.held(from, to), got(t, p.conns[to:to+1], text(n)))
		if !private(n) {
			m = known("receive frame", p.all(), got(t, p.conns, text(n)))
		}
		ids[m.TraceID], m.MayBeLate = true, true
		if s.complete(t, m); t.Failed() {
			return
		}
	}
	if len(ids) != messages {
		t.Errorf("%d traces for %d messages", len(ids), messages)
	}
	const overdue = 250 * time.Millisecond // of package task
	for _, span := range traces.LateWithoutReason(s.spans.Find(func(*traces.Span) bool { return true }), overdue) {
		t.Errorf("trace %s: late, though no node was", span.TraceID)
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

// stop drains all processes: they send the spans they have.
func (s *traced) stop(t *testing.T) {
	t.Helper()
	for _, r := range s.all() {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTracesAsked: of a system that samples nothing, a message that asks for it has its whole trace, and no other has a span.
func TestTracesAsked(t *testing.T) {
	t.Parallel()
	s := startTraced(t, DriverRedis, "", 0)
	p := s.people(t)
	const not = "0af7651916cd43dd8448eb211c80319c"
	p.conns[1].Send(t, object{"op": 3, "roomId": p.room, "msg": "unasked by frame"})
	p.conns[1].Send(t, object{"op": 3, "roomId": p.room, "msg": "not by frame", "traceparent": "00-" + not + "-00f067aa0ba902b7-00"})
	s.request(t, p, "unasked by request", "")
	s.request(t, p, "not by request", "00-"+not+"-00f067aa0ba902b7-00")
	for _, text := range []string{"unasked by frame", "not by frame", "unasked by request", "not by request"} {
		got(t, p.conns, text)
	}
	const byFrame, byRequest = "4bf92f3577b34da6a3ce929d0e0e4736", "b7ad6b71692033314bf92f3577b34da6"
	s.follows(t, p, byFrame, byRequest)
	s.stop(t)
	others := s.spans.Find(func(span *traces.Span) bool { return span.TraceID != byFrame && span.TraceID != byRequest })
	for _, span := range others {
		t.Errorf("%s %s %s %v is a span of what nobody has asked for", span.Service, span.Name, span.TraceID, span.Attrs)
	}
}

// TestTracesCut is the control of TestTraces: cut at any hop, the check finds what is missing there; without a cut, nothing.
func TestTracesCut(t *testing.T) {
	tests := []struct{ cut, driver, fault string }{
		{"", DriverRedis, ""},
		{"caller-logic", DriverRedis, `"connect Logic/Send CLIENT" has another parent than "connect receive frame SERVER"`},
		{"logic-commit", DriverRedis, `0 spans "logic commit INTERNAL", want 1`},
		{"logic-queue", DriverRedis, `0 spans "task process gochat.deliveries CONSUMER", want 1`},
		{"logic-queue", DriverRabbitMQ, `0 spans "task process gochat.deliveries CONSUMER", want 1`},
		{"logic-queue", DriverKafka, `0 spans "task process gochat.deliveries CONSUMER", want 1`},
		{"task-connect", DriverRedis, `0 spans "task Connect/Push CLIENT", want 2`},
		{"connect-bucket", DriverRedis, `fan-out in the buckets [[] []], want [[`},
	}
	hops := spoiled()
	delete(hops, hung) // is no cut
	for _, test := range tests {
		delete(hops, test.cut)
		t.Run(strings.TrimPrefix(test.cut+" "+test.driver, " "), func(t *testing.T) {
			t.Parallel()
			s := startTraced(t, test.driver, test.cut, 1)
			p := s.people(t)
			p.conns[0].Send(t, object{"op": 3, "roomId": p.room, "msg": "cut", "clientId": "c"})
			m := known("receive frame", p.all(), got(t, p.conns, "cut"))
			ack := p.conns[0].AwaitOp(t, int(frames.OpAck))
			s.stop(t)
			if m.TraceID == "" {
				m.TraceID = ack.Str("traceId")
			}
			if m.TraceID == "" { // nobody was told; there has been one frame for a room
				for _, root := range s.spans.Find(func(span *traces.Span) bool { return span.Name == m.Root && span.Attrs["gochat.op"] == "3" }) {
					m.TraceID = root.TraceID
				}
			}
			wrong := s.check(m)
			t.Logf("%d faults: %q", len(wrong), wrong)
			found := slices.ContainsFunc(wrong, func(fault string) bool { return strings.Contains(fault, test.fault) })
			if test.cut == "" && len(wrong) > 0 || test.cut != "" && !found {
				t.Errorf("%d faults, %q, want %q:\n%s", len(wrong), wrong, test.fault, traces.Picture(s.spans.Trace(m.TraceID)))
			}
		})
	}
	for hop := range hops {
		t.Errorf("%s is not cut here", hop)
	}
}

// TestTraceOfRetry: what a task took and did not push before it was killed is pushed by the next, in the same trace.
func TestTraceOfRetry(t *testing.T) {
	t.Parallel()
	s := startTraced(t, DriverRedis, "", 1)
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
	eventually(t, "the second attempt, under the span that published the message and linked to it", func() bool {
		spans := s.spans.Trace(ack.Str("traceId"))
		return slices.ContainsFunc(spans, func(span *traces.Span) bool {
			return span.Name == "process gochat.deliveries" && span.Attrs["gochat.attempt"] == "2" && span.Attrs["gochat.message.id"] == ack.Str("id") &&
				slices.ContainsFunc(spans, func(producer *traces.Span) bool {
					return producer.Name == "send gochat.deliveries" && producer.Kind == "PRODUCER" && producer.ID == span.Parent &&
						slices.Contains(span.Links, traces.Link{TraceID: producer.TraceID, ID: producer.ID})
				})
		})
	})
}
