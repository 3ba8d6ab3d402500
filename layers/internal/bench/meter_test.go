package bench

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestMeterAccounts plants each violation, and sees it counted as what it is.
func TestMeterAccounts(t *testing.T) {
	type counts struct{ received, lost, duplicated, unexpected, echoed, expected int64 }
	const messages, receivers = 150, 3
	clean := counts{received: messages * receivers, expected: messages * receivers}
	for _, c := range []struct {
		name string
		// plant is called before the deliveries; deliver says how often one is made.
		plant   func(*meter)
		deliver func(in, number int) int
		after   func(*meter, *inbox)
		want    func(counts) counts
	}{
		{name: "clean", want: func(c counts) counts { return c }},
		{name: "one lost", deliver: func(in, number int) int { return btoi(in != 1 || number != 64) },
			want: func(c counts) counts { c.received--; c.lost++; return c }},
		{name: "the last lost", deliver: func(_, number int) int { return btoi(number != messages-1) },
			want: func(c counts) counts { c.received -= 3; c.lost += 3; return c }},
		{name: "one doubled", deliver: func(in, number int) int { return 1 + btoi(in == 2 && number == 0) },
			want: func(c counts) counts { c.duplicated++; return c }},
		{name: "refused and not delivered", plant: func(m *meter) { m.refuse(marker{number: 9}); m.refuse(marker{number: 9}) },
			deliver: func(_, number int) int { return btoi(number != 9) },
			want:    func(c counts) counts { c.received -= 3; c.expected -= 3; return c }},
		{name: "refused and delivered", plant: func(m *meter) { m.refuse(marker{number: 9}) },
			want: func(c counts) counts { c.received -= 3; c.expected -= 3; c.unexpected += 3; return c }},
		{name: "delivered and then refused", after: func(m *meter, _ *inbox) { m.refuse(marker{number: 9}) },
			want: func(c counts) counts { c.received -= 3; c.expected -= 3; c.unexpected += 3; return c }},
		{name: "of another group", after: func(m *meter, in *inbox) { m.deliver(in, marker{group: 1, number: 0}, 0) },
			want: func(c counts) counts { c.unexpected++; return c }},
		{name: "back to its sender", after: func(m *meter, in *inbox) { in.own = 1; m.deliver(in, marker{group: 1}, 0) },
			want: func(c counts) counts { c.echoed++; return c }},
		{name: "never sent", after: func(m *meter, in *inbox) { m.deliver(in, marker{number: messages}, 0) },
			want: func(c counts) counts { c.unexpected++; return c }},
		{name: "of no group", after: func(m *meter, in *inbox) { m.deliver(in, marker{group: 99}, 0) },
			want: func(c counts) counts { c.unexpected++; return c }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMeter(1, 2, messages+10)
			var boxes [receivers + 1]inbox
			for i := range boxes {
				boxes[i].own = -1
			}
			for i := range boxes[:receivers] {
				m.receive(&boxes[i], 0)
			}
			m.receive(&boxes[receivers], 1)
			for range messages {
				m.send(0, 0)
			}
			if c.plant != nil {
				c.plant(m)
			}
			for _, number := range rand.Perm(messages) {
				for in := range receivers {
					times := 1
					if c.deliver != nil {
						times = c.deliver(in, number)
					}
					for range times {
						m.deliver(&boxes[in], marker{number: number, due: int64(time.Second)}, 2*time.Second)
					}
				}
			}
			if c.after != nil {
				m.send(1, 0) // whose one receiver is the last box
				m.deliver(&boxes[receivers], marker{group: 1}, 0)
				m.received, m.expected = m.received-1, m.expected-1
				c.after(m, &boxes[0])
			}
			lost := m.settle()
			got := counts{m.received, lost, m.duplicated, m.unexpected, m.echoed, m.expected}
			if want := c.want(clean); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if l := m.delivery.latency(); l.P50 < 999 || l.P50 > 1001 {
				t.Errorf("p50 is %v ms, want a second", l.P50)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestMeterAcks(t *testing.T) {
	m := newMeter(1, 1, 10)
	m.send(0, 0)
	m.send(0, 0)
	m.acknowledge(marker{number: 1}, time.Second)
	m.acknowledge(marker{number: 1}, time.Second)
	m.acknowledge(marker{number: 2}, time.Second) // was never sent
	if m.acked != 1 || m.ack.TotalCount() != 1 {
		t.Errorf("got %d acknowledged, want 1", m.acked)
	}
}

// TestDistribution: what is outside of its range counts as its end, so that no slow delivery vanishes.
func TestDistribution(t *testing.T) {
	d := newDistribution()
	for i := 1; i <= 1000; i++ {
		d.record(time.Duration(i) * time.Millisecond)
	}
	l := d.latency()
	for name, pair := range map[string][2]float64{"p50": {l.P50, 500}, "p90": {l.P90, 900}, "p99": {l.P99, 990}, "p99.9": {l.P999, 999}, "max": {l.Max, 1000}} {
		if ratio := pair[0] / pair[1]; ratio < 0.998 || ratio > 1.002 {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	d.record(24 * time.Hour)
	d.record(-time.Second)
	if got := d.TotalCount(); got != 1002 {
		t.Errorf("got %d values, want 1002", got)
	}
}
