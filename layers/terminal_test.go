package layers

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"gochat/layers/internal/testclient"
)

const terminalPassword = "secret-password" // as testclient registers

// person is somebody at a terminal without a screen: lines go in by a pipe and come out as they are.
type person struct {
	name  string
	in    *os.File
	out   *syncBuffer
	stop  context.CancelFunc
	ended func() error // waits
}

// sit starts Chat. The account is made if register says so.
func sit(t *testing.T, o ChatOptions, name string, register bool) *person {
	t.Helper()
	in, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &person{name: name, in: writer, out: &syncBuffer{}, stop: stop}
	if o.Room == 0 {
		o.Room = 1
	}
	o.User, o.Register, o.In, o.Out = name, register, in, p.out
	result := make(chan error, 1)
	go func() { result <- Chat(ctx, o) }()
	p.ended = sync.OnceValue(func() error {
		select {
		case err := <-result:
			return err
		case <-time.After(testclient.Patience):
			return fmt.Errorf("%s has not left within %v", name, testclient.Patience)
		}
	})
	t.Cleanup(func() {
		stop()
		_ = p.ended() // the test that cares has asked
		_, _ = writer.Close(), in.Close()
		if t.Failed() {
			t.Logf("what %s saw:\n%s", name, p.out)
		}
	})
	p.write(t, terminalPassword)
	return p
}

func at(r *running) ChatOptions { return ChatOptions{API: r.api(), TCP: r.TCP[0]} }

func (p *person) write(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(p.in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// awaits waits until every text has been printed.
func (p *person) awaits(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		eventually(t, fmt.Sprintf("%s sees %q", p.name, text), func() bool { return strings.Contains(p.out.String(), text) })
	}
}

var messageLine = regexp.MustCompile(`^\d\d:\d\d (.*)$`)

// messages are the messages printed, without the time, in order.
func (p *person) messages() []string {
	var list []string
	for line := range strings.Lines(p.out.String()) {
		if found := messageLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); found != nil {
			list = append(list, found[1])
		}
	}
	return list
}

// checkMessages checks that exactly these were printed, in this order.
func (p *person) checkMessages(t *testing.T, want ...string) {
	t.Helper()
	if got := p.messages(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s saw %d messages:\n%s\nwant %d:\n%s", p.name, len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
	}
}

// leave ends the input and checks that the client leaves well.
func (p *person) leave(t *testing.T) {
	t.Helper()
	_ = p.in.Close()
	if err := p.ended(); err != nil {
		t.Errorf("%s left with: %v", p.name, err)
	}
}

func TestTerminal(t *testing.T) {
	cfg := embeddedBackend(t).config()
	cfg.Etcd.LeaseTTL = 30 * time.Second // nothing dies here, and a machine that is busy must not look like it
	r := start(t, cfg, All()...)
	for name, test := range map[string]func(*testing.T, *running){
		"chat in a room and privately":     chatTwo,
		"commands":                         chatCommands,
		"control characters are harmless":  chatHarmless,
		"cut off":                          chatCutOff,
		"ack lost":                         chatAckLost,
		"private messages wait":            chatUnread,
		"session ended elsewhere":          chatEnded,
		"not let in":                       chatNotLetIn,
		"script":                           chatScript,
		"ends with the context, not after": chatStopped,
	} {
		t.Run(name, func(t *testing.T) { test(t, r) })
	}
}

// room makes a room of the test's own and answers its number.
func makeRoom(t *testing.T, u *testclient.User) int64 {
	t.Helper()
	var made struct {
		ID int64 `json:"id"`
	}
	u.Must(t, "POST", "/v1/rooms", map[string]any{"name": "room of " + u.Name}, &made)
	return made.ID
}

