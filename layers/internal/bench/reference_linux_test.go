package bench

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gochat/layers/internal/testwait"
)

// mirrored has the reference do the work of a system that is not there: two groups, 20 and 10 receivers.
func mirrored(t *testing.T, transport string) *Report {
	t.Helper()
	t.Setenv(referenceVariable, transport)
	l, err := newLoop(t.Context(), transport, 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	r := &runner{
		o:        Options{Transport: transport, Rate: 500, For: time.Second, Drain: 500 * time.Millisecond, Connecting: 10, ReferenceCommand: []string{os.Args[0]}},
		progress: io.Discard, loop: l, report: &Report{},
	}
	groups := []audience{{receivers: make([]*conn, 20)}, {receivers: make([]*conn, 10)}}
	m := newMeter(3, 2, 1)
	m.sample = roomMessage(transport, 3, 0, 0)
	if err := r.reference(t.Context(), groups, m); err != nil {
		t.Fatal(err)
	}
	return r.report
}

// TestReference has server and client against each other: every frame comes once, and the child's CPU is measured.
func TestReference(t *testing.T) {
	for _, transport := range []string{WebSocket, TCP} {
		t.Run(transport, func(t *testing.T) {
			report := mirrored(t, transport)
			p := report.Reference
			const messages, deliveries = 500, 250*20 + 250*10
			if p.Sent != messages || p.Expected != deliveries || p.Received != deliveries || len(report.Faults) > 0 {
				t.Errorf("got %+v, %v", p, report.Faults)
			}
			if len(p.Use.Processes) != 1 || p.Use.Generator <= 0 {
				t.Errorf("got use %+v", p.Use)
			}
			if want := len(roomMessage(transport, 3, 0, 0)); p.FrameBytes != want {
				t.Errorf("frames of %d bytes, want %d", p.FrameBytes, want)
			}
		})
	}
}

// TestReferenceServerEnds: it returns when its input ends, also inside a frame, and when an address cannot be told.
func TestReferenceServerEnds(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		fail bool
	}{"at once": {"", false}, "inside a frame": {"\x00\x00\x00\x00\x00\x00\x00\x09abc", true}, "too long a frame": {"\x00\x00\x00\x00\xff\xff\xff\xff", true}} {
		t.Run(name, func(t *testing.T) {
			in, to := io.Pipe()
			go func() { _, _ = to.Write([]byte(c.in)); _ = to.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := ServeReference(ctx, TCP, in, io.Discard); (err != nil) != c.fail {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestLoss cuts a connection while messages are on their way: what it does not get is told, to the delivery.
func TestLoss(t *testing.T) {
	l, ends := newTestLoop(t, TCP, 2)
	m := newMeter(7, 1, 10)
	for _, c := range l.conns {
		m.receive(&c.inbox, 0)
	}
	l.meter = m
	for number := range 10 {
		m.send(0, 0)
		for i, end := range ends {
			if i == 1 && number == 6 {
				_ = unix.Shutdown(end, unix.SHUT_RDWR)
			}
			_, _ = unix.Write(end, roomMessage(TCP, 7, number, 0))
		}
	}
	stepUntil(t, l, "all that can come has", func() bool { return m.received == 16 && l.conns[1].state == closed })
	if m.settle() != 4 || l.totals.closes["end of stream"] != 1 {
		t.Errorf("lost %d, closes %v", m.settle(), l.totals.closes)
	}
}

// TestSilent: one who never reads leaves what it is sent in the kernel, is nobody's receiver, and its end is noticed.
func TestSilent(t *testing.T) {
	l, ends := newTestLoop(t, TCP, 1)
	c := l.conns[0]
	l.up, l.connecting, c.state, c.silent = 0, 1, authenticating, true
	if _, err := unix.Write(ends[0], server(TCP, `{"op":11}`)); err != nil {
		t.Fatal(err)
	}
	stepUntil(t, l, "it is up", func() bool { return c.state == up })
	m := newMeter(7, 1, 10)
	l.meter = m
	m.send(0, 0)
	if _, err := unix.Write(ends[0], roomMessage(TCP, 7, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.run(l.now()+50*time.Millisecond, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	waiting, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
	if err != nil || waiting == 0 || m.unexpected != 0 || c.state != up {
		t.Errorf("%d bytes wait, %v; unexpected %d", waiting, err, m.unexpected)
	}
	_ = unix.Shutdown(ends[0], unix.SHUT_RDWR)
	stepUntil(t, l, "its end", func() bool { return c.state == closed })
	if len(l.totals.closes) != 0 {
		t.Errorf("closes %v", l.totals.closes)
	}
}

// TestReferenceDoesNotStart: a command that is not there, or that says no address, fails and leaves nothing behind.
func TestReferenceDoesNotStart(t *testing.T) {
	for name, command := range map[string][]string{"none": nil, "not there": {"/nowhere"}, "silent": {"true"}, "not an address": {"echo", "hello"}} {
		t.Run(name, func(t *testing.T) {
			if c, err := startReference(command, TCP); err == nil {
				c.stop()
				t.Error("it has started")
			}
		})
	}
}

// TestReferenceAdmits: whoever is told that it is in gets all that is sent from then on.
func TestReferenceAdmits(t *testing.T) {
	s := &referenceServer{transport: TCP, groups: make(map[int][]int)}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(s.accept)
	defer func() { _ = unix.Shutdown(s.listener, unix.SHUT_RDWR); accepting.Wait(); s.closeAll() }()
	c, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s.mu.Lock() // nobody comes into a group
	unlock := sync.OnceFunc(s.mu.Unlock)
	defer unlock()
	if _, err := c.Write(upgradeRequest("host", "/?group=3")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	b := make([]byte, 1)
	if _, err := c.Read(b); err == nil {
		t.Error("it is told before it is in")
	}
	unlock()
	_ = c.SetReadDeadline(time.Now().Add(testwait.Patience))
	if _, err := c.Read(b); err != nil {
		t.Error(err)
	}
}

// TestHum: a silent websocket says now and then that it is there, as it does not answer pings.
func TestHum(t *testing.T) {
	t.Parallel()
	l, ends := newTestLoop(t, WebSocket, 2)
	l.conns[1].silent = true
	r := &runner{o: Options{Transport: WebSocket, Rate: 1, Size: 120}, progress: io.Discard, loop: l, report: &Report{}}
	groups := []audience{{l.conns[:1], nil, roomHead(1)}}
	if _, _, err := r.exchange(t.Context(), exchange{groups: groups, length: 1500 * time.Millisecond, pattern: r.pattern(groups)}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := unix.Read(ends[1], b); err != nil || n < 6 || b[0] != 0x80|opcodePong {
		t.Errorf("got % x, %v", b[:max(n, 0)], err)
	}
}

// TestCatchUp tells those whom the server has closed, behind much that they have not read, from those whom it has not.
func TestCatchUp(t *testing.T) {
	l, ends := newTestLoop(t, TCP, 3)
	for i, c := range l.conns {
		c.silent = true
		if err := l.control(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest()); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			_, _ = unix.Write(ends[i], roomMessage(TCP, 7, 0, 0))
		}
	}
	_, _ = unix.Write(ends[1], server(TCP, `{"op":21,"code":"slow_consumer","message":"m"}`))
	_ = unix.Shutdown(ends[1], unix.SHUT_WR)
	if err := l.run(l.now()+20*time.Millisecond, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if l.caught != 0 {
		t.Fatalf("%d bytes were read before", l.caught)
	}
	if ended, err := l.catchUp(l.conns, 10*time.Second, func() bool { return true }); err != nil || ended != 0 {
		t.Errorf("it does not stop when it is told to: %d have ended, %v", ended, err)
	}
	ended, err := l.catchUp(l.conns, 10*time.Second, func() bool { return false })
	if err != nil || ended != 1 || l.totals.faults() != 0 {
		t.Errorf("%d have ended, %v; errors %v, closes %v", ended, err, l.totals.errors, l.totals.closes)
	}
}
