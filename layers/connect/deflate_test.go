package connect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/testclient"
)

// squeeze is a message as a client compresses it.
func squeeze(t testing.TB, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[:b.Len()-4]
}

// masked is a client's frame. The mask is zero.
func masked(first byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(len(payload)))
	return append(append(b, 0, 0, 0, 0), payload...)
}

// The first bytes of a client's frames.
const (
	whole, firstPart            = 0x81, 0x01
	wholeDeflated, partDeflated = 0xc1, 0x41
	middlePart, lastPart        = 0x00, 0x80
	pingFrame                   = 0x89
)

// TestOffers: a node agrees to what it can do, and so it says; else it sends and takes plain text.
func TestOffers(t *testing.T) {
	const agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	cases := []struct {
		offers []string
		want   bool
	}{
		{[]string{"permessage-deflate; client_max_window_bits"}, true},                                 // Chromium, Firefox
		{[]string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}, true}, // gorilla
		{[]string{"permessage-deflate"}, true},
		{[]string{"permessage-deflate;client_max_window_bits=8\t;  server_no_context_takeover"}, true},
		{[]string{"permessage-deflate; client_max_window_bits=15, permessage-deflate"}, true},
		{[]string{"permessage-deflate, x-webkit-deflate-frame"}, true},
		{[]string{"permessage-deflate, ;;;"}, true},
		{[]string{"permessage-deflate", "x-other"}, true},

		{nil, false},
		{[]string{"x-other"}, false},
		{[]string{"x-other, permessage-deflate"}, false},
		{[]string{"x-other", "permessage-deflate"}, false},
		{[]string{",permessage-deflate"}, false},
		{[]string{"permessage-deflate; server_max_window_bits=10"}, false},
		{[]string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}, false},
		{[]string{"permessage-deflate; client_max_window_bits=7"}, false},
		{[]string{"permessage-deflate; client_max_window_bits=16"}, false},
		{[]string{"permessage-deflate; client_max_window_bits=08"}, false},
		{[]string{"permessage-deflate; client_max_window_bits="}, false},
		{[]string{`permessage-deflate; client_max_window_bits="10"`}, false},
		{[]string{"permessage-deflate; client_max_window_bits = 10"}, false},
		{[]string{"permessage-deflate; client_max_window_bits; client_max_window_bits"}, false},
		{[]string{"permessage-deflate; client_max_window_bits=9; client_max_window_bits=10"}, false},
		{[]string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}, false},
		{[]string{"permessage-deflate; client_no_context_takeover=1"}, false},
		{[]string{"permessage-deflate; more"}, false},
		{[]string{"permessage-deflate; permessage-deflate"}, false},
		{[]string{"permessage-deflate;"}, false},
		{[]string{"permessage-deflate x"}, false},
		{[]string{"permessage-deflated"}, false},
		{[]string{"Permessage-Deflate"}, false},
	}
	on := func(t *testing.T, compression bool) {
		n := startNode(t, obliging(), func(c *Connect) { c.cfg.WebSocket.Compression = compression })
		for _, c := range cases {
			t.Run(strings.Join(c.offers, "|"), func(t *testing.T) {
				want := c.want && compression
				conn, err := net.Dial("tcp", n.WebSocketAddr())
				if err != nil {
					t.Fatal(err)
				}
				p := &peer{transport: webSocket, conn: conn.(*net.TCPConn), r: bufio.NewReaderSize(conn, 1)}
				got := strings.Join(p.shakeHands(t, n.WebSocketAddr(), c.offers...).Header.Values("Sec-WebSocket-Extensions"), "|")
				if want && got != agreed || !want && got != "" {
					t.Errorf("answered %q, want agreement: %v", got, want)
				}
				eventually(t, "it counts", func() bool { return len(n.all()) == 1 })
				if got := n.all()[0].transport; (got == deflated) != want || got == tcp || got.String() != "websocket" {
					t.Errorf("became %d, a %s", got, got)
				}
				if got := n.metric(t, "gochat_connections", "websocket"); got != 1 {
					t.Errorf("%v websockets are counted, want 1", got)
				}
				_ = conn.Close()
				eventually(t, "gone", func() bool { return len(n.all()) == 0 })
				eventually(t, "nobody is left who agrees", func() bool { return n.deflating.Load() == 0 })
			})
		}
	}
	t.Run("on", func(t *testing.T) { on(t, true) })
	t.Run("off", func(t *testing.T) { on(t, Defaults().WebSocket.Compression) })
}