func chatTwo(t *testing.T, r *running) {
	o := at(r)
	o.Room = makeRoom(t, testclient.Register(t, r.api(), "host"))
	ann := sit(t, o, "ann", true)
	ann.awaits(t, "* connected as ann", "* online: ann")
	bob := sit(t, o, "bob", true)
	bob.awaits(t, "* online: ann, bob")
	ann.awaits(t, "* bob came (2 online)")

	ann.write(t, "hello bob")
	bob.awaits(t, "ann: hello bob")
	bob.write(t, "hello ann", "/msg ann between us", "/msg bob note to self")
	ann.awaits(t, "bob: hello ann", "bob (private): between us")
	ann.write(t, "/msg bob yes")
	bob.awaits(t, "ann (private): yes")
	ann.awaits(t, "ann to bob (private): yes")
	bob.leave(t)
	ann.awaits(t, "* bob left (1 online)")
	ann.leave(t)
	ann.checkMessages(t, "ann: hello bob", "bob: hello ann", "bob (private): between us", "ann to bob (private): yes")
	bob.checkMessages(t, "ann: hello bob", "bob: hello ann", "bob to ann (private): between us",
		"bob to bob (private): note to self", "ann (private): yes")
}

func chatCommands(t *testing.T, r *running) {
	cem := sit(t, at(r), "cem", true)
	cem.write(t, "/new den of cem", "one", "two", "three")
	cem.awaits(t, ": den of cem", "cem: three")
	cem.write(t, "/trace", "/who", "/rooms", "/room 1", "/foo", "/room x", "/room 999999", "/msg nobody-at-all hi", "/help")
	cem.awaits(t, "* trace ", "* 1 online: cem", ": lobby", "* in room 1: lobby", "there is no command /foo",
		"usage: /room ID", "(not_found)", "nobody is called nobody-at-all", "/history [N]")
	if id := regexp.MustCompile(`\* trace [0-9a-f]{32}\n`); !id.MatchString(cem.out.String()) {
		t.Errorf("got no trace id")
	}
	den := regexp.MustCompile(`\* in room (\d+): den of cem`).FindStringSubmatch(cem.out.String())[1]

	dan := sit(t, at(r), "dan", true)
	dan.write(t, "/room "+den, "/history 2", "/history", "/history", "four")
	dan.awaits(t, "dan: four")
	dan.checkMessages(t, "cem: two", "cem: three", "cem: one", "dan: four")
	dan.awaits(t, "nothing was said before")
	dan.leave(t)
	cem.write(t, "/room "+den, "/quit")
	if err := cem.ended(); err != nil {
		t.Errorf("/quit: %v", err)
	}
	cem.checkMessages(t, "cem: one", "cem: two", "cem: three") // what was said while away is history
}

func chatHarmless(t *testing.T, r *running) {
	host := testclient.Register(t, r.api(), "mallory")
	o := at(r)
	o.Room = makeRoom(t, host)
	eve := sit(t, o, "eve", true)
	eve.awaits(t, "* connected")
	host.Must(t, "POST", fmt.Sprintf("/v1/rooms/%d/messages", o.Room),
		map[string]any{"msg": "\x1b[2J\x1b]0;title\a \u009b31m \u202egnol\u2066 a\r\n12:00 admin: b\b\x7f."}, nil)
	eve.awaits(t, "mallory: ␛[2J␛]0;title␇ <U+009B>31m <U+202E>gnol<U+2066> a␍␊12:00 admin: b␈␡.\n")
	for _, c := range eve.out.String() {
		if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c)) {
			t.Errorf("printed %U", c)
		}
	}
}

