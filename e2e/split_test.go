//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gochat/e2e/traces"
)

// TestSplit: every layer a service of its own, two of each, behind the proxy; then what may happen to them.
func TestSplit(t *testing.T) {
	s := startSplit(t, "redis")
	s.scenarios(t)
	s.parts(t, []part{
		{"two nodes behind the proxy", s.twoNodes},
		{"traces", s.traced},
		{"dashboards", s.dashboards},
		{"killed", s.killed},
		{"paused", s.paused},
		{"connect cut off from task", s.cutOff},
		{"logic cut off from PostgreSQL", s.cutDatabase},
		{"Redis at another address", s.redisMoves},
		{"disk full", s.diskFull},
		{"clock steps", s.clockSteps},
		{"etcd loses members", s.etcdLoses},
		{"rolling restart", s.rolling},
		{"scaled", s.scaled},
		{"alerts", s.alerts},
	})
}

// TestRabbitMQ: the same with another queue, which is killed, and stands still.
func TestRabbitMQ(t *testing.T) { otherQueue(t, "rabbitmq") }

// TestKafka: likewise, where there is an image of it, which Debian has no package for.
func TestKafka(t *testing.T) {
	if os.Getenv("E2E_IMAGES") != "" {
		t.Run("not run, since no registry is reached that has Kafka", func(t *testing.T) { t.SkipNow() })
		return
	}
	otherQueue(t, "kafka")
}

func otherQueue(t *testing.T, queue string) {
	s := startSplit(t, queue)
	s.scenarios(t)
	s.parts(t, []part{
		{"traces", s.traced},
		{"broker killed", func(t *testing.T) { s.kills(t, queue) }},
		{"broker paused", func(t *testing.T) { s.pauses(t, queue) }},
	})
}

// part is something to be done with the system, one after another.
type part struct {
	name string
	do   func(*testing.T)
}

func (s *split) parts(t *testing.T, all []part) {
	for _, part := range all {
		t.Run(part.name, func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			part.do(t)
		})
	}
}

// dashboards: a Prometheus that is configured as ours, but for how often it scrapes, answers every query of every panel, and no alert fires.
func (s *split) dashboards(t *testing.T) {
	watched := s.prometheus(t, "../dashboards/rules")
	people := s.chat(t)
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Second) {
		s.chatPage(t) // all layers have something to do
	}
	watched.check(t, "TestRunningSystem")
	people.settle()
}

// twoNodes: the proxy spreads connections, and people on different nodes hear each other.
func (s *split) twoNodes(t *testing.T) {
	u := s.register(t, unique("spread"))
	var room struct{ ID int }
	s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": unique("spread")}, &room)
	var conns []*conn
	for i := range 12 {
		c := s.transports()[[]string{"websocket", "tcp", "tcp with TLS"}[i%3]](t)
		c.enter(t, u, room.ID)
		conns = append(conns, c)
	}
	for _, node := range s.containers("connect") {
		if n := metric(t, node, "gochat_connections"); n < 3 { // two are its canary's
			t.Errorf("%s has %v connections, want some of the twelve", node, n)
		}
	}
	text := unique("to both nodes")
	conns[0].send(t, object{"op": 3, "roomId": room.ID, "msg": text})
	for _, c := range conns {
		c.text(t, text)
	}
}

// metric is the sum of a metric's series on the container.
func metric(t *testing.T, c *container, name string) (sum float64) {
	t.Helper()
	response, err := http.Get("http://" + c.addr("_layers", 9100) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if rest, is := strings.CutPrefix(line, name); is && (rest[0] == '{' || rest[0] == ' ') {
			var value float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}

// traced: a message is one trace, from the request to the sockets of both nodes.
func (s *split) traced(t *testing.T) {
	// On both nodes, so not by the proxy.
	var users []*user
	var conns []*conn
	held := make([][]int, 2)
	var room struct{ ID int }
	for i := range 6 {
		u := s.register(t, unique(fmt.Sprint("traced-", i)))
		if i == 0 {
			s.must(t, u, http.MethodPost, "/v1/rooms", object{"name": unique("traced")}, &room)
		}
		node := s.containers("connect")[i%2]
		direct := target{}
		direct.WebSocket, direct.TCP = []string{node.addr("_layers", 7000)}, []string{node.addr("_layers", 7001)}
		c := direct.transports()[[]string{"websocket", "tcp"}[i/3]](t)
		c.enter(t, u, room.ID)
		users, conns, held[i%2] = append(users, u), append(conns, c), append(held[i%2], u.ID)
	}
	message := func(root, text string, receivers []*conn, by [][]int) *traces.Message {
		m := &traces.Message{Root: root, Held: by}
		for _, c := range receivers {
			f := c.text(t, text)
			m.ID, m.TraceID, m.Seq, m.Conversation = f.str("id"), f.str("traceId"), f.num("seq"), f.str("conversation")
			m.Frames = append(m.Frames, traces.Frame{ID: f.str("id"), TraceID: f.str("traceId"), Seq: f.num("seq")})
		}
		return m
	}
	complete := func(m *traces.Message) {
		t.Helper()
		var wrong []string
		eventually(t, "a whole trace", func() bool {
			wrong = m.Check(s.spans.Trace(m.TraceID), buckets)
			return len(wrong) == 0
		})
	}
	const byREST, byFrame = "POST /v1/rooms/:id/messages", "receive frame"
	text := unique("by REST")
	s.must(t, users[0], http.MethodPost, fmt.Sprintf("/v1/rooms/%d/messages", room.ID), object{"msg": text}, nil)
	rest := message(byREST, text, conns, held)
	complete(rest)
	for i, c := range []*conn{conns[0], conns[5]} {
		text := unique(fmt.Sprint("by frame ", i))
		c.send(t, object{"op": 3, "roomId": room.ID, "msg": text})
		complete(message(byFrame, text, conns, held))
	}
	text = unique("private")
	conns[3].send(t, object{"op": 2, "toUserId": users[4].ID, "msg": text, "clientId": "c"})
	complete(message(byFrame, text, conns[4:5], [][]int{{users[4].ID}, {users[3].ID}}))
	text = unique("of the seed")
	if code, _ := s.seed(t, "/push/pushRoom", object{"op": 3, "msg": text, "roomId": room.ID, "authToken": users[1].Token}); code != 0 {
		t.Fatalf("pushRoom: code %d", code)
	}
	complete(message("POST /push/pushRoom", text, conns, held))

	// Each process is known by its own name.
	instances := make(map[string]bool)
	for _, span := range s.spans.Trace(rest.TraceID) {
		instances[span.Service+" "+span.Instance] = true
	}
	services := make(map[string]int)
	for name := range instances {
		service, instance, _ := strings.Cut(name, " ")
		services[service]++
		if !strings.HasPrefix(instance, strings.TrimPrefix(service, "gochat-")+"-") {
			t.Errorf("%s is known as %q", service, instance)
		}
	}
	if services["gochat-connect"] != 2 || services["gochat-task"] != 1 || services["gochat-api"] != 1 || services["gochat-logic"] != 1 {
		t.Errorf("the message was in %v, want two connect nodes and one of each other layer", services)
	}
}
