package connect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// peer is the client's end of a socket with small buffers. It reads when the test says so.
type peer struct {
	transport  transport
	conn       *net.TCPConn
	r          *bufio.Reader
	compressed int // frames that were
}

// smallSocket is small enough that one frame of the tests does not fit.
const smallSocket = 16 << 10

// connect is a peer that is nobody yet.
func connect(t testing.TB, n *testNode, tr transport) *peer {
	t.Helper()
	addr := n.WebSocketAddr()
	if tr == tcp {
		addr = n.TCPAddrs()[0]
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &peer{transport: tr, conn: conn.(*net.TCPConn), r: bufio.NewReaderSize(conn, 1)}
	switch tr {
	case webSocket:
		p.shakeHands(t, addr)
	case deflated:
		if resp := p.shakeHands(t, addr, "permessage-deflate; client_max_window_bits"); resp.Header.Get("Sec-WebSocket-Extensions") == "" {
			t.Fatal("the node does not compress")
		}
	}
	return p
}

// dialPeer connects, authenticates as the user, and shrinks the buffers of both ends.
func dialPeer(t testing.TB, n *testNode, tr transport, user contract.UserID) (*peer, *channel) {
	t.Helper()
	p := connect(t, n, tr)
	if err := p.conn.SetReadBuffer(smallSocket); err != nil {
		t.Fatal(err)
	}
	p.send(t, fmt.Sprintf(`{"op":6,"authToken":%q}`, token(user, 1)))
	var ch *channel
	eventually(t, "authenticated", func() bool { // the bucket has it before pushes find it
		all := n.bucketOf(user).ofUser(user)
		if len(all) == 1 {
			ch = all[0]
		}
		return ch != nil && ch.authenticated.Load()
	})
	if err := ch.conn.(*net.TCPConn).SetWriteBuffer(smallSocket); err != nil {
		t.Fatal(err)
	}
	return p, ch
}

// shakeHands sends a header for each of the extensions.
func (p *peer) shakeHands(t testing.TB, addr string, extensions ...string) *http.Response {
	t.Helper()
	offer := ""
	for _, e := range extensions {
		offer += "Sec-WebSocket-Extensions: " + e + "\r\n"
	}
	_, err := fmt.Fprintf(p.conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", addr, offer)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("shake hands: %v, %v", resp, err)
	}
	return resp
}

// send sends one frame. A websocket client masks; the mask may be zero.
func (p *peer) send(t testing.TB, payload string) {
	t.Helper()
	b := testclient.Packet([]byte(payload))
	if p.transport != tcp {
		b = binary.BigEndian.AppendUint16([]byte{0x81, 0x80 | 126}, uint16(len(payload)))
		b = append(append(b, 0, 0, 0, 0), payload...)
	}
	if _, err := p.conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// closed is the code of a websocket's close frame, as an error.
type closed int

func (c closed) Error() string { return fmt.Sprintf("closed with %d", int(c)) }

// next reads one frame, however it is cut. After the last one it answers io.EOF, or closed.
func (p *peer) next() (testclient.Frame, error) {
	payload, err := p.nextPayload()
	if err != nil {
		return nil, err
	}
	var f testclient.Frame
	if err := json.Unmarshal(payload, &f); err != nil {
		return nil, fmt.Errorf("frame %.60q: %w", payload, err)
	}
	return f, nil
}

// nextPayload is next of what need not be JSON.
func (p *peer) nextPayload() ([]byte, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(testclient.Patience))
	var payload []byte
	if p.transport == tcp {
		var head [4]byte
		if _, err := io.ReadFull(p.r, head[:]); err != nil {
			return nil, err
		}
		if head[0] != 'v' || head[1] != '1' {
			return nil, fmt.Errorf("not a packet: % x", head)
		}
		payload = make([]byte, int(binary.BigEndian.Uint16(head[2:]))-4)
		if _, err := io.ReadFull(p.r, payload); err != nil {
			return nil, errors.Join(errors.New("in a packet"), err)
		}
	} else {
		opcode, b, err := p.nextWebSocket()
		switch {
		case err != nil:
			return nil, err
		case opcode == wire.OpcodeClose:
			return nil, closed(binary.BigEndian.Uint16(b))
		case opcode == wire.OpcodePing, opcode == wire.OpcodePong:
			return p.nextPayload()
		}
		payload = b
	}
	return payload, nil
}

func (p *peer) nextWebSocket() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1])
	compressed := p.transport == deflated && head[0] == 0xc1
	if compressed {
		head[0] = 0x81
		p.compressed++
	}
	switch {
	case head[0] != 0x81 && head[0] != 0x80|wire.OpcodeClose && head[0] != 0x80|wire.OpcodePing && head[0] != 0x80|wire.OpcodePong || head[1] > 127:
		return 0, nil, fmt.Errorf("not a frame of a server: % x", head)
	case size == 126:
		var n uint16
		err = binary.Read(p.r, binary.BigEndian, &n)
		size = uint64(n)
	case size == 127:
		err = binary.Read(p.r, binary.BigEndian, &size)
	}
	if err == nil {
		payload = make([]byte, size)
		_, err = io.ReadFull(p.r, payload)
	}
	if err == nil && compressed {
		payload, err = io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	}
	if err != nil {
		return 0, nil, errors.Join(errors.New("in a frame"), err)
	}
	return head[0] & 15, payload, nil
}

