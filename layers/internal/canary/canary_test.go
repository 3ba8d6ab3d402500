package canary

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// A system that works is well, by both transports. In the end nothing of the canary is left.
func TestWell(t *testing.T) {
	s := newSystem(t)
	w := s.watch(t, patient())
	eventually(t, "it is well", w.says())
	for t1 := range transports {
		if up := w.metric(t, "gochat_canary_up", t1.String()); up != 1 {
			t.Errorf("%s: up is %v, want 1", t1, up)
		}
		if n := w.metric(t, "gochat_canary_seconds", t1.String()); n < 1 {
			t.Errorf("%s: %v were timed, want one at least", t1, n)
		}
		if at := w.metric(t, "gochat_canary_last_received_timestamp_seconds", t1.String()); time.Since(time.UnixMilli(int64(at*1000))) > time.Hour {
			t.Errorf("%s: last received at %v", t1, at)
		}
	}
	before := w.metric(t, "gochat_canary_messages_total", "websocket", "received")
	eventually(t, "it goes on", func() bool { return w.metric(t, "gochat_canary_messages_total", "websocket", "received") > before })
	for _, p := range s.peers() {
		if err := p.ping(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "pings are answered", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pongs[webSocket] > 0 && s.pongs[tcp] > 0
	})
	if n := len(s.peers()); n != 2 {
		t.Errorf("it holds %d connections, want one of each transport", n)
	}
	w.stop()
	if want := []string{"token-1 of connect-1"}; !slices.Equal(s.ended, want) || len(s.sessions) != 1 {
		t.Errorf("logged out %q of %d sessions, want %q of one", s.ended, len(s.sessions), want)
	}
	buf := make([]byte, 1<<20)
	if all := string(buf[:runtime.Stack(buf, true)]); strings.Contains(all, "canary.serve") || strings.Contains(all, "(*Canary)") {
		t.Errorf("goroutines are left:\n%s", all)
	}
}

// What goes wrong is said: by which transport the message was sent, and how far it came. When it is over all is well again.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   fault
		says    []string
		not     string
		outcome string
	}{
		{"by websocket it is not acknowledged, nor received", fault{by: webSocket, noAck: true, noPush: true},
			[]string{"sent by websocket, failing since 2", "not acknowledged within 500ms: see logic, database"}, "sent by tcp", "unacknowledged"},
		{"to the websocket nothing is pushed", fault{by: tcp, noPush: true},
			[]string{"sent by tcp, failing since 2", "acknowledged (trace feed, message 1), but not received by websocket within 500ms: see queue, task, push"}, "sent by websocket", "lost"},
		{"to nobody anything is pushed", fault{everybody: true, noPush: true},
			[]string{"sent by tcp", "not received by websocket", "sent by websocket", "not received by tcp"}, "refused", "lost"},
		{"received without an ack", fault{by: webSocket, noAck: true},
			[]string{"sent by websocket", "received by tcp, but not acknowledged within 500ms"}, "sent by tcp", "unacknowledged"},
		{"refused", fault{by: tcp, refuse: contract.Unavailable}, []string{"sent by tcp", "refused: unavailable: no"}, "sent by websocket", "refused"},
		{"late", fault{by: webSocket, hold: 1200 * time.Millisecond},
			[]string{"sent by websocket", "acknowledged (trace feed, message 1), but not received by tcp within 500ms"}, "refused", "late"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			w := s.watch(t, patient())
			eventually(t, "it is well at first", w.says())
			s.fails(c.fault)
			eventually(t, "it says "+strings.Join(c.says, ", "), func() bool {
				return w.says(c.says...)() && !strings.Contains(w.Check(context.Background()).Error(), c.not)
			})
			if up := w.metric(t, "gochat_canary_up", c.fault.by.String()); up != 0 {
				t.Errorf("up is %v, want 0", up)
			}
			eventually(t, "it counts "+c.outcome, func() bool {
				return w.metric(t, "gochat_canary_messages_total", c.fault.by.String(), c.outcome) > 0
			})
			s.fails(fault{})
			eventually(t, "it is well again", w.says())
			if up := w.metric(t, "gochat_canary_up", c.fault.by.String()); up != 1 {
				t.Errorf("up is %v, want 1", up)
			}
		})
	}
}

