//go:build e2e

package live

import (
	"os"
	"testing"
	"time"
)

// running is the Prometheus at DASHBOARDS_PROMETHEUS, that the container suite names.
func running(t *testing.T) *Prometheus {
	t.Helper()
	url := os.Getenv("DASHBOARDS_PROMETHEUS")
	if url == "" {
		t.Fatal("DASHBOARDS_PROMETHEUS is not set")
	}
	return Dial(t, url)
}

// TestRunningSystem has every panel answered, and no alert fired, of a system that has been under load for a minute.
func TestRunningSystem(t *testing.T) {
	prometheus := running(t)
	prometheus.answers(t, time.Minute)
	prometheus.nothingFires(t)
}

// TestSystemThatWasIll has the panels and rules that show failures show something, of a system that has had the faults that the
// container suite's alerts are made to fire by, in the last quarter of an hour.
func TestSystemThatWasIll(t *testing.T) {
	running(t).filled(t, 15*time.Minute, whenIllOfSplit(), recordedOfSplit())
}
