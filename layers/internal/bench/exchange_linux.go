package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// audience is a group: who sends and who is to receive what is sent.
type audience struct {
	senders, receivers []*conn
	head               string // how the JSON of a message begins
}

// line is a group in an exchange.
type line struct {
	senders  []*conn
	turn     int
	template template
}

// exchange is one phase of messages.
type exchange struct {
	name    string
	groups  []audience
	of      []Process
	length  time.Duration
	acks    bool
	pattern func(m *meter, group int) template
}

// burst is how many messages may leave before the loop looks at its connections again.
const burst = 64

// grace is how long, after all has come, something that should not may still come.
const grace = 200 * time.Millisecond

// exchange sends at the rate and waits for what was sent, r.o.Drain at most after the last, or hurry if ctx ends.
func (r *runner) exchange(ctx context.Context, e exchange) (*Phase, *meter, error) {
	l := r.loop
	total := int(math.Ceil(r.o.Rate * e.length.Seconds()))
	m := newMeter(rand.Uint32(), len(e.groups), (total+len(e.groups)-1)/len(e.groups))
	lines := make([]line, len(e.groups))
	for i, g := range e.groups {
		for _, c := range g.receivers {
			m.receive(&c.inbox, i)
		}
		lines[i] = line{senders: g.senders, template: e.pattern(m, i)}
	}
	stop := func() bool { return ctx.Err() != nil }
	if err := l.run(l.now()+settle, stop); err != nil {
		return nil, nil, err
	}
	w, err := r.watch(e.of)
	if err != nil {
		return nil, nil, err
	}
	defer w.end()
	began, receivedBefore := l.now(), int64(0)
	l.meter, l.nextEach, l.each = m, began+time.Second, func() {
		r.say("%s: sent %d, received %d/s, p50 %.2f ms, p99 %.2f ms, errors %d", e.name, m.sent, m.received-receivedBefore,
			float64(m.delivery.ValueAtQuantile(50))/1e6, float64(m.delivery.ValueAtQuantile(99))/1e6, l.totals.faults())
		receivedBefore = m.received
		l.hum()
	}
	defer func() { l.meter, l.each = nil, nil }()

	due := func(k int) time.Duration { return began + time.Duration(float64(k)/r.o.Rate*float64(time.Second)) }
	give := began + e.length + r.o.Drain // a generator that cannot keep up gives up then
	for k := 0; k < total && !stop() && l.now() < give; {
		for n := 0; k < total && n < burst && due(k) <= l.now(); n, k = n+1, k+1 {
			r.sendNext(&lines[k%len(lines)], k%len(lines), due(k))
		}
		next := began + e.length
		if k < total {
			next = due(k)
		}
		if err := l.step(next); err != nil {
			return nil, nil, err
		}
	}
	sent := l.now()
	settled := func() bool { return m.received >= m.expected && (!e.acks || m.acked+m.refused >= m.sent) }
	if err := l.run(l.now()+r.o.Drain, func() bool { return stop() || settled() }); err != nil {
		return nil, nil, err
	}
	if stop() {
		if err := l.run(l.now()+r.patience(ctx, r.o.Drain), settled); err != nil {
			return nil, nil, err
		}
	}
	if err := l.run(l.now()+min(grace, r.o.Drain), func() bool { return false }); err != nil {
		return nil, nil, err
	}
	lost := m.settle()
	used, err := w.use(m.received, max(m.last, sent))
	if err != nil {
		return nil, nil, err
	}
	took := max((m.last - began).Seconds(), 1e-9)
	return &Phase{
		Name: e.name, Took: took, Due: int64(total), Sent: m.sent, Acknowledged: m.acked, Refused: m.refused,
		Expected: m.expected, Received: m.received, Lost: lost, Duplicated: m.duplicated, Echoed: m.echoed, Unexpected: m.unexpected,
		Rate: float64(m.received) / took, Delivery: m.delivery.latency(), Ack: m.ack.latency(), Lag: m.lag.latency(),
		FrameBytes: len(m.sample), Use: used,
	}, m, nil
}

// sendNext sends the next message of a group by the next sender who can.
func (r *runner) sendNext(ln *line, group int, due time.Duration) {
	for range ln.senders {
		c := ln.senders[ln.turn%len(ln.senders)]
		ln.turn++
		if c.state != up {
			continue
		}
		err := r.loop.send(c, &ln.template, group, due)
		if err == nil {
			return
		}
		r.loop.end(c, reasonOf(err))
	}
}

// faults is how many things went wrong.
func (t *tally) faults() (n int) {
	for _, times := range t.errors {
		n += times
	}
	for _, times := range t.closes {
		n += times
	}
	return n
}

// pattern is how the clients of gochat send.
func (r *runner) pattern(groups []audience) func(*meter, int) template {
	return func(m *meter, group int) template {
		mark := make([]byte, markerLen)
		marker{run: m.run}.put(mark)
		text := fmt.Sprintf("%s %s", mark, strings.Repeat("x", max(r.o.Size-markerLen-1, 0)))
		payload := fmt.Appendf(nil, `%s"msg":"%s","clientId":"%s"}`, groups[group].head, text, mark)
		b, masked := appendFrame(nil, r.o.Transport, opcodeText, payload, 0)
		return newTemplate(b, m.prefix, masked)
	}
}
