package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testwait"
)

// fakeSystem answers as gochat does over REST and tcp, and misbehaves as it is told.
type fakeSystem struct {
	api, tcp string
	routes   map[string]http.HandlerFunc // instead of its own, by pattern
	// packet is told what a connection, counted from 0, has sent, and answers; false closes.
	packet                        func(conn int, op wire.Op) (answer []byte, ok bool)
	online                        atomic.Int64
	loggedIn, loggedOut, accepted atomic.Int64
}

func (f *fakeSystem) start(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"POST /v1/login": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"token":"t","userId":%d}`, f.loggedIn.Add(1))
		},
		"POST /v1/logout": func(http.ResponseWriter, *http.Request) { f.loggedOut.Add(1) },
		"GET /v1/rooms": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"rooms":[{"id":5,"name":"bench-room-0001"}]}`)
		},
		"GET /v1/rooms/5/online": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"count":%d}`, f.online.Load())
		},
	} {
		if other := f.routes[pattern]; other != nil {
			h = other
		}
		mux.HandleFunc(pattern, h)
	}
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.api, f.tcp = api.URL, l.Addr().String()
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for number := 0; ; number++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.accepted.Add(1)
			serving.Go(func() { f.serve(number, c) })
		}
	})
}

func (f *fakeSystem) serve(number int, c net.Conn) {
	f.online.Add(1)
	defer func() { f.online.Add(-1); _ = c.Close() }()
	packets := testclient.NewPackets(c)
	for {
		p, err := packets.Next()
		if err != nil {
			return
		}
		answer, ok := []byte(nil), true
		if op := opOf(p); f.packet != nil {
			answer, ok = f.packet(number, op)
		} else if op == wire.OpPing {
			answer = server(TCP, `{"op":11}`)
		}
		if _, err := c.Write(answer); err != nil || !ok {
			return
		}
	}
}

// options are those of a short run against it.
func (f *fakeSystem) options(t *testing.T) Options {
	o := Defaults()
	o.Scenario, o.Transport, o.API, o.TCP, o.Password = Idle, TCP, f.api, []string{f.tcp}, "password"
	o.Connections, o.For, o.Drain, o.JSON = 3, minDuration, testwait.Patience, filepath.Join(t.TempDir(), "report.json")
	return o
}

// bench runs the tool against it and answers the report that it has left, nil for none.
func (f *fakeSystem) bench(t *testing.T, ctx context.Context, change func(*Options)) (*Report, string, error) {
	t.Helper()
	o := f.options(t)
	change(&o)
	var out strings.Builder
	err := Run(ctx, o, &out, io.Discard)
	report, loadErr := load(o.JSON)
	if loadErr != nil && !errors.As(loadErr, new(*json.SyntaxError)) {
		t.Fatal(loadErr)
	}
	return report, out.String(), err
}

// TestInterrupted: wherever a run is, its end by a signal is soon and leaves a report that says so and finds no fault.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		system func(*fakeSystem, func()) // calls the other when it is time to interrupt
		up     int
	}{
		"logging in": {func(o *Options) { o.Logins = 1 }, func(f *fakeSystem, interrupt func()) {
			f.routes = map[string]http.HandlerFunc{"POST /v1/login": func(w http.ResponseWriter, r *http.Request) {
				if f.loggedIn.Add(1) < 3 {
					_, _ = io.WriteString(w, `{"token":"t","userId":1}`)
					return
				}
				interrupt()
				_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client's end
				<-r.Context().Done()
			}}
		}, 0},
		"finding rooms": {func(o *Options) { o.Scenario = Fanout }, func(f *fakeSystem, interrupt func()) {
			f.routes = map[string]http.HandlerFunc{"GET /v1/rooms": func(_ http.ResponseWriter, r *http.Request) {
				interrupt()
				<-r.Context().Done()
			}}
		}, 0},
		"connecting": {func(*Options) {}, func(f *fakeSystem, interrupt func()) {
			f.packet = func(conn int, op wire.Op) ([]byte, bool) {
				if op != wire.OpPing {
					return nil, true
				}
				if conn == 2 { // and never says more
					time.AfterFunc(time.Second, interrupt)
					return nil, true
				}
				return server(TCP, `{"op":11}`), true
			}
		}, 2},
		"holding": {func(o *Options) { o.For = time.Hour }, interruptAtPing, 3},
		"counting": {func(o *Options) { o.Scenario = Churn }, func(f *fakeSystem, interrupt func()) {
			interruptAtPing(f, interrupt)
			f.routes = map[string]http.HandlerFunc{"GET /v1/rooms/5/online": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"count":7}`) }}
		}, 3},
		"draining": {func(o *Options) { o.Scenario, o.Members, o.Senders, o.For = Fanout, 3, 1, minDuration }, interruptAtPing, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := new(fakeSystem)
			c.system(f, cancel)
			f.start(t)
			began := time.Now()
			report, out, err := f.bench(t, ctx, c.change)
			if report == nil {
				t.Fatalf("no report: %v", err)
			}
			faulty := name == "draining" // what it waits for is lost
			if !report.Interrupted || (err != nil) != faulty || report.Connections.Up != c.up || !strings.Contains(out, ", interrupted") {
				t.Errorf("got %v, %d up\n%s", err, report.Connections.Up, out)
			}
			if took := time.Since(began); took > testwait.Patience/2 {
				t.Errorf("it has ended after %v", took)
			}
			if in, end := f.loggedIn.Load(), f.loggedOut.Load(); end != in && name != "logging in" || end == 0 {
				t.Errorf("%d logged in, %d out", in, end)
			}
		})
	}
}

