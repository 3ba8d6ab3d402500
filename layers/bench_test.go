package layers

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
	"gochat/layers/internal/testdeps"
	"gochat/layers/internal/testwait"
)

// BenchmarkPrivate sends private messages through four processes, a layer each, on PostgreSQL, Redis and etcd, all on
// this machine with the generator: on the disk before they are acknowledged, queued, delivered. rate=N sends N a second,
// rate=max keeps 4 on their way for each of the senders. It reports messages delivered a second, milliseconds from
// request to receipt, and microseconds of CPU a message over all processes but the generator, and of the generator.
//
// procs=1 has GOMAXPROCS=1 in each process: where several share few processors, Go's threads need not look for work on
// all of them.
func BenchmarkPrivate(b *testing.B) {
	for _, procs := range []int{0, 1} {
		for _, rate := range []int{1000, 4000, 8000, 0} {
			name := fmt.Sprint("rate=", rate)
			if rate == 0 {
				name = "rate=max"
			}
			if procs != 0 {
				name += fmt.Sprint("/procs=", procs)
			}
			b.Run(name, func(b *testing.B) {
				if procs != 0 {
					b.Setenv("GOMAXPROCS", strconv.Itoa(procs)) // of the processes: this one has read it
				}
				benchmarkPrivate(b, rate)
			})
		}
	}
}

const (
	benchPeople = 300 // each has one message on its way at a time, as connect reads them
	benchTime   = 8 * time.Second
)

// BenchmarkFirst sends two messages in each of as many conversations as there are pairs of people, the second when the
// first has come, 400 a second, and reports what the first and the second take: milliseconds and their ratio.
func BenchmarkFirst(b *testing.B) {
	s := newBenched(b, 100)
	for b.Loop() { // once: there are no more conversations to begin
		var m benchMeter
		var first, second []time.Duration
		took := make(chan time.Duration, 1)
		m.each = func(d time.Duration) { took <- d }
		reading := s.read(&m)
		next := time.Now()
		for i := range s.people {
			for j := i + 1; j < len(s.people); j++ {
				for _, list := range []*[]time.Duration{&first, &second} {
					time.Sleep(time.Until(next))
					next = time.Now().Add(time.Second / 400)
					if err := s.people[i].send(s.people[j].id, &m); err != nil {
						b.Fatal(err)
					}
					*list = append(*list, testwait.Receive(b, "the message", took))
				}
			}
		}
		for _, list := range []*[]time.Duration{&first, &second} {
			slices.Sort(*list)
		}
		quantile := func(list []time.Duration, q float64) float64 {
			return list[int(q*float64(len(list)))].Seconds() * 1000
		}
		b.ReportMetric(quantile(first, 0.5), "first-p50-ms")
		b.ReportMetric(quantile(second, 0.5), "second-p50-ms")
		b.ReportMetric(quantile(first, 0.99), "first-p99-ms")
		b.ReportMetric(quantile(second, 0.99), "second-p99-ms")
		b.ReportMetric(quantile(first, 0.5)/quantile(second, 0.5), "first/second")
		b.ReportMetric(0, "ns/op")
		s.close()
		reading.Wait()
	}
}

// benched is a process for each layer, their dependencies, and people who are connected.
type benched struct {
	admins map[string]string // addresses by layer
	pids   map[string][]int
	people []*bencher
}

func newBenched(b *testing.B, people int) *benched {
	s := startSystem(b, 1)
	all := make([]*bencher, people)
	for i := range all {
		u := testclient.Register(b, s.api.api(), fmt.Sprint("bench-", i))
		all[i] = dialBencher(b, s.connects[0].TCP[0], u)
	}
	return &benched{s.admins, s.pids, all}
}

// benchSystem is what is measured: a process for each layer, or several of connect, and their dependencies.
type benchSystem struct {
	api      *running
	connects []*running
	admins   map[string]string // addresses by layer
	pids     map[string][]int
}

func startSystem(b *testing.B, connects int) *benchSystem {
	etcd, redis, postgres := testdeps.Etcd(b), testdeps.Redis(b, "--appendonly", "yes"), testdeps.StartPostgres(b, "fsync=on", "full_page_writes=on")
	back := migrated(b, backend{etcd: etcd.Endpoint(), redis: redis.Addr(), database: postgres.URL})
	cfg := back.config()
	cfg.Trace.SampleRatio = 0.01
	cfg.Log.Level = "error"
	s := &benchSystem{admins: make(map[string]string), pids: map[string][]int{
		"etcd": {etcd.PID()}, "redis": {redis.PID()}, "postgres": {postgres.PID()}}}
	for _, layer := range All() {
		if layer == contract.LayerSite {
			continue
		}
		if layer == contract.LayerConnect {
			for range connects {
				s.connects = append(s.connects, spawn(b, cfg, layer))
			}
			for _, c := range s.connects {
				s.pids[layer] = append(s.pids[layer], c.pid)
			}
			s.admins[layer] = s.connects[0].Admin
			continue
		}
		r := spawn(b, cfg, layer)
		s.pids[layer] = []int{r.pid}
		s.admins[layer] = r.Admin
		if layer == contract.LayerAPI {
			s.api = r
		}
	}
	return s
}

