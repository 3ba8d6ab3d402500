package layers

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gochat/e2e/browser"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
)

const password = "secret-password" // of testclient.Register

// visit is two people with a browser each and one with a tcp client, on layers of which connect can be restarted.
type visit struct {
	whole      testing.TB // for what outlives a step
	one        *running
	connecting Config
	connect    *running
	redis      *testdeps.RedisServer

	ann, bob     *browser.Browser
	asAnn, asBob *testclient.User // the same people by REST, with the page's own sessions
	cem          *testclient.User
	tcp          *testclient.Conn
	room         int
}

// openBrowser shows the page, which must be in the binary.
func openBrowser(t testing.TB, page string) *browser.Browser {
	t.Helper()
	answer, err := http.Get("http://" + page + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable {
		t.Fatal("the page is not built: run make page, then this test again")
	}
	return browser.Open(t, "http://"+page+"/")
}

// TestBrowser drives the page in Chromium against the system. Each step goes on where the one before it ended.
func TestBrowser(t *testing.T) {
	redis := testdeps.Redis(t)
	b := migrated(t, backend{name: "real", etcd: testdeps.Etcd(t).Endpoint(), redis: redis.Addr(), database: testdeps.Postgres(t)})
	v := &visit{whole: t, connecting: b.config(), redis: redis}
	v.connecting.Connect.WebSocket.Listen = reserve(t)
	v.connecting.Connect.TCP.Listen = []string{reserve(t)}
	v.connecting.Connect.WebSocket.Compression = true // Chromium offers it, and compresses what it sends
	cfg := b.config()
	cfg.Connect.WebSocket.Listen = v.connecting.Connect.WebSocket.Listen // the page is told of it
	v.one = start(t, cfg, contract.LayerLogic, contract.LayerTask, contract.LayerAPI, contract.LayerSite)
	v.connect = spawn(t, v.connecting, contract.LayerConnect)
	v.ann, v.bob = openBrowser(t, v.one.Page), openBrowser(t, v.one.Page)
	v.cem = testclient.Register(t, v.one.api(), "cem")

	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"register", v.register},
		{"wrong password", v.wrongPassword},
		{"log in", v.logIn},
		{"create and enter a room", v.createRoom},
		{"chat in a room", v.chatInRoom},
		{"details of a message", v.details},
		{"who is online", v.whoIsOnline},
		{"private messages", v.privateMessages},
		{"history on scroll", v.historyOnScroll},
		{"connect is killed", func(t *testing.T) { v.resume(t, v.connect.kill) }},
		{"connect is drained", func(t *testing.T) { v.resume(t, func() { _ = v.connect.stop() }) }},
		{"redis hangs while a browser comes back", v.comeBackUnknown},
		{"a script stays text", v.scriptStaysText},
		{"reload keeps the login", v.reload},
		{"log out", v.logOut},
		{"session ended elsewhere", v.sessionEnded},
		{"no faults", v.noFaults},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
}

