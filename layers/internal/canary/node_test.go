package canary

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testlog"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

var eventually = testwait.Eventually

const me contract.UserID = 77

// system is a connect node and a logic that do as the test says.
type system struct {
	addrs   [transports]string
	more    []string // further ones of tcp
	serving sync.WaitGroup

	mu       sync.Mutex
	conns    map[*peer]bool
	fault    fault
	node     contract.NodeRef
	alive    bool
	sessions []contract.NodeID // asked for
	ended    []string          // tokens logged out
	pongs    [transports]int
	traces   []string // of the messages sent
}

// fault is what goes wrong with messages sent through one transport, or with all.
type fault struct {
	by        transport
	everybody bool
	noAck     bool
	noPush    bool
	refuse    contract.Code
	hold      time.Duration // before it is pushed
	noSession bool
	noHello   contract.Code // to who authenticates
}

// peer is one connection of the canary, at the node's end.
type peer struct {
	transport transport
	token     string
	mu        sync.Mutex
	write     func(string) error
	ping      func() error
	close     func(contract.Code) error
}

func (p *peer) say(payload string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.write(payload) // a canary that has gone is told nothing
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{conns: make(map[*peer]bool), node: contract.NodeRef{ID: "connect-1", Epoch: 1}, alive: true}
	var upgrader websocket.Upgrader
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			http.NotFound(w, r)
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		p := &peer{transport: webSocket}
		p.write = func(text string) error { return conn.WriteMessage(websocket.TextMessage, []byte(text)) }
		p.ping = func() error { return conn.WriteControl(websocket.PingMessage, []byte("are you there"), time.Time{}) }
		p.close = func(code contract.Code) error {
			if code != "" {
				_ = conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(wire.CloseCode(code), ""))
			}
			return conn.Close()
		}
		conn.SetPongHandler(func(data string) error {
			if data == "are you there" {
				s.mu.Lock()
				s.pongs[webSocket]++
				s.mu.Unlock()
			}
			return nil
		})
		s.serve(p, func() ([]byte, error) { _, b, err := conn.ReadMessage(); return b, err })
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p := &peer{transport: tcp}
			p.write = func(text string) error {
				b, err := wire.AppendTCP(nil, []byte(text))
				if err == nil {
					_, err = conn.Write(b)
				}
				return err
			}
			p.ping = func() error { return p.write(`{"op":10}`) }
			p.close = func(contract.Code) error { return conn.Close() }
			s.serving.Go(func() { s.serve(p, func() ([]byte, error) { return packet(conn) }) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.closeAll("")
		web.Close()
		s.serving.Wait()
	})
	s.addrs = [transports]string{webSocket: web.Listener.Addr().String(), tcp: l.Addr().String()}
	return s
}

func packet(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if string(head[:2]) != "v1" || n < 5 {
		return nil, fmt.Errorf("head % x", head)
	}
	b := make([]byte, n-4)
	_, err := io.ReadFull(r, b)
	return b, err
}

func (s *system) serve(p *peer, read func() ([]byte, error)) {
	s.mu.Lock()
	s.conns[p] = true
	s.mu.Unlock()
	defer func() {
		_ = p.close("")
		s.mu.Lock()
		delete(s.conns, p)
		s.mu.Unlock()
	}()
	for {
		b, err := read()
		if err != nil {
			return
		}
		r, err := wire.Decode(b)
		if err != nil {
			p.say(string(wire.AppendError(nil, "", "", contract.AsError(err))))
			continue
		}
		s.act(p, &r)
	}
}

