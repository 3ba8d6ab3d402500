package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/quick"
	"time"

	"github.com/smallnest/rpcx/protocol"
	"github.com/smallnest/rpcx/share"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	apitrace "go.opentelemetry.io/otel/trace"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testwait"
	"gochat/observability"
)

// TestEveryMethod calls each method of the contract with a request of random values: it comes out whole at the
// method of the same name.
func TestEveryMethod(t *testing.T) {
	var mu sync.Mutex
	var method string
	var request any
	record := func(_ context.Context, m string, r any) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		method, request = m, r
		return nil, nil
	}
	n := serve(t, ref("logic-1"), &scripted{reply: record}, nil, observability.Discard())
	peer := serve(t, ref("connect-1"), nil, &nodeScript{reply: record}, observability.Discard()).peer
	connect := NewClients(config(), observability.Discard()).Connect(func() []Peer { return []Peer{peer} })
	t.Cleanup(func() { _ = connect.Close() })
	random := rand.New(rand.NewSource(1))
	check := func(t *testing.T, name string, in reflect.Type, call func(arg reflect.Value) []reflect.Value) {
		for range 20 {
			value, ok := quick.Value(in.Elem(), random)
			if !ok {
				t.Fatalf("%s has fields that cannot be made", in)
			}
			arg := reflect.New(in.Elem())
			arg.Elem().Set(value)
			out := call(arg)
			if err, _ := out[1].Interface().(error); err != nil || out[0].IsNil() {
				t.Fatalf("got %v, %v", out[0], err)
			}
			mu.Lock()
			if method != name || fmt.Sprintf("%#v", request) != fmt.Sprintf("%#v", arg.Interface()) && !sameButForEmpty(request, arg.Interface()) {
				t.Errorf("got %s %#v, want %s %#v", method, request, name, arg.Interface())
			}
			mu.Unlock()
		}
	}
	client := logicOn(t, n.peer)
	l := reflect.ValueOf(client)
	contractLogic := reflect.TypeFor[contract.Logic]()
	for i := range contractLogic.NumMethod() {
		m := contractLogic.Method(i)
		if m.Name == "DirectHeads" || m.Name == "Deliveries" {
			continue // there are times in their requests: below
		}
		t.Run(m.Name, func(t *testing.T) {
			check(t, m.Name, m.Type.In(1), func(arg reflect.Value) []reflect.Value {
				return l.MethodByName(m.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), arg})
			})
		})
	}
	c := reflect.ValueOf(connect)
	contractConnect := reflect.TypeFor[contract.Connect]()
	for i := range contractConnect.NumMethod() {
		m := contractConnect.Method(i)
		if m.Name == "Push" {
			continue // a delivery has a time: below
		}
		t.Run("Connect "+m.Name, func(t *testing.T) {
			check(t, m.Name, m.Type.In(1), func(arg reflect.Value) []reflect.Value {
				return c.MethodByName(m.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), arg})
			})
		})
	}
	since := time.UnixMicro(1_700_000_000_123_456)
	t.Run("DirectHeads", func(t *testing.T) {
		if _, err := client.DirectHeads(t.Context(), &contract.DirectHeadsRequest{Users: []contract.UserSince{{User: 7, Since: since}}}); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got, ok := request.(*contract.DirectHeadsRequest)
		if !ok || method != "DirectHeads" || len(got.Users) != 1 || got.Users[0].User != 7 || !got.Users[0].Since.Equal(since) {
			t.Errorf("got %s %+v", method, request)
		}
	})
	t.Run("Deliveries", func(t *testing.T) {
		want := &contract.DeliveriesRequest{Conversation: "dm:3:17", After: 1, Since: since, Before: 8, Limit: 9}
		if _, err := client.Deliveries(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got, ok := request.(*contract.DeliveriesRequest)
		if !ok || method != "Deliveries" || !got.Since.Equal(since) {
			t.Fatalf("got %s %+v", method, request)
		}
		got.Since = since
		if *got != *want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("Connect Push", func(t *testing.T) {
		want := &contract.PushRequest{Deliveries: []contract.Delivery{{
			Conversation: "dm:3:17", Seq: 8, Message: 1 << 60, Users: []contract.UserID{3, 17}, Except: "c", Frame: []byte{0, 1, 0xff},
			AcceptedAt: time.UnixMicro(1_700_000_000_123_456), Traceparent: "00-01",
		}}}
		if _, err := connect.Push(t.Context(), peer, want); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got, ok := request.(*contract.PushRequest)
		if !ok || len(got.Deliveries) != 1 || !got.Deliveries[0].AcceptedAt.Equal(want.Deliveries[0].AcceptedAt) {
			t.Fatalf("got %+v", request)
		}
		got.Deliveries[0].AcceptedAt = want.Deliveries[0].AcceptedAt
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// sameButForEmpty takes an empty list for one that is not there: the wire does not tell them apart.
func sameButForEmpty(a, b any) bool {
	text := func(v any) string {
		return strings.NewReplacer("{}", "", "(nil)", "").Replace(fmt.Sprintf("%#v", reflect.ValueOf(v).Elem()))
	}
	return text(a) == text(b)
}

func TestErrorsCross(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want contract.Error
	}{
		{"code and message", contract.Errorf(contract.Conflict, "name %q is taken", "ann"), contract.Error{Code: contract.Conflict, Message: `name "ann" is taken`}},
		{"wrapped", fmt.Errorf("create user: %w", contract.Errorf(contract.NotFound, "room 7")), contract.Error{Code: contract.NotFound, Message: "room 7"}},
		{"time to wait", contract.RetryLater(contract.RateLimited, 801*time.Millisecond, "too many"),
			contract.Error{Code: contract.RateLimited, Message: "too many", RetryAfter: 801 * time.Millisecond}},
		{"a code that this side does not know", contract.Errorf("teapot", "short"), contract.Error{Code: "teapot", Message: "short"}},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded),
			contract.Error{Code: contract.Unavailable, Message: "not answered in time, try again", RetryAfter: time.Second}},
		{"anything else", errors.New("the password of the database is hunter2"), contract.Error{Code: contract.Internal, Message: "internal error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tel, log := logged()
			var calls atomic.Int32
			n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) { calls.Add(1); return nil, c.err }}, nil, tel)
			_, err := logicOn(t, n.peer).Rooms(t.Context(), &contract.RoomsRequest{})
			var got *contract.Error
			if !errors.As(err, &got) || *got != c.want {
				t.Errorf("got %v, want %+v", err, c.want)
			}
			if calls.Load() != 1 {
				t.Errorf("called %d times, want once: an answer is not repeated", calls.Load())
			}
			if told := strings.Contains(log.String(), "hunter2"); told != (c.want.Code == contract.Internal) {
				t.Errorf("log: %s\nthe cause is told there of an internal error alone", log)
			}
		})
	}
}

