package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestFaultsOfOneNode breaks what can be broken of a single process, and has the alert of each fault fire; rules take a second for a
// minute. Faults between processes are the container suite's.
func TestFaultsOfOneNode(t *testing.T) {
	bin := Build(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9") // where nobody is
	crowded := Up(t, bin, "connect.buckets=4", "connect.max_connections=500", "connect.queue_bytes=65536", "trace.sample_ratio=1")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	mistaken := faulty(t)
	locked, hanging := Up(t, mistaken, "connect.buckets=1"), Up(t, mistaken, "connect.auth_within=1m")
	const descriptors = 400
	narrow := UpBy(t, []string{"prlimit", fmt.Sprint("--nofile=", descriptors), bin})
	expiring, dead := expiresTomorrow(t), "https://"+freeAddr(t)
	prometheus := ScrapeAlso(t, hurried(t), unbucketed(crowded.Admin())+probed(blackbox(t), expiring, dead),
		crowded.Admin(), locked.Admin(), hanging.Admin(), narrow.Admin())

	began := time.Now()
	const length = 40 * time.Second
	var load sync.WaitGroup
	load.Go(func() { // all of one user, so in one of the four buckets
		crowded.Bench(t, "idle", "--connections", "440", "--users", "1", "--for", length.String(), "--user-prefix", "many-")
	})
	load.Go(func() {
		crowded.Bench(t, "slow", "--members", "10", "--silent", "15", "--rate", "40", "--size", "8000", "--for", length.String(), "--user-prefix", "slow-")
	})
	load.Go(func() {
		narrow.Bench(t, "idle", "--connections", fmt.Sprint(descriptors/2-10), "--for", length.String(), "--users", "10")
	})
	open := func() float64 {
		n, _ := Highest(prometheus.Ask(t, fmt.Sprintf("process_open_fds{instance=%q}", narrow.Admin())))
		return n
	}
	Eventually(t, "the connections are open", func() bool { return open() > descriptors/2 })
	stays(t, narrow.at.API, int(0.9*descriptors-open()))
	left, err := net.Dial("tcp", hanging.at.TCP[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = left.Close() }()
	Eventually(t, "the connection is counted, beside the canary's", func() bool {
		n, _ := Highest(prometheus.Ask(t, fmt.Sprintf(`gochat_connections{instance=%q, transport="tcp"}`, hanging.Admin())))
		return n == 2
	})
	if err := hanging.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	load.Go(func() {
		locked.Bench(t, "fanout", "--members", "50", "--users", "10", "--rate", "100", "--for", length.String(), "--user-prefix", "fan-")
	})
	load.Go(func() {
		locked.Bench(t, "churn", "--connections", "50", "--users", "10", "--for", length.String(), "--user-prefix", "churn-")
	})
	for alert, of := range map[string]string{
		"GochatBucketsSkewed":            crowded.Admin(),
		"GochatConnectionsNearLimit":     crowded.Admin(),
		"GochatSlowCloses":               crowded.Admin(),
		"GochatTraceSpansLost":           crowded.Admin(),
		"GochatBucketLockContended":      locked.Admin(),
		"GochatDescriptorsNearLimit":     narrow.Admin(),
		"GochatDrainTooLong":             hanging.Admin(),
		"GochatBucketsNotScraped":        "",
		"GochatProbeFailing":             dead,
		"GochatCertificateExpiresSoon":   expiring,
		"GochatCertificateAboutToExpire": expiring,
	} {
		prometheus.fires(t, alert, of)
	}
	load.Wait()
	prometheus.filled(t, time.Since(began), whenIllOfOneNode(), nil)
}

// stays has so many clients of HTTP keep their connections.
func stays(t *testing.T, addr string, clients int) {
	t.Helper()
	for range clients {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			_, err = fmt.Fprintf(conn, "GET /v1/openapi.json HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fires waits until the alert does, of the instance whose name begins so, and says when and of what.
func (p *Prometheus) fires(t *testing.T, alert, instance string) {
	t.Helper()
	// As long as the longest of what an alert waits for, and somewhat more.
	for deadline := time.Now().Add(patience + 30*time.Second); ; time.Sleep(500 * time.Millisecond) {
		for _, s := range p.Ask(t, fmt.Sprintf(`last_over_time(ALERTS{alertname=%q, alertstate="firing"}[5m])`, alert)) {
			if strings.HasPrefix(string(s.Metric["instance"]), instance) {
				t.Logf("%s fires: %v", alert, s.Metric)
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("%s does not fire", alert)
			return
		}
	}
}

// hurried are the rule files, in which a minute is a second.
func hurried(t testing.TB) []string {
	t.Helper()
	dir := t.TempDir()
	rules := []string{"../rules/recording.yml", "../rules/alerts.yml"}
	if out, err := exec.CommandContext(t.Context(), "go", append([]string{"run", "../hurry", dir}, rules...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return []string{filepath.Join(dir, "recording.yml"), filepath.Join(dir, "alerts.yml")}
}

// faulty builds a gochat with mistakes that alerts are there for: a bucket holds its lock for as long as a write to a big room takes,
// and a drain hangs.
func faulty(t testing.TB) (bin string) {
	t.Helper()
	dir := t.TempDir()
	overlay := make(map[string]string)
	for file, mistake := range map[string]struct{ at, more string }{
		"bucket.go":  {"return append(into, r.members...), waited", "time.Sleep(5 * time.Millisecond)\n"},
		"connect.go": {"select {\n\tcase <-c.empty:", "time.Sleep(20 * time.Second)\n"},
	} {
		source, err := filepath.Abs("../../layers/connect/" + file)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(content), mistake.at) != 1 {
			t.Fatalf("%s: want %q once", source, mistake.at)
		}
		overlay[source] = filepath.Join(dir, file)
		if err := os.WriteFile(overlay[source], []byte(strings.ReplaceAll(string(content), mistake.at, mistake.more+mistake.at)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replaced, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, replaced, 0o600); err != nil {
		t.Fatal(err)
	}
	return Build(t, "-overlay="+file)
}

// unbucketed is a job that keeps no buckets of the latencies of the target.
func unbucketed(target string) string {
	return fmt.Sprintf(`  - job_name: unbucketed
    static_configs:
      - targets: [%s]
    metric_relabel_configs:
      - {source_labels: [__name__], regex: gochat_message_end_to_end_seconds_bucket, action: drop}
`, target)
}

// probed is a job that has the blackbox exporter probe the addresses.
func probed(exporter string, addresses ...string) string {
	return fmt.Sprintf(`  - job_name: blackbox
    metrics_path: /probe
    params: {module: [served]}
    static_configs:
      - targets: ["%s"]
    relabel_configs:
      - {source_labels: [__address__], target_label: __param_target}
      - {source_labels: [__param_target], target_label: instance}
      - {target_label: __address__, replacement: "%s"}
`, strings.Join(addresses, `", "`), exporter)
}

// blackbox starts the exporter that probes, and answers its address.
func blackbox(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blackbox.yml")
	config := "modules: {served: {prober: http, timeout: 900ms, http: {tls_config: {insecure_skip_verify: true}}}}\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	start(t, exec.Command("prometheus-blackbox-exporter", "--config.file="+file, "--web.listen-address="+addr), func([]byte) {})
	Eventually(t, "the blackbox exporter answers", func() bool { return Reachable("http://" + addr + "/-/healthy") })
	return addr
}

// expiresTomorrow is the address of a page whose certificate does.
func expiresTomorrow(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// TestEveryAlertIsMadeToFire: each alert is named where a fault makes it fire, here or in the container suite.
func TestEveryAlertIsMadeToFire(t *testing.T) {
	var all struct {
		Groups []struct {
			Rules []struct{ Alert string }
		}
	}
	content, err := os.ReadFile("../rules/alerts.yml")
	if err == nil {
		err = yaml.Unmarshal(content, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	var faults string
	for _, file := range []string{"alerts_test.go", "../../e2e/alerts_test.go"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		faults += string(content)
	}
	n := 0
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			if n++; !strings.Contains(faults, `"`+r.Alert+`"`) {
				t.Errorf("no fault makes %s fire", r.Alert)
			}
		}
	}
	if n < 30 {
		t.Errorf("%d alerts, want more", n)
	}
}

// filled has each of these panels, and each of these rules, answer something over that time.
func (p *Prometheus) filled(t *testing.T, over time.Duration, panels, rules []string) {
	t.Helper()
	for _, panel := range Panels(t, "..") {
		if !slices.Contains(panels, panel.Board+": "+panel.Title) {
			continue
		}
		for i, expr := range panel.Exprs {
			// A quantile of nothing is no number.
			if len(p.Ask(t, fmt.Sprintf("last_over_time((%s >= 0)[%ds:2s])", For(expr, "", 10*time.Second), int(over.Seconds())))) == 0 {
				t.Errorf("%s: %s: query %d answers nothing: %s", panel.Board, panel.Title, i, expr)
			}
		}
	}
	for _, name := range rules {
		if len(p.Ask(t, fmt.Sprintf("last_over_time(%s[%ds])", name, int(over.Seconds())))) == 0 {
			t.Errorf("%s has recorded nothing", name)
		}
	}
}