// read meters what everybody gets until their connections end.
func (s *benched) read(m *benchMeter) *sync.WaitGroup {
	var reading sync.WaitGroup
	for _, p := range s.people {
		reading.Go(func() { p.read(m) })
	}
	return &reading
}

// enter has everybody enter their room.
func (s *benched) enter(b *testing.B) {
	for _, p := range s.people {
		_, err := p.conn.Write(testclient.Packet(fmt.Appendf(nil, `{"op":15,"roomId":%d}`, p.room)))
		if err == nil {
			_, err = p.conn.Write(testclient.Packet([]byte(`{"op":10}`)))
		}
		for err == nil {
			var payload []byte
			if payload, err = testclient.ReadPacket(p.conn); bytes.Contains(payload, []byte(`"op":11`)) {
				break // the answer to the ping: it is in the room
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (s *benched) close() {
	for _, p := range s.people {
		_ = p.conn.Close()
	}
}

func benchmarkPrivate(b *testing.B, rate int) {
	s := newBenched(b, benchPeople)
	people, pids := s.people, s.pids
	var m benchMeter
	reading := s.read(&m)
	for b.Loop() { // once: a run has its own length
		m.reset()
		sendFor(b, people, rate, 2*time.Second, &m) // until caches, connections and the store are warm
		m.drain(b)
		m.reset()
		before := cpuOf(pids)
		own := cpu(os.Getpid(), false)
		start := time.Now()
		profiled := profile(b, s.admins, benchTime-time.Second)
		sendFor(b, people, rate, benchTime, &m)
		elapsed, delivered := time.Since(start), float64(m.received.Load())
		m.drain(b)
		n := float64(m.received.Load())
		total := 0.0
		var parts []string
		after := cpuOf(pids)
		for name := range pids {
			used := (after[name] - before[name]).Seconds() * 1e6 / n
			total += used
			parts = append(parts, fmt.Sprintf("%s %.0f", name, used))
		}
		slices.Sort(parts)
		profiled()
		b.Logf("µs of CPU a message: %s", strings.Join(parts, ", "))
		b.ReportMetric(delivered/elapsed.Seconds(), "msg/s")
		b.ReportMetric(m.quantile(0.5), "p50-ms")
		b.ReportMetric(m.quantile(0.99), "p99-ms")
		b.ReportMetric(total, "cpu-µs/msg")
		b.ReportMetric((cpu(os.Getpid(), false)-own).Seconds()*1e6/n, "generator-µs/msg")
		b.ReportMetric(0, "ns/op")
		if lost := m.sent.Load() - m.received.Load(); lost != 0 {
			b.Errorf("%d of %d messages have not come", lost, m.sent.Load())
		}
	}
	s.close()
	reading.Wait()
}

// bencher is a lean client: one reader, frames made of parts, nothing decoded.
type bencher struct {
	conn   net.Conn
	id     int
	acked  chan struct{} // a token for each acknowledgement, while somebody wants them
	number int
	room   int // in which everybody is; 0: it sends private messages
}

func dialBencher(b *testing.B, addr string, u *testclient.User) *bencher {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = conn.Write(testclient.Packet(fmt.Appendf(nil, `{"op":6,"authToken":%q}`, u.Token)))
	_, _ = conn.Write(testclient.Packet([]byte(`{"op":10}`)))
	if _, err := testclient.ReadPacket(conn); err != nil { // the answer to the ping: it is authenticated
		b.Fatal(err)
	}
	return &bencher{conn: conn, id: u.ID, acked: make(chan struct{}, 1<<16)}
}

func (p *bencher) send(to int, m *benchMeter) error {
	p.number++
	if p.room != 0 {
		_, err := p.conn.Write(testclient.Packet(fmt.Appendf(nil, `{"op":3,"roomId":%d,"msg":"at %d, and so much text that it is about as long as what people write to each other"}`, p.room, time.Now().UnixNano())))
		m.sent.Add(benchPeople)
		return err
	}
	frame := fmt.Appendf(nil, `{"op":2,"toUserId":%d,"clientId":"%d-%d","msg":"at %d, and so much text that it is about as long as what people write to each other"}`,
		to, p.id, m.run<<32|p.number, time.Now().UnixNano())
	_, err := p.conn.Write(testclient.Packet(frame))
	m.sent.Add(1)
	return err
}

var (
	benchMessage = []byte(`"msg":"at `)
	benchAck     = []byte(`"op":20`)
)

func (p *bencher) read(m *benchMeter) {
	packets := testclient.NewPackets(p.conn)
	for {
		payload, err := packets.Next()
		if err != nil {
			return
		}
		if _, rest, found := bytes.Cut(payload, benchMessage); found {
			digits, _, _ := bytes.Cut(rest, []byte(","))
			at, _ := strconv.ParseInt(string(digits), 10, 64)
			m.observe(time.Duration(time.Now().UnixNano() - at))
		} else if bytes.Contains(payload, benchAck) {
			select {
			case p.acked <- struct{}{}:
			default:
			}
		}
	}
}

// benchMeter counts in steps of 50 µs.
type benchMeter struct {
	sent, received atomic.Int64
	steps          [200_000]atomic.Int32
	run            int
	each           func(time.Duration) // may be nil
}

const benchStep = 50 * time.Microsecond

func (m *benchMeter) reset() {
	m.sent.Store(0)
	m.received.Store(0)
	for i := range m.steps {
		m.steps[i].Store(0)
	}
	m.run++
}

func (m *benchMeter) observe(d time.Duration) {
	m.steps[min(int(d/benchStep), len(m.steps)-1)].Add(1)
	m.received.Add(1)
	if m.each != nil {
		m.each(d)
	}
}

// quantile is in milliseconds, the upper end of its step.
func (m *benchMeter) quantile(q float64) float64 {
	rank, seen := int64(q*float64(m.received.Load())), int64(0)
	for i := range m.steps {
		if seen += int64(m.steps[i].Load()); seen > rank {
			return float64(i+1) * benchStep.Seconds() * 1000
		}
	}
	return 0
}

// drain waits for what is on its way.
func (m *benchMeter) drain(b *testing.B) {
	for deadline := time.Now().Add(testclient.Patience); m.received.Load() < m.sent.Load() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

// sendFor sends for so long. With a rate, each person sends on its own ticks, however slowly the system answers.
func sendFor(b *testing.B, people []*bencher, rate int, length time.Duration, m *benchMeter) {
	var sending sync.WaitGroup
	end := time.Now().Add(length)
	for i, p := range people {
		sending.Go(func() {
			next := func(n int) int { return people[(i+1+n%(len(people)-1))%len(people)].id }
			if rate == 0 {
				for len(p.acked) > 0 {
					<-p.acked
				}
				for range 4 {
					p.acked <- struct{}{}
				}
				for n := 0; time.Now().Before(end); n++ {
					select {
					case <-p.acked:
					case <-time.After(testclient.Patience):
						b.Error("no acknowledgement")
						return
					}
					if err := p.send(next(n), m); err != nil {
						b.Error(err)
						return
					}
				}
				return
			}
			every := time.Duration(len(people)) * time.Second / time.Duration(rate)
			at := time.Now().Add(every * time.Duration(i) / time.Duration(len(people)))
			for n := 0; at.Before(end); n++ {
				time.Sleep(time.Until(at))
				at = at.Add(every)
				if err := p.send(next(n), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
}

// profile leaves a CPU profile of each process, and its metrics, in the directory that BENCH_PROFILE names.
func profile(b *testing.B, admins map[string]string, length time.Duration) (wait func()) {
	dir := os.Getenv("BENCH_PROFILE")
	if dir == "" {
		return func() {}
	}
	var all sync.WaitGroup
	keep := func(layer, path, name string) {
		r, err := http.Get("http://" + admins[layer] + path)
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = r.Body.Close() }()
		content, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, layer+name), content, 0o644)
		}
		if err != nil {
			b.Error(err)
		}
	}
	for layer := range admins {
		all.Go(func() {
			keep(layer, fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(length.Seconds())), ".pprof")
			keep(layer, "/metrics", ".metrics")
			keep(layer, "/debug/pprof/heap", ".heap")
		})
	}
	return all.Wait
}

func cpuOf(pids map[string][]int) map[string]time.Duration {
	used := make(map[string]time.Duration)
	for name, list := range pids {
		for _, pid := range list {
			used[name] += cpu(pid, true)
		}
	}
	return used
}

// cpu is the time that the process, and with children those that it has started, have used, in hundredths of a second.
func cpu(pid int, children bool) time.Duration {
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	ticks := 0
	for _, at := range []int{11, 12} { // utime, stime
		n, _ := strconv.Atoi(fields[at])
		ticks += n
	}
	used := time.Duration(ticks) * time.Second / 100
	if children {
		for _, child := range testdeps.Children(pid) {
			used += cpu(child, true)
		}
	}
	return used
}
