package main

import (
	"strings"
	"testing"

	"gochat/observability"
)

// TestHealth asks a process that is ready, and one that is not there.
func TestHealth(t *testing.T) {
	up := startUp(t, "--data-dir", t.TempDir(), "--site-port", "0", "--api-port", "0", "--websocket-port", "0", "--tcp-ports", "0", "--admin-port", "0",
		"--set", "canary.interval=0s")
	admin := strings.TrimPrefix(up.base("admin"), "http://")
	if out, errs, code := gochat(t, "health", "--set", "admin.listen="+admin); out != "ready\n" || errs != "" || code != 0 {
		t.Errorf("got %q, %q, exit code %d, want ready", out, errs, code)
	}
	_, port, _ := strings.Cut(admin, ":")
	if out, errs, code := gochat(t, "health", "--set", "admin.listen=0.0.0.0:"+port); code != 0 {
		t.Errorf("bound anywhere: got %q, %q, exit code %d, want ready", out, errs, code)
	}
	api := strings.TrimPrefix(up.base("API"), "http://")
	for address, says := range map[string]string{"127.0.0.1:1": "refused", api: "no answer of an admin server", "nowhere": "admin.listen"} {
		if out, errs, code := gochat(t, "health", "--set", "admin.listen="+address); code != 1 || !strings.Contains(errs, says) || out != "" {
			t.Errorf("%s: got %q, %q, exit code %d, want 1 and %q", address, out, errs, code, says)
		}
	}
}

func TestPrintReadiness(t *testing.T) {
	var out strings.Builder
	err := printReadiness(&out, observability.Readiness{Checks: []observability.CheckResult{
		{Name: "logic: database", Reason: "refused"}, {Name: "logic: queue", Ready: true}, {Name: "logic: redis", Reason: "no answer in time"}}})
	if err == nil || err.Error() != "not ready: logic: database, logic: redis" {
		t.Errorf("got the error %v", err)
	}
	if want := "logic: database: refused\nlogic: redis: no answer in time\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:9100": "localhost:9100", "[::]:9100": "localhost:9100", ":9100": "localhost:9100", "10.0.0.7:9100": "10.0.0.7:9100"} {
		if got := reachable(listen); got != want {
			t.Errorf("%q: got %q, want %q", listen, got, want)
		}
	}
}