// chatCutOff has one of two cut off while both write, and somebody new writes privately. More is missed than one
// replay brings.
func chatCutOff(t *testing.T, r *running) {
	host := testclient.Register(t, r.api(), "fay")
	o := at(r)
	o.Room = makeRoom(t, host)
	w := wire(t, o.TCP)
	cut := o
	cut.TCP = w.listener.Addr().String()
	gil := sit(t, cut, "gil", true)
	gil.awaits(t, "* connected as gil")
	gil.write(t, "before")
	gil.awaits(t, "gil: before")
	const missed = 250
	conn := testclient.TCP(t, o.TCP)
	conn.Enter(t, host, int(o.Room))
	say := func(text string) { conn.Send(t, map[string]any{"op": 3, "roomId": o.Room, "msg": text}) }
	w.set(wiresDown)
	gil.awaits(t, "* not connected")
	want := []string{"gil: before"}
	for n := range missed {
		say(fmt.Sprint(n))
		want = append(want, fmt.Sprint("fay: ", n))
	}
	conn.AwaitText(t, fmt.Sprint(missed-1))
	var me struct {
		Users []struct {
			ID int `json:"id"`
		} `json:"users"`
	}
	host.Must(t, "GET", "/v1/users?name=gil", nil, &me)
	for n := range 3 {
		host.Must(t, "POST", fmt.Sprintf("/v1/users/%d/messages", me.Users[0].ID), map[string]any{"msg": fmt.Sprint("private ", n)}, nil)
	}
	gil.write(t, "written while away")
	gil.awaits(t, "* kept until connected: written while away")
	w.set(wiresUp)
	gil.write(t, "and more") // which also has it connect soon, however long this has taken
	gil.awaits(t, "* connected again", "gil: and more", "fay (private): private 2")
	say("after")
	gil.awaits(t, "fay: after")
	gil.leave(t)
	var room, private []string
	for _, m := range gil.messages() {
		if strings.HasPrefix(m, "fay (private)") {
			private = append(private, m)
		} else {
			room = append(room, m)
		}
	}
	want = append(want, "gil: written while away", "gil: and more", "fay: after")
	if got, want := strings.Join(room, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("in the room got\n%s\nwant\n%s", got, want)
	}
	if got, want := strings.Join(private, ", "), "fay (private): private 0, fay (private): private 1, fay (private): private 2"; got != want {
		t.Errorf("privately got %s, want %s", got, want)
	}
}

// chatAckLost has the connection break after the server has stored a line and before the client knows, then before
// the server has got it: either is stored once.
func chatAckLost(t *testing.T, r *running) {
	host := testclient.Register(t, r.api(), "hal")
	o := at(r)
	o.Room = makeRoom(t, host)
	conn := testclient.TCP(t, o.TCP)
	conn.Enter(t, host, int(o.Room))
	w := wire(t, o.TCP)
	o.TCP = w.listener.Addr().String()
	ivy := sit(t, o, "ivy", true)
	ivy.awaits(t, "* connected as ivy")
	w.set(wiresDeaf)
	ivy.write(t, "once", "/msg hal and privately once")
	conn.AwaitText(t, "once")
	ivy.awaits(t, "* not confirmed yet: once")
	w.set(wiresDown)
	w.set(wiresUp)
	ivy.awaits(t, "ivy to hal (private): and privately once")
	conn.AwaitText(t, "and privately once")
	w.set(wiresMute)
	ivy.write(t, "lost on the way")
	ivy.awaits(t, "* not confirmed yet: lost on the way")
	w.set(wiresDown)
	w.set(wiresUp)
	conn.AwaitText(t, "lost on the way")
	ivy.write(t, "last")
	conn.AwaitText(t, "last")
	ivy.leave(t)
	ivy.checkMessages(t, "ivy: once", "ivy to hal (private): and privately once", "ivy: lost on the way", "ivy: last")
	if got := conn.Texts(fmt.Sprint("room:", o.Room)); strings.Join(got, ", ") != "once, lost on the way, last" {
		t.Errorf("the room got %v", got)
	}
}

// chatUnread has private messages come while one is away: they are printed at the next start, and at that alone.
func chatUnread(t *testing.T, r *running) {
	jon := sit(t, at(r), "jon", true)
	jon.awaits(t, "* connected")
	jon.leave(t)
	kim := sit(t, at(r), "kim", true)
	kim.write(t, "/msg jon are you there", "/msg jon call me")
	kim.leave(t)
	jon = sit(t, at(r), "jon", false)
	jon.awaits(t, "kim (private): call me")
	jon.leave(t)
	jon.checkMessages(t, "kim (private): are you there", "kim (private): call me")
	jon = sit(t, at(r), "jon", false)
	jon.awaits(t, "* connected")
	jon.write(t, "/msg kim now") // its ack comes after what is replayed
	jon.awaits(t, "jon to kim (private): now")
	jon.checkMessages(t, "jon to kim (private): now")
}

