package layers

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// badFrame is a message that is refused. Its text may hold ROOM, PRIVATE (a room of others), ME, FOREIGN (a token
// of somebody else) and OTHERS (a conversation of others).
type badFrame struct {
	name, text, code string
}

// survivable frames are answered with an error, and the connection goes on.
func survivable() []badFrame {
	frames := []badFrame{
		{"cut short", `{"op":3,"roomId":ROOM,"msg":"x"`, "bad_request"},
		{"two objects", `{"op":10}{"op":10}`, "bad_request"},
		{"an array", `[{"op":3,"roomId":ROOM,"msg":"x"}]`, "bad_request"},
		{"a string", `"op"`, "bad_request"},
		{"a number", `3`, "bad_request"},
		{"null", `null`, "bad_request"},
		{"spaces", `   `, "bad_request"},
		{"the seed's ping", `ping msg`, "bad_request"},
		{"nested too deep", strings.Repeat("[", 20_000), "bad_request"},
		{"an escape cut short", `{"op":3,"roomId":ROOM,"msg":"\u12`, "bad_request"},
		{"op that is none", `{"op":99}`, "bad_request"},
		{"op below zero", `{"op":-3,"roomId":ROOM,"msg":"x"}`, "bad_request"},
		{"op is a string", `{"op":"3","roomId":ROOM,"msg":"x"}`, "bad_request"},
		{"op is a fraction", `{"op":3.5,"roomId":ROOM,"msg":"x"}`, "bad_request"},
		{"op is past 64 bits", `{"op":99999999999999999999}`, "bad_request"},
		{"op twice", `{"op":3,"op":2,"roomId":ROOM,"msg":"x"}`, "bad_request"},
		{"room is a string", `{"op":3,"roomId":"ROOM","msg":"x"}`, "bad_request"},
		{"room is missing", `{"op":3,"msg":"x"}`, "bad_request"},
		{"room is zero", `{"op":3,"roomId":0,"msg":"x"}`, "bad_request"},
		{"room below zero", `{"op":3,"roomId":-ROOM,"msg":"x"}`, "bad_request"},
		{"msg is a number", `{"op":3,"roomId":ROOM,"msg":7}`, "bad_request"},
		{"msg is an object", `{"op":3,"roomId":ROOM,"msg":{"a":1}}`, "bad_request"},
		{"msg is missing", `{"op":3,"roomId":ROOM}`, "bad_request"},
		{"msg is empty", `{"op":3,"roomId":ROOM,"msg":""}`, "bad_request"},
		{"msg holds a NUL", `{"op":3,"roomId":ROOM,"msg":"a\u0000b"}`, "bad_request"},
		{"msg is over 16 KiB", `{"op":3,"roomId":ROOM,"msg":"` + strings.Repeat("x", contract.MaxTextBytes+1) + `"}`, "too_large"},
		{"msg takes too much once escaped", `{"op":3,"roomId":ROOM,"msg":"` + strings.Repeat(`\t`, 3) + strings.Repeat(`\u0001`, 5200) + `"}`, "too_large"},
		{"clientId is a number", `{"op":3,"roomId":ROOM,"msg":"x","clientId":7}`, "bad_request"},
		{"clientId is too long", `{"op":3,"roomId":ROOM,"msg":"x","clientId":"` + strings.Repeat("c", 65) + `"}`, "too_large"},
		{"token is a number", `{"op":3,"roomId":ROOM,"msg":"x","authToken":7}`, "bad_request"},
		{"room that does not exist", `{"op":3,"roomId":999999999,"msg":"x"}`, "not_found"},
		{"a private room of others", `{"op":3,"roomId":PRIVATE,"msg":"x"}`, "forbidden"},
		{"addressee is missing", `{"op":2,"msg":"x"}`, "bad_request"},
		{"addressee is a string", `{"op":2,"toUserId":"ME","msg":"x"}`, "bad_request"},
		{"addressee below zero", `{"op":2,"toUserId":-ME,"msg":"x"}`, "bad_request"},
		{"addressee who does not exist", `{"op":2,"toUserId":999999999,"msg":"x"}`, "not_found"},
		{"enter a room that does not exist", `{"op":15,"roomId":999999999}`, "not_found"},
		{"enter a private room of others", `{"op":15,"roomId":PRIVATE}`, "forbidden"},
		{"leave no room", `{"op":16}`, "bad_request"},
		{"resume is an array", `{"op":12,"resume":[1]}`, "bad_request"},
		{"resume is missing", `{"op":12}`, "bad_request"},
		{"resume of no conversation", `{"op":12,"resume":{"lobby":1}}`, "bad_request"},
		{"resume from a string", `{"op":12,"resume":{"room:1":"1"}}`, "bad_request"},
		{"resume of others' conversation", `{"op":12,"resume":{"OTHERS":0}}`, "forbidden"},
		{"resume of a room that does not exist", `{"op":12,"resume":{"room:999999999":0}}`, "not_found"},
		{"have is a number", `{"op":10,"have":7}`, "bad_request"},
		{"read mark of no conversation", `{"op":13,"seq":1}`, "bad_request"},
		{"read mark without a seq", `{"op":13,"conversation":"room:1"}`, "bad_request"},
		{"read mark below zero", `{"op":13,"conversation":"room:1","seq":-1}`, "bad_request"},
		{"read mark in others' conversation", `{"op":13,"conversation":"OTHERS","seq":1}`, "forbidden"},
		{"typing in others' conversation", `{"op":14,"conversation":"OTHERS"}`, "forbidden"},
		{"typing in a conversation that is not spelt so", `{"op":14,"conversation":"room:01"}`, "bad_request"},
	}
	for _, op := range []int{0, 1, 4, 5, 7, 20, 21, 22, 23} {
		frames = append(frames, badFrame{fmt.Sprintf("op %d, which clients do not send", op),
			fmt.Sprintf(`{"op":%d,"roomId":ROOM,"msg":"x","count":9,"clientId":"c"}`, op), "bad_request"})
	}
	return frames
}

