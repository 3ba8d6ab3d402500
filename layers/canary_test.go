package layers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	frames "gochat/layers/connect/wire"
	"gochat/layers/internal/canary"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/session"
	"gochat/layers/internal/store"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
	"gochat/layers/logic"
	"gochat/observability"
)

// canaryCheck is the name under which readiness has it.
const canaryCheck = "connect: canary"

// watching is the configuration with a canary, which decides sooner than connect repairs. Without it the tests have none:
// they count connections, messages and deliveries.
func watching(cfg Config) Config {
	cfg.Canary = canary.Config{Interval: time.Second, Timeout: time.Second}
	return cfg
}

// isWell reports whether the process is ready and its canary's messages come through by every transport.
func isWell(t *testing.T, r *running) func() bool {
	return func() bool {
		ready, _ := readiness(r.Admin)
		return ready && metric(t, r, "gochat_canary_up", `transport="websocket"`) == 1 && metric(t, r, "gochat_canary_up", `transport="tcp"`) == 1
	}
}

// saysOfCanary reports whether readiness says all of the texts of the canary, and has nothing else against the process.
func saysOfCanary(r *running, texts ...string) func() bool {
	return func() bool {
		ready, reasons := readiness(r.Admin)
		for _, text := range texts {
			if !strings.Contains(reasons[canaryCheck], text) {
				return false
			}
		}
		return !ready && len(reasons) == 1
	}
}

// TestCanary: a connect node starts without task, and is not ready, since nothing comes through. With task it is. Task is
// killed, and readiness says how far messages come, though connect repairs; then task is back, and all is well by itself.
func TestCanary(t *testing.T) {
	t.Parallel()
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := watching(make(t).config())
			cfg.Log.Level = "info"
			start(t, cfg, contract.LayerLogic)
			r := start(t, cfg, contract.LayerConnect) // says that it is ready: its start waits for no message
			eventually(t, "not ready without task", saysOfCanary(r, "sent by websocket, failing since 2", "acknowledged (trace "))
			task := spawn(t, cfg, contract.LayerTask)
			eventually(t, "well with task", isWell(t, r))

			unwell := func() float64 {
				return metric(t, r, "gochat_canary_messages_total", `outcome="late"`) + metric(t, r, "gochat_canary_messages_total", `outcome="lost"`)
			}
			before := unwell()
			task.kill()
			eventually(t, "not ready with task killed", saysOfCanary(r, "sent by websocket, failing since 2", "sent by tcp, failing since 2",
				"acknowledged (trace ", "but not received by tcp within 1s: see queue, task, push"))
			eventually(t, "messages counted as late or lost", func() bool { return unwell() > before })
			start(t, cfg, contract.LayerTask)
			eventually(t, "well with another task", isWell(t, r))
			for _, line := range []string{"the canary's messages do not come through", "the canary's messages come through again"} {
				if !strings.Contains(r.log.String(), line) {
					t.Errorf("the log does not say that %s", line)
				}
			}
		})
	}
}

// TestCanaryOfEachNode: several connect nodes have a canary each, and none ends another's sessions, also where a user may
// have only one.
func TestCanaryOfEachNode(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	cfg := watching(b.config())
	cfg.Auth.LoginPolicy = logic.PolicySingle
	start(t, cfg, contract.LayerLogic, contract.LayerTask)
	nodes := []*running{start(t, cfg, contract.LayerConnect), start(t, cfg, contract.LayerConnect), start(t, cfg, contract.LayerConnect)}
	for i, r := range nodes {
		eventually(t, fmt.Sprintf("node %d is well", i), isWell(t, r))
	}
	for i, r := range nodes {
		before := metric(t, r, "gochat_canary_messages_total", `outcome="received"`)
		eventually(t, fmt.Sprintf("node %d goes on", i), func() bool {
			return metric(t, r, "gochat_canary_messages_total", `outcome="received"`) >= before+4
		})
		if n := metric(t, r, "gochat_connection_closes_total", `code="replaced"`); n != 0 {
			t.Errorf("node %d: %v connections were replaced", i, n)
		}
		if n := metric(t, r, "gochat_connections", ""); n != 2 {
			t.Errorf("node %d has %v connections, want the two of its canary", i, n)
		}
	}
	if got := len(canaries(t, cfg)); got != len(nodes) {
		t.Errorf("there are %d canaries, want %d", got, len(nodes))
	}
}