// interruptAtPing interrupts a second after the third connection has come up, and acknowledges no message.
func interruptAtPing(f *fakeSystem, interrupt func()) {
	f.packet = func(conn int, op wire.Op) ([]byte, bool) {
		if op != wire.OpPing {
			return nil, true
		}
		if conn == 2 {
			time.AfterFunc(time.Second, interrupt)
		}
		return server(TCP, `{"op":11}`), true
	}
}

// TestIdleForLong has connections that are pinged a hundred times each; the system ends one and forgets another.
func TestIdleForLong(t *testing.T) {
	t.Parallel()
	const pings = 100
	var answers [3]int
	f := new(fakeSystem)
	f.packet = func(conn int, op wire.Op) ([]byte, bool) {
		switch {
		case op == wire.OpPong && answers[conn] < pings-1:
			answers[conn]++
			return server(TCP, `{"op":10}`), true
		case op == wire.OpPong && conn == 1:
			return server(TCP, `{"op":21,"code":"session_ended","message":"m"}`), false
		case op == wire.OpPing && answers[conn] == 0:
			return append(server(TCP, `{"op":11}`), server(TCP, `{"op":10}`)...), true
		case op == wire.OpPing && conn == 0:
			return server(TCP, `{"op":11}`), true
		}
		return nil, true
	}
	f.start(t)
	report, out, err := f.bench(t, t.Context(), func(o *Options) { o.For, o.Drain = 3*time.Second, time.Second })
	if err == nil || report.Connections.Answers != 3*pings || report.Idle.Up != 2 || report.Idle.Mute != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"1 connections ended: end of stream after session_ended", "1 of 2 connections that were up did not answer a ping at the end"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

// TestChurnOfSharedUsers: what the server counts are users, which is told where they are fewer than the connections.
func TestChurnOfSharedUsers(t *testing.T) {
	t.Parallel()
	const note = "the server counts users: with 2 for 3 connections"
	for _, users := range []int{2, 3} {
		f := new(fakeSystem)
		f.routes = map[string]http.HandlerFunc{"GET /v1/rooms/5/online": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"count":%d}`, min(f.online.Load(), int64(users)))
		}}
		f.start(t)
		_, out, err := f.bench(t, t.Context(), func(o *Options) { o.Scenario, o.Users = Churn, users })
		if err != nil || strings.Contains(out, note) != (users == 2) {
			t.Errorf("%d users: %v\n%s", users, err, out)
		}
	}
}

// TestNoRedirect: a password goes nowhere but to the address that was judged.
func TestNoRedirect(t *testing.T) {
	t.Parallel()
	other := new(fakeSystem)
	other.start(t)
	f := &fakeSystem{routes: map[string]http.HandlerFunc{"POST /v1/login": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.api+"/v1/login", http.StatusTemporaryRedirect)
	}}}
	f.start(t)
	o := f.options(t)
	if err := Run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "307") || other.loggedIn.Load() > 0 {
		t.Errorf("got %v, and %d logins elsewhere", err, other.loggedIn.Load())
	}
}

// TestSilentNotUp: a silent member who could not enter has not been closed as slow.
func TestSilentNotUp(t *testing.T) {
	t.Parallel()
	f := new(fakeSystem)
	f.packet = func(conn int, op wire.Op) ([]byte, bool) {
		if op == wire.OpPing && conn < 3 {
			return server(TCP, `{"op":11}`), true
		}
		return nil, true
	}
	f.start(t)
	report, out, err := f.bench(t, t.Context(), func(o *Options) {
		o.Scenario, o.Members, o.Senders, o.Silent, o.Drain = Slow, 2, 1, 2, time.Second
	})
	if p := report.Phases; len(p) != 2 || p[1].Silent != 1 || p[1].SilentClosed != 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFailedCallKeepsReport: what was measured before a call failed is told, with the failure among its faults.
func TestFailedCallKeepsReport(t *testing.T) {
	t.Parallel()
	f := new(fakeSystem)
	f.routes = map[string]http.HandlerFunc{"GET /v1/rooms/5/online": func(w http.ResponseWriter, _ *http.Request) {
		if f.accepted.Load() > 3 { // in the second round
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = fmt.Fprintf(w, `{"count":%d}`, f.online.Load())
	}}
	f.start(t)
	report, out, err := f.bench(t, t.Context(), func(o *Options) { o.Scenario, o.For = Churn, time.Hour })
	if report == nil || len(report.Churn.Rounds) != 1 || len(report.Faults) != 1 || !strings.Contains(out, "502 Bad Gateway") {
		t.Fatalf("got %+v, %v\n%s", report, err, out)
	}
}

// TestNotWritable: a report that could not be kept is no reason to make load for it.
func TestNotWritable(t *testing.T) {
	t.Parallel()
	f := new(fakeSystem)
	f.start(t)
	o := f.options(t)
	o.JSON = t.TempDir() + "/none/report.json"
	err := Run(t.Context(), o, io.Discard, io.Discard)
	if usage := new(*UsageError); !errors.As(err, usage) || f.loggedIn.Load() != 0 {
		t.Errorf("got %v after %d logins", err, f.loggedIn.Load())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

// TestSavedThoughNotPrinted: nobody who reads the table is no reason to lose the file.
func TestSavedThoughNotPrinted(t *testing.T) {
	t.Parallel()
	f := new(fakeSystem)
	f.start(t)
	o := f.options(t)
	if err := Run(t.Context(), o, brokenWriter{}, io.Discard); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
	if _, err := load(o.JSON); err != nil {
		t.Error(err)
	}
}
