//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"testing"
	"time"

	"gochat/e2e/load"
	"gochat/e2e/traces"
)

const (
	project = "gochat-e2e"
	gateway = "10.231.77.1" // this machine, as the containers of the layers see it; compose.yml says so
	buckets = 8             // of each connect node, likewise
	origin  = "https://chat.example"
)

// target is a system as its clients know it.
type target struct {
	load.Addresses
	tcpTLS   string   // host:port, "" if there is none
	page     string   // URL, as it is served
	opened   string   // URL, as people open it
	resolved string   // what a browser needs to know to find it there
	told     []string // addresses that the page is told
	origin   string   // of the page
	http     *http.Client
	spans    *traces.Collector
}

// url is that of a path of the API.
func (s *target) url(path string) string {
	if s.TLS != nil {
		return "https://" + s.API[0] + path
	}
	return "http://" + s.API[0] + path
}

// split is the system of docker/compose.yml, two of each layer.
type split struct {
	target
	t        testing.TB
	dir      string // of this run
	environ  []string
	somebody *user
}

// startSplit starts it with this queue; it ends with the test.
func startSplit(t *testing.T, queue string) *split {
	t.Helper()
	s := &split{t: t, dir: t.TempDir()}
	disk := filepath.Join(s.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "tmpfs", "-o", "size=1g", "gochat-e2e", disk)
	t.Cleanup(func() { command(t, "umount", disk) })
	s.environ = append(os.Environ(),
		"E2E_DISK="+disk, "TRACE_SAMPLE_RATIO=1", "HTTPS_PORT="+freePort(t), "TCP_PORT="+freePort(t), "TCP_TLS_PORT="+freePort(t),
		"QUEUE_DRIVER="+queue, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "SECRETS="+filepath.Join(s.dir, "secrets"), "PUBLIC_ORIGIN="+origin, "PUBLIC_WEBSOCKET=wss://chat.example/ws")
	secrets := exec.Command("bash", "../docker/secrets.sh")
	secrets.Env = s.environ
	if out, err := secrets.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.down() // of a run that was cut off
	t.Cleanup(func() {
		if t.Failed() {
			s.keep()
		}
		s.down()
	})

	// The network first, so that this machine has its address in it.
	s.compose("up", "-d", "etcd1", "etcd2", "etcd3", "redis", "postgres")
	var err error
	if s.spans, err = traces.Listen(net.JoinHostPort(gateway, "0")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.spans.Close() })
	s.environ = append(s.environ, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.spans.URL)
	if queue != "redis" {
		s.compose("--profile", queue, "up", "-d", queue)
	}
	s.scale(2)

	certificate, err := os.ReadFile(filepath.Join(s.dir, "secrets", "tls_certificate"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certificate) {
		t.Fatal("tls_certificate is no certificate")
	}
	secure := &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	published := func(port string) string {
		return docker(t, "port", s.one("proxy").ID, port+"/tcp")
	}
	https := published("8443")
	s.target.Addresses = load.Addresses{API: []string{https}, WebSocket: []string{https}, TCP: []string{published("7001")}, TLS: secure}
	s.tcpTLS, s.page = published("7443"), "https://"+https+"/"
	s.opened, s.resolved = origin+"/", "MAP "+strings.TrimPrefix(origin, "https://")+" "+https
	s.origin, s.told = origin, []string{origin, "wss://chat.example/ws"}
	s.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: secure}}
	s.awaitReady()
	s.somebody = s.register(t, unique("somebody"))
	return s
}

// down ends whatever there is of it, with what it has stored.
func (s *split) down() {
	s.t.Helper()
	s.compose("--profile", "observability", "--profile", "rabbitmq", "--profile", "kafka", "down", "-v", "--remove-orphans", "-t", "5")
}

// freePort is one that nobody listened at a moment ago: a proxy that starts anew is published where it was.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// composeCommand is that of the engine's plugin, or else the older one of its own.
func composeCommand() []string {
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	return []string{"docker-compose"}
}

