package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/bench"
	"gochat/layers/internal/contract"
)

// referenceArgument as the first one has this test binary be the bare write loop that a load is compared with.
const referenceArgument = "reference-server"

func beReference(transport string) int {
	if err := BenchReference(context.Background(), transport, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// BenchmarkLoad has `gochat bench` load a process for each layer on PostgreSQL, Redis and etcd, all on this machine with
// the generator, and reports what its report says: CPU of the layers, and beside it that of the databases, of the
// generator, and of the bare write loop doing the same work.
func BenchmarkLoad(b *testing.B) {
	fanout := func(members int, rate float64) loadCase {
		return loadCase{name: fmt.Sprintf("fanout/members=%d/rate=%.0f", members, rate), set: func(o *BenchOptions) {
			o.Scenario, o.Members, o.Rate, o.Senders, o.Reference = bench.Fanout, members, rate, 10, true
		}}
	}
	cases := []loadCase{
		fanout(1000, 20), fanout(1000, 100), fanout(1000, 200), fanout(1000, 400), fanout(1000, 550),
		fanout(5000, 65),
		{name: "rooms/rooms=100/members=10/rate=1000", set: func(o *BenchOptions) {
			o.Scenario, o.Rooms, o.Members, o.Rate, o.Reference = bench.Rooms, 100, 10, 1000, true
		}},
		{name: "idle/transport=websocket", set: func(o *BenchOptions) { o.Scenario, o.Connections = bench.Idle, 10_000 }},
		{name: "idle/transport=tcp", set: func(o *BenchOptions) {
			o.Scenario, o.Connections, o.Transport = bench.Idle, 10_000, bench.TCP
		}},
		{name: "churn", set: func(o *BenchOptions) {
			o.Scenario, o.Connections, o.Users, o.For = bench.Churn, 10_000, 1000, 20*time.Second
		}},
		{name: "slow", set: func(o *BenchOptions) {
			o.Scenario, o.Members, o.Silent, o.Rate, o.Senders = bench.Slow, 950, 50, 100, 10
		}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) { c.run(b) })
	}
}

// loadCase is one load.
type loadCase struct {
	name     string
	connects int // processes of connect; 0 is one
	set      func(*BenchOptions)
}

func (c loadCase) run(b *testing.B) {
	s := startSystem(b, max(c.connects, 1))
	o := BenchDefaults()
	o.API, o.Password, o.JSON = s.api.api(), "password of all", filepath.Join(b.TempDir(), "report.json")
	o.WebSocket, o.TCP = nil, nil
	for _, connect := range s.connects {
		o.WebSocket, o.TCP = append(o.WebSocket, connect.WebSocket), append(o.TCP, connect.TCP[0])
	}
	o.ReferenceCommand = []string{os.Args[0], referenceArgument}
	for name, pids := range s.pids {
		for i, pid := range pids {
			if i > 0 {
				name = fmt.Sprint(name, i+1)
			}
			o.Processes = append(o.Processes, BenchProcess{Name: name, PID: pid})
		}
	}
	slices.SortFunc(o.Processes, func(a, b BenchProcess) int { return strings.Compare(a.Name, b.Name) })
	c.set(&o)
	if d, err := time.ParseDuration(os.Getenv("BENCH_FOR")); err == nil {
		o.For = d
	}
	for b.Loop() { // once: a run has its own length
		var out bytes.Buffer
		profiled := func() {}
		timer := time.AfterFunc(o.For/4, func() { profiled = profile(b, s.admins, o.For/2) })
		err := Bench(b.Context(), o, &out, os.Stderr)
		if !timer.Stop() {
			profiled()
		}
		var fault *bench.FaultError
		if errors.As(err, &fault) {
			b.Errorf("not clean: %v", err)
		} else if err != nil {
			b.Fatal(err)
		}
		b.Logf("%s", &out)
		content, err := os.ReadFile(o.JSON)
		if err != nil {
			b.Fatal(err)
		}
		var r bench.Report
		if err := json.Unmarshal(content, &r); err != nil {
			b.Fatal(err)
		}
		reportLoad(b, &r)
		b.ReportMetric(0, "ns/op")
	}
}

// reportLoad picks what the tables of the README show.
func reportLoad(b *testing.B, r *bench.Report) {
	for _, p := range r.Phases {
		kind := ""
		if p.Silent > 0 {
			kind = "silent-"
		}
		layers, connect, others := sumUse(p.Use)
		b.ReportMetric(layers, kind+"layers-µs/delivery")
		b.ReportMetric(connect, kind+"connect-µs/delivery")
		b.ReportMetric(others, kind+"databases-µs/delivery")
		b.ReportMetric(p.Use.GenEach, kind+"generator-µs/delivery")
		b.ReportMetric(p.Rate, kind+"deliveries/s")
		b.ReportMetric(p.Delivery.P50, kind+"p50-ms")
		b.ReportMetric(p.Delivery.P99, kind+"p99-ms")
		if r.Reference != nil {
			b.ReportMetric(r.Reference.Use.Each, "reference-µs/delivery")
			b.ReportMetric(layers/r.Reference.Use.Each, "layers/reference")
		}
	}
	if r.Idle != nil {
		for _, p := range r.Idle.Use.Processes {
			if p.Name == contract.LayerLogic || strings.HasPrefix(p.Name, contract.LayerConnect) {
				b.ReportMetric(p.Grown/1024, p.Name+"-KiB/connection")
			}
		}
	}
	if c := r.Churn; c != nil {
		for _, round := range c.Rounds {
			b.ReportMetric(round.UpAfter, "up-s")
			b.ReportMetric(round.Counted, "counted-s")
			b.ReportMetric(round.Gone, "gone-s")
		}
	}
}

// sumUse is the CPU of all layers, of connect among them, and of everything else, in µs a delivery.
func sumUse(u bench.Use) (layers, connect, others float64) {
	for _, p := range u.Processes {
		switch {
		case strings.HasPrefix(p.Name, contract.LayerConnect):
			connect += p.Each
			layers += p.Each
		case slices.Contains(All(), p.Name):
			layers += p.Each
		default:
			others += p.Each
		}
	}
	return layers, connect, others
}
