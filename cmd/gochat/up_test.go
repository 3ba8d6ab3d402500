package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds what another process is waited for.
const patience = time.Minute

// started is a `gochat up` that has said that it is ready.
type started struct {
	cmd   *exec.Cmd
	lines map[string]string // what it printed, by the first word of the line
}

// startUp runs `gochat up` as a process of its own and reads what it prints. The test ends with it, if not before.
func startUp(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"up", "--set", "log.level=error"}, args...)...)
	cmd.Env = append(os.Environ(), commandVariable+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended by itself
			_ = cmd.Wait()         // says that it was killed
		}
	})
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	s := &started{cmd: cmd, lines: map[string]string{}}
	out := bufio.NewScanner(stdout)
	for s.lines["admin"] == "" || s.lines["users"] == "" { // the last two
		if !out.Scan() {
			t.Fatalf("up ended, or was not ready within %v; it said %v", patience, s.lines)
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(out.Text()), " ")
		s.lines[word] = strings.TrimSpace(rest)
	}
	if s.lines["gochat"] != "is ready" {
		t.Errorf("got %v, want that it is ready", s.lines)
	}
	return s
}

// stop ends it as an operator does, and wants it to say that all went well.
func (s *started) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit code 0 within %v", err, patience)
	}
}

// base is the URL that a line names, without the slash at its end.
func (s *started) base(line string) string {
	return strings.TrimSuffix(regexp.MustCompile(`\w+://[^ ]+`).FindString(s.lines[line]), "/")
}

// addr is the "host:port" that a line names first.
func (s *started) addr(line string) string {
	return regexp.MustCompile(`[\w.]+:\d+`).FindString(s.lines[line])
}

// call makes a request and answers status, content type and body.
func call(t *testing.T, method, url, body string, header http.Header) (int, string, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "", "" // what follows has no end
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(answer)
}

// may logs somebody in, or registers them, by REST.
func (s *started) may(t *testing.T, verb, name, password string) int {
	t.Helper()
	body := fmt.Sprintf(`{"name":%q,"password":%q}`, name, password)
	status, _, _ := call(t, http.MethodPost, s.base("API")+"/v1/"+verb, body, http.Header{"Content-Type": {"application/json"}})
	return status
}

// answersPing says op 10 on a tcp socket and wants op 11 back.
func answersPing(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	const ping, pong = `{"op":10}`, `"op":11`
	if _, err := conn.Write(append([]byte{'v', '1', 0, byte(4 + len(ping))}, ping...)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, int(head[2])<<8+int(head[3])-len(head))
	if _, err := io.ReadFull(conn, answer); err != nil || !strings.Contains(string(answer), pong) {
		t.Errorf("tcp at %s answered a ping with %q, %v", addr, answer, err)
	}
}

// TestUpSaysWhereItIs runs the command as people do: every address that it prints answers as what it is said to be,
// it ends with code 0 when it is told to, and started again it knows who was there.
func TestUpSaysWhereItIs(t *testing.T) {
	args := []string{"--data-dir", filepath.Join(t.TempDir(), "data"), "--site-port", "0", "--api-port", "0",
		"--websocket-port", "0", "--tcp-ports", "0,0", "--admin-port", "0"}
	up := startUp(t, args...)
	for _, c := range []struct {
		url, kind, holds string
	}{
		{up.base("page") + "/", "text/html", "<html"},
		{up.base("API") + "/v1/openapi.json", "application/json", `"openapi"`},
		{up.base("admin") + "/healthz", "text/plain", "ok"},
		{up.base("admin") + "/metrics", "text/plain", "gochat_build_info{"},
	} {
		status, kind, body := call(t, http.MethodGet, c.url, "", nil)
		if status == http.StatusServiceUnavailable && strings.Contains(body, "page is not built") {
			status = http.StatusOK // a binary built without it says so there
		}
		if status != http.StatusOK || !strings.HasPrefix(kind, c.kind) || !strings.Contains(body, c.holds) {
			t.Errorf("GET %s: %d %s, want 200 %s and %q in %.200q", c.url, status, kind, c.kind, c.holds, body)
		}
	}
	eventually(t, "ready once a message has come through", func() bool {
		status, _, body := call(t, http.MethodGet, up.base("admin")+"/readyz", "", nil)
		return status == http.StatusOK && strings.Contains(body, `"ready": true`) && strings.Contains(body, `"connect: canary"`)
	})
	socket := strings.Replace(up.base("websocket"), "ws://", "http://", 1)
	if status, _, _ := call(t, http.MethodGet, socket, "", http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}); status != http.StatusSwitchingProtocols {
		t.Errorf("%s answered an upgrade with %d, want 101", socket, status)
	}
	sockets := strings.Split(up.lines["tcp"], ", ")
	if len(sockets) != 2 {
		t.Errorf("tcp at %q, want both ports", sockets)
	}
	for _, addr := range sockets {
		answersPing(t, addr)
	}
	names, password, _ := strings.Cut(up.lines["users"], " with password ")
	for _, name := range strings.Split(names, ", ") {
		if status := up.may(t, "login", name, password); status != http.StatusOK {
			t.Errorf("%s cannot log in with %s: %d", name, password, status)
		}
	}
	if status := up.may(t, "register", "own", "a password of one's own"); status/100 != 2 {
		t.Errorf("register: %d", status)
	}
	up.stop(t)

	again := startUp(t, args...)
	if status := again.may(t, "login", "own", "a password of one's own"); status != http.StatusOK {
		t.Errorf("who was registered before cannot log in: %d", status)
	}
	if status := again.may(t, "login", "own", "another password"); status != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d, want 401", status)
	}
	again.stop(t)
}

// TestUpListensWhereItIsTold: the host and the port of the flags are those of the sockets, and of what is printed.
func TestUpListensWhereItIsTold(t *testing.T) {
	const host = "127.0.0.2" // loopback as well, so that nothing of the test is public
	free, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Skipf("%s is not an address of this machine: %v", host, err)
	}
	want := free.Addr().String()
	_, port, err := net.SplitHostPort(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	up := startUp(t, "--data-dir", t.TempDir(), "--listen-host", host, "--api-port", port, "--site-port", "0",
		"--websocket-port", "0", "--tcp-ports", "0", "--admin-port", "0")
	if got := up.addr("API"); got != want {
		t.Errorf("the API is said to be at %s, want %s", got, want)
	}
	if status, _, _ := call(t, http.MethodGet, "http://"+want+"/v1/openapi.json", "", nil); status != http.StatusOK {
		t.Errorf("the API at %s: %d, want 200", want, status)
	}
	for _, line := range []string{"page", "API", "websocket", "tcp"} {
		if got := up.addr(line); !strings.HasPrefix(got, host+":") {
			t.Errorf("%s is said to be at %s, want it on %s", line, got, host)
		}
	}
	for _, line := range []string{"page", "API", "websocket"} {
		at := up.addr(line)
		elsewhere := strings.Replace(at, host, loopback, 1)
		conn, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		_ = conn.Close() // it was opened to see that it can be
		if conn, err := net.DialTimeout("tcp", elsewhere, patience); err == nil {
			_ = conn.Close()
			t.Errorf("%s is at %s too", line, elsewhere)
		}
	}
	answersPing(t, up.addr("tcp"))
	if got := up.addr("admin"); !strings.HasPrefix(got, loopback+":") {
		t.Errorf("admin is at %s, want it on %s whatever the others", got, loopback)
	}
	up.stop(t)
}
