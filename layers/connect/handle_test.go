package connect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

func eachDial(t *testing.T, test func(*testing.T, func(testing.TB, *testNode) *testclient.Conn, bool)) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) { test(t, tr.dial, tr.name != "tcp") })
	}
}

// has reports whether the frame has the fields, numbers compared as JSON has them.
func has(f testclient.Frame, want object) bool {
	for key, value := range want {
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if !reflect.DeepEqual(f[key], value) {
			return false
		}
	}
	return true
}

// TestAnswers sends one frame on a connection that has authenticated, or has not, and awaits the answer. The connection
// goes on.
func TestAnswers(t *testing.T) {
	logic := obliging()
	logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		switch r.Text {
		case "too fast":
			return nil, contract.RetryLater(contract.RateLimited, 800*time.Millisecond, "slower")
		case "broken":
			return nil, errors.New("secret of the database")
		}
		return &contract.Receipt{ID: 77, Conversation: "room:1", Seq: 131, TraceID: "0af7651916cd43dd8448eb211c80319c"}, nil
	}
	logic.heads = func(_ context.Context, r *contract.HeadsRequest) (*contract.HeadsReply, error) {
		slices.Sort(r.Conversations)
		if !slices.Equal(r.Conversations, []contract.Conversation{"dm:1:2", "room:1"}) {
			return nil, contract.Errorf(contract.BadRequest, "asked for %v", r.Conversations)
		}
		return &contract.HeadsReply{Heads: map[contract.Conversation]int64{"room:1": 123, "dm:1:2": 8}}, nil
	}
	message := func(text string) object {
		return object{"op": 3, "roomId": 1, "msg": text, "clientId": "c1"}
	}
	cases := []struct {
		name    string
		strange bool // not authenticated
		send    any
		want    object
		absent  string // a field that the answer has not
	}{
		{name: "message with a client id", send: message("hi"), want: object{
			"op": 20, "clientId": "c1", "id": "77", "conversation": "room:1", "seq": 131, "traceId": "0af7651916cd43dd8448eb211c80319c"}},
		{name: "private message without one", send: object{"op": 2, "toUserId": 2, "msg": "hi"}, want: object{"op": 20, "clientId": "", "seq": 131}},
		{name: "refused with a time", send: message("too fast"), want: object{
			"op": 21, "code": "rate_limited", "message": "slower", "clientId": "c1", "retryAfterMs": 800}},
		{name: "internal error", send: message("broken"), want: object{
			"op": 21, "code": "internal", "message": "internal error", "clientId": "c1"}, absent: "retryAfterMs"},
		{name: "message without text", send: message(""), want: object{"op": 21, "code": "bad_request", "clientId": "c1"}},
		{name: "message too long", send: message(strings.Repeat("x", contract.MaxTextBytes+1)), want: object{"op": 21, "code": "too_large", "clientId": "c1"}},
		{name: "not JSON", send: []byte("ping msg"), want: object{"op": 21, "code": "bad_request"}, absent: "clientId"},
		{name: "unknown op", send: object{"op": 99}, want: object{"op": 21, "code": "bad_request"}},
		{name: "ping", send: object{"op": 10}, want: object{"op": 11}, absent: "heads"},
		{name: "ping of a stranger", strange: true, send: object{"op": 10}, want: object{"op": 11}},
		{name: "ping with have", send: object{"op": 10, "have": object{"room:1": 120, "dm:1:2": 8}}, want: object{
			"op": 11, "heads": map[string]any{"room:1": 123.0}}},
		{name: "have of a stranger", strange: true, send: object{"op": 10, "have": object{}}, want: object{"op": 21, "code": "unauthenticated"}},
		{name: "message of a stranger", strange: true, send: message("hi"), want: object{"op": 21, "code": "unauthenticated", "clientId": "c1"}},
		{name: "no such room", send: object{"op": 15, "roomId": maxRoom + 1}, want: object{"op": 21, "code": "not_found"}},
		{name: "room of others", send: object{"op": 15, "roomId": privateRoom}, want: object{"op": 21, "code": "forbidden"}},
		{name: "auth into a room of others", send: object{"authToken": token(1, 1), "roomId": privateRoom}, want: object{"op": 21, "code": "forbidden"}},
	}
	n := startNode(t, logic, nil)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
				conn := dial(t, n)
				if !c.strange {
					conn.Send(t, object{"authToken": token(1, 1)}) // as the seed's page does
				}
				conn.Send(t, c.send)
				got := conn.Await(t, "answer", func(f testclient.Frame) bool { return has(f, c.want) })
				if _, found := got[c.absent]; found {
					t.Errorf("got %v, want it without %s", got, c.absent)
				}
				settle(t, conn)
				for _, f := range conn.Frames()[1:] {
					if f.Op() != 11 {
						t.Errorf("also got %v", f)
					}
				}
				conn.Close()
			})
		})
	}
}