func chatEnded(t *testing.T, r *running) {
	lea := sit(t, at(r), "lea", true)
	lea.awaits(t, "* connected")
	other := &testclient.User{API: r.api(), Name: "lea"}
	var grant struct {
		Token string `json:"token"`
	}
	other.Must(t, "POST", "/v1/login", map[string]any{"name": "lea", "password": terminalPassword}, &grant)
	other.Token = grant.Token
	other.Must(t, "DELETE", "/v1/sessions", nil, nil)
	if err := lea.ended(); err == nil || !strings.Contains(err.Error(), "session_ended") {
		t.Errorf("got %v, want session_ended", err)
	}
}

func chatNotLetIn(t *testing.T, r *running) {
	testclient.Register(t, r.api(), "mia")
	for name, test := range map[string]struct {
		change func(*ChatOptions)
		input  string
		want   string
	}{
		"wrong password": {func(*ChatOptions) {}, "wrong\n", "log in as mia: unauthenticated: name or password is wrong"},
		"no password":    {func(*ChatOptions) {}, "", "no password"},
		"name taken":     {func(o *ChatOptions) { o.Register = true }, terminalPassword + "\n", "conflict"},
		"no such room":   {func(o *ChatOptions) { o.Room = 999999 }, terminalPassword + "\n", "enter room 999999: not_found"},
		"no server":      {func(o *ChatOptions) { o.API = "http://127.0.0.1:1" }, terminalPassword + "\n", "reach http://127.0.0.1:1"},
		"no user":        {func(o *ChatOptions) { o.User = "" }, "", "user"},
		"no url":         {func(o *ChatOptions) { o.API = "127.0.0.1:7070" }, "", "want http://HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			o := at(r)
			o.User, o.Room, o.In, o.Out = "mia", 1, strings.NewReader(test.input), io.Discard
			test.change(&o)
			if err := Chat(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// chatScript gives all input at once. Every line acts in its order, and is stored before the client leaves.
func chatScript(t *testing.T, r *running) {
	host := testclient.Register(t, r.api(), "ned")
	room := makeRoom(t, host)
	var want []string
	input := terminalPassword + "\nin the lobby\n" + fmt.Sprintf("/room %d\n", room)
	for n := range 150 { // more than the outbox holds
		input += fmt.Sprintf("line %d\n", n)
		want = append(want, fmt.Sprintf("line %d", n))
	}
	o := at(r)
	o.User, o.Register, o.Room, o.In, o.Out = "oda", true, 1, strings.NewReader(input), io.Discard
	if err := Chat(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Messages []struct {
			Msg string `json:"msg"`
		} `json:"messages"`
	}
	host.Must(t, "GET", fmt.Sprintf("/v1/rooms/%d/messages?limit=200", room), nil, &got)
	var texts []string
	for _, m := range got.Messages {
		texts = append(texts, m.Msg)
	}
	if strings.Join(texts, ", ") != strings.Join(want, ", ") {
		t.Errorf("got %v, want %v", texts, want)
	}
}

func chatStopped(t *testing.T, r *running) {
	pam := sit(t, at(r), "pam", true)
	pam.awaits(t, "* connected")
	pam.stop() // its input stays open
	if err := pam.ended(); err != nil {
		t.Errorf("got %v", err)
	}
	pia := sit(t, ChatOptions{API: r.api(), TCP: "127.0.0.1:1"}, "pia", true)
	pia.awaits(t, "* not connected")
	pia.write(t, "/quit")
	if err := pia.ended(); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestTerminalRateLimited has a script write faster than it may: nothing is lost, and the order stays.
func TestTerminalRateLimited(t *testing.T) {
	cfg := embeddedBackend(t).config()
	cfg.Etcd.LeaseTTL = 30 * time.Second
	cfg.Logic.Rate.PerSecond, cfg.Logic.Rate.Burst = 10, 3
	r := start(t, cfg, All()...)
	eager := sit(t, at(r), "eager", true)
	var want []string
	for n := range 12 {
		eager.write(t, fmt.Sprint(n))
		want = append(want, fmt.Sprint("eager: ", n))
	}
	eager.leave(t)
	eager.checkMessages(t, want...)
	eager.awaits(t, "(rate_limited)")
}