func TestDeadlinesCross(t *testing.T) {
	seen := make(chan time.Time, 1)
	n := serve(t, ref("logic-1"), &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
		deadline, _ := ctx.Deadline()
		seen <- deadline
		return nil, nil
	}}, nil, observability.Discard())
	l := logicOn(t, n.peer)
	for name, within := range map[string]time.Duration{"the caller's": time.Hour, "the default": 0} {
		t.Run(name, func(t *testing.T) {
			ctx, want := t.Context(), time.Now().Add(config().Timeout)
			if within > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, within)
				defer cancel()
				want, _ = ctx.Deadline()
			}
			if _, err := l.Rooms(ctx, &contract.RoomsRequest{}); err != nil {
				t.Fatal(err)
			}
			if got := <-seen; got.IsZero() || got.Sub(want).Abs() > 3*time.Second {
				t.Errorf("the handler's deadline is %v, want about %v", got, want)
			}
		})
	}
	t.Run("it ends the handler", func(t *testing.T) {
		ended := make(chan struct{})
		n := serve(t, ref("logic-1"), &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}}, nil, observability.Discard())
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := logicOn(t, n.peer).Rooms(ctx, &contract.RoomsRequest{}); contract.CodeOf(err) != contract.Unavailable {
			t.Errorf("got %v, want unavailable", err)
		}
		testwait.Receive(t, "the handler ends", ended)
	})
}