// TestForwarded checks what logic is asked for a frame: the session's user, whatever the frame says.
func TestForwarded(t *testing.T) {
	asked := make(chan any, 1)
	logic := obliging()
	logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		asked <- *r
		return &contract.Receipt{}, nil
	}
	logic.markRead = func(_ context.Context, r *contract.MarkReadRequest) (*contract.MarkReadReply, error) {
		asked <- *r
		return &contract.MarkReadReply{}, nil
	}
	logic.typing = func(_ context.Context, r *contract.TypingRequest) (*contract.Empty, error) {
		asked <- *r
		return &contract.Empty{}, nil
	}
	n := startNode(t, logic, nil)
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
		c := dial(t, n)
		ch := hello(t, n, c, 3, 1)
		credential := contract.Credential{Session: contract.SessionOf(token(3, 1))}
		cases := []struct {
			name string
			send object
			want any
		}{
			{"room", object{"op": 3, "roomId": 1, "msg": "a", "fromUserId": 9, "fromUserName": "boss", "authToken": token(3, 1)},
				contract.SendRequest{Credential: credential, From: 3, Room: 1, Text: "a", Origin: ch.id()}},
			{"private", object{"op": 2, "toUserId": 4, "roomId": 2, "msg": "b", "clientId": "x", "fromUserId": 9},
				contract.SendRequest{Credential: credential, From: 3, To: 4, Room: 2, Text: "b", ClientID: "x", Origin: ch.id()}},
			{"read mark", object{"op": 13, "conversation": "room:1", "seq": 130},
				contract.MarkReadRequest{Credential: credential, Conversation: "room:1", Seq: 130, Origin: ch.id()}},
			{"typing", object{"op": 14, "conversation": "dm:3:7"},
				contract.TypingRequest{Credential: credential, Conversation: "dm:3:7", Origin: ch.id()}},
		}
		for _, each := range cases {
			c.Send(t, each.send)
			if got := <-asked; !reflect.DeepEqual(got, each.want) {
				t.Errorf("%s: got %+v, want %+v", each.name, got, each.want)
			}
		}
		settle(t, c)
		for _, f := range c.Frames() { // the seed's clients know no acks
			if f.Op() == 20 && f.Str("clientId") != "x" || f.Op() == 21 {
				t.Errorf("also got %v", f)
			}
		}
		except := note("room:1", 0, "not to the sender")
		except.Except = ch.id()
		enter(t, c, ch, 1)
		if got := n.push(t, except); got.Receivers() != 0 {
			t.Errorf("got %+v, want no receiver", got)
		}
		c.Close()
		eventually(t, "gone", func() bool { return len(n.bucketOf(3).ofUser(3)) == 0 })
	})
}

