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

// whenIll are the panels that show nothing while all is well: failures, and what a process has only once it has failed.
func whenIll() []string {
	return []string{
		"messages.json: Refused",
		"locks.json: Wait, p99", "locks.json: Wait by bucket, p99",
		"locks.json: Skew", // of many connections
		"fanout.json: Closed by the server",
		"fanout.json: Frames per late write",
		"queue.json: Queue failures", "queue.json: Store failures", "queue.json: Redis failures",
		"layers.json: REST: errors", "layers.json: Frames: errors", "layers.json: Rpc served: errors", "layers.json: Rpc called: errors",
		"runtime.json: Trace spans",
	}
}

// TestEveryPanelAnswers has every query of every panel, and every recording rule, answered by a Prometheus that scrapes a system
// under load of every kind: with a series, but for the panels of whenIll.
func TestEveryPanelAnswers(t *testing.T) {
	s := Up(t, Build(t))
	rules := []string{"../rules/recording.yml", "../rules/alerts.yml"}
	prometheus := Scrape(t, rules, s.Admin())
	length := 20 * time.Second
	var load sync.WaitGroup
	for scenario, flags := range map[string][]string{
		"fanout":  {"--members", "100", "--rate", "20"},
		"rooms":   {"--rooms", "5", "--members", "10", "--rate", "20"},
		"private": {"--pairs", "20", "--rate", "20", "--transport", "tcp"},
		"churn":   {"--connections", "20"},
	} {
		load.Go(func() {
			s.Bench(t, scenario, append(flags, "--users", "20", "--for", length.String(), "--user-prefix", scenario+"-")...)
		})
	}
	load.Wait()
	for _, p := range Panels(t, "..") {
		name := p.Board + ": " + p.Title
		for i, expr := range p.Exprs {
			got := slices.DeleteFunc(prometheus.Ask(t, For(expr, "", length)), func(s *model.Sample) bool { return math.IsNaN(float64(s.Value)) })
			if len(got) == 0 && !slices.Contains(whenIll(), name) {
				t.Errorf("%s: query %d answers nothing: %s", name, i, expr)
			}
		}
	}
	for _, file := range rules {
		for name, expr := range recorded(t, file) {
			if len(prometheus.Ask(t, name)) == 0 {
				t.Errorf("%s: %s records nothing: %s", file, name, expr)
			}
		}
	}
	if firing := prometheus.Ask(t, `ALERTS{alertstate="firing"}`); len(firing) > 0 {
		t.Errorf("all is well, and it fires: %v", firing)
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