// TestReasonOutlivesTheDeadline: that time is up does not hide from the log why, and clients see no more than before.
func TestReasonOutlivesTheDeadline(t *testing.T) {
	refused := errors.New("dial tcp 10.0.0.7:1: connection refused")
	for name, reason := range map[string]error{
		"refused": fmt.Errorf("%w: dial: %w", errNotSent, refused), "lost": errBroken, "nothing else is known": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			l := logicOn(t, dead(t, "logic-1"))
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			_, err := callBy(ctx, l.caller, "Rooms", "", true, &contract.RoomsRequest{},
				func(context.Context, Peer, *contract.RoomsRequest) (*Reply[contract.RoomsReply], error) {
					calls++
					cancel()
					return nil, reason
				})
			if !errors.Is(err, reason) || !strings.Contains(err.Error(), "logic-1") || calls != 1 {
				t.Errorf("got %v after %d calls, want the reason, and where, after one", err, calls)
			}
			want := contract.Error{Code: contract.Unavailable, Message: "Logic did not answer in time", RetryAfter: time.Second}
			if got := contract.AsError(err); got == nil || *got != want {
				t.Errorf("clients see %+v, want %+v", got, want)
			}
		})
	}
}

// A peer that takes calls and does not answer, or does not even read, costs the caller its deadline and nothing else.
func TestHungPeer(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){"does not answer": swallow, "does not read": func(net.Conn) {}} {
		t.Run(name, func(t *testing.T) {
			peer := silent(t, "logic-1", handle)
			l := logicOn(t, peer)
			text := strings.Repeat("x", 100_000) // of all calls together, more than the kernel takes
			var calls sync.WaitGroup
			for range 256 {
				calls.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					defer cancel()
					if _, err := l.Send(ctx, &contract.SendRequest{Room: 1, Text: text, ClientID: "c"}); contract.CodeOf(err) != contract.Unavailable {
						t.Errorf("got %v, want unavailable", err)
					}
				})
			}
			done := make(chan struct{})
			go func() { calls.Wait(); close(done) }()
			testwait.Receive(t, "every call ends with its deadline", done)
			eventually(t, "no call is kept whose caller has left", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.conns[peer.Ref].link.calls.Load() == 0
			})
		})
	}
}

func TestSecret(t *testing.T) {
	for name, given := range map[string]string{"wrong": "another secret, as long", "missing": "", "a part": secret[:len(secret)-1]} {
		t.Run(name, func(t *testing.T) {
			tel, log := logged()
			var calls atomic.Int32
			n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) { calls.Add(1); return nil, nil }}, nil, tel)
			for _, heartbeat := range []bool{false, true} {
				conn, err := net.Dial("tcp", n.peer.Addr)
				if err != nil {
					t.Fatal(err)
				}
				m := protocol.NewMessage()
				m.SetMessageType(protocol.Request)
				m.SetSerializeType(protocol.MsgPack)
				m.SetHeartbeat(heartbeat)
				m.ServicePath, m.ServiceMethod = serviceLogic, "Rooms"
				if given != "" {
					m.Metadata = map[string]string{share.AuthKey: given}
				}
				if m.Payload, err = codec.Encode(&contract.RoomsRequest{}); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(m.Encode()); err != nil {
					t.Fatal(err)
				}
				if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(conn); len(got) != 0 || err != nil && strings.Contains(err.Error(), "timeout") {
					t.Errorf("heartbeat %v: answered %q, %v: want a cut without an answer", heartbeat, got, err)
				}
				_ = conn.Close()
			}
			cfg := config()
			cfg.Secret = given
			l := NewClients(cfg, observability.Discard()).Logic(func() []Peer { return []Peer{n.peer} })
			if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); contract.CodeOf(err) != contract.Unavailable {
				t.Errorf("got %v, want unavailable", err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if calls.Load() != 0 {
				t.Errorf("called %d times", calls.Load())
			}
			if got := log.String(); !strings.Contains(got, "peer without the secret") || strings.Contains(got, secret) || given != "" && strings.Contains(got, given) {
				t.Errorf("log: %s\nwant it told, without any secret", got)
			}
		})
	}
	if srv, err := NewServer(Defaults(), observability.Discard().Log); err == nil {
		_ = srv.Close()
		t.Error("a server without a secret lets everybody in")
	}
}

