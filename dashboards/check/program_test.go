package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDashboardsAndRules checks what is in this module against the metrics of the program of this repository, asked of it while
// it runs.
func TestDashboardsAndRules(t *testing.T) {
	program := "http://" + admin(t)
	found, err := run(program+"/debug/metrics", program+"/metrics", os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// admin builds and runs gochat, with traces on their way to where nobody is so that it has the metrics of these too, and answers
// its admin server's address.
func admin(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gochat")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/gochat")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "up", "--data-dir", t.TempDir(), "--admin-port", "0", "--api-port", "0", "--site-port", "0",
		"--websocket-port", "0", "--tcp-ports", "0")
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, log)
		if err := cmd.Wait(); err != nil {
			t.Errorf("gochat up: %v", err)
		}
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Admin string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			late.Stop()
			return line.Admin
		}
	}
	t.Fatal("gochat is not ready within a minute")
	return ""
}

// TestRules has promtool look at the rules, and run their tests.
func TestRules(t *testing.T) {
	for _, c := range []struct{ name, files string }{{"check", "../rules/*.yml"}, {"test", "../rules/tests/*.yml"}} {
		t.Run(c.name, func(t *testing.T) {
			files, err := filepath.Glob(c.files)
			if err != nil || len(files) == 0 {
				t.Fatalf("no files %s: %v", c.files, err)
			}
			out, err := exec.CommandContext(t.Context(), "promtool", append([]string{c.name, "rules"}, files...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "SUCCESS") {
				t.Errorf("promtool %s rules: %v\n%s", c.name, err, out)
			}
		})
	}
}