// canaries are those that the database has.
func canaries(t *testing.T, cfg Config) []contract.User {
	t.Helper()
	db := openStore(t, cfg)
	users, err := db.FindUsers(t.Context(), " canary of connect-", 100)
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func openStore(t *testing.T, cfg Config) *store.Store {
	t.Helper()
	db, err := store.Open(cfg.Database, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestCanaryIsNobody: no person can be a canary, find one, write to one, or sees one online. Its messages do not pile up.
// A process that ends logs it out.
func TestCanaryIsNobody(t *testing.T) {
	t.Parallel()
	cfg := watching(embeddedBackend(t).config())
	cfg.Canary = canary.Config{Interval: 300 * time.Millisecond, Timeout: 300 * time.Millisecond}
	r := start(t, cfg, All()...)
	ann := testclient.Register(t, r.api(), "ann")
	eventually(t, "messages come through", func() bool { // in time or not: the machine has much else to do
		return metric(t, r, "gochat_canary_messages_total", `outcome="received"`)+metric(t, r, "gochat_canary_messages_total", `outcome="late"`) > 0
	})
	users := canaries(t, cfg)
	if len(users) != 1 {
		t.Fatalf("there are the canaries %v, want one", users)
	}
	it := users[0]

	stranger := &testclient.User{API: r.api()}
	for _, name := range []string{it.Name, " canary of connect-5"} {
		if status, body := stranger.Do(t, "POST", "/v1/register", map[string]any{"name": name, "password": "123456"}); status != http.StatusBadRequest {
			t.Errorf("register %q: %d %s, want 400", name, status, body)
		}
		if _, status := login(t, r, name, "123456"); status != http.StatusUnauthorized {
			t.Errorf("login as %q: %d, want 401", name, status)
		}
		for _, route := range []string{"/user/register", "/user/login"} {
			if answer := seedCall(t, r, route, map[string]any{"userName": name, "passWord": "123456"}); answer.Code == 0 {
				t.Errorf("%s as %q: %+v, want it refused", route, name, answer)
			}
		}
	}
	for _, prefix := range []string{it.Name, " canary", " "} {
		var found struct{ Users []contract.User }
		ann.Must(t, "GET", "/v1/users?name="+url.QueryEscape(prefix), nil, &found)
		if len(found.Users) > 0 {
			t.Errorf("who looks for %q finds %v", prefix, found.Users)
		}
	}
	if status, body := ann.Do(t, "POST", fmt.Sprintf("/v1/users/%d/messages", it.ID), map[string]any{"msg": "hello"}); status != http.StatusNotFound {
		t.Errorf("a message to the canary: %d %s, want 404", status, body)
	}
	testclient.WebSocket(t, r.WebSocket).Enter(t, ann, 1)
	var online struct{ Count int }
	ann.Must(t, "GET", "/v1/rooms/1/online", nil, &online)
	if online.Count != 1 {
		t.Errorf("%d are online, want ann alone", online.Count)
	}

	db := openStore(t, cfg)
	own := contract.DirectConversation(it.ID, it.ID)
	var last int64
	testwait.Within(t, 2*testwait.Patience, "the oldest messages are gone", func() bool {
		heads, err := db.Heads(t.Context(), []contract.Conversation{own})
		if err != nil {
			t.Fatal(err)
		}
		msgs, more, err := db.History(t.Context(), own, 0, 0, contract.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		last = heads[own]
		return last > 150 && !more && len(msgs) <= 150 && msgs[0].Seq > 1
	})
	t.Logf("seq %d", last)

	sessions, err := session.Open(cfg.Redis, observability.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sessions.Close() }()
	if all, err := sessions.List(t.Context(), it.ID); err != nil || len(all) != 1 {
		t.Errorf("the canary has the sessions %v, %v, want one", all, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if all, err := sessions.List(t.Context(), it.ID); err != nil || len(all) != 0 {
		t.Errorf("after the end the canary has the sessions %v, %v, want none", all, err)
	}
}

// TestCanarySeesDroppedPushes: between a system that works and a canary stands something that drops what is pushed to
// websockets, as a broken connect node would. All else comes through, acknowledgements too; it is not well.
func TestCanarySeesDroppedPushes(t *testing.T) {
	t.Parallel()
	cfg := embeddedBackend(t).config()
	r := start(t, cfg, All()...)
	between := newDropper(t, r.WebSocket)
	self := func() (contract.NodeRef, bool) { return contract.NodeRef{ID: "connect-1023", Epoch: 1}, true }
	it := canary.New(watching(cfg).Canary, logicAt(t, cfg, logicNodes(t, cfg)[0]), self, between.addr, r.TCP, observability.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- it.Run(ctx) }()
	defer func() {
		cancel()
		if err := testwait.Receive(t, "the canary ends", ended); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "well while nothing is dropped", func() bool { return it.Check(t.Context()) == nil })
	between.drops.Store(true)
	eventually(t, "not well by the way of the websocket, and by that alone", func() bool {
		err := it.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "sent by tcp") && !strings.Contains(err.Error(), "sent by websocket") &&
			strings.Contains(err.Error(), "but not received by websocket")
	})
	between.drops.Store(false)
	eventually(t, "well again", func() bool { return it.Check(t.Context()) == nil })
}

// dropper hands on what a websocket says, but drops private messages to it while told to.
type dropper struct {
	addr  string
	drops atomic.Bool
}

func newDropper(t *testing.T, to string) *dropper {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dropper{addr: l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			node, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			closing := func() { _, _ = client.Close(), node.Close() }
			serving.Go(func() { defer closing(); _, _ = io.Copy(node, client) })
			serving.Go(func() { defer closing(); d.handOn(client, node) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return d
}

func (d *dropper) handOn(client io.Writer, node io.Reader) {
	r := bufio.NewReaderSize(node, 128<<10)
	for { // the answer to the upgrade
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(client, line); err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	for want := 1; ; {
		b, err := r.Peek(want)
		if err != nil {
			return
		}
		f, size, err := frames.NextFromServer(b)
		if err != nil {
			return
		}
		if want = size; size > len(b) {
			continue
		}
		if !d.drops.Load() || !bytes.Contains(f.Payload, []byte(`"op":2,`)) {
			if _, err := client.Write(b[:size]); err != nil {
				return
			}
		}
		if _, err := r.Discard(size); err != nil {
			return
		}
		want = 1
	}
}
