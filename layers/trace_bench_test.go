package layers

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

// BenchmarkTracing has the same load carried with tracing off, of no message, of 1 % and of all, and reports the CPU of the
// layers, in microseconds a delivery, and its ratio to that without. There is a system for each, and they take turns of
// a second: so whatever else the machine does meets them alike. Spans go to an endpoint that takes them and forgets.
func BenchmarkTracing(b *testing.B) {
	for _, load := range []struct {
		name string
		rate int
		room bool
	}{{"private/rate=4000", 4000, false}, {"room/members=300/rate=100", 100, true}} {
		b.Run(load.name, func(b *testing.B) {
			var spans atomic.Int64 // requests with some
			sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				spans.Add(1)
			}))
			b.Cleanup(sink.Close)
			modes := []*tracedLoad{
				{name: "off", env: map[string]string{"OTEL_SDK_DISABLED": "true"}},
				{name: "0%", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": sink.URL, "OTEL_TRACES_SAMPLER": "parentbased_always_off"}},
				{name: "1%", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": sink.URL, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}},
				{name: "100%", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": sink.URL, "OTEL_TRACES_SAMPLER": "parentbased_always_on"}},
			}
			for _, m := range modes {
				m.start(b, load.room)
			}
			profiled := profile(b, modes[len(modes)-1].s.admins, tracedRounds*time.Second)
			for b.Loop() { // once: a run has its own length
				for round := range tracedRounds + 1 {
					for i := range modes { // each begins as often, and comes as often after each other
						at := (round + i) % len(modes)
						if round/len(modes)%2 == 1 {
							at = (round + len(modes) - i) % len(modes)
						}
						modes[at].turn(b, load.rate, round > 0) // the first warms it up
					}
				}
			}
			profiled()
			for _, m := range modes {
				each := m.layers()
				b.ReportMetric(each, m.name+"-µs/delivery")
				if m != modes[0] {
					b.ReportMetric(each/modes[0].layers(), m.name+"/off")
				}
				var parts []string
				for name, used := range m.used {
					parts = append(parts, fmt.Sprintf("%s %.2f", name, used.Seconds()*1e6/float64(m.delivered)))
				}
				slices.Sort(parts)
				b.Logf("%s: µs of CPU a delivery: %s", m.name, strings.Join(parts, ", "))
			}
			if spans.Load() == 0 {
				b.Error("no span was exported")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

const tracedRounds = 24

// tracedLoad is a system in one mode, and what it has used in its turns.
type tracedLoad struct {
	name      string
	env       map[string]string
	s         *benched
	meter     benchMeter
	used      map[string]time.Duration
	delivered int64
}

func (m *tracedLoad) start(b *testing.B, room bool) {
	for name := range map[string]bool{"OTEL_SDK_DISABLED": true, "OTEL_EXPORTER_OTLP_ENDPOINT": true, "OTEL_TRACES_SAMPLER": true, "OTEL_TRACES_SAMPLER_ARG": true} {
		b.Setenv(name, m.env[name])
	}
	m.s = newBenched(b, benchPeople)
	if room {
		for _, p := range m.s.people {
			p.room = int(contract.Lobby)
		}
		m.s.enter(b)
	}
	reading := m.s.read(&m.meter)
	b.Cleanup(func() { m.s.close(); reading.Wait() })
	m.used = make(map[string]time.Duration)
}

// turn sends for a second and waits for what is on its way, which counts.
func (m *tracedLoad) turn(b *testing.B, rate int, counts bool) {
	m.meter.reset()
	before := cpuOf(m.s.pids)
	sendFor(b, m.s.people, rate, time.Second, &m.meter)
	m.meter.drain(b)
	time.Sleep(100 * time.Millisecond) // what is left to do, the export of spans not least
	if !counts {
		return
	}
	for name, used := range cpuOf(m.s.pids) {
		m.used[name] += used - before[name]
	}
	m.delivered += m.meter.received.Load()
}

// layers is the CPU of the layers a delivery, in microseconds.
func (m *tracedLoad) layers() (each float64) {
	for name, used := range m.used {
		if slices.Contains(All(), name) {
			each += used.Seconds() * 1e6 / float64(m.delivered)
		}
	}
	return each
}
