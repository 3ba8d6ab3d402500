package layers

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/testclient"
)

// transports are the two ways in, by name.
var transports = []string{"websocket", "tcp"}

// Opcodes of RFC 6455.
const (
	wsText   = 1
	wsBinary = 2
	wsClose  = 8
	wsPing   = 9
	wsPong   = 10
)

// peer is a client down to its bytes: it frames by hand, so that it can also frame wrongly, and sees exactly what
// the server writes. It belongs to the test's goroutine.
type peer struct {
	t         testing.TB
	conn      net.Conn
	r         *bufio.Reader
	transport string
	handshake *http.Response // of a websocket
	frames    []packet       // data frames read so far
}

// packet is one thing that the server wrote, as it was on the wire.
type packet struct {
	opcode  byte // wsText for a tcp packet
	raw     []byte
	payload []byte
}

// frame is the packet's JSON object.
func (p packet) frame(t testing.TB) testclient.Frame {
	t.Helper()
	var f testclient.Frame
	if err := json.Unmarshal(p.payload, &f); err != nil {
		t.Fatalf("server sent %q: %v", p.payload, err)
	}
	return f
}

func dial(t testing.TB, r *running, transport string) *peer {
	t.Helper()
	addr := r.WebSocket
	if transport == "tcp" {
		addr = r.TCP[0]
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it may have ended already
	_ = conn.SetDeadline(time.Now().Add(3 * testclient.Patience))
	p := &peer{t: t, conn: conn, r: bufio.NewReader(conn), transport: transport}
	if transport == "websocket" {
		p.upgrade(addr)
	}
	return p
}

// upgrade offers what browsers offer, compression among it.
func (p *peer) upgrade(host string) {
	p.t.Helper()
	p.write([]byte("GET /ws HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"))
	answer, err := http.ReadResponse(p.r, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatalf("upgrade: %v, error %v", answer, err)
	}
	p.handshake = answer
}

// write sends bytes as they are. A server that has closed is found out by reading.
func (p *peer) write(b []byte) { _, _ = p.conn.Write(b) }

// send sends a payload as one message.
func (p *peer) send(payload []byte) {
	if p.transport == "tcp" {
		p.write(testclient.Packet(payload))
		return
	}
	p.write(wsFrame(0x80|wsText, payload))
}

// say sends a JSON object.
func (p *peer) say(frame map[string]any) {
	p.t.Helper()
	b, err := json.Marshal(frame)
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(b)
}

// wsFrame is one masked frame of a client; first is the byte of FIN, RSV and opcode.
func wsFrame(first byte, payload []byte) []byte {
	const masked = 0x80
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	mask := [4]byte{0xa5, 0x5a, 0x0f, 0xf0}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// read answers the next thing that the server wrote. That it is framed as the protocol says is checked here, for
// every byte that any test of this kind sees.
func (p *peer) read() (packet, error) {
	if p.transport == "tcp" {
		return p.readTCP()
	}
	return p.readWebSocket()
}

func (p *peer) readTCP() (packet, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(p.r, head); err != nil {
		return packet{}, err
	}
	n := int(int16(binary.BigEndian.Uint16(head[2:])))
	if head[0] != 'v' || head[1] != '1' || n < 5 {
		return packet{}, fmt.Errorf("server sent the head % x", head)
	}
	raw := append(head, make([]byte, n-4)...)
	_, err := io.ReadFull(p.r, raw[4:])
	return packet{wsText, raw, raw[4:]}, err
}

func (p *peer) readWebSocket() (packet, error) {
	raw := make([]byte, 2)
	if _, err := io.ReadFull(p.r, raw); err != nil {
		return packet{}, err
	}
	opcode, n := raw[0]&0x0f, int(raw[1])
	if raw[0]&0xf0 != 0x80 || n > 127 || !slices.Contains([]byte{wsText, wsClose, wsPing, wsPong}, opcode) {
		return packet{}, fmt.Errorf("server sent the head % x: want a whole frame, plain, not masked", raw)
	}
	if extra := map[int]int{126: 2, 127: 8}[n]; extra > 0 {
		long := make([]byte, 8)
		if _, err := io.ReadFull(p.r, long[8-extra:]); err != nil {
			return packet{}, err
		}
		raw, n = append(raw, long[8-extra:]...), int(binary.BigEndian.Uint64(long))
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(p.r, payload)
	return packet{opcode, append(raw, payload...), payload}, err
}

// next answers the first data frame that match accepts, of those read and those to come. Pings of the websocket
// protocol are answered on the way.
func (p *peer) next(what string, match func(testclient.Frame) bool) packet {
	p.t.Helper()
	for i := 0; ; i++ {
		for i == len(p.frames) {
			got, err := p.read()
			switch {
			case err != nil:
				p.t.Fatalf("%s: ended before %s: %v; frames: %s", p.transport, what, err, p.frames)
			case got.opcode == wsPing:
				p.write(wsFrame(0x80|wsPong, got.payload))
			case got.opcode == wsText:
				p.frames = append(p.frames, got)
			}
		}
		if match(p.frames[i].frame(p.t)) {
			return p.frames[i]
		}
	}
}

func (p packet) String() string { return string(p.payload) }

// text awaits the message with the text.
func (p *peer) text(text string) packet {
	p.t.Helper()
	return p.next("message "+text, func(f testclient.Frame) bool {
		return (f.Op() == 2 || f.Op() == 3) && f.Str("msg") == text
	})
}

// op awaits the first frame with the op that has been, or will be, read.
func (p *peer) op(op int) packet {
	p.t.Helper()
	return p.next(fmt.Sprintf("op %d", op), func(f testclient.Frame) bool { return f.Op() == op })
}

// forget drops what has been read, so that what is awaited next is new.
func (p *peer) forget() { p.frames = nil }

// enter authenticates into a room and waits until the peer is told that it is there.
func (p *peer) enter(u *testclient.User, room int) {
	p.t.Helper()
	p.say(map[string]any{"op": 6, "authToken": u.Token, "roomId": room})
	p.online(u, room)
}

func (p *peer) online(u *testclient.User, room int) packet {
	p.t.Helper()
	return p.next(fmt.Sprintf("op 5 with %s", u.Name), func(f testclient.Frame) bool {
		people, _ := f["roomUserInfo"].(map[string]any)
		return f.Op() == 5 && f.Int("roomId") == room && people[fmt.Sprint(u.ID)] == u.Name
	})
}

// sends sends to the room and waits for the ack: proof that the connection is as good as before.
func (p *peer) sends(room int, text string) {
	p.t.Helper()
	clientID := fmt.Sprintf("sends %d", time.Now().UnixNano())
	p.say(map[string]any{"op": 3, "roomId": room, "msg": text, "clientId": clientID})
	p.next("ack of "+text, func(f testclient.Frame) bool { return f.Op() == 20 && f.Str("clientId") == clientID })
}

// end reads until the server has closed, and answers the code word of the last error frame and the close code, 0 on
// tcp.
func (p *peer) end() (code string, closed int) {
	p.t.Helper()
	for {
		got, err := p.read()
		switch {
		case errors.Is(err, io.EOF):
			return p.lastError(), closed
		case err != nil && strings.Contains(err.Error(), "connection reset"):
			p.t.Fatalf("%s: reset instead of closed after %s", p.transport, p.frames)
		case err != nil:
			p.t.Fatalf("%s: not closed: %v; frames: %s", p.transport, err, p.frames)
		case got.opcode == wsClose && len(got.payload) >= 2:
			closed = int(binary.BigEndian.Uint16(got.payload))
			p.write(wsFrame(0x80|wsClose, got.payload[:2]))
		case got.opcode == wsText:
			p.frames = append(p.frames, got)
		}
	}
}

func (p *peer) lastError() string {
	p.t.Helper()
	for _, got := range slices.Backward(p.frames) {
		if f := got.frame(p.t); f.Op() == 21 {
			return f.Str("code")
		}
	}
	return ""
}

// wantEnd checks how the server ends the connection. On tcp there is no close code to check.
func (p *peer) wantEnd(code string, closed int) {
	p.t.Helper()
	gotCode, gotClosed := p.end()
	if p.transport == "tcp" {
		closed = 0
	}
	if gotCode != code || gotClosed != closed {
		p.t.Errorf("%s: ended with %q and %d, want %q and %d; frames: %s", p.transport, gotCode, gotClosed, code, closed, p.frames)
	}
}

// calm fails the test if the process has logged a panic by the time the test ends.
func calm(t testing.TB, r *running) *running {
	t.Helper()
	t.Cleanup(func() {
		if log := r.log.String(); strings.Contains(log, "panic") {
			t.Errorf("something panicked:\n%s", log)
		}
	})
	return r
}

// system is all layers in this process, on embedded dependencies.
func system(t testing.TB, tweak func(*Config)) *running {
	t.Helper()
	cfg := patient(embeddedBackend(t).config())
	if tweak != nil {
		tweak(&cfg)
	}
	return calm(t, start(t, cfg, All()...))
}

// patient is the configuration of a process that is not to be taken for dead because the machine is busy. Tests in
// which something dies use the harness's short times.
func patient(cfg Config) Config {
	cfg.Etcd.LeaseTTL, cfg.Redis.Timeout, cfg.Connect.AuthWithin = time.Minute, testclient.Patience, time.Minute
	cfg.API.Timeout, cfg.Connect.Timeout, cfg.RPC.Timeout = testclient.Patience, testclient.Patience, testclient.Patience
	return cfg
}

// stored is how many messages of the room its history has.
func stored(t testing.TB, u *testclient.User, room int) int {
	t.Helper()
	var out struct {
		Messages []testclient.Frame `json:"messages"`
		More     bool               `json:"more"`
	}
	u.Must(t, "GET", fmt.Sprintf("/v1/rooms/%d/messages?limit=200", room), nil, &out)
	if out.More {
		t.Fatal("more messages than one page: count otherwise")
	}
	return len(out.Messages)
}

// createRoom makes a room of the user's.
func createRoom(t testing.TB, u *testclient.User, name string, private bool) int {
	t.Helper()
	var out struct {
		ID int `json:"id"`
	}
	u.Must(t, "POST", "/v1/rooms", map[string]any{"name": name, "private": private}, &out)
	return out.ID
}
