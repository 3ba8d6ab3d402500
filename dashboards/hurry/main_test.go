package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHurry has each duration hurried, and nothing else.
func TestHurry(t *testing.T) {
	for rule, want := range map[string]string{
		"rate(a[5m]) > 5":                "rate(a[5s]) > 5",
		"x[6h] offset 30m > 1h":          "x[6m] offset 30s > 1h",
		"quantile_over_time(0.5, y[1d])": "quantile_over_time(0.5, y[24m])",
		"for: 10m":                       "for: 10s",
		"interval: 1m":                   "interval: 1s",
		"record: b:rate5m":               "record: b:rate5m",
		"over the last 6 hours":          "over the last 6 hours",
		"20 + 30 * max_over_time(r[1h])": "2 * max_over_time(r[1m])",
		"time() - gochat_drain_end_timestamp_seconds > 180": "time() - gochat_drain_end_timestamp_seconds > 3",
	} {
		if got := hurry(rule); got != want {
			t.Errorf("%q: got %q, want %q", rule, got, want)
		}
	}
}

// TestOwnRules: in the rules of this module nothing waits as long as before.
func TestOwnRules(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{dir, "../rules/recording.yml", "../rules/alerts.yml"}); err != nil {
		t.Fatal(err)
	}
	slow := regexp.MustCompile(`\[[0-9]+[hd]|for: ([0-9]+[hd]|[0-9]{2,}m|[2-9]m)|interval: [0-9]+[mhd]|offset [0-9]+[hd]|> 180|30 \* max|<[mhd]>`)
	for _, name := range []string{"recording.yml", "alerts.yml"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if found := slow.FindAllString(string(content), -1); found != nil {
			t.Errorf("%s: left as it was: %q", name, found)
		}
		if !strings.Contains(string(content), "5s]") && !strings.Contains(string(content), "for: 1s") {
			t.Errorf("%s: nothing is hurried in %.300s", name, content)
		}
	}
}

// TestRefuses: without a directory and a file, or with one that is not there, it fails.
func TestRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {t.TempDir()}, {t.TempDir(), "none.yml"}, {"/nowhere/at/all", "../rules/alerts.yml"}} {
		if err := run(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
