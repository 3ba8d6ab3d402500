package seedtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The runner must find every way in which an answer can differ, or the scenarios prove nothing.
func TestPlayFindsDifferences(t *testing.T) {
	const ask = "POST /x {}\n"
	cases := []struct {
		name, answer, scenario, want string
	}{
		{"equal", `{"code":0,"message":"ok","data":null}`, ask + `200 {"code":0,"message":"ok","data":null}`, ""},
		{"order of fields is free", `{"data":null,"code":0}`, ask + `200 {"code":0,"data":null}`, ""},
		{"null is not an empty string", `{"data":null}`, ask + `200 {"data":""}`, "data: got <nil>"},
		{"a number is not a string", `{"code":"0"}`, ask + `200 {"code":0}`, "code: got 0"},
		{"field missing", `{"code":0}`, ask + `200 {"code":0,"data":null}`, "want map"},
		{"field added", `{"code":0,"extra":1}`, ask + `200 {"code":0}`, "want map"},
		{"field renamed", `{"cod":0}`, ask + `200 {"code":0}`, "want map"},
		{"status", `{}`, ask + `404 {}`, "status 200, want 404"},
		{"two bodies", `{}{}`, ask + `200 {}`, "more than one"},
		{"not JSON", `ok`, ask + `200 {}`, "invalid character"},
		{"name keeps its value", `{"a":"v","b":"w"}`, ask + `200 {"a":"<n>","b":"<any>"}` + "\n" + ask + `200 {"a":"<any>","b":"<n>"}`, "b: got w"},
		{"name takes a number", `{"a":7}`, ask + `200 {"a":"<n>"}` + "\n" + `POST /x {"a":"<n>"}` + "\n" + `200 {"a":"<n>"}`, ""},
		{"name takes no null", `{"a":null}`, ask + `200 {"a":"<n>"}`, "a: got <nil>"},
		{"unknown name in a request", `{}`, `POST /x {"a":"<n>"}` + "\n200 {}", "<n> has no value yet"},
		{"a failure that says ok", `{"message":"ok"}`, ask + `200 {"message":"<error>"}`, "message: got ok"},
		{"a failure that says nothing", `{"message":""}`, ask + `200 {"message":"<error>"}`, "message: got "},
		{"a failure that explains itself", `{"message":"no such room"}`, ask + `200 {"message":"<error>"}`, ""},
		{"request without an answer", `{}`, ask, "no answer"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, c.answer)
			}))
			defer server.Close()
			err := play(server.Client(), server.URL, []byte(c.scenario))
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNewNamesDiffer(t *testing.T) {
	a, b := names{}, names{}
	first, err := a.fill(`{"userName":"<new:alice>"}`)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.fill(`{"userName":"<new:alice>"}`)
	if err != nil {
		t.Fatal(err)
	}
	if first == second || a["alice"] == "" {
		t.Errorf("got %s and %s, want two names", first, second)
	}
}
