// Package seedtest plays exchanges of the seed's REST protocol, kept as text, against any server that claims to
// speak it: a handler under test, or a whole system by its address.
//
// A scenario is a file of exchanges in order, one line for the request and one for what must come back:
//
//	# what this shows
//	POST /user/register {"userName":"<new:alice>","passWord":"a password"}
//	200 {"code":0,"message":"register success","data":"<token>"}
//
// The request is method, path and, if there is one, the body, sent as it stands. The answer is the status and the
// whole JSON body: no field may be missing and none added. "<new:NAME>" in a request makes a word that no earlier
// run has used. "<NAME>" as a whole string of an answer takes the value that is there, a string or a number, which
// must be the same wherever the name stands again; in a request it is that value. "<any>" matches every value,
// "<error>" every message that does not say that all is well.
package seedtest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Run plays every *.txt of the scenarios against the server at baseURL ("http://host:port"), each as a subtest
// with names of its own. A scenario ends at its first difference, since what follows builds on it.
func Run(t *testing.T, baseURL string, scenarios fs.FS) {
	t.Helper()
	names, err := fs.Glob(scenarios, "*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("find scenarios: %d of them, error %v", len(names), err)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, name := range names {
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) {
			text, err := fs.ReadFile(scenarios, name)
			if err != nil {
				t.Fatal(err)
			}
			if err := play(client, baseURL, text); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// exchange is one request and its answer.
type exchange struct {
	line               int
	method, path, body string
	status             int
	want               string
}

func play(client *http.Client, baseURL string, text []byte) error {
	exchanges, err := parse(text)
	if err != nil {
		return err
	}
	known := names{}
	for _, x := range exchanges {
		if err := x.play(client, baseURL, known); err != nil {
			return fmt.Errorf("line %d: %s %s: %w", x.line, x.method, x.path, err)
		}
	}
	return nil
}

func parse(text []byte) ([]exchange, error) {
	var all []exchange
	var open bool // a request waits for its answer
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		first, rest, _ := strings.Cut(line, " ")
		if !open {
			path, body, _ := strings.Cut(rest, " ")
			all = append(all, exchange{line: n, method: first, path: path, body: body})
		} else {
			status, err := strconv.Atoi(first)
			if err != nil || rest == "" {
				return nil, fmt.Errorf("line %d: want a status and a body", n)
			}
			all[len(all)-1].status, all[len(all)-1].want = status, rest
		}
		open = !open
	}
	if open || len(all) == 0 {
		return nil, fmt.Errorf("the last request has no answer, or there is none")
	}
	return all, lines.Err()
}

func (x exchange) play(client *http.Client, baseURL string, known names) error {
	body, err := known.fill(x.body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(x.method, baseURL+x.path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != x.status {
		return fmt.Errorf("status %d, want %d; body %s", answer.StatusCode, x.status, raw)
	}
	if ct := answer.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		return fmt.Errorf("content type %q, want application/json", ct)
	}
	got, err := decode(raw)
	if err != nil {
		return fmt.Errorf("answer %q: %w", raw, err)
	}
	want, err := decode([]byte(x.want))
	if err != nil {
		return fmt.Errorf("scenario %q: %w", x.want, err)
	}
	if err := known.match("", got, want); err != nil {
		return fmt.Errorf("%w; body %s", err, raw)
	}
	return nil
}

func decode(raw []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return v, nil
}

// names are the values that have been seen or made.
type names map[string]string

func (n names) fill(body string) (string, error) {
	var err error
	placeholder := regexp.MustCompile(`<(new:)?([A-Za-z][A-Za-z0-9]*)>`)
	filled := placeholder.ReplaceAllStringFunc(body, func(p string) string {
		name := strings.Trim(p, "<>")
		if fresh, ok := strings.CutPrefix(name, "new:"); ok {
			n[fresh] = fresh + "-" + strings.ToLower(rand.Text()[:12])
			return n[fresh]
		}
		v, ok := n[name]
		if !ok {
			err = fmt.Errorf("%s has no value yet", p)
		}
		return v
	})
	return filled, err
}

func (n names) match(at string, got, want any) error {
	differs := fmt.Errorf("%s: got %v, want %v", strings.TrimPrefix(at, "."), got, want)
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok || len(object) != len(want) {
			return differs
		}
		for name := range want {
			v, ok := object[name]
			if !ok {
				return differs
			}
			if err := n.match(at+"."+name, v, want[name]); err != nil {
				return err
			}
		}
		return nil
	case string:
		if ok, is := n.matchName(want, got); is {
			if !ok {
				return differs
			}
			return nil
		}
	}
	if got != want { // scalars alone: the protocol has no lists
		return differs
	}
	return nil
}

// matchName reports whether want is a placeholder and whether got is what it stands for.
func (n names) matchName(want string, got any) (ok, is bool) {
	name, found := strings.CutPrefix(want, "<")
	name, closed := strings.CutSuffix(name, ">")
	if !found || !closed {
		return false, false
	}
	switch name {
	case "any":
		return true, true
	case "error":
		s, _ := got.(string)
		fine := strings.HasPrefix(s, "ok") || strings.HasSuffix(s, "success") || strings.HasSuffix(s, "ok!")
		return s != "" && !fine, true
	}
	var value string
	switch v := got.(type) {
	case string:
		value = v
	case json.Number:
		value = v.String()
	}
	if known, ok := n[name]; ok {
		return value == known, true
	}
	n[name] = value
	return value != "", true
}