// TestEnds sends what ends a connection: the error says why, and a websocket is closed with the code's number.
func TestEnds(t *testing.T) {
	logic := obliging()
	logic.typing = func(context.Context, *contract.TypingRequest) (*contract.Empty, error) {
		return nil, contract.Errorf(contract.Unauthenticated, "no such session")
	}
	logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		t.Errorf("acted on a frame after the end: %+v", r)
		return &contract.Receipt{}, nil
	}
	n := startNode(t, logic, nil)
	cases := []struct {
		name string
		send []any
		code string
		want int
	}{
		{"bad token", []any{object{"op": 6, "authToken": "nonsense", "roomId": 1}}, "unauthenticated", 1008},
		{"another's token in auth", []any{object{"authToken": token(1, 1)}, object{"authToken": token(2, 1), "roomId": 1}}, "unauthenticated", 1008},
		{"another session of the same user", []any{object{"authToken": token(1, 1)}, object{"authToken": token(1, 2)}}, "unauthenticated", 1008},
		{"another's token in a message", []any{object{"authToken": token(1, 1)},
			object{"op": 3, "roomId": 1, "msg": "x", "authToken": token(2, 1)}}, "unauthenticated", 1008},
		{"session over", []any{object{"authToken": token(1, 1)}, object{"op": 14, "conversation": "room:1"}}, "session_ended", 4001},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, ws bool) {
				conn := dial(t, n)
				for _, frame := range c.send {
					conn.Send(t, frame)
				}
				_ = conn.TrySend(object{"op": 3, "roomId": 1, "msg": "after the end"}) // may find the socket closed
				conn.AwaitError(t, c.code)
				if got := conn.AwaitEnd(t); ws && got != c.want {
					t.Errorf("got close code %d, want %d", got, c.want)
				}
			})
		})
	}
}

// TestBroken sends bytes that are no frame.
func TestBroken(t *testing.T) {
	ws := func(opcode byte, payload []byte) []byte {
		b := binary.BigEndian.AppendUint64([]byte{0x80 | opcode, 0x80 | 127}, uint64(len(payload)))
		return append(append(b, 0, 0, 0, 0), payload...)
	}
	n := startNode(t, obliging(), nil)
	cases := []struct {
		name      string
		transport transport
		send      []byte
		want      contract.Code
	}{
		{"not UTF-8", webSocket, ws(1, []byte("{\"op\":\xff}")), contract.BadRequest},
		{"binary", webSocket, ws(2, []byte(`{"op":10}`)), contract.BadRequest},
		{"over 64 KiB", webSocket, ws(1, bytes.Repeat([]byte(" "), 64<<10+1)), contract.TooLarge},
		{"other magic", tcp, []byte("GET / HTTP/1.1\r\n\r\n"), contract.BadRequest},
		{"too short", tcp, []byte{'v', '1', 0, 4}, contract.BadRequest},
		{"negative", tcp, []byte{'v', '1', 0x9c, 0x40}, contract.BadRequest},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p, ch := dialPeer(t, n, c.transport, 1)
			if _, err := p.conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			if got := p.rest(t, c.want); len(got) != 0 {
				t.Errorf("also got %v", got)
			}
			_ = p.conn.Close()
			eventually(t, "gone", func() bool { return !slices.Contains(n.all(), ch) })
		})
	}
}

// TestEndsWhileBusy closes a connection while logic is asked to authenticate it, to let it in or to replay.
func TestEndsWhileBusy(t *testing.T) {
	for _, busy := range []string{"auth", "enter", "replay"} {
		t.Run(busy, func(t *testing.T) {
			asked, answer := make(chan struct{}), make(chan struct{})
			wait := func(at string) {
				if at == busy {
					asked <- struct{}{}
					<-answer
				}
			}
			logic := obliging()
			authenticate, enterRoom := logic.authenticate, logic.enterRoom
			logic.authenticate = func(ctx context.Context, r *contract.AuthenticateRequest) (*contract.Identity, error) {
				wait("auth")
				return authenticate(ctx, r)
			}
			logic.enterRoom = func(ctx context.Context, r *contract.RoomRequest) (*contract.Room, error) {
				wait("enter")
				return enterRoom(ctx, r)
			}
			logic.history = func(_ context.Context, r *contract.HistoryRequest) (*contract.HistoryReply, error) {
				wait("replay")
				return &contract.HistoryReply{Messages: []contract.Message{{Conversation: r.Conversation, Seq: r.After + 1}}}, nil
			}
			n := startNode(t, logic, nil)
			eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
				for _, how := range []string{"by the client", "by the server"} {
					c := dial(t, n)
					c.Send(t, object{"op": 6, "authToken": token(1, 1), "roomId": 1, "resume": object{"room:1": 0}})
					<-asked
					if how == "by the client" {
						c.Close()
					} else {
						for _, ch := range n.all() {
							ch.end(contract.SessionEnded, "over")
						}
					}
					answer <- struct{}{}
					if how == "by the server" {
						c.AwaitError(t, "session_ended")
						c.AwaitEnd(t)
					}
					eventually(t, "nobody is left", func() bool {
						users, rooms := n.present()
						return len(users)+len(rooms) == 0 && n.metric(t, "gochat_connections") == 0
					})
				}
			})
		})
	}
}

