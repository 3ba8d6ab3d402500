package live

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// whenIllOfOneNode are the panels that show nothing while all is well, and something once a node has one of the faults of
// TestFaultsOfOneNode.
func whenIllOfOneNode() []string {
	return []string{
		"locks.json: Wait, p99", "locks.json: Wait by bucket, p99",
		"locks.json: Skew", // of many connections
		"fanout.json: Closed by the server",
		"fanout.json: Frames per late write",
		"runtime.json: Trace spans",
	}
}

// whenIllOfSplit are those that show something once a process does not reach another: TestSystemThatWasIll asks.
func whenIllOfSplit() []string {
	return []string{
		"messages.json: Refused",
		"queue.json: Queue failures", "queue.json: Store failures", "queue.json: Redis failures",
		"layers.json: REST: errors", "layers.json: Frames: errors", "layers.json: Rpc served: errors", "layers.json: Rpc called: errors",
	}
}

// whenIll are all of them.
func whenIll() []string { return slices.Concat(whenIllOfOneNode(), whenIllOfSplit()) }

// recordedOfSplit are what rules record of failures alone, as those of whenIllOfSplit.
func recordedOfSplit() []string {
	return []string{
		"instance_route:gochat_http_requests_failed:rate5m", "instance_route:gochat_http_requests:failed_ratio_rate5m",
		"instance_method:gochat_rpc_client_failed:rate5m", "instance_method:gochat_rpc_client:failed_ratio_rate5m",
		"instance_operation:gochat_store_errors:rate5m", "instance_operation:gochat_store:error_ratio_rate5m",
	}
}

// recordedLater needs hours.
const recordedLater = "instance_bucket:gochat_bucket_lock:contended_ratio_median1d"

// everySecond is the rule file with no group that is evaluated seldom.
func everySecond(t testing.TB, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	often := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(often, []byte(strings.ReplaceAll(string(content), "interval: 1m", "interval: 1s")), 0o600); err != nil {
		t.Fatal(err)
	}
	return often
}

// TestEveryPanelAnswers has every query of every panel, and every recording rule, answered by a Prometheus that scrapes a system
// under load of every kind: with a series, but for the panels of whenIll.
func TestEveryPanelAnswers(t *testing.T) {
	s := Up(t, Build(t))
	rules := []string{everySecond(t, "../rules/recording.yml"), everySecond(t, "../rules/alerts.yml")}
	prometheus := Scrape(t, rules, s.Admin())
	length := 20 * time.Second
	var load sync.WaitGroup
	for scenario, flags := range map[string][]string{
		"fanout":  {"--members", "100", "--rate", "20", "--users", "20"},
		"rooms":   {"--rooms", "5", "--members", "10", "--rate", "20", "--users", "20"},
		"private": {"--pairs", "20", "--rate", "20", "--transport", "tcp"},
		"churn":   {"--connections", "20", "--users", "20"},
	} {
		load.Go(func() {
			s.Bench(t, scenario, append(flags, "--for", length.String(), "--user-prefix", scenario+"-")...)
		})
	}
	load.Go(func() {
		for range 8 {
			if !Reachable("http://" + s.at.Page + "/") {
				t.Error("the page is not served")
			}
			time.Sleep(2 * time.Second)
		}
	})
	load.Wait()
	prometheus.answers(t, length)
	for _, file := range rules {
		for name, expr := range recorded(t, file) {
			if len(prometheus.Ask(t, name)) == 0 && !slices.Contains(recordedOfSplit(), name) && name != recordedLater {
				t.Errorf("%s: %s records nothing: %s", filepath.Base(file), name, expr)
			}
		}
	}
	prometheus.nothingFires(t)
}

// nothingFires is so while all is well with gochat: of what is configured beside it not all runs in tests.
func (p *Prometheus) nothingFires(t *testing.T) {
	t.Helper()
	if firing := p.Ask(t, `ALERTS{alertstate="firing", job=~"gochat|"}`); len(firing) > 0 {
		t.Errorf("all is well, and it fires: %v", firing)
	}
}

// answers has every query of every panel answered over that time, but for those of whenIll.
func (p *Prometheus) answers(t *testing.T, over time.Duration) {
	t.Helper()
	for _, panel := range Panels(t, "..") {
		name := panel.Board + ": " + panel.Title
		for i, expr := range panel.Exprs {
			got := slices.DeleteFunc(p.Ask(t, For(expr, "", over)), func(s *model.Sample) bool { return math.IsNaN(float64(s.Value)) })
			if len(got) == 0 && !slices.Contains(whenIll(), name) {
				t.Errorf("%s: query %d answers nothing: %s", name, i, expr)
			}
		}
	}
}

// recorded are the recording rules of the file.
func recorded(t testing.TB, file string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Groups []struct {
			Rules []struct{ Record, Expr string }
		}
	}
	if err := yaml.Unmarshal(content, &all); err != nil {
		t.Fatalf("%s: %v", filepath.Base(file), err)
	}
	found := make(map[string]string)
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				found[r.Record] = strings.Join(strings.Fields(r.Expr), " ")
			}
		}
	}
	if len(found) == 0 && strings.Contains(file, "recording") {
		t.Fatal(fmt.Sprint("no rules in ", file))
	}
	return found
}
