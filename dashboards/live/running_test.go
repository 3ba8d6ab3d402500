//go:build e2e

package live

import (
	"os"
	"testing"
	"time"
)

// TestRunningSystem has every panel answered by the Prometheus at DASHBOARDS_PROMETHEUS, of a system that has been under load for
// a minute. The container suite runs it.
func TestRunningSystem(t *testing.T) {
	url := os.Getenv("DASHBOARDS_PROMETHEUS")
	if url == "" {
		t.Fatal("DASHBOARDS_PROMETHEUS is not set")
	}
	Dial(t, url).answers(t, time.Minute)
}
