package layers

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
)

// TestSeedCORS is what the seed's page, served from another port of the same host, has to be allowed by a browser.
func TestSeedCORS(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	for _, c := range []struct{ name, method, path, origin, allowed string }{
		{"preflight of the page", "OPTIONS", "/push/pushRoom", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"request of the page", "POST", "/user/checkAuth", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"preflight of a strange page", "OPTIONS", "/push/pushRoom", "http://evil.example", ""},
		{"request of a strange page", "POST", "/user/checkAuth", "http://evil.example", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, r.api()+c.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", c.origin)
			if c.method == http.MethodOptions {
				req.Header.Set("Access-Control-Request-Method", "POST")
				req.Header.Set("Access-Control-Request-Headers", "content-type")
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if got := resp.Header.Get("Access-Control-Allow-Origin"); got != c.allowed {
				t.Errorf("allowed origin %q, want %q", got, c.allowed)
			}
			headers := resp.Header.Get("Access-Control-Allow-Headers")
			if want := c.allowed != "" && c.method == http.MethodOptions; strings.Contains(headers, "content-type") != want {
				t.Errorf("allowed headers %q, want content-type among them: %v", headers, want)
			}
		})
	}
}

// TestSilentClients: a tcp client of the seed never answers a ping and stays; a websocket answers without its page
// knowing, and one that does not is dead.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	r := system(t, func(cfg *Config) { cfg.Connect.Ping = time.Second })
	ann := testclient.Register(t, r.api(), "ann")
	silent, answering, dead := dial(t, r, "tcp"), dial(t, r, "websocket"), dial(t, r, "websocket")
	for _, p := range []*peer{silent, answering, dead} {
		p.enter(ann, 1)
	}
	pings := 0
	answered := make(chan string, 1)
	go func() { // it answers pings while it waits, and so outlives the dead one
		got, err := "", error(nil)
		for got == "" && err == nil {
			var p packet
			switch p, err = answering.read(); {
			case err == nil && p.opcode == wsPing:
				answering.write(wsFrame(0x80|wsPong, p.payload))
			case err == nil && strings.Contains(p.String(), "still here"):
				got = p.String()
			}
		}
		answered <- got
	}()
	dead.wantEnd("unavailable", 1012)
	for pings < 4 {
		got, err := silent.read()
		if err != nil {
			t.Fatalf("the silent tcp client was cut off after %d pings: %v", pings, err)
		}
		if string(got.raw) == "v1\x00\x0d{\"op\":10}" {
			pings++
		}
	}
	silent.sends(1, "still here")
	if got := <-answered; got == "" {
		t.Error("the websocket that answers pings was cut off")
	}
}

// TestOkMeansStored stops the database while many send: every message of which anybody was told "ok", or got an
// ack, is there when the database is back.
func TestOkMeansStored(t *testing.T) {
	t.Parallel()
	database := testdeps.StartPostgres(t)
	b := embeddedBackend(t)
	b.database = database.URL
	migrated(t, b)
	cfg := patient(b.config())
	cfg.Logic.Commit.Timeout = 500 * time.Millisecond
	r := calm(t, start(t, cfg, All()...))
	ann := testclient.Register(t, r.api(), "ann")
	ws := testclient.WebSocket(t, r.WebSocket)
	ws.Enter(t, ann, 1)

	var mu sync.Mutex
	accepted := map[string]bool{}
	refused := 0
	note := func(text string, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if ok {
			accepted[text] = true
		} else {
			refused++
		}
	}
	count := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted), refused
	}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	finish := sync.OnceFunc(func() { close(stop); sending.Wait() })
	t.Cleanup(finish)
	for sender := range 3 {
		sending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprintf("%d-%d", sender, n)
				body := map[string]any{"authToken": ann.Token, "roomId": 1, "msg": text}
				_, answer, err := ann.Try("POST", "/push/pushRoom", body)
				note(text, err == nil && string(answer) == `{"code":0,"message":"ok","data":""}`)
				frame := map[string]any{"op": 3, "roomId": 1, "msg": "frame " + text, "clientId": text}
				if err := ws.TrySend(frame); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	eventually(t, "messages accepted", func() bool { ok, _ := count(); return ok > 20 })
	database.Stop(t)
	eventually(t, "messages refused", func() bool { _, no := count(); return no > 5 })
	ws.AwaitError(t, "unavailable")
	database.Start(t)
	before, _ := count()
	eventually(t, "messages accepted again", func() bool { ok, _ := count(); return ok > before+10 })
	finish()
	for _, f := range ws.Frames() {
		if f.Op() == 20 {
			accepted["frame "+f.Str("clientId")] = true
		}
	}

	there := map[string]bool{}
	for after, more := 0, true; more; {
		var page struct {
			Messages []testclient.Frame `json:"messages"`
			More     bool               `json:"more"`
		}
		ann.Must(t, "GET", fmt.Sprintf("/v1/rooms/1/messages?after=%d&limit=200", after), nil, &page)
		for _, m := range page.Messages {
			if m.Int("seq") != after+1 {
				t.Fatalf("seq %d follows %d", m.Int("seq"), after)
			}
			after = m.Int("seq")
			there[m.Str("msg")] = true
		}
		more = page.More
	}
	for text := range accepted {
		if !there[text] {
			t.Errorf("%q was accepted and is not stored", text)
		}
	}
}

// TestEveryEntranceIsTold: also who has another connection in the room already is told who is online.
func TestEveryEntranceIsTold(t *testing.T) {
	t.Parallel()
	r := system(t, nil)
	ann := testclient.Register(t, r.api(), "ann")
	for _, transport := range append(transports, transports...) {
		dial(t, r, transport).enter(ann, 1)
	}
}
