package layers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/where"
)

// askWhere asks a process's admin server where a message is: the answer, or else the problem.
func askWhere(t testing.TB, r *running, id string) (int, *where.Answer, *where.Problem) {
	t.Helper()
	resp, err := http.Get("http://" + r.Admin + "/admin/v1/messages/" + id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a, p := &where.Answer{}, &where.Problem{}
	if resp.StatusCode == http.StatusOK {
		p = nil
		err = json.Unmarshal(body, a)
	} else {
		a = nil
		err = json.Unmarshal(body, p)
	}
	if err != nil {
		t.Fatalf("status %d: %v: %s", resp.StatusCode, err, body)
	}
	return resp.StatusCode, a, p
}

// whereIs waits until the message is there.
func whereIs(t testing.TB, r *running, id string, state where.State) *where.Answer {
	t.Helper()
	var a *where.Answer
	eventually(t, fmt.Sprintf("message %s is %s", id, state), func() bool {
		_, a, _ = askWhere(t, r, id)
		return a != nil && a.State == state
	})
	return a
}

// sent is what REST answers of a message.
type sent struct {
	ID      string
	Seq     int64
	TraceID string
}

func say(t testing.TB, from *testclient.User, path, text string) (m sent) {
	t.Helper()
	from.Must(t, "POST", path, map[string]any{"msg": text}, &m)
	return m
}

// received is how many of the connections have been sent the message.
func received(id string, conns ...*testclient.Conn) (n int) {
	for _, c := range conns {
		for _, f := range c.Frames() {
			if f.Str("id") == id && (f.Op() == 2 || f.Op() == 3) {
				n++
			}
		}
	}
	return n
}

// TestWhere runs a system of several processes, and follows messages through it: what is answered, by whichever process,
// is what the clients have received.
func TestWhere(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	cfg := patient(b.config())
	rest := start(t, cfg, contract.LayerLogic, contract.LayerAPI)
	task := start(t, cfg, contract.LayerTask)
	one, two := start(t, cfg, contract.LayerConnect), start(t, cfg, contract.LayerConnect)
	ann, bob, cem := testclient.Register(t, rest.api(), "ann"), testclient.Register(t, rest.api(), "bob"), testclient.Register(t, rest.api(), "cem")
	conns := []*testclient.Conn{testclient.TCP(t, one.TCP[0]), testclient.WebSocket(t, one.WebSocket), testclient.TCP(t, two.TCP[0])}
	for i, u := range []*testclient.User{ann, bob, ann} {
		conns[i].Enter(t, u, 1)
	}

	m := say(t, ann, "/v1/rooms/1/messages", "to the room")
	for _, c := range conns {
		c.AwaitText(t, "to the room")
	}
	eventually(t, "it is known to be published", func() bool { // which may be so only after it has come
		a := whereIs(t, rest, m.ID, where.Delivered)
		return len(a.Logic) == 1 && a.Logic[0].Published > 0
	})
	for name, r := range map[string]*running{"logic and api": rest, "task": task, "connect": one} {
		a := whereIs(t, r, m.ID, where.Delivered)
		if a.Conversation != "room:1" || a.Seq != m.Seq || a.From == nil || *a.From != (where.User{ID: int64(ann.ID), Name: "ann"}) || a.TraceID != m.TraceID || len(a.Missing) > 0 {
			t.Errorf("%s: got %+v", name, a)
		}
		if len(a.Logic) != 1 || !strings.HasPrefix(a.Logic[0].Node, "logic-") || a.Logic[0].Published != 1 || a.Logic[0].Batch != 1 {
			t.Errorf("%s: got logic %+v", name, a.Logic)
		}
		if len(a.Task) != 1 || !strings.HasPrefix(a.Task[0].Node, "task-") || a.Task[0].Attempt != 1 || len(a.Task[0].Nodes) != 2 {
			t.Errorf("%s: got task %+v", name, a.Task)
		}
		if n := a.Totals.Written + a.Totals.Queued; n != received(m.ID, conns...) || n != 3 {
			t.Errorf("%s: %d are said to have it, %d have", name, n, received(m.ID, conns...))
		}
	}
	var printed bytes.Buffer
	if err := Where(t.Context(), WhereOptions{Message: m.ID, Admin: "http://" + two.Admin}, &printed); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"message " + m.ID + " in room:1, seq 1, from ann (", "trace " + m.TraceID, "accepted by logic-", "committed alone", "published\n",
		"consumed by task-", "attempt 1\n", ": 2 written\n", ": 1 written\n", "acknowledged by task-", "\ndelivered: 3 written\n"} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("want %q in\n%s", want, printed.String())
		}
	}

	m = say(t, ann, fmt.Sprintf("/v1/users/%d/messages", cem.ID), "to somebody away")
	a := whereIs(t, one, m.ID, where.Offline)
	if n := a.Totals.Written + a.Totals.Queued; a.To == nil || a.To.Name != "cem" || a.Totals.Offline != 1 || n != 2 || n != received(m.ID, conns...) {
		t.Errorf("got %+v, and %d connections have it", a, received(m.ID, conns...))
	}

	before := m
	if err := task.stop(); err != nil {
		t.Fatal(err)
	}
	m = say(t, ann, "/v1/rooms/1/messages", "while no task is up")
	if a := whereIs(t, one, m.ID, where.Queued); len(a.Task) != 0 || len(a.Logic) != 1 || len(a.Missing) != 1 || received(m.ID, conns...) != 0 {
		t.Errorf("got %+v", a)
	}
	start(t, cfg, contract.LayerTask)
	if a := whereIs(t, one, m.ID, where.Delivered); a.Totals.Written+a.Totals.Queued != 3 || received(m.ID, conns...) != 3 {
		t.Errorf("got %+v", a.Totals)
	}
	// The task that had it is gone, and what it knew with it.
	if status, a, p := askWhere(t, one, before.ID); status != http.StatusOK || a.State != where.Unrecorded || a.Seq != before.Seq {
		t.Errorf("status %d, %+v, %+v, want it unrecorded", status, a, p)
	}
	for id, want := range map[string]int{"1": http.StatusNotFound, "x": http.StatusBadRequest} {
		if status, _, p := askWhere(t, one, id); status != want || p.Status != want || strings.Contains(p.Code, "expired") {
			t.Errorf("%s: status %d, %+v, want %d", id, status, p, want)
		}
	}

	lost := spawn(t, cfg, contract.LayerTask, contract.LayerLogic) // its lease outlives it
	lost.kill()
	var silent []string
	a = whereIs(t, one, m.ID, where.Delivered)
	for _, missing := range a.Missing {
		if node, says, _ := strings.Cut(missing, " "); says == "did not answer: what it knows is missing" {
			silent = append(silent, node[:strings.IndexByte(node, '-')])
		}
	}
	if slices.Sort(silent); !slices.Equal(silent, []string{"logic", "task"}) {
		t.Errorf("got %v, want a logic and a task node named as silent", a.Missing)
	}
	if err := rest.stop(); err != nil {
		t.Fatal(err)
	}
	if status, _, p := askWhere(t, one, m.ID); status != http.StatusServiceUnavailable || p.Code != "unavailable" {
		t.Errorf("status %d, %+v, want 503 without a logic node that answers", status, p)
	}
}