// rest reads until the end: every frame must be whole, and the end the one that belongs to the code.
func (p *peer) rest(t testing.TB, code contract.Code) []testclient.Frame {
	t.Helper()
	var frames []testclient.Frame
	for {
		f, err := p.next()
		if err == nil {
			frames = append(frames, f)
			continue
		}
		end := closed(wire.CloseCode(code))
		if p.transport != tcp && !errors.Is(err, end) || p.transport == tcp && !errors.Is(err, io.EOF) {
			t.Fatalf("after %d frames: got %v, want the end of %s", len(frames), err, code)
		}
		if len(frames) == 0 || frames[len(frames)-1].Op() != 21 || frames[len(frames)-1].Str("code") != string(code) {
			t.Fatalf("got %v, want a last error %s", frames, code)
		}
		return frames[:len(frames)-1]
	}
}

func eachTransport(t *testing.T, test func(*testing.T, transport)) {
	for _, tr := range []transport{webSocket, tcp} {
		t.Run(tr.String(), func(t *testing.T) { test(t, tr) })
	}
}

// TestSlowReader sends far more than the sockets hold to a peer that pauses: it gets every frame, whole and in order.
func TestSlowReader(t *testing.T) {
	eachTransport(t, func(t *testing.T, tr transport) {
		n := startNode(t, obliging(), func(c *Connect) { c.cfg.QueueBytes = 64 << 20 })
		p, _ := dialPeer(t, n, tr, 2)
		random := rand.New(rand.NewPCG(1, 2))
		texts := make([]string, 150)
		for i := range texts {
			texts[i] = fmt.Sprint(i, strings.Repeat("x", random.IntN(8_000)))
		}
		pushed := make(chan error, 1)
		go func() {
			sum := contract.PushResult{}
			var err error
			for i, text := range texts {
				var got contract.PushResult
				if got, err = n.tryPush(note("dm:1:2", int64(i+1), text)); err != nil {
					break
				}
				sum.Written, sum.Queued = sum.Written+got.Written, sum.Queued+got.Queued
			}
			if err == nil && (sum.Queued == 0 || sum.Written+sum.Queued != len(texts)) {
				err = fmt.Errorf("got %+v, want %d in all, and some that had to wait", sum, len(texts))
			}
			pushed <- err
		}()
		for i, text := range texts {
			if random.IntN(20) == 0 {
				time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
			}
			f, err := p.next()
			if err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
			if f.Int("seq") != i+1 || f.Str("msg") != text {
				t.Fatalf("got seq %d, text %.20q of %d bytes, want seq %d, %.20q of %d",
					f.Int("seq"), f.Str("msg"), len(f.Str("msg")), i+1, text, len(text))
			}
		}
		if err := <-pushed; err != nil {
			t.Error(err)
		}
		eventually(t, "nothing waits", func() bool { return n.metric(t, "gochat_channel_queue_bytes") == 0 })
		if writes := n.metric(t, "gochat_channel_write_frames"); writes == 0 || writes >= float64(len(texts))/2 {
			t.Errorf("got %v writes of waiting frames, want fewer than half the %d frames", writes, len(texts))
		}
	})
}

