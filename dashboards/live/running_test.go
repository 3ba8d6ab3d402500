//go:build e2e

package live

import (
	"os"
	"testing"
	"time"
)

// TestRunningSystem has every panel answered, and no alert fired, by the Prometheus at DASHBOARDS_PROMETHEUS, of a system that has been under load for
// a minute. The container suite runs it.
func TestRunningSystem(t *testing.T) {
	url := os.Getenv("DASHBOARDS_PROMETHEUS")
	if url == "" {
		t.Fatal("DASHBOARDS_PROMETHEUS is not set")
	}
	prometheus := Dial(t, url)
	prometheus.answers(t, time.Minute)
	prometheus.nothingFires(t)
}