// noise is text that compresses to no less.
func noise(bytes int) string {
	random := rand.NewChaCha8([32]byte{1})
	var b strings.Builder
	for b.Len() < bytes {
		b.WriteByte(byte(random.Uint64()))
	}
	return b.String()
}

// TestDeflatedMixedRoom: members by each transport are sent the same bytes, compressed where that was agreed to and is shorter.
func TestDeflatedMixedRoom(t *testing.T) {
	n := startNode(t, obliging(), nil)
	peers := []*peer{}
	for i, tr := range []transport{tcp, webSocket, deflated, deflated} {
		p, ch := dialPeer(t, n, tr, contract.UserID(2+i))
		p.send(t, `{"op":15,"roomId":1}`)
		eventually(t, "in the room", func() bool { return len(ch.roomIDs()) == 1 })
		peers = append(peers, p)
	}
	text := strings.Repeat("text, ", 1000)
	pad := func(size int) []byte { return []byte(`{"pad":"` + strings.Repeat("p", size-10) + `"}`) }
	for _, c := range []struct {
		name       string
		frames     [][]byte
		compressed int // of the frames
		runs       int // of the compressor
	}{
		{"a message", [][]byte{note("room:1", 0, text).Frame}, 1, 1},
		{"a short message", [][]byte{note("room:1", 0, "hi").Frame}, 1, 1},
		{"from 256 bytes on", [][]byte{pad(256)}, 1, 1},
		{"below 256 bytes", [][]byte{pad(255)}, 0, 0},
		{"incompressible", [][]byte{[]byte(noise(1000))}, 0, 1},
		{"several together", [][]byte{pad(300), pad(30), []byte(noise(400)), pad(301), pad(5000)}, 3, 4},
		{"longest", [][]byte{pad(wire.MaxTCPPacket - wire.TCPHeader)}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs := n.metric(t, "gochat_frames_compressed_total")
			var deliveries []contract.Delivery
			for _, f := range c.frames {
				deliveries = append(deliveries, contract.Delivery{Room: 1, Frame: f})
			}
			if got := n.push(t, deliveries...); got.Receivers() != len(c.frames)*len(peers) {
				t.Fatalf("got %+v", got)
			}
			for i, p := range peers {
				p.compressed = 0
				for _, want := range c.frames {
					got, err := p.nextPayload()
					if err != nil || !bytes.Equal(got, want) {
						t.Fatalf("peer %d: got %.60q, %v, want %.60q", i, got, err, want)
					}
				}
				if want := c.compressed; p.transport == deflated && p.compressed != want {
					t.Errorf("peer %d: %d were compressed, want %d", i, p.compressed, want)
				}
			}
			if got := n.metric(t, "gochat_frames_compressed_total") - runs; got != float64(c.runs) {
				t.Errorf("%v frames were compressed, want %d", got, c.runs)
			}
		})
	}
}