// TestSlowConsumer pushes to a peer that does not read until it is closed. What waits stays below the bound; when the
// peer reads again it gets whole frames in order, then the error and the close.
func TestSlowConsumer(t *testing.T) {
	const queueBytes = 64 << 10
	stalled := func(t *testing.T, tr transport, linger time.Duration) (*testNode, *peer) {
		n := startNode(t, obliging(), func(c *Connect) { c.cfg.QueueBytes, c.timeouts.linger = queueBytes, linger })
		p, _ := dialPeer(t, n, tr, 2)
		text := strings.Repeat("y", 3000)
		for seq := int64(1); ; seq++ {
			got := n.push(t, note("dm:1:2", seq, text))
			if waits := n.metric(t, "gochat_channel_queue_bytes"); waits > queueBytes+200 { // the error and the close
				t.Fatalf("seq %d: %v bytes wait, want at most %d", seq, waits, queueBytes)
			}
			if got.Slow == 1 {
				break
			}
			if got.Receivers() != 1 || got.Gone != 0 || seq > 10_000 {
				t.Fatalf("seq %d: got %+v, want it delivered or the channel slow", seq, got)
			}
		}
		if got := n.push(t, note("dm:1:2", 99_999, text)); got.Gone != got.Receivers() {
			t.Errorf("after the end: got %+v, want gone", got)
		}
		return n, p
	}
	gone := func(t *testing.T, n *testNode) {
		eventually(t, "the connection is gone", func() bool { return n.metric(t, "gochat_connections") == 0 })
		if got := n.metric(t, "gochat_channel_queue_bytes"); got != 0 {
			t.Errorf("%v bytes wait, want none", got)
		}
		if got := n.metric(t, "gochat_connection_closes_total"); got != 1 {
			t.Errorf("got %v closes counted, want 1", got)
		}
	}
	eachTransport(t, func(t *testing.T, tr transport) {
		t.Run("reads again", func(t *testing.T) {
			n, p := stalled(t, tr, testclient.Patience)
			for i, f := range p.rest(t, contract.SlowConsumer) {
				if f.Int("seq") != i+1 {
					t.Fatalf("frame %d: got seq %d", i, f.Int("seq"))
				}
			}
			_ = p.conn.Close()
			gone(t, n)
		})
		t.Run("never reads", func(t *testing.T) {
			n, _ := stalled(t, tr, 100*time.Millisecond)
			gone(t, n)
		})
	})
}

// TestEnd ends a connection for which frames wait: who reads gets them all before the error; who does not is cut off.
func TestEnd(t *testing.T) {
	end := func(t *testing.T, tr transport, linger time.Duration) (*testNode, *peer) {
		n := startNode(t, obliging(), func(c *Connect) { c.timeouts.linger = linger })
		p, ch := dialPeer(t, n, tr, 2)
		for seq := int64(1); seq <= 20; seq++ {
			n.push(t, note("dm:1:2", seq, strings.Repeat("z", 8000)))
		}
		eventually(t, "the writer hangs", func() bool {
			ch.mu.Lock()
			defer ch.mu.Unlock()
			return ch.writing && !ch.begun // it has taken the rest of the frame that did not fit
		})
		_, err := n.CloseSessions(t.Context(), &contract.CloseSessionsRequest{
			Sessions: []contract.SessionID{contract.SessionOf(token(2, 1))}, Code: contract.Replaced})
		if err != nil {
			t.Fatal(err)
		}
		return n, p
	}
	eachTransport(t, func(t *testing.T, tr transport) {
		t.Run("reads", func(t *testing.T) {
			_, p := end(t, tr, testclient.Patience)
			frames := p.rest(t, contract.Replaced)
			if len(frames) != 20 || frames[19].Int("seq") != 20 {
				t.Errorf("got %d frames, want 20", len(frames))
			}
		})
		t.Run("hangs", func(t *testing.T) {
			n, _ := end(t, tr, 100*time.Millisecond)
			eventually(t, "cut off", func() bool { return n.metric(t, "gochat_connections") == 0 })
		})
	})
}