// Without what it needs to send, it is not well either, from the start.
func TestCannotSend(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*system)
		says string
		mend func(*system)
	}{
		{"logic is away", func(s *system) { s.fails(fault{noSession: true}) }, "not sent: no session: unavailable: sessions are not reachable", nil},
		{"nobody may authenticate", func(s *system) { s.fails(fault{noHello: contract.Unavailable}) }, "not sent: no connection by websocket: unavailable: not now", nil},
		{"the node is not in the cluster", func(s *system) { s.become(contract.NodeRef{}, false) }, "not sent: this node is not in the cluster",
			func(s *system) { s.become(contract.NodeRef{ID: "connect-4", Epoch: 9}, true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			c.make(s)
			w := s.watch(t, patient())
			if w.says()() {
				t.Error("it is well before any message has come")
			}
			eventually(t, "it says "+c.says, w.says("sent by websocket", "sent by tcp", c.says))
			if n := w.metric(t, "gochat_canary_messages_total", "tcp", "unsent"); n == 0 {
				t.Error("nothing is counted as unsent")
			}
			if c.mend == nil {
				s.fails(fault{})
			} else {
				c.mend(s)
			}
			eventually(t, "it is well", w.says())
		})
	}
}

// A port where nobody listens is named by its transport.
func TestNobodyListens(t *testing.T) {
	s := newSystem(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addrs[tcp] = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w := s.watch(t, patient())
	eventually(t, "it says that there is no tcp", w.says("not sent: no connection by tcp: ", "refused"))
}

// A second address of tcp where nobody listens, or from which nothing comes, shows, though the first works.
func TestSecondListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSystem(t)
	s.more = []string{s.addrs[tcp]}
	w := s.watch(t, patient())
	eventually(t, "it is well with two", w.says())
	if n := len(s.peers()); n != 3 {
		t.Errorf("it holds %d connections, want one of each address", n)
	}
	w.stop()
	s.more = []string{second}
	w = s.watch(t, patient())
	eventually(t, "it says which is dead", w.says("no connection by tcp "+second+": ", "refused"))
	if up := w.metric(t, "gochat_canary_up", "tcp"); up != 0 {
		t.Errorf("up is %v, want 0", up)
	}
}

// While all is well no message is recorded; after a failure they are, and the log names one with its trace.
func TestTraces(t *testing.T) {
	s := newSystem(t)
	w := s.watch(t, patient())
	eventually(t, "it is well", w.says())
	sent := func(sampled bool) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.traces, func(traceparent string) bool {
			return observability.SpanContext(traceparent).IsValid() && observability.IsSampled(traceparent) == sampled
		})
	}
	eventually(t, "messages are sent that are not recorded", func() bool { return sent(false) })
	s.fails(fault{by: tcp, noPush: true})
	eventually(t, "the log names a message and its trace", func() bool {
		return strings.Contains(w.log.String(), "do not come through") && strings.Contains(w.log.String(), "msg_id=1 trace_id=feed")
	})
	eventually(t, "the message is recorded", func() bool { return sent(true) })
	s.fails(fault{})
	eventually(t, "it is well again", w.says())
	eventually(t, "none is recorded any more", func() bool {
		s.mu.Lock()
		s.traces = nil
		s.mu.Unlock()
		before := w.metric(t, "gochat_canary_messages_total", "tcp", "received")
		eventually(t, "it goes on", func() bool { return w.metric(t, "gochat_canary_messages_total", "tcp", "received") > before })
		return sent(false) && !sent(true)
	})
}

// Of an address that is every one's, this host is dialed.
func TestWildcard(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "[::]", ""} {
		t.Run(host, func(t *testing.T) {
			s := newSystem(t)
			for at, addr := range s.addrs {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					t.Fatal(err)
				}
				s.addrs[at] = host + ":" + port
			}
			if host == "[::]" { // the system listens on IPv4 alone
				if conn, err := net.Dial("tcp", s.addrs[tcp]); err != nil {
					t.Skipf("%s does not reach this host by IPv4: %v", host, err)
				} else {
					_ = conn.Close()
				}
			}
			eventually(t, "it is well", s.watch(t, patient()).says())
		})
	}
}