// A handler does not get to see the secret, so it cannot tell it.
func TestHandlersDoNotSeeTheSecret(t *testing.T) {
	n := serve(t, ref("logic-1"), &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
		if strings.Contains(fmt.Sprint(ctx.Value(share.ReqMetaDataKey)), secret) {
			t.Error("the secret is in the handler's context")
		}
		return nil, nil
	}}, nil, observability.Discard())
	if _, err := logicOn(t, n.peer).Rooms(t.Context(), &contract.RoomsRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestPanics(t *testing.T) {
	tel, log := logged()
	n := serve(t, ref("logic-1"), &scripted{reply: func(_ context.Context, _ string, r any) (any, error) {
		if _, ok := r.(*contract.LoginRequest); ok {
			panic("boom")
		}
		return nil, nil
	}}, nil, tel)
	l := logicOn(t, n.peer)
	if _, err := l.Login(t.Context(), &contract.LoginRequest{Name: "ann", Password: "hunter2"}); contract.CodeOf(err) != contract.Internal || strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v, want internal and no more", err)
	}
	if _, err := l.Rooms(t.Context(), &contract.RoomsRequest{}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if got := log.String(); !strings.Contains(got, "boom") || !strings.Contains(got, "rpc_test.go") || strings.Contains(got+libraryLogged.String(), "hunter2") {
		t.Errorf("log: %s\nwant the panic and where it was, without the argument", got)
	}
}

// TestCausesAreLogged: what lies behind an answer, the client does not see; whoever runs the node does, once.
func TestCausesAreLogged(t *testing.T) {
	const cause = "connection refused by 10.0.0.7"
	away := contract.RetryLater(contract.Unavailable, time.Second, "the database does not answer")
	for name, c := range map[string]struct {
		err  error
		want contract.Code
		log  string // a part of the log, "" if nothing is to be logged
	}{
		"a fault":                   {errors.New(cause), contract.Internal, "level=ERROR"},
		"something is away":         {fmt.Errorf("load user: %w: %s", away, cause), contract.Unavailable, "level=WARN"},
		"no more than what it says": {away, contract.Unavailable, ""},
		"the caller's fault":        {fmt.Errorf("%s: %w", cause, contract.Errorf(contract.NotFound, "user 7")), contract.NotFound, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tel, log := logged()
			n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) { return nil, c.err }}, nil, tel)
			_, err := logicOn(t, n.peer).Login(t.Context(), &contract.LoginRequest{Name: "ann"})
			if contract.CodeOf(err) != c.want || strings.Contains(err.Error(), cause) {
				t.Errorf("got %v, want %s and nothing of the cause", err, c.want)
			}
			got := log.String()
			if once := strings.Count(got, cause) == 1 && strings.Contains(got, c.log); c.log == "" && got != "" || c.log != "" && !once {
				t.Errorf("log: %q, want the cause once with %q", got, c.log)
			}
		})
	}
}

// TestTraceContext sees the server's span as the child of the client's, which is the child of the caller's.
func TestTraceContext(t *testing.T) {
	exported := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(exported))
	tel := observability.Discard()
	tel.Traces = provider
	inHandler := make(chan apitrace.SpanContext, 1)
	n := serve(t, ref("logic-1"), &scripted{reply: func(ctx context.Context, _ string, _ any) (any, error) {
		inHandler <- apitrace.SpanContextFromContext(ctx)
		return nil, nil
	}}, nil, tel)
	clientTel := observability.Discard()
	clientTel.Traces = provider
	l := NewClients(config(), clientTel).Logic(func() []Peer { return []Peer{n.peer} })
	t.Cleanup(func() { _ = l.Close() })
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	if _, err := l.Heads(ctx, &contract.HeadsRequest{}); err != nil {
		t.Fatal(err)
	}
	root.End()
	eventually(t, "three spans", func() bool { return len(exported.GetSpans()) == 3 })
	spans := make(map[apitrace.SpanKind]tracetest.SpanStub)
	for _, s := range exported.GetSpans() {
		spans[s.SpanKind] = s
	}
	client, server := spans[apitrace.SpanKindClient], spans[apitrace.SpanKindServer]
	if client.Name != "Logic/Heads" || server.Name != "Logic/Heads" {
		t.Errorf("got names %q and %q, want Logic/Heads", client.Name, server.Name)
	}
	if client.Parent.SpanID() != root.SpanContext().SpanID() || server.Parent.SpanID() != client.SpanContext.SpanID() {
		t.Error("the spans are not grandparent, parent and child")
	}
	if server.SpanContext.TraceID() != root.SpanContext().TraceID() || !server.Parent.IsRemote() {
		t.Error("the server's span is not of the caller's trace")
	}
	if got := <-inHandler; got.SpanID() != server.SpanContext.SpanID() {
		t.Error("the handler's context has another span")
	}
}

