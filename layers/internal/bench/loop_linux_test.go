package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// referenceVariable holds the transport of the write loop: set, this test binary is that process.
const referenceVariable = "BENCH_TEST_REFERENCE"

func TestMain(m *testing.M) {
	if transport, ok := os.LookupEnv(referenceVariable); ok {
		if err := ServeReference(context.Background(), transport, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newTestLoop has a connection for each other end that it answers; they are up.
func newTestLoop(t *testing.T, transport string, n int) (*loop, []int) {
	t.Helper()
	l, err := newLoop(t.Context(), transport, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	ends := make([]int, n)
	for i := range ends {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(pair[1]) })
		c := l.add(&peer{})
		c.fd, c.state, ends[i] = pair[0], up, pair[1]
		l.up++
		if err := l.control(unix.EPOLL_CTL_ADD, c.fd, c.id, c.interest()); err != nil {
			t.Fatal(err)
		}
	}
	return l, ends
}

// stepUntil runs the loop until ok.
func stepUntil(t *testing.T, l *loop, what string, ok func() bool) {
	t.Helper()
	if err := l.run(l.now()+10*time.Second, ok); err != nil {
		t.Fatal(err)
	}
	if !ok() {
		t.Fatalf("not within 10 s: %s", what)
	}
}

// roomMessage is what a server sends of a message.
func roomMessage(transport string, run uint32, number int, due time.Duration) []byte {
	mark := make([]byte, markerLen)
	marker{run: run, number: number, due: int64(due)}.put(mark)
	return server(transport, string(wire.AppendMessage(nil, &contract.Message{
		Text: string(mark) + " " + strings.Repeat("x", 70), From: 3, FromName: "bench-0003", Room: 1, Conversation: "room:1",
		ClientID: string(mark), Seq: int64(number + 1), CreatedAt: time.Now(), Traceparent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01",
	})))
}

// TestNoAllocation: neither sending a message nor receiving one allocates, split, glued or whole.
func TestNoAllocation(t *testing.T) {
	for _, transport := range []string{WebSocket, TCP} {
		t.Run(transport, func(t *testing.T) {
			const runs, glued = 200, 20
			l, ends := newTestLoop(t, transport, 1)
			c := l.conns[0]
			m := newMeter(7, 1, (runs+2)*glued)
			m.receive(&c.inbox, 0)
			l.meter = m
			r := &runner{o: Options{Transport: transport, Size: 120}, loop: l}
			ln := line{senders: l.conns, template: r.pattern([]audience{{head: roomHead(1)}})(m, 0)}
			var stream [][]byte // made before anything is counted
			for i := range runs + 2 {
				var b []byte
				for j := range glued {
					b = append(b, roomMessage(transport, 7, i*glued+j, 0)...)
				}
				stream = append(stream, b)
			}
			discard := make([]byte, 64<<10)
			at := 0
			allocated := testing.AllocsPerRun(runs, func() {
				for range glued {
					r.sendNext(&ln, 0, l.now())
				}
				b := stream[at]
				half := len(b)/2 + at%7
				want := m.received + glued
				for _, part := range [][]byte{b[:half], b[half:]} {
					if _, err := unix.Write(ends[0], part); err != nil {
						t.Fatal(err)
					}
					if err := l.step(l.now() + time.Second); err != nil {
						t.Fatal(err)
					}
				}
				for m.received < want {
					if err := l.step(l.now() + time.Second); err != nil {
						t.Fatal(err)
					}
				}
				_, _ = unix.Read(ends[0], discard)
				at++
			})
			if allocated != 0 {
				t.Errorf("%v allocations for %d messages", allocated, glued)
			}
			if m.settle() != 0 || m.duplicated+m.unexpected != 0 || m.sent != m.received {
				t.Errorf("sent %d, received %d, lost %d, twice %d, unexpected %d", m.sent, m.received, m.settle(), m.duplicated, m.unexpected)
			}
		})
	}
}

// TestFeedSplit gives the loop a session byte by byte and in random parts, and sees the same.
func TestFeedSplit(t *testing.T) {
	for _, transport := range []string{WebSocket, TCP} {
		t.Run(transport, func(t *testing.T) {
			mark := make([]byte, markerLen)
			marker{run: 7, number: 1}.put(mark)
			var session []byte
			if transport == WebSocket {
				session = append(session, "HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"...)
			}
			for _, b := range [][]byte{
				server(transport, `{"op":5,"count":1,"roomId":1,"roomUserInfo":{}}`), server(transport, `{"op":11}`),
				roomMessage(transport, 7, 0, 0), roomMessage(transport, 8, 0, 0), roomMessage(transport, 7, 0, 0), // the second is another run's
				server(transport, `{"op":20,"clientId":"`+string(mark)+`","id":"1"}`), server(transport, `{"op":10}`),
				server(transport, `{"op":21,"code":"rate_limited","message":"m","clientId":"`+string(mark)+`"}`),
			} {
				session = append(session, b...)
			}
			closing := map[string]int{"end of stream after rate_limited": 1}
			if transport == WebSocket {
				session = wire.AppendControl(session, opcodePing, []byte("p"))
				session = wire.AppendControl(session, opcodeClose, wire.ClosePayload(4003, "slow"))
				closing = map[string]int{"close 4003": 1}
			}
			for seed := range uint64(50) {
				l, ends := newTestLoop(t, transport, 1)
				c := l.conns[0]
				l.up, l.connecting, c.state = 0, 1, authenticating
				if transport == WebSocket {
					c.state, c.peer.greeting = upgrading, []byte("greeting")
				}
				m := newMeter(7, 1, 10)
				m.receive(&c.inbox, 0)
				m.send(0, 0)
				m.send(0, 0)
				l.meter = m
				random := rand.New(rand.NewPCG(seed, 2))
				for rest := session; len(rest) > 0; {
					n := 1
					if seed > 0 {
						n = min(len(rest), 1+random.IntN(200))
					}
					l.feed(c, append(slices.Clone(c.rest), rest[:n]...), time.Second)
					rest = rest[n:]
				}
				if transport == TCP {
					_ = unix.Shutdown(ends[0], unix.SHUT_RDWR)
					stepUntil(t, l, "the end", func() bool { return c.state == closed })
				}
				answers := 1 + btoi(transport == WebSocket)
				if m.received != 1 || m.duplicated != 1 || m.acked != 1 || m.refused != 1 || l.totals.pings != answers || l.connecting != 0 || l.totals.failed != 0 {
					t.Errorf("seed %d: received %d, twice %d, acked %d, refused %d, pings %d, failed %d", seed, m.received, m.duplicated, m.acked, m.refused, l.totals.pings, l.totals.failed)
				}
				if !maps.Equal(l.totals.errors, map[string]int{"rate_limited": 1}) || !maps.Equal(l.totals.closes, closing) {
					t.Errorf("seed %d: errors %v, closes %v", seed, l.totals.errors, l.totals.closes)
				}
			}
		})
	}
}

// TestAnswersPing reads what the loop answers to pings: with the same payload, masked.
func TestAnswersPing(t *testing.T) {
	l, ends := newTestLoop(t, WebSocket, 1)
	if _, err := unix.Write(ends[0], wire.AppendControl(nil, opcodePing, []byte("payload"))); err != nil {
		t.Fatal(err)
	}
	stepUntil(t, l, "the answer", func() bool { return l.totals.pings == 1 })
	b := make([]byte, 100)
	n, err := unix.Read(ends[0], b)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:n]
	mask(b[6:], b[2:6], binary.LittleEndian.Uint32(b[2:6]))
	if b[0] != 0x80|opcodePong || b[1] != 0x80|7 || string(b[6:]) != "payload" {
		t.Errorf("got % x", b)
	}
}

// TestUnsent writes more than the kernel takes: all arrives in order once the other end reads, and there is a bound.
func TestUnsent(t *testing.T) {
	l, ends := newTestLoop(t, TCP, 1)
	c := l.conns[0]
	var want, got []byte
	for i := 0; len(c.unsent) < maxUnsent/2; i++ {
		b := fmt.Appendf(nil, "%08d", i)
		b = bytes.Repeat(b, 100)
		want = append(want, b...)
		if err := l.write(c, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.write(c, make([]byte, maxUnsent)); err != unix.ENOBUFS {
		t.Errorf("above the bound: got %v", err)
	}
	b := make([]byte, 64<<10)
	for deadline := l.now() + 10*time.Second; len(got) < len(want) && l.now() < deadline; {
		if n, err := unix.Read(ends[0], b); err == nil {
			got = append(got, b[:n]...)
		} else if err := l.step(l.now() + time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("what waited has not come, or in another order")
	}
}

// TestShareOfCore: while the loop waits for what has been lost, it is not at leisure.
func TestShareOfCore(t *testing.T) {
	t.Parallel()
	l, _ := newTestLoop(t, TCP, 1)
	r := &runner{o: Options{Transport: TCP, Rate: 500, Size: 120, Drain: 2 * time.Second}, progress: io.Discard, loop: l, report: &Report{}}
	groups := []audience{{l.conns, l.conns, roomHead(1)}}
	p, _, err := r.exchange(t.Context(), exchange{name: "lost", groups: groups, length: 200 * time.Millisecond, pattern: r.pattern(groups)})
	if err != nil || p.Sent != 100 || p.Lost != 100 {
		t.Fatalf("%v: %+v", err, p)
	}
	if diluted := p.Use.Generator / p.Use.Wall; p.Use.GenShare < 3*diluted {
		t.Errorf("a share of %v, with the wait of %v", p.Use.GenShare, diluted)
	}
}

// TestUpgradeRefused: a connection that is refused has failed, and the server's line is the reason.
func TestUpgradeRefused(t *testing.T) {
	l, _ := newTestLoop(t, WebSocket, 1)
	c := l.conns[0]
	l.up, l.connecting, c.state = 0, 1, upgrading
	l.feed(c, []byte("HTTP/1.1 503 Service Unavailable\r\n\r\nfull"), 0)
	if l.totals.failed != 1 || l.totals.closes[`upgrade refused: "HTTP/1.1 503 Service Unavailable"`] != 1 {
		t.Errorf("failed %d, closes %v", l.totals.failed, l.totals.closes)
	}
}

// TestDialRefused: nobody listens there.
func TestDialRefused(t *testing.T) {
	l, _ := newTestLoop(t, TCP, 0)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil { // and does not listen
		t.Fatal(err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.add(&peer{addr: addr})
	}
	if err := l.open(time.Second, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if l.totals.failed != 3 || l.totals.closes["refused"] != 3 || l.connecting != 0 {
		t.Errorf("failed %d, connecting %d, closes %v", l.totals.failed, l.connecting, l.totals.closes)
	}
}