func (s *system) act(p *peer, r *wire.Request) {
	s.mu.Lock()
	f := s.fault
	s.mu.Unlock()
	switch r.Op {
	case wire.OpAuth:
		if f.noHello != "" {
			p.say(fmt.Sprintf(`{"op":21,"code":%q,"message":"not now"}`, f.noHello))
			return
		}
		p.token = r.AuthToken
	case wire.OpPing:
		p.say(`{"op":11}`)
	case wire.OpPong:
		s.mu.Lock()
		s.pongs[p.transport]++
		s.mu.Unlock()
	case wire.OpDirect:
		if p.token == "" || r.To != me {
			p.say(`{"op":21,"code":"unauthenticated","message":"who are you"}`)
			return
		}
		s.mu.Lock()
		s.traces = append(s.traces, r.Traceparent)
		s.mu.Unlock()
		if !f.everybody && f.by != p.transport {
			f = fault{}
		}
		if f.refuse != "" {
			p.say(fmt.Sprintf(`{"op":21,"code":%q,"message":"no","clientId":%q}`, f.refuse, r.ClientID))
			return
		}
		if !f.noAck {
			p.say(fmt.Sprintf(`{"op":20,"clientId":%q,"id":"1","conversation":"dm:77:77","seq":1,"traceId":"feed"}`, r.ClientID))
		}
		if f.noPush {
			return
		}
		if f.hold > 0 { // those that follow are not held up
			s.serving.Go(func() { time.Sleep(f.hold); s.push(p, r) })
			return
		}
		s.push(p, r)
	}
}

// push hands a message to all connections but the one that sent it.
func (s *system) push(from *peer, r *wire.Request) {
	for _, other := range s.peers() {
		if other != from {
			other.say(fmt.Sprintf(`{"code":0,"op":2,"msg":%q,"fromUserId":%d,"clientId":%q}`, r.Text, me, r.ClientID))
		}
	}
}

func (s *system) peers() (all []*peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.conns {
		all = append(all, p)
	}
	return all
}

// closeAll ends every connection, for a reason unless the code is "".
func (s *system) closeAll(code contract.Code) {
	for _, p := range s.peers() {
		if code != "" {
			p.say(fmt.Sprintf(`{"op":21,"code":%q,"message":"it is over"}`, code))
		}
		p.mu.Lock()
		_ = p.close(code)
		p.mu.Unlock()
	}
}

func (s *system) fails(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *system) become(node contract.NodeRef, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.alive = node, alive
}

func (s *system) self() (contract.NodeRef, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.alive
}

// CanarySession implements Logic.
func (s *system) CanarySession(_ context.Context, r *contract.CanarySessionRequest) (*contract.SessionGrant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault.noSession {
		return nil, contract.Errorf(contract.Unavailable, "sessions are not reachable")
	}
	s.sessions = append(s.sessions, r.Node)
	return &contract.SessionGrant{Token: fmt.Sprintf("token-%d of %s", len(s.sessions), r.Node), User: me}, nil
}

// Logout implements Logic.
func (s *system) Logout(_ context.Context, r *contract.LogoutRequest) (*contract.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, r.Credential.Token)
	return &contract.Empty{}, nil
}

// watched is a canary that runs, and what it says.
type watched struct {
	*Canary
	metrics *prometheus.Registry
	log     *testlog.Buffer
	stop    func()
}

// patient decides slowly enough for a machine that is busy, and often.
func patient() Config {
	return Config{Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond}
}

func (s *system) watch(t *testing.T, cfg Config) *watched {
	t.Helper()
	w := build(t, cfg, s, s.self, s.addrs, s.more...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := testwait.Receive(t, "the canary ends", ended); err != nil {
			t.Errorf("run: %v", err)
		}
		eventually(t, "no connection is left", func() bool { return len(s.peers()) == 0 })
	}
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

func build(t testing.TB, cfg Config, logic Logic, self func() (contract.NodeRef, bool), addrs [transports]string, more ...string) *watched {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &watched{metrics: prometheus.NewRegistry(), log: &testlog.Buffer{}}
	tel := observability.Discard()
	tel.Metrics, tel.Log = w.metrics, newLog(w.log)
	w.Canary = New(cfg, logic, self, addrs[webSocket], append([]string{addrs[tcp]}, more...), tel)
	return w
}

// says reports whether Check says all of the texts, or with none that all is well.
func (w *watched) says(texts ...string) func() bool {
	return func() bool {
		err := w.Check(context.Background())
		if err == nil {
			err = errors.New("")
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				return false
			}
		}
		return len(texts) > 0 || err.Error() == ""
	}
}

// metric is the value of the one that has all of the labels.
func (w *watched) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			has := make(map[string]bool)
			for _, l := range m.GetLabel() {
				has[l.GetValue()] = true
			}
			for _, l := range labels {
				if !has[l] {
					continue metrics
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no %s with %v", name, labels)
	return 0
}