// scene is what bad input is tried on: ann and her room, and people who are none of her business.
type scene struct {
	*running
	ann     *testclient.User
	room    int
	replace *strings.Replacer
}

func newScene(t testing.TB, r *running) *scene {
	t.Helper()
	ann, eve, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "eve"), testclient.Register(t, r.api(), "bob")
	s := &scene{running: r, ann: ann, room: createRoom(t, ann, "bad input", false)}
	private := createRoom(t, eve, "private", true)
	s.replace = strings.NewReplacer("ROOM", fmt.Sprint(s.room), "PRIVATE", fmt.Sprint(private), "ME", fmt.Sprint(ann.ID),
		"FOREIGN", eve.Token, "TOKEN", ann.Token, "OTHERS", fmt.Sprintf("dm:%d:%d", eve.ID, bob.ID))
	return s
}

// total is how many messages there are in ann's conversations.
func (s *scene) total(t testing.TB) int {
	t.Helper()
	var inbox struct {
		Conversations []struct{ LastSeq int }
	}
	s.ann.Must(t, "GET", "/v1/inbox?limit=200", nil, &inbox)
	total := 0
	for _, c := range inbox.Conversations {
		total += c.LastSeq
	}
	return total
}

func TestBadFrames(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	for _, transport := range transports {
		p := dial(t, s.running, transport)
		p.enter(s.ann, s.room)
		p.sends(s.room, "so that there is something")
		before := s.total(t)
		for _, c := range survivable() {
			t.Run(transport+"/"+c.name, func(t *testing.T) {
				p.forget()
				p.t = t
				p.send([]byte(s.replace.Replace(c.text)))
				if f := p.op(21).frame(t); f.Str("code") != c.code || f.Str("message") == "" {
					t.Errorf("got %v, want %s and a sentence", f, c.code)
				}
				p.sends(s.room, "still here")
				p.text("still here")
				after := s.total(t)
				if after != before+1 {
					t.Errorf("%d messages are stored, want %d", after, before+1)
				}
				before = after
			})
		}
	}
}