// What is above the limit is refused by itself: other calls on the same connection go on.
func TestMessagesAboveTheLimit(t *testing.T) {
	release := make(chan struct{})
	large := strings.Repeat("x", maxPayload)
	n := serve(t, ref("logic-1"), &scripted{reply: func(_ context.Context, method string, _ any) (any, error) {
		switch method {
		case "Inbox":
			<-release
		case "Room":
			return &contract.Room{Name: large}, nil
		}
		return nil, nil
	}}, nil, observability.Discard())
	l := logicOn(t, n.peer)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	other := make(chan error, 1)
	go func() { _, err := l.Inbox(ctx, &contract.InboxRequest{}); other <- err }()
	eventually(t, "the other call is in flight", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		c := l.conns[n.peer.Ref]
		return c != nil && !c.idle()
	})
	if _, err := l.Send(ctx, &contract.SendRequest{Room: 1, Text: large, ClientID: "c"}); contract.CodeOf(err) != contract.TooLarge {
		t.Errorf("request: got %v, want too_large", err)
	}
	if _, err := l.Room(ctx, &contract.RoomRequest{}); contract.CodeOf(err) != contract.TooLarge {
		t.Errorf("reply: got %v, want too_large", err)
	}
	if _, err := l.Send(ctx, &contract.SendRequest{Room: 1, Text: large[:16<<20]}); err != nil {
		t.Errorf("below the limit: %v", err)
	}
	close(release)
	if err := testwait.Receive(t, "the other call ends", other); err != nil {
		t.Errorf("the other call failed: %v", err)
	}
}

// A length that a peer cannot mean is not allocated, and garbage does no harm.
func TestGarbage(t *testing.T) {
	n := serve(t, ref("logic-1"), &scripted{reply: func(context.Context, string, any) (any, error) { return nil, nil }}, nil, observability.Discard())
	header := protocol.NewMessage().Encode()[:12]
	for name, sent := range map[string][]byte{
		"not rpcx":               []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		"4 GiB":                  append(append([]byte{}, header...), 0xff, 0xff, 0xff, 0xff),
		"a length without parts": append(append([]byte{}, header...), 0, 0, 0, 2, 0, 0),
		"parts beyond the end":   append(append([]byte{}, header...), 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", n.peer.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("got %q, %v, want a cut without an answer", got, err)
			}
		})
	}
	if _, err := logicOn(t, n.peer).Rooms(t.Context(), &contract.RoomsRequest{}); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		ok     bool
	}{
		"defaults":       {func(*Config) {}, true},
		"no secret yet":  {func(c *Config) { c.Secret = "" }, true},
		"short secret":   {func(c *Config) { c.Secret = "short" }, false},
		"nowhere":        {func(c *Config) { c.Listen = "" }, false},
		"no number":      {func(c *Config) { c.Listen = "127.0.0.1:abc" }, false},
		"as no such":     {func(c *Config) { c.Advertise = "node-1:70000" }, false},
		"as no number":   {func(c *Config) { c.Advertise = "nonsense" }, false},
		"as what binds":  {func(c *Config) { c.Advertise = "node-1:0" }, true},
		"short deadline": {func(c *Config) { c.Timeout = time.Millisecond }, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			c.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "short") && name == "short secret" && strings.Contains(err.Error(), cfg.Secret) {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}