// reserve is a loopback address that was free a moment ago.
func reserve(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (v *visit) register(t *testing.T) {
	v.ann.Click(t, "register-toggle")
	v.ann.Login(t, "ann", password)
	v.ann.Shows(t, "me", "ann")
	v.ann.Shows(t, "status", "Connected")
	v.ann.Shows(t, "conversation-title", "lobby")
	v.asAnn = v.sessionOf(t, v.ann)
	if v.asAnn.Name != "ann" {
		t.Errorf("the session is of %q, want ann", v.asAnn.Name)
	}

	v.bob.Click(t, "register-toggle")
	v.bob.Login(t, "ann", password)
	eventually(t, "a word that the name is taken", func() bool { return strings.Contains(v.bob.Text(t, "login-error"), "conflict") })
	v.bob.Provoked(t, "status of 409")
	v.bob.Click(t, "register-toggle")
}

// sessionOf is that of the page, for requests that its user makes elsewhere.
func (v *visit) sessionOf(t testing.TB, b *browser.Browser) *testclient.User {
	t.Helper()
	kept := browser.Eval[struct {
		Token, Name string
		UserID      int
	}](t, b, `(s => ({Token: s.token, Name: s.name, UserID: s.userId}))(JSON.parse(localStorage['gochat.session']))`)
	return &testclient.User{API: v.one.api(), Name: kept.Name, ID: kept.UserID, Token: kept.Token}
}

func (v *visit) wrongPassword(t *testing.T) {
	testclient.Register(t, v.one.api(), "bob")
	v.bob.Login(t, "bob", "another-password")
	eventually(t, "a word that it is wrong", func() bool { return strings.Contains(v.bob.Text(t, "login-error"), "do not match") })
	v.bob.Provoked(t, "status of 401")
	if kept := browser.Eval[int](t, v.bob, `localStorage.length`); kept != 0 {
		t.Errorf("%d items are kept of a login that failed", kept)
	}
}

func (v *visit) logIn(t *testing.T) {
	v.bob.Login(t, "bob", password)
	v.bob.Shows(t, "me", "bob")
	v.bob.Shows(t, "status", "Connected")
	v.asBob = v.sessionOf(t, v.bob)
}

func (v *visit) createRoom(t *testing.T) {
	v.ann.Click(t, "new-room")
	v.ann.Write(t, "new-room-name", "tea & <b>cake</b>")
	v.ann.Click(t, "new-room-submit")
	v.ann.Shows(t, "conversation-title", "tea & <b>cake</b>")
	var found struct{ Rooms []struct{ ID int } }
	v.asAnn.Must(t, "GET", "/v1/rooms?query=cake", nil, &found)
	if len(found.Rooms) != 1 {
		t.Fatalf("the server knows %v, want one room", found)
	}
	v.room = found.Rooms[0].ID

	v.bob.Write(t, "search", "cake")
	v.bob.Click(t, fmt.Sprintf("room-item-%d", v.room))
	v.bob.Shows(t, "conversation-title", "tea & <b>cake</b>")
	v.bob.Click(t, "join-room")
	v.bob.Shows(t, "join-room", "")
	v.tcp = testclient.TCP(v.whole, v.connect.TCP[0])
	v.tcp.Enter(t, v.cem, v.room)
}

func (v *visit) chatInRoom(t *testing.T) {
	const each = 5
	for i := range each {
		v.ann.Say(t, fmt.Sprintf("ann %d", i))
		v.bob.Say(t, fmt.Sprintf("bob %d", i))
		v.tcp.Send(t, map[string]any{"op": 3, "roomId": v.room, "msg": fmt.Sprintf("cem %d", i)})
	}
	v.sameEverywhere(t, 3*each)
	if live := v.tcp.Texts(v.conversation()); !slices.Equal(live, v.heard()) {
		t.Errorf("tcp was sent %q, want it in order and once", live)
	}
	for _, m := range v.ann.Messages(t) {
		if mine := strings.HasPrefix(m.Text, "ann "); m.Mine != mine {
			t.Errorf("%q is shown as ann's own: %v, want %v", m.Text, m.Mine, mine)
		}
	}
	if got := metric(t, v.connect, "gochat_frames_compressed_total", ""); got < 3*each {
		t.Errorf("%v frames were compressed, want one a message at least", got)
	}
}

// enterAgain connects cem anew and has everything in the room replayed.
func (v *visit) enterAgain(t testing.TB) *testclient.Conn {
	t.Helper()
	c := testclient.TCP(v.whole, v.connect.TCP[0])
	c.Send(t, map[string]any{"op": 6, "authToken": v.cem.Token, "roomId": v.room, "resume": map[string]int{v.conversation(): 0}})
	return c
}

func (v *visit) conversation() string { return fmt.Sprintf("room:%d", v.room) }

// heard is what the tcp client has of the room, by seq, each once: what is live may come between what is replayed.
func (v *visit) heard() []string {
	bySeq := make(map[int]string)
	for _, f := range v.tcp.Frames() {
		if f.Op() == 3 && f.Str("conversation") == v.conversation() {
			bySeq[f.Int("seq")] = f.Str("msg")
		}
	}
	var texts []string
	for _, seq := range slices.Sorted(maps.Keys(bySeq)) {
		texts = append(texts, bySeq[seq])
	}
	return texts
}

// sameEverywhere waits until the room has so many messages in both browsers and on tcp, and checks that they are the
// same, in one order, without a hole.
func (v *visit) sameEverywhere(t testing.TB, total int) {
	t.Helper()
	for who, texts := range map[string]func() []string{
		"ann": func() []string { return v.ann.Texts(t) },
		"bob": func() []string { return v.bob.Texts(t) },
		"cem": v.heard,
	} {
		eventually(t, fmt.Sprintf("%d messages at %s's", total, who), func() bool { return len(texts()) >= total })
	}
	eventually(t, "everything of ann's and bob's stored", func() bool {
		return !slices.ContainsFunc(append(v.ann.Messages(t), v.bob.Messages(t)...), func(m browser.Shown) bool { return m.State != "stored" })
	})
	want := v.heard()
	for who, b := range map[string]*browser.Browser{"ann": v.ann, "bob": v.bob} {
		if got := b.Texts(t); !slices.Equal(got, want) {
			t.Errorf("%s has\n%q, tcp has\n%q", who, got, want)
		}
		for i, m := range b.Messages(t) {
			if m.Seq != i+1 {
				t.Errorf("%s: bubble %d has seq %d", who, i+1, m.Seq)
			}
		}
	}
	if len(want) != total {
		t.Errorf("tcp has %d messages, want %d", len(want), total)
	}
}

func (v *visit) details(t *testing.T) {
	sent := v.tcp.AwaitText(t, "bob 4")
	v.ann.ClickOn(t, fmt.Sprintf(`[data-seq="%d"] [data-testid="message-details"]`, sent.Int("seq")))
	v.ann.Shows(t, "details-trace", sent.Str("traceId"))
	v.ann.Shows(t, "details-id", sent.Str("id"))
}

func (v *visit) whoIsOnline(t *testing.T) {
	everybody := []*testclient.User{v.asAnn, v.asBob, v.cem}
	see := func(users ...*testclient.User) {
		t.Helper()
		for _, b := range []*browser.Browser{v.ann, v.bob} {
			b.Shows(t, "online-count", fmt.Sprint(len(users)))
			for _, u := range everybody {
				id := fmt.Sprintf("online-user-%d", u.ID)
				online := slices.Contains(users, u)
				eventually(t, fmt.Sprintf("%s online: %v", u.Name, online), func() bool { return strings.Contains(b.Text(t, id), u.Name) == online })
			}
		}
	}
	see(v.asAnn, v.asBob, v.cem)
	v.tcp.Close()
	see(v.asAnn, v.asBob)
	v.tcp = v.enterAgain(t)
	see(v.asAnn, v.asBob, v.cem)
}

func (v *visit) privateMessages(t *testing.T) {
	ann := contract.UserID(v.asAnn.ID)
	withBob := contract.DirectConversation(ann, contract.UserID(v.asBob.ID))
	withCem := contract.DirectConversation(ann, contract.UserID(v.cem.ID))

	v.ann.Click(t, fmt.Sprintf("online-user-%d", v.asBob.ID))
	v.ann.Shows(t, "conversation-title", "bob")
	v.ann.Say(t, "between us")
	v.ann.Say(t, "two of us")
	v.bob.Shows(t, "unread-"+string(withBob), "2\nunread")
	if got := v.bob.Text(t, "message-text"); strings.Contains(got, "between us") {
		t.Errorf("the room shows a private message: %q", got)
	}
	v.bob.Click(t, fmt.Sprintf("direct-item-%d", v.asAnn.ID))
	v.bob.Shows(t, "message-text", "between us\ntwo of us")
	v.bob.Shows(t, "unread-"+string(withBob), "")
	v.bob.Say(t, "agreed")
	v.ann.Shows(t, "message-text", "between us\ntwo of us\nagreed")

	v.tcp.Send(t, map[string]any{"op": 2, "toUserId": v.asAnn.ID, "msg": "psst"})
	v.ann.Shows(t, "unread-"+string(withCem), "1\nunread")
	if got := browser.Eval[string](t, v.ann, "document.title"); got != "(1) gochat" {
		t.Errorf("the title is %q, want the unread message counted", got)
	}
	v.ann.Click(t, fmt.Sprintf("direct-item-%d", v.cem.ID))
	v.ann.Shows(t, "message-text", "psst")
	v.ann.Shows(t, "unread-"+string(withCem), "")
	v.ann.Say(t, "yes?")
	v.tcp.AwaitText(t, "yes?")
	eventually(t, "ann's mark at the server", func() bool {
		var inbox struct {
			Conversations []struct {
				Conversation contract.Conversation
				Unread       int
			}
		}
		v.asAnn.Must(t, "GET", "/v1/inbox", nil, &inbox)
		for _, c := range inbox.Conversations {
			if c.Unread > 0 {
				return false
			}
		}
		return len(inbox.Conversations) > 2
	})
	for _, b := range []*browser.Browser{v.ann, v.bob} {
		b.Click(t, fmt.Sprintf("room-item-%d", v.room))
	}
}

func (v *visit) historyOnScroll(t *testing.T) {
	const total = 120
	var room struct{ ID int }
	v.cem.Must(t, "POST", "/v1/rooms", map[string]any{"name": "long"}, &room)
	var want []string
	for i := range total {
		want = append(want, fmt.Sprintf("line %d", i+1))
		v.cem.Must(t, "POST", fmt.Sprintf("/v1/rooms/%d/messages", room.ID), map[string]any{"msg": want[i]}, nil)
	}
	v.ann.Write(t, "search", "long")
	v.ann.Click(t, fmt.Sprintf("room-item-%d", room.ID))
	eventually(t, "the end of the conversation in view", func() bool {
		return browser.Eval[bool](t, v.ann, `(e => !!e && e.getBoundingClientRect().bottom < innerHeight)(document.querySelector('[data-seq="%d"]'))`, total)
	})
	first := v.ann.Messages(t)[0].Seq
	if first < total/2 {
		t.Fatalf("it begins with %d: there is no history to load", first)
	}
	// A little below the top, as the wheel would leave it: what stands there must stay.
	const place = `document.querySelector('[data-seq="%d"]').getBoundingClientRect().top`
	browser.Eval[bool](t, v.ann, `(document.querySelector('.messages').scrollTop = 120, true)`)
	before := browser.Eval[float64](t, v.ann, place, first+2)
	eventually(t, "older messages", func() bool { return v.ann.Messages(t)[0].Seq < first })
	if after := browser.Eval[float64](t, v.ann, place, first+2); after < before-2 || after > before+2 {
		t.Errorf("what was read moved from %v to %v", before, after)
	}
	eventually(t, "the beginning of the conversation", func() bool {
		browser.Eval[bool](t, v.ann, `(document.querySelector('.messages').scrollTop = 0, true)`)
		return v.ann.Messages(t)[0].Seq == 1
	})
	if got := v.ann.Texts(t); !slices.Equal(got, want) {
		t.Errorf("got %q, want %d lines in order", got, total)
	}
	v.ann.Click(t, fmt.Sprintf("room-item-%d", v.room))
}

// resume takes the connect process away and starts it again where it was, while people go on talking.
func (v *visit) resume(t *testing.T, away func()) {
	path := fmt.Sprintf("/v1/rooms/%d/messages", v.room)
	had := len(v.ann.Texts(t))
	v.cem.Must(t, "POST", path, map[string]any{"msg": fmt.Sprintf("before %d", had)}, nil)
	v.sameEverywhere(t, had+1)
	away()
	for _, b := range []*browser.Browser{v.ann, v.bob} {
		eventually(t, "the page says that it is away", func() bool { return b.Text(t, "status") != "Connected" })
	}
	var missed []string
	for i := range 5 {
		missed = append(missed, fmt.Sprintf("missed %d-%d", had, i))
		v.cem.Must(t, "POST", path, map[string]any{"msg": missed[i]}, nil)
	}
	v.ann.Say(t, fmt.Sprintf("written while away %d", had))
	if here := v.ann.Messages(t); here[len(here)-1].State != "sending" {
		t.Errorf("a message that cannot be sent is shown as %+v", here[len(here)-1])
	}
	v.connect = spawn(v.whole, v.connecting, contract.LayerConnect)
	v.tcp = v.enterAgain(t)
	for _, b := range []*browser.Browser{v.ann, v.bob} {
		b.Shows(t, "status", "Connected")
		b.Forgive("ERR_CONNECTION_REFUSED") // of the tries before it
	}
	v.sameEverywhere(t, had+1+len(missed)+1)
	if got := v.ann.Texts(t)[had+1 : had+1+len(missed)]; !slices.Equal(got, missed) {
		t.Errorf("after the reconnect: got %q, want %q", got, missed)
	}
	v.bob.Say(t, fmt.Sprintf("back %d", had))
	v.sameEverywhere(t, had+1+len(missed)+2)
}

// comeBackUnknown has a browser connect while nobody can be authenticated: it tries again, and nobody is logged out.
func (v *visit) comeBackUnknown(t *testing.T) {
	v.redis.Pause()
	defer v.redis.Resume()
	browser.Eval[bool](t, v.ann, `(dispatchEvent(new Event('offline')), dispatchEvent(new Event('online')), true)`)
	eventually(t, "another try", func() bool { return strings.Contains(v.ann.Text(t, "status"), "Reconnecting") })
	v.redis.Resume()
	v.ann.Shows(t, "status", "Connected")
	v.bob.Say(t, "still there?")
	eventually(t, "the message", func() bool { return slices.Contains(v.ann.Texts(t), "still there?") })
}

func (v *visit) scriptStaysText(t *testing.T) {
	had := len(v.ann.Texts(t))
	scripts := []string{
		`<img src=x onerror="document.title='owned'">`,
		`<script>document.title = 'owned'</script>`,
		`<a href="javascript:document.title='owned'">click</a>`,
	}
	v.bob.Say(t, scripts[0])
	for _, s := range scripts[1:] {
		v.tcp.Send(t, map[string]any{"op": 3, "roomId": v.room, "msg": s})
	}
	v.sameEverywhere(t, had+len(scripts))
	got := v.ann.Texts(t)[had:]
	for _, s := range scripts {
		if !slices.Contains(got, s) {
			t.Errorf("%q is not among %q", s, got)
		}
	}
	for _, b := range []*browser.Browser{v.ann, v.bob} {
		if n := browser.Eval[int](t, b, `document.querySelectorAll('.messages img, .messages script, .messages a').length`); n != 0 {
			t.Errorf("messages have become %d elements", n)
		}
		if title := browser.Eval[string](t, b, "document.title"); strings.Contains(title, "owned") {
			t.Errorf("a message ran as a script: %q", title)
		}
	}
}

func (v *visit) reload(t *testing.T) {
	want := v.ann.Texts(t)
	v.ann.Do(t, chromedp.Reload())
	v.ann.Shows(t, "me", "ann")
	v.ann.Shows(t, "status", "Connected")
	v.ann.Shows(t, "conversation-title", "tea & <b>cake</b>")
	eventually(t, "the same messages as before", func() bool { return slices.Equal(v.ann.Texts(t), want) })
}

func (v *visit) logOut(t *testing.T) {
	v.ann.Click(t, "logout")
	v.ann.Shows(t, "login-submit", "Log in")
	if kept := browser.Eval[int](t, v.ann, `localStorage.length`); kept != 0 {
		t.Errorf("%d items are kept after logging out", kept)
	}
	if status, _ := v.asAnn.Do(t, "GET", "/v1/me", nil); status != 401 {
		t.Errorf("the session answers %d after logging out, want 401", status)
	}
	v.bob.Shows(t, "online-count", "2")
	v.ann.Do(t, chromedp.Reload())
	v.ann.Shows(t, "login-submit", "Log in")
}

func (v *visit) sessionEnded(t *testing.T) {
	elsewhere, _ := login(t, v.one, "bob", password)
	elsewhere.Must(t, "DELETE", "/v1/sessions", nil, nil) // all others
	eventually(t, "a word on the login form", func() bool { return strings.Contains(v.bob.Text(t, "login-notice"), "session_ended") })
}

// noFaults is about the whole visit. First it shows that faults are seen.
func (v *visit) noFaults(t *testing.T) {
	browser.Eval[bool](t, v.bob, `(console.error('a fault on purpose'), true)`)
	v.bob.Provoked(t, "a fault on purpose")
	browser.Eval[bool](t, v.bob, `(document.head.append(Object.assign(document.createElement('script'), {textContent: 'document.title = "inline"'})), true)`)
	v.bob.Provoked(t, "Content Security Policy")
	v.ann.Faultless(t)
	v.bob.Faultless(t)
}