// TestBadMessages are those that a websocket may not bring: each ends it with its code.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	good := []byte(s.replace.Replace(`{"op":3,"roomId":ROOM,"msg":"x"}`))
	half := len(good) / 2
	padded := append(good, make([]byte, 64<<10+1-len(good))...)
	for i := len(good); i < len(padded); i++ {
		padded[i] = ' '
	}
	latin1 := []byte(strings.Replace(string(good), "x", "\xe9", 1))
	for _, c := range []struct {
		name   string
		bytes  []byte
		code   string
		closed int
	}{
		{"a byte over 64 KiB", wsFrame(0x80|wsText, padded), "too_large", 1009},
		{"over 64 KiB in parts", append(wsFrame(wsText, padded[:60<<10]), wsFrame(0x80, padded[60<<10:])...), "too_large", 1009},
		{"announces 8 EiB", append([]byte{0x80 | wsText, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, padded...), "too_large", 1009},
		{"not UTF-8", wsFrame(0x80|wsText, latin1), "bad_request", 1007},
		{"UTF-8 of a surrogate", wsFrame(0x80|wsText, []byte(strings.Replace(string(good), "x", "\xed\xa0\x80", 1))), "bad_request", 1007},
		{"not UTF-8 in parts", append(wsFrame(wsText, latin1[:half]), wsFrame(0x80, latin1[half:])...), "bad_request", 1007},
		{"binary", wsFrame(0x80|wsBinary, good), "bad_request", 1007},
		{"not masked", append([]byte{0x80 | wsText, byte(len(good))}, good...), "", 1002},
		{"compressed, which was not agreed on", wsFrame(0xc0|wsText, good), "", 1002},
		{"unknown opcode", wsFrame(0x80|3, good), "", 1002},
		{"a part of nothing", wsFrame(0x80, good), "", 1002},
		{"a long ping", wsFrame(0x80|wsPing, padded[:126]), "", 1002},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.total(t)
			p := dial(t, s.running, "websocket")
			p.enter(s.ann, s.room)
			p.write(c.bytes)
			code, closed := p.end()
			if c.code != "" && code != c.code || closed != c.closed && c.closed != 0 {
				t.Errorf("ended with %q and %d, want %q and %d", code, closed, c.code, c.closed)
			}
			if after := s.total(t); after != before {
				t.Errorf("%d messages are stored, want %d", after, before)
			}
		})
	}
	t.Run("64 KiB and messages in parts are fine", func(t *testing.T) {
		p := dial(t, s.running, "websocket")
		p.enter(s.ann, s.room)
		p.write(wsFrame(0x80|wsText, padded[:64<<10]))
		p.text("x")
		p.forget()
		p.write(append(append(wsFrame(wsText, good[:half]), wsFrame(0x80|wsPing, []byte("between"))...), wsFrame(0x80, good[half:])...))
		p.text("x")
		p.write(wsFrame(0x80|wsClose, []byte{0x03, 0xe8}))
		if _, closed := p.end(); closed != 1000 {
			t.Errorf("close 1000 was answered with %d", closed)
		}
	})
}

// TestBadPackets are those after which a tcp stream cannot go on.
func TestBadPackets(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	good := testclient.Packet([]byte(s.replace.Replace(`{"op":3,"roomId":ROOM,"msg":"x"}`)))
	for _, authenticated := range []bool{false, true} {
		for _, c := range []struct {
			name, bytes string
			half        bool   // nothing follows
			code        string // "" if there is nobody to tell
		}{
			{"length 4", "v1\x00\x04", false, "bad_request"},
			{"length 3", "v1\x00\x03", false, "bad_request"},
			{"length 0", "v1\x00\x00", false, "bad_request"},
			{"length -1", "v1\xff\xff", false, "bad_request"},
			{"length -32768", "v1\x80\x00", false, "bad_request"},
			{"other magic", "v2\x00\x10{\"op\":10}...", false, "bad_request"},
			{"HTTP", "GET / HTTP/1.1\r\n\r\n", false, "bad_request"},
			{"TLS", "\x16\x03\x01\x00\xc4\x01\x00", false, "bad_request"},
			{"length 32767 and few bytes", "v1\x7f\xff" + string(good[4:]), true, ""},
			{"half a header", "v1\x00", true, ""},
		} {
			t.Run(fmt.Sprintf("%s, authenticated %v", c.name, authenticated), func(t *testing.T) {
				t.Parallel()
				before := stored(t, s.ann, s.room)
				p := dial(t, s.running, "tcp")
				if authenticated {
					p.enter(s.ann, s.room)
				}
				p.write([]byte(c.bytes))
				if c.half {
					_ = p.conn.(interface{ CloseWrite() error }).CloseWrite()
				} else {
					p.write(good) // must not be taken for a packet
				}
				p.wantEnd(c.code, 0)
				if after := stored(t, s.ann, s.room); after != before {
					t.Errorf("%d messages are stored, want %d", after, before)
				}
			})
		}
	}
}