// TestWhereSlow has somebody not read until the connection is closed: each message says who got it, and one of them who was
// too slow; all of them together say what the connect layer has counted.
func TestWhereSlow(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Connect.QueueBytes = 64 << 10 })
	ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
	reads := testclient.TCP(t, r.TCP[0])
	reads.Enter(t, bob, 1)
	dial(t, r, "tcp").enter(ann, 1)
	text := strings.Repeat("x", 15<<10)
	var ids []string
	for len(ids) < 1000 && metric(t, r, "gochat_connection_closes_total", `code="slow_consumer"`) == 0 { // 15 MB: more than the kernel keeps
		ids = append(ids, say(t, bob, "/v1/rooms/1/messages", text).ID)
	}
	last := say(t, bob, "/v1/rooms/1/messages", "the last")
	reads.AwaitText(t, "the last")
	var got where.Totals
	for _, id := range append(ids, last.ID) {
		a := whereIs(t, r, id, where.Delivered)
		got.Written += a.Totals.Written
		got.Queued += a.Totals.Queued
		got.Slow += a.Totals.Slow
		got.Gone += a.Totals.Gone
		if received(id, reads) != 1 || a.Totals.Written+a.Totals.Queued < 1 {
			t.Errorf("message %s: got %+v", id, a.Totals)
		}
	}
	for outcome, n := range map[string]int{"written": got.Written, "queued": got.Queued, "slow": got.Slow, "gone": got.Gone} {
		if want := int(metric(t, r, "gochat_connect_deliveries_total", `outcome="`+outcome+`"`)); n != want {
			t.Errorf("%d are said to be %s, %d are counted", n, outcome, want)
		}
	}
	if got.Slow != 1 {
		t.Errorf("%d were too slow, want one", got.Slow)
	}
}

