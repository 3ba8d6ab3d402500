package bench

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func sample() *Report {
	return &Report{
		Scenario: Fanout, Transport: TCP, Load: map[string]any{"rate": 20.0},
		Connections: Connections{Wanted: 10, Up: 10, Took: 0.5},
		Phases: []*Phase{{
			Name: Fanout, Due: 5, Sent: 5, Acknowledged: 5, Expected: 50, Received: 50, Rate: 10,
			Delivery: Latency{Count: 50, P50: 1, P90: 2, P99: 4, P999: 5, Max: 6},
			Use:      Use{CPU: 1, Each: 20, Processes: []ProcessUse{{Name: "api", CPU: 1, Each: 20, RSS: 1 << 20}}},
		}},
		Reference: &Phase{Name: "reference", Use: Use{Each: 4}},
	}
}

func TestReportFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Report)
		want   string // "" for none
	}{
		{"clean", func(*Report) {}, ""},
		{"lost", func(r *Report) { r.Phases[0].Lost = 2 }, "fanout: 2 of 50 deliveries were lost"},
		{"twice", func(r *Report) { r.Phases[0].Duplicated = 3 }, "fanout: 3 deliveries came twice"},
		{"unexpected", func(r *Report) { r.Phases[0].Unexpected = 1 }, "fanout: 1 deliveries were not expected"},
		{"no ack", func(r *Report) { r.Phases[0].Acknowledged-- }, "1 of 5 messages were neither acknowledged nor refused"},
		{"too slow a generator", func(r *Report) { r.Phases[0].Due = 9 }, "4 of 9 messages were not sent in time"},
		{"interrupted", func(r *Report) { r.Phases[0].Due, r.Interrupted, r.Reference.Due = 9, true, 9 }, ""},
		{"reference", func(r *Report) { r.Reference.Lost = 1 }, "reference: 1 of 0 deliveries were lost"},
		{"failed", func(r *Report) { r.Connections.Failed = 2 }, "2 connections did not come up"},
		{"error", func(r *Report) { r.Connections.Errors = map[string]int{"rate_limited": 7} }, "the server answered 7 times rate_limited"},
		{"close", func(r *Report) { r.Connections.Closes = map[string]int{"close 4003": 1} }, "1 connections ended: close 4003"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sample()
			c.change(r)
			r.judge()
			err := r.err()
			var fault *FaultError
			if errors.As(err, &fault) != (c.want != "") {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}

func TestReportOfSilent(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name           string
		silent, closed int
		bytes          int64
		want           string // "" for none
	}{
		{"all closed", 3, 3, mib, ""},
		{"one closed", 3, 1, mib, ""},
		{"none came up", 0, 0, mib, ""},
		{"too little", 3, 0, mib / 2, "none of 3 members who never read; about 0.500 MiB were sent to each, and the kernel may hold 4 MiB: too little for anybody to be slow"},
		{"much", 3, 0, 9 * mib, "about 9 MiB were sent to each, and the kernel may hold 4 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Report{Scenario: Slow, Phases: []*Phase{
				{Name: "all read", Delivery: Latency{Count: 1, P99: 2}},
				{Name: "some", Delivery: Latency{Count: 1, P99: 3}, Silent: c.silent, SilentClosed: c.closed, SilentBytes: c.bytes},
			}}
			r.judgeSilent(r.Phases[1], 4*mib)
			err := r.err()
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "too little") != (c.bytes < 8*mib) {
				t.Errorf("got %v", err)
			}
			var out strings.Builder
			if err := r.print(&out); err != nil || !slices.Contains(lines(out.String()), "delivery p99 beside them / without 1.50 ×") {
				t.Errorf("%v: no ratio in\n%s", err, &out)
			}
		})
	}
}

func TestReportIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	if err := sample().save(path); err != nil {
		t.Fatal(err)
	}
	got, err := load(path)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v, %v", got, err)
	}
	other := filepath.Join(t.TempDir(), "b.json")
	if err := os.WriteFile(other, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(other); err == nil {
		t.Error("any JSON is taken for a report")
	}
}

// lines are those of a table with single spaces.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		all = append(all, strings.Join(strings.Fields(line), " "))
	}
	return all
}

func TestReportTable(t *testing.T) {
	var out strings.Builder
	r := sample()
	r.Notes, r.Faults = []string{"a note"}, []string{"a fault"}
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fanout over tcp, rate 20", "notes", "a note", "faults", "a fault", "deliveries expected 50", "delivery p99 4 ms", "CPU of api a delivery 20 µs", "CPU a delivery, system / reference 5 ×", "RSS of api 1 MiB"} {
		if !slices.Contains(lines(out.String()), want) {
			t.Errorf("want %q in\n%s", want, &out)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := sample(), sample()
	b.Phases[0].Delivery.P99, b.Phases[0].Received, b.Reference = 8, 25, nil
	a.Phases[0].Lost = 0
	b.Phases[0].Lost, b.Interrupted, b.Faults, b.Load = 25, true, []string{"one"}, map[string]any{"rate": 50.0, "rooms": 3.0}
	var out strings.Builder
	if err := compare(a, b, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"scenario fanout over tcp fanout over tcp, interrupted", "rate 20 50", "rooms - 3", "faults 0 1", "delivery p50 1 ms 1 ms 1.00", "delivery p99 4 ms 8 ms 2.00", "deliveries received 50 25 0.50",
		"deliveries lost 0 25 -", "CPU a delivery, system / reference 5 × - -",
	} {
		if !slices.Contains(lines(out.String()), want) {
			t.Errorf("want %q in\n%s", want, &out)
		}
	}
}
