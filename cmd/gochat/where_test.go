package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// gochat runs the command as people do, and answers what it printed and its exit code.
func gochat(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), commandVariable+"=1")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	return out.String(), errs.String(), code
}

// TestWhere asks for a message by the command, and by the URL that the README names.
func TestWhere(t *testing.T) {
	up := startUp(t, "--data-dir", t.TempDir(), "--site-port", "0", "--api-port", "0", "--websocket-port", "0", "--tcp-ports", "0", "--admin-port", "0")
	header := http.Header{"Content-Type": {"application/json"}}
	_, _, body := call(t, http.MethodPost, up.base("API")+"/v1/register", `{"name":"ann","password":"password"}`, header)
	var ann struct{ Token string }
	if err := json.Unmarshal([]byte(body), &ann); err != nil {
		t.Fatal(err)
	}
	header.Set("Authorization", "Bearer "+ann.Token)
	_, _, body = call(t, http.MethodPost, up.base("API")+"/v1/rooms/1/messages", `{"msg":"a text that nobody else may see"}`, header)
	var m struct{ ID, TraceID string }
	if err := json.Unmarshal([]byte(body), &m); err != nil || m.ID == "" {
		t.Fatal(err, body)
	}
	admin := up.base("admin")
	out, errs, code := gochat(t, "where", m.ID, "--admin", admin)
	for _, want := range []string{"message " + m.ID + " in room:1, seq 1, from ann (", "trace " + m.TraceID, "accepted by logic-", "committed alone"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if code != 0 || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	out, _, code = gochat(t, "where", m.ID, "--admin", admin, "--json")
	var answer struct{ ID, State, TraceID string }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 || answer.ID != m.ID || answer.TraceID != m.TraceID || answer.State == "" {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	if strings.Contains(out, "nobody else") {
		t.Errorf("the text is told:\n%s", out)
	}
	for _, c := range []struct {
		want int
		says string
		args []string
	}{
		{1, "message 12345: no message has this id", []string{"12345", "--admin", admin}},
		{1, "ask where message 12345 is", []string{"12345", "--admin", "http://127.0.0.1:1"}},
		{1, "it does not know where messages are", []string{"12345", "--admin", up.base("API")}},
		{2, `"twelve" is no message id`, []string{"twelve", "--admin", admin}},
		{2, "want MESSAGE_ID", nil},
		{2, "want MESSAGE_ID", []string{"1", "2"}},
		{2, "want http://HOST:PORT", []string{"1", "--admin", "here"}},
		{2, "unknown flag", []string{"1", "--nothing"}},
	} {
		out, errs, code := gochat(t, append([]string{"where"}, c.args...)...)
		if code != c.want || !strings.HasPrefix(errs, "gochat: ") || !strings.Contains(errs, c.says) || out != "" {
			t.Errorf("%s: exit code %d, %q and %q; want %d and %q", fmt.Sprint(c.args), code, out, errs, c.want, c.says)
		}
	}
	up.stop(t)
}