// TestBadText: on tcp text that is not UTF-8 is refused, and the connection goes on.
func TestBadText(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	p := dial(t, s.running, "tcp")
	p.enter(s.ann, s.room)
	p.send([]byte(s.replace.Replace("{\"op\":3,\"roomId\":ROOM,\"msg\":\"\xe9\"}")))
	if f := p.op(21).frame(t); f.Str("code") != "bad_request" {
		t.Errorf("got %v, want bad_request", f)
	}
	p.sends(s.room, "é")
	if n := stored(t, s.ann, s.room); n != 1 {
		t.Errorf("%d messages are stored, want 1", n)
	}
}

func TestBadCredentials(t *testing.T) {
	t.Parallel()
	s := newScene(t, system(t, nil))
	for _, transport := range transports {
		for _, c := range []struct {
			name, first, then string
			code              string
			closed            int // 0: it goes on
		}{
			{"token of nobody", "", `{"op":6,"authToken":"nobody's","roomId":1}`, "unauthenticated", 1008},
			{"token of nobody, without an op", "", `{"authToken":"nobody's","roomId":1}`, "unauthenticated", 1008},
			{"no token", "", `{"op":6,"roomId":ROOM}`, "bad_request", 0},
			{"an empty object", "", `{}`, "bad_request", 0},
			{"a send before authenticating", "", `{"op":3,"roomId":ROOM,"msg":"x"}`, "unauthenticated", 0},
			{"a send with a token before authenticating", "", `{"op":3,"roomId":ROOM,"msg":"x","authToken":"TOKEN"}`, "unauthenticated", 0},
			{"what it has before authenticating", "", `{"op":10,"have":{"room:1":0}}`, "unauthenticated", 0},
			{"into a room that does not exist", "", `{"op":6,"authToken":"TOKEN","roomId":999999999}`, "not_found", 0},
			{"into a private room of others", "", `{"op":6,"authToken":"TOKEN","roomId":PRIVATE}`, "forbidden", 0},
			{"token of somebody else in a frame", "TOKEN", `{"op":3,"roomId":ROOM,"msg":"x","authToken":"FOREIGN"}`, "unauthenticated", 1008},
			{"token of somebody else in a ping", "TOKEN", `{"op":10,"authToken":"FOREIGN"}`, "unauthenticated", 1008},
			{"token of nobody in a frame", "TOKEN", `{"op":3,"roomId":ROOM,"msg":"x","authToken":"nobody's"}`, "unauthenticated", 1008},
			{"auth as somebody else", "TOKEN", `{"op":6,"roomId":ROOM,"authToken":"FOREIGN"}`, "unauthenticated", 1008},
			{"auth as nobody", "TOKEN", `{"op":6,"roomId":ROOM,"authToken":"nobody's"}`, "unauthenticated", 1008},
		} {
			t.Run(transport+"/"+c.name, func(t *testing.T) {
				before := s.total(t)
				p := dial(t, s.running, transport)
				if c.first != "" {
					p.enter(s.ann, s.room)
				}
				p.send([]byte(s.replace.Replace(c.then)))
				if c.closed != 0 {
					p.wantEnd(c.code, c.closed)
				} else {
					if f := p.op(21).frame(t); f.Str("code") != c.code {
						t.Errorf("got %v, want %s", f, c.code)
					}
					p.enter(s.ann, s.room)
				}
				if after := s.total(t); after != before {
					t.Errorf("%d messages are stored, want %d", after, before)
				}
			})
		}
	}
}

