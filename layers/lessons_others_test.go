package layers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
)

func TestLessonGoimManyRooms(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	rooms := []int{1, createRoom(t, ann, "second", false), createRoom(t, ann, "third", true)}
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			p := dial(t, r, transport)
			p.say(map[string]any{"op": 6, "authToken": ann.Token})
			for _, room := range rooms {
				p.say(map[string]any{"op": 15, "roomId": room})
				p.online(ann, room)
			}
			for _, room := range rooms {
				text := fmt.Sprint("by ", transport, " in ", room)
				p.sends(room, text)
				if f := p.text(text).frame(t); f.Int("roomId") != room {
					t.Errorf("got %v, want room %d", f, room)
				}
			}
			p.say(map[string]any{"op": 16, "roomId": rooms[1]})
			p.forget()
			p.sends(rooms[1], "to the room that was left")
			p.sends(rooms[2], "to another")
			p.text("to another")
			for _, got := range p.frames {
				if got.frame(t).Str("msg") == "to the room that was left" {
					t.Errorf("got %s after leaving", got)
				}
			}
		})
	}
}

// TestLessonCentrifugoRedisAway: Redis dies, comes back empty, and everything works again without a restart:
// sessions are made anew, routes are written again, seqs go on, and the history is what it was.
func TestLessonCentrifugoRedisAway(t *testing.T) {
	t.Parallel()
	redis := testdeps.Redis(t)
	b := embeddedBackend(t)
	b.redis, b.password = redis.Addr(), ""
	cfg := b.config()
	cfg.Etcd.LeaseTTL, cfg.Redis.Timeout = time.Minute, 500*time.Millisecond
	r := calm(t, start(t, cfg, All()...))
	ann := testclient.Register(t, r.api(), "ann")
	conn := testclient.WebSocket(t, r.WebSocket)
	conn.Enter(t, ann, 1)
	conn.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "before"})
	if f := conn.AwaitText(t, "before"); f.Int("seq") != 1 {
		t.Errorf("got %v, want seq 1", f)
	}
	ready := func() int {
		resp, err := http.Get("http://" + r.Admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	redis.Kill()
	eventually(t, "not ready", func() bool { return ready() == http.StatusServiceUnavailable })
	accepted := 0
	eventually(t, "a refusal", func() bool {
		time.Sleep(50 * time.Millisecond) // sessions are trusted for seconds: one page of a replay is to hold all of it
		got := seedCall(t, r, "/push/pushRoom", map[string]any{"authToken": ann.Token, "roomId": 1, "msg": "while away"})
		if got.Code == 0 {
			accepted++
		}
		return got.Code == 1
	})
	redis.Start()
	eventually(t, "ready", func() bool { return ready() == http.StatusOK })
	login := seedCall(t, r, "/user/login", map[string]any{"userName": "ann", "passWord": "secret-password"})
	if ann.Token, _ = login.Data.(string); login.Code != 0 {
		t.Fatalf("login: %+v", login)
	}
	again := testclient.TCP(t, r.TCP[0])
	again.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1, "resume": map[string]int{"room:1": 1}})
	again.AwaitOp(t, 22)
	again.Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "after"})
	if f := again.AwaitText(t, "after"); f.Int("seq") != 2+accepted {
		t.Errorf("got %v, want seq %d", f, 2+accepted)
	}
	if got := seqs(again); len(got) != accepted+1 {
		t.Errorf("got seqs %v, want those from 2 on, %d of them", got, accepted+1)
	}
	var got []testclient.Frame
	for more := true; more; {
		var page struct {
			Messages []testclient.Frame `json:"messages"`
			More     bool               `json:"more"`
		}
		ann.Must(t, "GET", fmt.Sprintf("/v1/rooms/1/messages?limit=200&after=%d", len(got)), nil, &page)
		got, more = append(got, page.Messages...), page.More
	}
	if len(got) != 2+accepted || got[0].Str("msg") != "before" || got[0].Int("seq") != 1 || got[1+accepted].Str("msg") != "after" {
		t.Errorf("got the history %v, want what was said before, %d meanwhile and after", got, accepted)
	}
	late := testclient.WebSocket(t, r.WebSocket)
	late.Send(t, map[string]any{"op": 6, "authToken": ann.Token, "roomId": 1, "resume": map[string]int{"room:1": 0}})
	if f := late.AwaitText(t, "before"); f.Int("seq") != 1 {
		t.Errorf("got %v, want it with seq 1", f)
	}
	late.AwaitText(t, "after")
}