// Connections that end are made anew; with a session that has ended, so is the session.
func TestConnectionsEnd(t *testing.T) {
	for code, session := range map[contract.Code]bool{
		"": false, contract.Unavailable: false, contract.SlowConsumer: false,
		contract.SessionEnded: true, contract.Replaced: true, contract.Unauthenticated: true,
	} {
		t.Run("by "+string(code), func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			w := s.watch(t, patient())
			eventually(t, "it is well", w.says())
			before := s.peers()
			s.closeAll(code)
			eventually(t, "there are two others", func() bool {
				now := s.peers()
				return len(now) == 2 && !slices.Contains(before, now[0]) && !slices.Contains(before, now[1])
			})
			received := w.metric(t, "gochat_canary_messages_total", "tcp", "received")
			eventually(t, "messages come again", func() bool {
				return w.metric(t, "gochat_canary_messages_total", "tcp", "received") > received && w.says()()
			})
			s.mu.Lock()
			defer s.mu.Unlock()
			if (len(s.sessions) > 1) != session {
				t.Errorf("it had %d sessions, a new one wanted: %v", len(s.sessions), session)
			}
		})
	}
}

// A node that begins a new life under another number has another canary.
func TestAnotherNode(t *testing.T) {
	s := newSystem(t)
	w := s.watch(t, patient())
	eventually(t, "it is well", w.says())
	s.become(contract.NodeRef{ID: "connect-1", Epoch: 2}, true) // the number is the same
	before := w.metric(t, "gochat_canary_messages_total", "tcp", "received")
	eventually(t, "it goes on", func() bool { return w.metric(t, "gochat_canary_messages_total", "tcp", "received") > before+1 })
	s.mu.Lock()
	if len(s.sessions) != 1 {
		t.Errorf("it had the sessions of %v, want one: the node is the same", s.sessions)
	}
	s.mu.Unlock()
	s.become(contract.NodeRef{}, false)
	eventually(t, "it says that it is nobody", w.says("this node is not in the cluster"))
	s.become(contract.NodeRef{ID: "connect-2", Epoch: 3}, true)
	eventually(t, "it is well", w.says())
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := []contract.NodeID{"connect-1", "connect-2"}; !slices.Equal(s.sessions, want) || !slices.Equal(s.ended, []string{"token-1 of connect-1"}) {
		t.Errorf("it had the sessions of %v and ended %q", s.sessions, s.ended)
	}
	for p := range s.conns {
		if !strings.Contains(p.token, "connect-2") {
			t.Errorf("a connection is of %s", p.token)
		}
	}
}

// story drives the judgement alone, by a clock of its own.
type story struct {
	*watched
	t   *testing.T
	now time.Time
}

