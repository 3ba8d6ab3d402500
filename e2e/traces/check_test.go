package traces

import (
	"testing"
	"time"
)

// TestLateWithoutReason: late is what went to a node that has kept task waiting, then or before.
func TestLateWithoutReason(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	message := func(trace, outcome, node string, took time.Duration) []*Span {
		return []*Span{
			{TraceID: trace, ID: trace, Name: "process gochat.deliveries", Kind: "CONSUMER", Start: start, Attrs: map[string]string{"gochat.outcome": outcome}},
			{TraceID: trace, ID: trace + "-push", Parent: trace, Name: "Connect/Push", Kind: "CLIENT", Start: start, End: start.Add(took),
				Attrs: map[string]string{"gochat.node": node}},
		}
	}
	var spans []*Span
	spans = append(spans, message("a", "late", "slow", 300*time.Millisecond)...)
	spans = append(spans, message("b", "late", "slow", 10*time.Millisecond)...)
	spans = append(spans, message("c", "late", "fast", 10*time.Millisecond)...)
	spans = append(spans, message("d", "pushed", "fast", 20*time.Millisecond)...)
	found := LateWithoutReason(spans, 250*time.Millisecond)
	if len(found) != 1 || found[0].TraceID != "c" {
		t.Errorf("got %v, want c alone", found)
	}
}
