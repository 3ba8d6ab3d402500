// Package live runs gochat, its load tool and a Prometheus that scrapes it on loopback, and has the dashboards' own queries
// answered. Everything it starts ends with the test.
package live

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const patience = 60 * time.Second // for what takes a second on a machine that has time

// Build builds gochat, with these flags of the compiler, and answers the binary's path.
func Build(t testing.TB, flags ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gochat")
	build := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"build"}, flags, []string{"-o", bin, "./cmd/gochat"})...)
	build.Dir = "../.." // of a package two below the top
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// System is a gochat that runs.
type System struct {
	bin     string
	process *os.Process
	at      struct {
		API, WebSocket, Admin, Page string
		TCP                         []string
	}
}

// Admin is the address of its admin server.
func (s *System) Admin() string { return s.at.Admin }

// Up starts `gochat up` with these settings and waits until it is ready.
func Up(t testing.TB, bin string, settings ...string) *System {
	t.Helper()
	return UpBy(t, []string{bin}, settings...)
}

// UpBy is Up by another program, which is the first words.
func UpBy(t testing.TB, bin []string, settings ...string) *System {
	t.Helper()
	s := &System{bin: bin[len(bin)-1]}
	args := slices.Concat(bin[1:], []string{"up", "--data-dir", t.TempDir()})
	for _, port := range []string{"admin", "api", "rpc", "site", "websocket"} {
		args = append(args, "--"+port+"-port", "0")
	}
	args = append(args, "--tcp-ports", "0")
	for _, set := range append([]string{"auth.argon2.memory_kib=8", "auth.argon2.time=1"}, settings...) {
		args = append(args, "--set", set)
	}
	ready := make(chan []byte, 1)
	cmd := exec.Command(bin[0], args...)
	start(t, cmd, func(line []byte) {
		if strings.Contains(string(line), `"msg":"ready"`) {
			select {
			case ready <- bytes.Clone(line):
			default:
			}
		}
	})
	s.process = cmd.Process
	select {
	case line := <-ready:
		if err := json.Unmarshal(line, &s.at); err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("gochat is not ready")
	}
	return s
}

// start runs a command until the test ends, and has each see the lines that it writes. The last lines of it are shown if the
// test fails.
func start(t testing.TB, cmd *exec.Cmd, each func(line []byte)) {
	t.Helper()
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	var last []string
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if last = append(last, lines.Text()); len(last) > 30 {
				last = last[1:]
			}
			each(lines.Bytes())
		}
		_, _ = io.Copy(io.Discard, out)
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // what it ends with is shown by what it wrote
		kill.Stop()
		_ = in.Close()
		reading.Wait()
		if t.Failed() {
			t.Logf("%s wrote last:\n%s", filepath.Base(cmd.Path), strings.Join(last, "\n"))
		}
	})
}

// Bench runs a scenario of `gochat bench` against the system until it ends, and fails if anything was lost.
func (s *System) Bench(t testing.TB, scenario string, flags ...string) {
	t.Helper()
	args := append([]string{"bench", scenario, "--password", "bench-password", "--api", "http://" + s.at.API, "--websocket", s.at.WebSocket,
		"--tcp", s.at.TCP[0]}, flags...)
	if out, err := exec.CommandContext(t.Context(), s.bin, args...).CombinedOutput(); err != nil {
		t.Errorf("gochat bench %s: %v\n%s", scenario, err, out)
	}
}

// Prometheus scrapes each target, an admin server's address, every second, and evaluates rules as often.
type Prometheus struct{ api v1.API }

// Scrape starts a Prometheus with the rule files, for the targets.
func Scrape(t testing.TB, rules []string, targets ...string) *Prometheus {
	t.Helper()
	return ScrapeAlso(t, rules, "", targets...)
}

// ScrapeAlso is Scrape with further jobs, items of scrape_configs.
func ScrapeAlso(t testing.TB, rules []string, jobs string, targets ...string) *Prometheus {
	t.Helper()
	dir := t.TempDir()
	config := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files:\n"
	for _, file := range rules {
		whole, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		config += "  - " + whole + "\n"
	}
	config += fmt.Sprintf("scrape_configs:\n  - job_name: gochat\n    static_configs:\n      - targets: [%s]\n%s", strings.Join(targets, ", "), jobs)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	start(t, exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr,
		"--enable-feature=exemplar-storage", "--log.level=warn"), func([]byte) {})
	p := Dial(t, "http://"+addr)
	Eventually(t, "all targets are scraped", func() bool {
		got := p.tryAsk(t.Context(), `sum(up{job="gochat"})`)
		return len(got) == 1 && int(got[0].Value) == len(targets)
	})
	return p
}

// Dial is the Prometheus at the URL.
func Dial(t testing.TB, url string) *Prometheus {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: url})
	if err != nil {
		t.Fatal(err)
	}
	return &Prometheus{v1.NewAPI(client)}
}

// freeAddr is an address that nobody listened at a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Ask answers an instant query.
func (p *Prometheus) Ask(t testing.TB, expr string) model.Vector {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, _, _, err := p.api.Query(ctx, expr, time.Now())
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	switch got := got.(type) {
	case model.Vector:
		return got
	case *model.Scalar:
		return model.Vector{{Value: got.Value}}
	}
	t.Fatalf("%s: got a %s", expr, got.Type())
	return nil
}

func (p *Prometheus) tryAsk(ctx context.Context, expr string) model.Vector {
	got, _, _, err := p.api.Query(ctx, expr, time.Now())
	if err != nil {
		return nil
	}
	vector, _ := got.(model.Vector)
	return vector
}

// Highest is the highest value of the answer, and of which labels; 0 if there is none that is a number.
func Highest(v model.Vector) (highest float64, of model.Metric) {
	for _, s := range v {
		if value := float64(s.Value); value > highest {
			highest, of = value, s.Metric
		}
	}
	return highest, of
}

// Eventually waits until the condition holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v not yet: %s", patience, what)
		}
	}
}

// Panel is a panel of a dashboard's file.
type Panel struct {
	Board, Title, Type string
	Exprs              []string
}

// Panels are those of the dashboards in the directory.
func Panels(t testing.TB, dir string) (all []Panel) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards in %s: %v", dir, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				Title, Type string
				Targets     []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(content, &board); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, p := range board.Panels {
			one := Panel{Board: filepath.Base(file), Title: p.Title, Type: p.Type}
			for _, target := range p.Targets {
				one.Exprs = append(one.Exprs, target.Expr)
			}
			if p.Type != "row" {
				all = append(all, one)
			}
		}
	}
	return all
}

// Find is the panel of that title.
func Find(t testing.TB, all []Panel, board, title string) Panel {
	t.Helper()
	for _, p := range all {
		if p.Board == board && p.Title == title {
			return p
		}
	}
	t.Fatalf("%s has no panel %q", board, title)
	return Panel{}
}

// For is the expression with the dashboard's variables filled in: of this instance, over this time. An empty instance is all.
func For(expr, instance string, over time.Duration) string {
	if instance == "" {
		instance = ".*"
	}
	length := fmt.Sprintf("%ds", int(over.Seconds()))
	return strings.NewReplacer("$job", ".*", "$instance", instance, "$__rate_interval", length, "$__range", length).Replace(expr)
}

// Reachable reports whether the address answers.
func Reachable(url string) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