// TestLessonWuKongIMFirstMessage: the first message of a conversation comes as fast as the second. The two are
// compared with one another in one run, by turns, so that a slow machine slows both.
func TestLessonWuKongIMFirstMessage(t *testing.T) {
	t.Parallel()
	const (
		people = 21                    // 210 pairs
		floor  = 50 * time.Millisecond // what a busy machine may add
	)
	r := system(t, nil)
	users, conns := make([]*testclient.User, people), make([]*testclient.Conn, people)
	for i := range people {
		users[i] = testclient.Register(t, r.api(), fmt.Sprint("user", i))
		conns[i] = testclient.TCP(t, r.TCP[0])
		conns[i].Enter(t, users[i], 1)
	}
	var first, later []time.Duration
	for i := range people {
		for j := range i {
			says := func(text string) time.Duration {
				began := time.Now()
				conns[i].Send(t, map[string]any{"op": 2, "toUserId": users[j].ID, "msg": text, "clientId": text})
				conns[j].AwaitText(t, text)
				conns[i].Await(t, "ack", func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == text })
				return time.Since(began)
			}
			first = append(first, says(fmt.Sprint("the first of ", i, " to ", j)))
			later = append(later, says(fmt.Sprint("the second of ", i, " to ", j)))
		}
	}
	slices.Sort(first)
	slices.Sort(later)
	if got, usual := first[len(first)/2], later[len(later)/2]; got > 3*usual+floor {
		t.Errorf("half of the %d first messages took over %v, of the second ones over %v: want no such difference", len(first), got, usual)
	}
}

// TestLessonOpenIMSlowRedis: a dependency that hangs does not gather goroutines.
func TestLessonOpenIMSlowRedis(t *testing.T) {
	t.Parallel()
	redis := testdeps.Redis(t)
	b := embeddedBackend(t)
	b.redis, b.password = redis.Addr(), ""
	r := calm(t, spawn(t, patient(b.config()), All()...))
	ann := testclient.Register(t, r.api(), "ann")
	conns := make([]*testclient.Conn, 20)
	for i := range conns {
		conns[i] = testclient.TCP(t, r.TCP[0])
		conns[i].Enter(t, ann, 1)
	}
	before := metric(t, r, "go_goroutines", "")
	redis.Pause()
	var sending sync.WaitGroup
	for i, c := range conns {
		sending.Go(func() {
			for n := range 20 {
				if err := c.TrySend(map[string]any{"op": 3, "roomId": 1, "msg": fmt.Sprint(i, " ", n)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	most := 0.0
	for range 10 {
		most = max(most, metric(t, r, "go_goroutines", ""))
		time.Sleep(50 * time.Millisecond)
	}
	redis.Resume()
	if most > before+100 {
		t.Errorf("%v goroutines while Redis hangs, %v before", most, before)
	}
	conns[0].Send(t, map[string]any{"op": 3, "roomId": 1, "msg": "works again"})
	conns[1].AwaitText(t, "works again")
}

func TestLessonTinodeOwnMessagesAreRead(t *testing.T) {
	for name, make := range backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm(t, start(t, patient(make(t).config()), All()...))
			ann, bob := testclient.Register(t, r.api(), "ann"), testclient.Register(t, r.api(), "bob")
			for n := range 3 {
				ann.Must(t, "POST", fmt.Sprintf("/v1/users/%d/messages", bob.ID), map[string]any{"msg": fmt.Sprint(n)}, nil)
			}
			for _, c := range []struct {
				who  *testclient.User
				want int
			}{{ann, 0}, {bob, 3}} {
				var inbox struct {
					Conversations []struct{ LastSeq, Unread int }
				}
				_, raw := c.who.Do(t, "GET", "/v1/inbox", nil)
				if err := json.Unmarshal(raw, &inbox); err != nil || len(inbox.Conversations) != 1 {
					t.Fatalf("%s: inbox %s: %v", c.who.Name, raw, err)
				}
				if got := inbox.Conversations[0]; got.Unread != c.want || got.LastSeq != 3 {
					t.Errorf("%s: got %+v, want %d unread of 3", c.who.Name, got, c.want)
				}
			}
		})
	}
}

// TestLessonNATSNoCompression: what browsers offer is not taken unless that is configured, so there is neither a compressor for
// each connection nor a bomb to unpack. That no frame is compressed is checked on every frame that a peer reads.
func TestLessonNATSNoCompression(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	p := dial(t, r, "websocket")
	if got := p.handshake.Header.Values("Sec-WebSocket-Extensions"); len(got) != 0 {
		t.Errorf("the server agreed to %v", got)
	}
	p.enter(testclient.Register(t, r.api(), "ann"), 1)
	text := strings.Repeat("easily compressed ", 500)
	p.sends(1, text)
	if n := len(p.text(text).raw); n < len(text) {
		t.Errorf("a text of %d bytes came in %d", len(text), n)
	}
}
