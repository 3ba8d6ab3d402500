package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
			// The bare write loop cannot do more than some 250,000 writes a second, and loses what it is behind with.
			o.Scenario, o.Members, o.Rate, o.Senders, o.Reference = bench.Fanout, members, rate, 10, float64(members)*rate <= 200_000
		}}
	}
	cases := []loadCase{
		fanout(1000, 20), fanout(1000, 100), fanout(1000, 200), fanout(1000, 400), fanout(1000, 520),
		fanout(5000, 65),
		{name: "rooms/rooms=100/members=10/rate=1000", set: func(o *BenchOptions) {
			o.Scenario, o.Rooms, o.Members, o.Rate, o.Reference = bench.Rooms, 100, 10, 1000, true
		}},
		{name: "idle/transport=websocket", set: func(o *BenchOptions) { o.Scenario, o.Connections = bench.Idle, 10_000 }},
		{name: "idle/transport=tcp", set: func(o *BenchOptions) {
			o.Scenario, o.Connections, o.Transport = bench.Idle, 10_000, bench.TCP
		}},
		{name: "churn", set: func(o *BenchOptions) {
			o.Scenario, o.Connections, o.Users, o.For = bench.Churn, 10_000, 10_000, 20*time.Second
		}},
		{name: "slow", set: func(o *BenchOptions) {
			// Some megabytes for each who does not read: the kernel holds four.
			o.Scenario, o.Members, o.Silent, o.Rate, o.Senders, o.Size, o.For = bench.Slow, 950, 50, 100, 10, 2000, 30*time.Second
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
	for b.Loop() { // once: a run has its own length
		var out bytes.Buffer
		profiled := make(chan func(), 1)
		timer := time.AfterFunc(o.For/4, func() { profiled <- profile(b, s.admins, o.For/2) })
		err := Bench(b.Context(), o, &out, os.Stderr)
		if !timer.Stop() {
			(<-profiled)()
		}
		var fault *bench.FaultError
		if errors.As(err, &fault) {
			b.Errorf("not clean: %v", err)
		} else if err != nil {
			b.Fatal(err)
		}
		b.Logf("%s", &out)
		var r bench.Report
		readReport(b, o.JSON, &r)
		reportLoad(b, &r)
		b.ReportMetric(0, "ns/op")
	}
}

// BenchmarkManyIdle has six processes of connect hold 100,000 websockets, whose pings are answered, for ten minutes, or for as
// long as BENCH_FOR says: a process may open 20,000 files here, so there are as many generators. It reports the memory of
// connect and of logic a connection, and fails if a connection ends. It wants a -timeout of more than that.
func BenchmarkManyIdle(b *testing.B) {
	const connects, connections = 6, 100_000
	gochat := filepath.Join(b.TempDir(), "gochat")
	if out, err := exec.Command("go", "build", "-o", gochat, "../cmd/gochat").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	length := 10 * time.Minute
	if given := os.Getenv("BENCH_FOR"); given != "" {
		var err error
		if length, err = time.ParseDuration(given); err != nil {
			b.Fatal(err)
		}
	}
	s := startSystem(b, connects)
	for b.Loop() { // once: a run has its own length
		before := resident(b, s.pids[contract.LayerLogic][0])
		var running sync.WaitGroup
		reports := make([]bench.Report, connects)
		for i, connect := range s.connects {
			n, file := (connections+i)/connects, filepath.Join(b.TempDir(), fmt.Sprint(i, ".json"))
			cmd := exec.Command(gochat, "bench", "idle", "--connections", fmt.Sprint(n), "--users", "100", "--for", length.String(),
				"--user-prefix", fmt.Sprint("many-", i, "-"), "--password", "password of all", "--api", s.api.api(),
				"--websocket", connect.WebSocket, "--json", file, "--pid", fmt.Sprint("connect=", connect.pid))
			running.Go(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Errorf("generator %d: %v\n%s", i, err, out)
				}
				readReport(b, file, &reports[i])
			})
		}
		running.Wait()
		up, grown, answered, most := 0, 0.0, 0, 0.0
		for _, r := range reports {
			if r.Idle == nil || len(r.Idle.Use.Processes) == 0 {
				b.Fatal("a generator has no report")
			}
			up, answered, most = up+r.Idle.Up, answered+r.Connections.Answers, max(most, r.Connections.Took)
			grown += r.Idle.Use.Processes[0].Grown * float64(r.Idle.Up)
		}
		if up != connections {
			b.Errorf("%d are up at the end, want %d", up, connections)
		}
		b.ReportMetric(float64(up), "up")
		b.ReportMetric(most, "up-s")
		b.ReportMetric(float64(answered), "pings")
		b.ReportMetric(grown/float64(up)/1024, "connect-KiB/connection")
		b.ReportMetric(float64(resident(b, s.pids[contract.LayerLogic][0])-before)/float64(up)/1024, "logic-KiB/connection")
		b.ReportMetric(0, "ns/op")
	}
}

// resident is the process's resident memory in bytes.
func resident(b *testing.B, pid int) int {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(content), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func readReport(b *testing.B, path string, into *bench.Report) {
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	if err != nil {
		b.Error(err)
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