// TestCompressedOnce: a message is compressed once for a hundred, and not at all when nobody wants that.
func TestCompressedOnce(t *testing.T) {
	const members, messages = 100, 5
	n := startNode(t, obliging(), nil)
	count := func() float64 { return n.metric(t, "gochat_frames_compressed_total") }
	text := strings.Repeat("easily compressed ", 50)
	plain := testclient.WebSocket(t, n.WebSocketAddr())
	enter(t, plain, hello(t, n, plain, 1, 1), 1)
	seq := int64(0)
	push := func() {
		for range messages {
			seq++
			n.push(t, note("room:1", seq, text))
		}
	}
	if push(); count() != 0 {
		t.Errorf("%v were compressed for nobody", count())
	}
	var conns []*testclient.Conn
	for i := range members {
		c := testclient.Deflated(t, n.WebSocketAddr())
		enter(t, c, hello(t, n, c, contract.UserID(2+i), 1), 1)
		conns = append(conns, c)
	}
	if push(); count() != messages {
		t.Errorf("%v were compressed for %d connections, want %d", count(), members, messages)
	}
	for i, c := range conns {
		eventually(t, "all there", func() bool { return len(seqs(c, "room:1")) == messages })
		if got := c.Frames()[len(c.Frames())-1].Str("msg"); got != text {
			t.Errorf("connection %d: got %q", i, got)
		}
		c.Close()
	}
	eventually(t, "they are gone", func() bool { return len(n.all()) == 1 })
	if push(); count() != messages {
		t.Errorf("%v were compressed when all who wanted it had gone", count()-messages)
	}
	eventually(t, "all there", func() bool { return len(seqs(plain, "room:1")) == 3*messages })
}

// TestDeflatedMessages: gorilla's client compresses what it sends, and is answered.
func TestDeflatedMessages(t *testing.T) {
	logic := obliging()
	sent := make(chan string, 1)
	logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		sent <- r.Text
		return &contract.Receipt{ID: 7, Conversation: "room:1", Seq: 1}, nil
	}
	n := startNode(t, logic, nil)
	c := testclient.Deflated(t, n.WebSocketAddr())
	enter(t, c, hello(t, n, c, 2, 1), 1)
	for _, text := range []string{"hi", strings.Repeat("zoë says a lot, ", 500)} {
		c.Send(t, object{"op": 3, "roomId": 1, "msg": text, "clientId": fmt.Sprint(len(text))})
		if got := <-sent; got != text {
			t.Errorf("got %.60q, want %.60q", got, text)
		}
		n.push(t, note("room:1", 0, text))
		c.Await(t, "the message", func(f testclient.Frame) bool { return f.Op() == 3 && f.Str("msg") == text })
	}
}