// TestWriterTimesOut leaves frames waiting for longer than a write may take.
func TestWriterTimesOut(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.timeouts.write = 100 * time.Millisecond })
	_, _ = dialPeer(t, n, tcp, 2)
	for range 15 { // more than the sockets hold, less than may wait
		n.push(t, note("dm:1:2", 0, strings.Repeat("w", 16_000)))
	}
	eventually(t, "cut off", func() bool { return n.metric(t, "gochat_connections") == 0 })
	if got := n.metric(t, "gochat_channel_queue_bytes"); got != 0 {
		t.Errorf("%v bytes wait, want none", got)
	}
}

// TestLeavesWhileQueued closes the peer's end while frames wait for it.
func TestLeavesWhileQueued(t *testing.T) {
	eachTransport(t, func(t *testing.T, tr transport) {
		n := startNode(t, obliging(), nil)
		p, _ := dialPeer(t, n, tr, 2)
		for range 10 {
			n.push(t, note("dm:1:2", 0, strings.Repeat("w", 16_000)))
		}
		_ = p.conn.Close()
		eventually(t, "gone", func() bool { return n.metric(t, "gochat_connections") == 0 })
		if got := n.metric(t, "gochat_channel_queue_bytes"); got != 0 {
			t.Errorf("%v bytes wait, want none", got)
		}
	})
}

// lonely is a channel that no reader serves, whose socket holds little, and its other end.
func lonely(t testing.TB) (*channel, *net.TCPConn) {
	t.Helper()
	server, client := socketPair(t)
	if err := server.SetWriteBuffer(smallSocket); err != nil {
		t.Fatal(err)
	}
	fd, err := descriptor(server)
	if err != nil {
		t.Fatal(err)
	}
	c := &Connect{cfg: Defaults(), m: newMetrics(prometheus.NewRegistry(), 1), timeouts: timeouts{write: testclient.Patience}}
	c.ending = newExpiry(func() time.Duration { return testclient.Patience }, nil)
	return &channel{srv: c, conn: server, fd: fd, transport: tcp}, client
}

// closeWhenWritten closes a lonely channel's socket when nothing waits for it.
func (c *channel) closeWhenWritten() {
	c.srv.goroutines.Wait()
	_ = c.conn.Close()
}

// TestPartialWrite has the kernel take only a part of a frame: the rest follows, whatever comes between.
func TestPartialWrite(t *testing.T) {
	ch, client := lonely(t)
	var want []byte
	outcomes := make(map[outcome]int)
	for i := range 40 {
		f := newFrame(fmt.Appendf(nil, `{"n":%d,"fill":%q}`, i, strings.Repeat("p", 30_000)))
		if i >= 8 { // some that fit
			f = newFrame(fmt.Appendf(nil, `{"n":%d}`, i))
		}
		ch.mu.Lock()
		begun, writing := ch.begun, ch.writing
		ch.mu.Unlock()
		if begun && !writing {
			t.Fatal("the rest of a frame waits for nobody")
		}
		ch.mu.Lock()
		o := ch.pushOne(&delivery{Delivery: &contract.Delivery{}, frame: f})
		ch.mu.Unlock()
		if o <= queued {
			want = append(want, f[tcp]...)
			outcomes[o]++
		}
	}
	go ch.closeWhenWritten()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want the %d that were written or queued", len(got), err, len(want))
	}
	if outcomes[queued] == 0 {
		t.Errorf("got %v, want some queued", outcomes)
	}
}

// socketPair is both ends of one loopback connection.
func socketPair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// TestPushDoesNotWait pushes to a socket that is full: others get theirs.
func TestPushDoesNotWait(t *testing.T) {
	n := startNode(t, obliging(), nil)
	_, _ = dialPeer(t, n, tcp, 2)
	other := testclient.TCP(t, n.TCPAddrs()[0])
	enter(t, other, hello(t, n, other, 3, 1), 1)
	for seq := int64(1); seq <= 8; seq++ { // far more than the sockets of 2 hold, less than may wait
		n.push(t, note("dm:1:2", seq, strings.Repeat("v", 16_000)))
		n.push(t, note("room:1", seq, "quick"))
	}
	eventually(t, "the other gets everything", func() bool { return slices.Equal(seqs(other, "room:1"), upTo(1, 8)) })
}