func newStory(t *testing.T) *story {
	cfg := Config{Interval: 10 * time.Second, Timeout: 2 * time.Second}
	self := func() (contract.NodeRef, bool) { return contract.NodeRef{ID: "connect-1", Epoch: 1}, true }
	s := &story{watched: build(t, cfg, nil, self, [transports]string{}), t: t, now: time.Now()}
	for by := range transports { // both have worked
		m := s.send(by)
		s.comes(m)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *story) after(d time.Duration) { s.now = s.now.Add(d); s.look() }

func (s *story) look() {
	for id, m := range s.pending {
		s.judge(s.now, id, m)
	}
	s.tell()
}

func (s *story) send(by transport) string {
	s.number++
	id := fmt.Sprint(s.number)
	s.pending[id] = &message{by: way(by), sent: s.now, awaited: s.others(way(by))}
	return id
}

func (s *story) acked(id string) {
	if m := s.pending[id]; m != nil {
		m.acked = true
		s.complete(s.now, id, m)
		s.tell()
	}
}

func (s *story) comes(id string) {
	s.acked(id)
	if m := s.pending[id]; m != nil {
		m.awaited = nil
		s.complete(s.now, id, m)
		s.tell()
	}
}

func (s *story) want(well bool, when string) {
	s.t.Helper()
	if err := s.Check(s.t.Context()); (err == nil) != well {
		s.t.Errorf("%s: got %v, want it well: %v", when, err, well)
	}
}

func (s *story) count(by transport, o outcome) int {
	return int(s.metric(s.t, "gochat_canary_messages_total", by.String(), o.String()))
}

// One that fails is forgiven, two in a row are not; one line tells of it, and one that it is over.
func TestTwoInARow(t *testing.T) {
	s := newStory(t)
	s.send(webSocket)
	s.after(2 * time.Second)
	s.want(true, "after one that is overdue")
	s.comes(s.send(webSocket))
	s.send(webSocket)
	s.after(2 * time.Second)
	s.want(true, "after another one")
	if s.log.String() != "" {
		t.Errorf("it says %s", s.log)
	}
	s.send(webSocket)
	s.after(2 * time.Second)
	s.want(false, "after two in a row")
	s.send(webSocket)
	s.after(2 * time.Second)
	s.comes(s.send(tcp))
	s.want(false, "while the other way works")
	s.after(time.Minute)
	s.comes(s.send(webSocket))
	s.want(true, "after one that came")
	log := s.log.String()
	if n := strings.Count(log, "\n"); n != 2 || !strings.Contains(log, "do not come through") || !strings.Contains(log, "come through again") {
		t.Errorf("want a line of each, got %d:\n%s", n, log)
	}
	if s.count(webSocket, unacknowledged) != 4 || s.count(webSocket, received) != 3 || len(s.pending) != 0 {
		t.Errorf("%d unacknowledged, %d received, %d on their way", s.count(webSocket, unacknowledged), s.count(webSocket, received), len(s.pending))
	}
}

// Messages that a repair brings come late, and with them one that was sent a moment before. That is no sign of health; what
// is sent after it is.
func TestRepairIsNoHealth(t *testing.T) {
	s := newStory(t)
	one := s.send(tcp)
	s.acked(one)
	s.after(2 * time.Second)
	two := s.send(tcp)
	s.acked(two)
	s.after(2 * time.Second)
	s.want(false, "after two that did not come")
	three := s.send(tcp)
	s.after(time.Second)
	s.comes(one)
	s.comes(two)
	s.comes(three) // within its time
	s.want(false, "after a repair")
	if s.count(tcp, late) != 2 || s.count(tcp, received) != 2 {
		t.Errorf("%d late, %d received, want 2 and 2", s.count(tcp, late), s.count(tcp, received))
	}
	s.after(time.Second)
	four := s.send(tcp)
	s.after(time.Second)
	s.comes(four)
	s.want(true, "after one that was sent since")
}

// A message that nobody ever answers is forgotten in the end, and counted once.
func TestGivenUp(t *testing.T) {
	s := newStory(t)
	for range 100 {
		s.acked(s.send(tcp))
		s.send(webSocket)
		s.after(s.pace())
		if n := len(s.pending); n > 2*(waitFor+1) {
			t.Fatalf("%d messages are on their way", n)
		}
	}
	s.after(time.Hour)
	if s.count(tcp, lost) != 100 || s.count(webSocket, unacknowledged) != 100 || len(s.pending) != 0 {
		t.Errorf("%d lost, %d unacknowledged, %d on their way, want 100, 100 and none",
			s.count(tcp, lost), s.count(webSocket, unacknowledged), len(s.pending))
	}
}

// A canary that does nothing any more says so.
func TestStale(t *testing.T) {
	s := newStory(t)
	s.mu.Lock()
	s.status[tcp].came = time.Now().Add(-staleAfter*s.cfg.Interval - time.Second)
	s.mu.Unlock()
	if !s.says("sent by tcp: no message has come since 2")() {
		t.Errorf("got %v", s.Check(t.Context()))
	}
}

// The time of a message that was traced leads to its trace.
func TestExemplar(t *testing.T) {
	s := newStory(t)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for traceparent, want := range map[string]string{
		"00-" + trace + "-b7ad6b7169203331-01": trace, "00-" + trace + "-b7ad6b7169203331-00": "", "": "", "nonsense": "",
	} {
		w := build(t, s.cfg, nil, s.self, [transports]string{})
		w.complete(s.now, "1", &message{by: 1, sent: s.now, acked: true, traceparent: traceparent})
		if got := exemplar(t, w); got != want {
			t.Errorf("%q: got the trace %q, want %q", traceparent, got, want)
		}
	}
}

func exemplar(t *testing.T, w *watched) string {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "gochat_canary_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, b := range m.GetHistogram().GetBucket() {
				if e := b.GetExemplar(); e != nil {
					return labelOf(e)
				}
			}
		}
	}
	return ""
}

func labelOf(e *dto.Exemplar) string {
	for _, l := range e.GetLabel() {
		if l.GetName() == "trace_id" {
			return l.GetValue()
		}
	}
	return ""
}