// TestExpiredToken: a session that has not been used for its life is over, for sockets and for REST.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Redis.TTL, cfg.Logic.SessionCache = 300*time.Millisecond, 0 })
	ann := testclient.Register(t, r.api(), "ann")
	eventually(t, "the session's end", func() bool {
		time.Sleep(time.Second) // asking extends it
		status, _ := ann.Do(t, "GET", "/v1/me", nil)
		return status == http.StatusUnauthorized
	})
	for _, transport := range transports {
		p := dial(t, r, transport)
		p.say(map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1})
		p.wantEnd("unauthenticated", 1008)
	}
	for _, path := range []string{"/user/checkAuth", "/user/logout", "/push/pushRoom", "/push/count"} {
		got := seedCall(t, r, path, map[string]any{"authToken": ann.Token, "roomId": 1, "msg": "x"})
		if got.Code != 40000 {
			t.Errorf("%s: got %+v, want 40000", path, got)
		}
	}
	if status, body := ann.Do(t, "POST", "/v1/rooms/1/messages", map[string]any{"msg": "x"}); status != http.StatusUnauthorized {
		t.Errorf("status %d, want 401: %s", status, body)
	}
}

// TestGarbage: 20,000 pieces of rubbish from 20 clients at once leave nothing behind.
func TestGarbage(t *testing.T) {
	t.Parallel()
	b := embeddedBackend(t)
	r := calm(t, spawn(t, patient(b.config()), All()...))
	ann := testclient.Register(t, r.api(), "ann")
	bad := survivable()
	const clients, pieces = 20, 1000
	var throwing sync.WaitGroup
	for i := range clients {
		throwing.Go(func() { throwGarbage(t, r, ann, bad, i, pieces) })
	}
	done := make(chan struct{})
	go func() { throwing.Wait(); close(done) }()
	most := 0.0
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(100 * time.Millisecond):
		}
		most = max(most, metric(t, r, "go_goroutines", ""))
	}
	if most > 500 {
		t.Errorf("up to %v goroutines for %d clients", most, clients)
	}
	eventually(t, "no connections", func() bool { return metric(t, r, "gochat_connections", "") == 0 })
	if n := stored(t, ann, 1); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
	p := dial(t, r, "tcp")
	p.enter(ann, 1)
	p.sends(1, "as if nothing had been")
}

func throwGarbage(t *testing.T, r *running, ann *testclient.User, bad []badFrame, client, pieces int) {
	replace := strings.NewReplacer("ROOM", "999999998", "PRIVATE", "999999997", "ME", "999999996", "OTHERS", "dm:999999:1000000")
	var conn *testclient.Conn
	for n := range pieces {
		text := replace.Replace(bad[(client+n)%len(bad)].text)
		if len(text) > 4096 {
			text = text[:4096] // what is long takes its time and shows nothing more
		}
		if client%4 == 3 {
			paths := []string{"/user/register", "/push/push", "/push/pushRoom", "/v1/rooms/1/messages", "/v1/nothing"}
			if _, _, err := ann.Try("POST", paths[n%len(paths)], text); err != nil {
				t.Error(err)
				return
			}
			continue
		}
		if conn == nil || n%100 == 0 {
			if conn != nil {
				conn.Close()
			}
			dialer, addr := testclient.DialTCP, r.TCP[0]
			if client%4 > 1 {
				dialer, addr = testclient.DialWebSocket, r.WebSocket
			}
			var err error
			if conn, err = dialer(addr); err != nil {
				t.Error(err)
				return
			}
			_ = conn.TrySend(map[string]any{"op": 6, "authToken": ann.Token})
		}
		_ = conn.TrySend([]byte(text)) // some of it ends the connection
	}
	if conn != nil {
		conn.Close()
	}
}