// compose runs a command of compose to its end.
func (s *split) compose(args ...string) {
	s.t.Helper()
	all := composeCommand()
	if file := os.Getenv("E2E_IMAGES"); file != "" {
		all = append(all, "--env-file", file)
	}
	all = append(all, "-p", project, "-f", "../docker/compose.yml", "-f", "compose.yml")
	all = append(all, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Env = s.environ
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// scale has so many connect nodes, and two of each other layer.
func (s *split) scale(connects int) {
	s.t.Helper()
	s.compose("up", "-d", "--no-recreate", "-t", "60", "--scale", "logic=2", "--scale", "task=2", "--scale", "api=2", "--scale", fmt.Sprint("connect=", connects),
		"logic", "task", "api", "connect", "site", "proxy")
}

// containers are those of the services that run or should, of all if none is named.
func (s *split) containers(services ...string) []*container {
	s.t.Helper()
	ids := strings.Fields(docker(s.t, "ps", "-aq", "--filter", "label=com.docker.compose.project="+project))
	all := slices.DeleteFunc(inspect(s.t, ids...), func(c *container) bool {
		return len(services) > 0 && !slices.Contains(services, c.service()) || c.Config.Labels["com.docker.compose.oneoff"] == "True"
	})
	slices.SortFunc(all, func(a, b *container) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// one is the first container of the service.
func (s *split) one(service string) *container {
	s.t.Helper()
	all := s.containers(service)
	if len(all) == 0 {
		s.t.Fatalf("%s: no container", service)
	}
	return all[0]
}

// layers are the services with an admin server.
func layers() []string { return []string{"logic", "task", "connect", "api", "site"} }

// readiness is what /readyz says: what each thing that is not ready says why. An error says that nobody answers.
func readiness(c *container) (reasons map[string]string, err error) {
	client := http.Client{Timeout: 4 * time.Second}
	response, err := client.Get("http://" + c.addr("_layers", 9100) + "/readyz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Ready  bool
		Checks []struct {
			Name, Reason string
			Ready        bool
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	reasons = make(map[string]string)
	for _, check := range answer.Checks {
		if !check.Ready {
			reasons[check.Name] = check.Reason
		}
	}
	if len(reasons) == 0 && !answer.Ready {
		reasons["itself"] = "not ready, without a reason"
	}
	return reasons, nil
}

// awaitReady waits until every process of a layer says that it is.
func (s *split) awaitReady() {
	s.t.Helper()
	var not []string
	deadline := time.Now().Add(2 * within)
	for {
		not = nil
		for _, c := range s.containers(layers()...) {
			if reasons, err := readiness(c); err != nil {
				not = append(not, fmt.Sprintf("%s: %v", c, err))
			} else if len(reasons) > 0 {
				not = append(not, fmt.Sprintf("%s: %v", c, reasons))
			}
		}
		if len(not) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not ready within %v:\n%s", 2*within, strings.Join(not, "\n"))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// unready waits until the container says the text of something that it needs.
func (s *split) unready(c *container, name, text string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%s says of %s: %s", c, name, text), func() bool {
		reasons, err := readiness(c)
		for check, reason := range reasons {
			if err == nil && strings.Contains(check, name) && strings.Contains(reason, text) {
				return true
			}
		}
		return false
	})
}

// isReady reports whether the container says that nothing is missing.
func isReady(c *container) bool {
	reasons, err := readiness(c)
	return err == nil && len(reasons) == 0
}

// artifacts is where this moment's are kept.
func artifacts(t testing.TB) (dir string) {
	dir, err := filepath.Abs(filepath.Join("artifacts", time.Now().UTC().Format("20060102-150405")))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Error(err)
	}
	return dir
}

// keepLogs keeps those of a container.
func keepLogs(t testing.TB, id, name string) {
	dir := artifacts(t)
	log, _ := exec.Command("docker", "logs", "--timestamps", id).CombinedOutput()
	if err := os.WriteFile(filepath.Join(dir, name+".log"), log, 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("its logs: %s", dir)
}

// keep keeps what says how a failed run went.
func (s *split) keep() {
	dir := artifacts(s.t)
	write := func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			s.t.Error(err)
		}
	}
	for _, c := range s.containers() {
		log, _ := exec.Command("docker", "logs", "--timestamps", c.ID).CombinedOutput()
		write(c.String()+".log", log)
		if slices.Contains(layers(), c.service()) {
			for _, path := range []string{"metrics", "readyz"} {
				client := http.Client{Timeout: 4 * time.Second}
				response, err := client.Get("http://" + c.addr("_layers", 9100) + "/" + path)
				if err != nil {
					continue // it may be what has failed
				}
				body, _ := io.ReadAll(response.Body)
				_ = response.Body.Close()
				write(c.String()+"."+path, body)
			}
		}
	}
	if s.spans != nil {
		all, err := json.Marshal(s.spans.Find(func(*traces.Span) bool { return true }))
		if err == nil {
			write("spans.json", all)
		}
	}
	s.t.Logf("logs, metrics and traces of this run: %s", dir)
}