// TestWhereExpired has more messages than are remembered: the first ones have expired, by number or by age, and say since
// when records go back; the last is known.
func TestWhereExpired(t *testing.T) {
	t.Parallel()
	for name, tweak := range map[string]func(*Config){
		"by number": func(cfg *Config) { cfg.Record.Messages = 2 },
		"by age":    func(cfg *Config) { cfg.Record.Keep = time.Second },
		"off":       func(cfg *Config) { cfg.Record.Messages = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := system(t, tweak)
			ann := testclient.Register(t, r.api(), "ann")
			first := say(t, ann, "/v1/rooms/1/messages", "first")
			for range 3 {
				say(t, ann, "/v1/rooms/1/messages", "more")
			}
			eventually(t, "the first has expired", func() bool {
				status, _, p := askWhere(t, r, first.ID)
				return status == http.StatusNotFound && p.Code == "expired" && p.Message.Seq == 1 && p.RecordsSince.IsZero() == (name == "off")
			})
			var printed bytes.Buffer
			err := Where(t.Context(), WhereOptions{Message: first.ID, Admin: "http://" + r.Admin}, &printed)
			if err == nil || !strings.Contains(err.Error(), "expired: it is stored") || !strings.Contains(printed.String(), "message "+first.ID+" in room:1, seq 1, from ann") {
				t.Errorf("got %v\n%s", err, printed.String())
			}
			if name == "by number" {
				whereIs(t, r, say(t, ann, "/v1/rooms/1/messages", "last").ID, where.Nobody)
			}
		})
	}
}

// TestWhereBehind has the queue away: a message is in the outbox, and then, when the queue is there again, delivered.
func TestWhereBehind(t *testing.T) {
	t.Parallel()
	queue := testdeps.Redis(t)
	r := system(t, func(cfg *Config) { cfg.Queue.URL = "redis://" + queue.Addr() })
	ann := testclient.Register(t, r.api(), "ann")
	c := testclient.TCP(t, r.TCP[0])
	c.Enter(t, ann, 1)
	queue.Kill()
	m := say(t, ann, "/v1/rooms/1/messages", "while the queue is away")
	if a := whereIs(t, r, m.ID, where.Outbox); !a.InOutbox || len(a.Logic) != 1 || a.Logic[0].Published != 0 {
		t.Errorf("got %+v", a)
	}
	queue.Start()
	if a := whereIs(t, r, m.ID, where.Delivered); a.Logic[0].Published == 0 || a.Totals.Written+a.Totals.Queued != 1 {
		t.Errorf("got %+v", a)
	}
	c.AwaitText(t, "while the queue is away")
}