// TestRoutesNotWritten has the registrar fail: the client is told, counts as nowhere, and may try again.
func TestRoutesNotWritten(t *testing.T) {
	var away atomic.Bool
	n := startNode(t, obliging(), func(c *Connect) {
		c.registrar.timeout = 200 * time.Millisecond
		self := c.registrar.self
		c.registrar.self = func() (contract.NodeRef, bool) {
			ref, _ := self()
			return ref, !away.Load()
		}
	})
	eachDial(t, func(t *testing.T, dial func(testing.TB, *testNode) *testclient.Conn, _ bool) {
		c := dial(t, n)
		away.Store(true)
		c.Send(t, object{"op": 6, "authToken": token(1, 1), "roomId": 1})
		if got := c.AwaitError(t, "unavailable"); got.Int("retryAfterMs") == 0 {
			t.Errorf("got %v, want when to try again", got)
		}
		if users, rooms := n.present(); len(users)+len(rooms) != 0 {
			t.Errorf("counted %v, %v, want nobody", users, rooms)
		}
		away.Store(false)
		ch := hello(t, n, c, 1, 1)
		away.Store(true)
		c.Send(t, object{"op": 15, "roomId": 2})
		eventually(t, "refused again", func() bool {
			return len(slices.DeleteFunc(c.Frames(), func(f testclient.Frame) bool { return f.Op() != 21 })) == 2
		})
		if _, rooms := n.present(); len(rooms) != 0 || len(ch.roomIDs()) != 0 {
			t.Errorf("counted %v, in %v, want nobody and nowhere", rooms, ch.roomIDs())
		}
		away.Store(false)
		enter(t, c, ch, 2)
		c.Close()
		eventually(t, "gone", func() bool { return len(storedRoutes(t, n.routes, n.self)) == 0 })
	})
}

// TestAffordable leaves files to what is no connection.
func TestAffordable(t *testing.T) {
	for files, want := range map[uint64]int{20000: 19744, 1024: 768, 512: 256, 100: 50, math.MaxUint64: math.MaxInt - 256} {
		if got := affordable(files); got != want {
			t.Errorf("of %d files: got %d, want %d", files, got, want)
		}
	}
}

// TestFull turns away what comes above the bound, and lets in again once somebody has left.
func TestFull(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.MaxConns = 2 })
	one, two := testclient.WebSocket(t, n.WebSocketAddr()), testclient.TCP(t, n.TCPAddrs()[0])
	settle(t, one)
	settle(t, two)
	if _, err := testclient.DialWebSocket(n.WebSocketAddr()); err == nil {
		t.Error("a third websocket was let in")
	}
	third := testclient.TCP(t, n.TCPAddrs()[0])
	third.AwaitError(t, "unavailable")
	third.AwaitEnd(t)
	if got := n.metric(t, "gochat_connections_turned_away_total"); got != 2 {
		t.Errorf("got %v counted, want 2", got)
	}
	one.Close()
	eventually(t, "let in again", func() bool {
		c, err := testclient.DialWebSocket(n.WebSocketAddr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