// TestInflated sends a compressed connection's frames as they may be, and as they may not.
func TestInflated(t *testing.T) {
	logic := obliging()
	sent := make(chan string, 10)
	logic.send = func(_ context.Context, r *contract.SendRequest) (*contract.Receipt, error) {
		sent <- r.Text
		return &contract.Receipt{ID: 7, Conversation: "room:1", Seq: 1}, nil
	}
	n := startNode(t, logic, nil)
	message := func(text string) []byte { return fmt.Appendf(nil, `{"op":3,"roomId":1,"msg":%q}`, text) }
	a, b := message("a"), message(strings.Repeat("b", 3000))
	za, zb := squeeze(t, a), squeeze(t, b)
	bb := strings.Repeat("b", 3000)
	zero := func(size int) []byte { return squeeze(t, make([]byte, size)) }
	for _, c := range []struct {
		name      string
		transport transport
		frames    [][]byte
		want      []string // texts, before the end if there is one
		end       int      // close code, 0 if it lives
	}{
		{"compressed", deflated, [][]byte{masked(wholeDeflated, za), masked(wholeDeflated, zb)}, []string{"a", bb}, 0},
		{"not compressed", deflated, [][]byte{masked(whole, a), masked(wholeDeflated, zb), masked(whole, b)}, []string{"a", bb, bb}, 0},
		{"in parts", deflated, [][]byte{masked(partDeflated, zb[:7]), masked(middlePart, zb[7:9]), masked(middlePart, nil), masked(lastPart, zb[9:])}, []string{bb}, 0},
		{"in parts, with a ping between", deflated, [][]byte{masked(partDeflated, zb[:7]), masked(pingFrame, nil), masked(lastPart, zb[7:])}, []string{bb}, 0},
		{"in parts, then not compressed", deflated, [][]byte{masked(partDeflated, za[:7]), masked(lastPart, za[7:]), masked(firstPart, b[:9]), masked(lastPart, b[9:]),
			masked(partDeflated, za[:7]), masked(lastPart, za[7:])}, []string{"a", bb, "a"}, 0},
		{"as large as may be", deflated, [][]byte{masked(wholeDeflated, squeeze(t, append(a, bytes.Repeat([]byte(" "), wire.MaxFrame-len(a))...)))}, []string{"a"}, 0},

		{"too large by a byte", deflated, [][]byte{masked(wholeDeflated, squeeze(t, append(a, bytes.Repeat([]byte(" "), wire.MaxFrame+1-len(a))...)))}, nil, 1009},
		{"a bomb", deflated, [][]byte{masked(wholeDeflated, za), masked(wholeDeflated, zero(60<<20))}, []string{"a"}, 1009},
		{"a bomb in parts", deflated, [][]byte{masked(partDeflated, zero(60 << 20)[:30<<10]), masked(lastPart, zero(60 << 20)[30<<10:])}, nil, 1009},
		{"no deflate", deflated, [][]byte{masked(wholeDeflated, []byte("\xff\xff\xff\xff"))}, nil, 1007},
		{"half", deflated, [][]byte{masked(wholeDeflated, zb[:len(zb)/2])}, nil, 1007},
		{"not UTF-8", deflated, [][]byte{masked(wholeDeflated, squeeze(t, []byte("{\"op\":\xff}")))}, nil, 1007},
		{"binary", deflated, [][]byte{masked(0xc2, za)}, nil, 1007},
		{"compressed from the middle", deflated, [][]byte{masked(firstPart, a[:5]), masked(0xc0, za)}, nil, 1002},
		{"compressed twice", deflated, [][]byte{masked(partDeflated, za[:5]), masked(0xc0, za[5:])}, nil, 1002},
		{"another bit", deflated, [][]byte{masked(0xa1, za)}, nil, 1002},
		{"a compressed ping", deflated, [][]byte{masked(0xc9, nil)}, nil, 1002},
		{"not agreed", webSocket, [][]byte{masked(wholeDeflated, za)}, nil, 1002},
		{"not agreed, in parts", webSocket, [][]byte{masked(partDeflated, za[:5]), masked(lastPart, za[5:])}, nil, 1002},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, how := range []string{"at once", "one by one"} {
				p, ch := dialPeer(t, n, c.transport, 1)
				if how == "at once" {
					c.frames = [][]byte{bytes.Join(c.frames, nil)}
				}
				for _, f := range c.frames {
					if _, err := p.conn.Write(f); err != nil {
						t.Fatal(err)
					}
				}
				for _, want := range c.want {
					select {
					case got := <-sent:
						if got != want {
							t.Fatalf("%s: got %.60q, want %.60q", how, got, want)
						}
					case <-time.After(testclient.Patience):
						t.Fatalf("%s: the message does not come", how)
					}
				}
				if c.end != 0 {
					if got := p.readEnd(t); got != c.end {
						t.Errorf("%s: closed with %d, want %d", how, got, c.end)
					}
				} else {
					p.send(t, `{"op":10}`)
					p.awaitOp(t, int(wire.OpPong))
				}
				_ = p.conn.Close()
				eventually(t, "gone", func() bool { return n.numbered(ch.number) == nil })
			}
			if len(sent) != 0 {
				t.Errorf("also acted on %.60q", <-sent)
			}
		})
	}
}

