//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gochat/e2e/load"
)

type object = map[string]any

// frame is one that a client got. Numbers are float64.
type frame object

func (f frame) num(key string) int { n, _ := f[key].(float64); return int(n) }

func (f frame) str(key string) string { s, _ := f[key].(string); return s }

// user is an account with a session.
type user struct {
	target *target
	ID     int    `json:"userId"`
	Name   string `json:"name"`
	Token  string `json:"token"`
}

// do makes a request, as the user if there is one, and answers its status and body.
func (s *target) do(t testing.TB, u *user, method, path string, in any) (int, []byte) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(method, s.url(path), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if u != nil {
		request.Header.Set("Authorization", "Bearer "+u.Token)
	}
	response, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// must is do for what has to succeed; it reads the answer into out.
func (s *target) must(t testing.TB, u *user, method, path string, in, out any) {
	t.Helper()
	status, body := s.do(t, u, method, path, in)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, body)
	}
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, body)
		}
	}
}

func (s *target) register(t testing.TB, name string) *user {
	t.Helper()
	u := &user{target: s}
	s.must(t, nil, http.MethodPost, "/v1/register", object{"name": name, "password": "secret-password"}, u)
	return u
}

// conn is a connection whose frames are kept.
type conn struct {
	load.Link
	mu     sync.Mutex
	frames []frame
	ended  error
}

// transports are the ways in which a client of the target may connect.
func (s *target) transports() map[string]func(testing.TB) *conn {
	open := func(dial func() (load.Link, error)) func(testing.TB) *conn {
		return func(t testing.TB) *conn {
			t.Helper()
			link, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			return listen(t, link)
		}
	}
	all := map[string]func(testing.TB) *conn{
		"websocket": open(func() (load.Link, error) { return load.DialWebSocket(s.WebSocket[0], s.TLS) }),
		"tcp":       open(func() (load.Link, error) { return load.DialTCP(s.TCP[0], nil) }),
	}
	if s.tcpTLS != "" {
		all["tcp with TLS"] = open(func() (load.Link, error) { return load.DialTCP(s.tcpTLS, s.TLS) })
	}
	return all
}

// listen reads what comes until the connection ends, with the test at the latest.
func listen(t testing.TB, link load.Link) *conn {
	c := &conn{Link: link}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			data, err := link.Read()
			var f frame
			if err == nil {
				err = json.Unmarshal(data, &f)
			}
			c.mu.Lock()
			if err != nil {
				c.ended = err
				c.mu.Unlock()
				return
			}
			c.frames = append(c.frames, f)
			c.mu.Unlock()
			if f.num("op") == 10 {
				_ = link.Send(object{"op": 11})
			}
		}
	}()
	t.Cleanup(func() { link.Close(); <-done })
	return c
}

// find is the first frame that matches, nil if none has come.
func (c *conn) find(match func(frame) bool) frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if match(f) {
			return f
		}
	}
	return nil
}

// await waits for a frame that matches.
func (c *conn) await(t testing.TB, what string, match func(frame) bool) (f frame) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		if f = c.find(match); f != nil {
			return f
		}
		c.mu.Lock()
		got, ended := c.frames, c.ended
		c.mu.Unlock()
		if ended != nil || time.Now().After(deadline) {
			t.Fatalf("not come: %s; came %v, end %v", what, got[max(0, len(got)-5):], ended)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *conn) text(t testing.TB, text string) frame {
	t.Helper()
	return c.await(t, "the message "+text, func(f frame) bool { return f.str("msg") == text })
}

func (c *conn) op(t testing.TB, op int) frame {
	t.Helper()
	return c.await(t, fmt.Sprint("op ", op), func(f frame) bool { return f.num("op") == op })
}

func (c *conn) send(t testing.TB, frame any) {
	t.Helper()
	if err := c.Send(frame); err != nil {
		t.Fatal(err)
	}
}

// enter authenticates the connection and has it in the room, which everybody there is told.
func (c *conn) enter(t testing.TB, u *user, room int) {
	t.Helper()
	c.send(t, object{"op": 6, "authToken": u.Token, "roomId": room})
	c.await(t, u.Name+" in the room", func(f frame) bool {
		names, _ := f["roomUserInfo"].(map[string]any)
		_, in := names[fmt.Sprint(u.ID)]
		return f.num("op") == 5 && in
	})
}

// unique is a name that no earlier run has taken.
func unique(name string) string {
	return name + "-" + strings.ReplaceAll(time.Now().UTC().Format("150405.000000"), ".", "")
}