// readEnd reads to the close frame.
func (p *peer) readEnd(t testing.TB) (code int) {
	t.Helper()
	for {
		_, err := p.next()
		var end closed
		if errors.As(err, &end) {
			return int(end)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// awaitOp reads up to a frame with the op.
func (p *peer) awaitOp(t testing.TB, op int) {
	t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Op() == op {
			return
		}
	}
}

// TestBomb: 64 KiB of what would be 60 MiB end the connection, and take no memory, however many come at once.
func TestBomb(t *testing.T) {
	const bombs, bound = 20, 8 << 20
	n := startNode(t, obliging(), nil)
	bomb := squeeze(t, make([]byte, 65_000<<10))
	if len(bomb) > wire.MaxFrame || len(bomb) < wire.MaxFrame*9/10 {
		t.Fatalf("a bomb of %d bytes", len(bomb))
	}
	explode := func(count int) (allocated uint64) {
		var peers []*peer
		for i := range count {
			p, _ := dialPeer(t, n, deflated, contract.UserID(1+i))
			peers = append(peers, p)
		}
		frame := masked(wholeDeflated, bomb)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, p := range peers {
			if _, err := p.conn.Write(frame); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range peers {
			if got := p.readEnd(t); got != 1009 {
				t.Errorf("closed with %d, want 1009", got)
			}
		}
		runtime.ReadMemStats(&after)
		for _, p := range peers {
			_ = p.conn.Close()
		}
		eventually(t, "gone", func() bool { return len(n.all()) == 0 })
		return after.TotalAlloc - before.TotalAlloc
	}
	if got := explode(bombs); got > bound {
		t.Errorf("%d bombs took %d bytes, want at most %d", bombs, got, bound)
	}
}

// TestMemoryWhenDeflated: a connection that agreed to compression, and has used it both ways, holds no more than one that did
// not.
func TestMemoryWhenDeflated(t *testing.T) {
	const connections, more = 200, 128 // bytes
	n := startNode(t, obliging(), nil)
	held := map[transport]int64{}
	hello := func(tr transport, i int) []byte {
		json := fmt.Appendf(nil, `{"op":6,"authToken":%q,"more":%q}`, token(contract.UserID(1+i), 1), strings.Repeat("m", 500))
		if tr == deflated {
			return masked(wholeDeflated, squeeze(t, json))
		}
		return masked(whole, json)
	}
	for round := range 2 { // the first fills what is filled once
		for _, tr := range []transport{webSocket, deflated} {
			before := heapInUse()
			var peers []*peer
			for i := range connections {
				p := connect(t, n, tr)
				if _, err := p.conn.Write(hello(tr, i)); err != nil {
					t.Fatal(err)
				}
				peers = append(peers, p)
			}
			eventually(t, "all are there", func() bool { users, _ := n.present(); return len(users) == connections })
			for i, p := range peers {
				text := strings.Repeat("easily compressed ", 50)
				toOne := contract.Delivery{Users: []contract.UserID{contract.UserID(1 + i)}, Frame: note("room:1", 0, text).Frame}
				eventually(t, "it is sent", func() bool { return n.push(t, toOne).Written == 1 })
				if _, err := p.nextPayload(); err != nil {
					t.Fatal(err)
				}
				if (p.compressed > 0) != (tr == deflated) {
					t.Fatalf("%d were compressed", p.compressed)
				}
			}
			held[tr] = (heapInUse() - before) / connections
			for _, p := range peers {
				_ = p.conn.Close()
			}
			eventually(t, "gone", func() bool { users, _ := n.present(); return len(users)+len(n.all()) == 0 })
		}
		t.Logf("round %d: a connection holds %d bytes, with compression %d, both ends", round, held[webSocket], held[deflated])
	}
	if held[deflated] > held[webSocket]+more {
		t.Errorf("a connection with compression holds %d bytes, one without %d", held[deflated], held[webSocket])
	}
}

// TestDeflatedPings: a websocket is pinged, compressed or not.
func TestDeflatedPings(t *testing.T) {
	n := startNode(t, obliging(), func(c *Connect) { c.cfg.Ping = time.Second })
	p, _ := dialPeer(t, n, deflated, 1)
	_ = p.conn.SetReadDeadline(time.Now().Add(testclient.Patience))
	for opcode := byte(0); opcode != wire.OpcodePing; {
		var err error
		if opcode, _, err = p.nextWebSocket(); err != nil {
			t.Fatal(err)
		}
	}
}
