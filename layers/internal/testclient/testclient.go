// Package testclient is a person for tests: it calls the REST API and holds connections, websocket or tcp, that
// record every frame they are sent.
package testclient

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gochat/layers/internal/testwait"
)

// Patience is how long a test waits for what must come.
const Patience = testwait.Patience

// Frame is a JSON object as it came.
type Frame map[string]any

// Op is the frame's op.
func (f Frame) Op() int { return f.Int("op") }

// Int is a number of the frame, 0 if there is none.
func (f Frame) Int(key string) int {
	n, _ := f[key].(float64)
	return int(n)
}

// Str is a text of the frame, "" if there is none.
func (f Frame) Str(key string) string {
	s, _ := f[key].(string)
	return s
}

// User is somebody who is logged in.
type User struct {
	API   string // base URL
	Name  string
	ID    int
	Token string
}

// Register makes a user by /v1.
func Register(t testing.TB, api, name string) *User {
	t.Helper()
	var out struct {
		Token  string `json:"token"`
		UserID int    `json:"userId"`
	}
	u := &User{API: api, Name: name}
	u.Must(t, "POST", "/v1/register", map[string]any{"name": name, "password": "secret-password"}, &out)
	u.ID, u.Token = out.UserID, out.Token
	return u
}

// Do makes a request with the user's token and answers status and body.
func (u *User) Do(t testing.TB, method, path string, body any) (int, []byte) {
	t.Helper()
	status, answer, err := u.Try(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return status, answer
}

// Try is Do for goroutines that may not fail the test.
func (u *User) Try(method, path string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("encode body: %w", err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, u.API+path, reader)
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	}
	client := http.Client{Timeout: Patience}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Must is Do for a request that has to succeed; out is filled from the answer unless it is nil.
func (u *User) Must(t testing.TB, method, path string, body, out any) {
	t.Helper()
	status, answer := u.Do(t, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: status %d: %s", method, path, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			t.Fatalf("%s %s: decode %s: %v", method, path, answer, err)
		}
	}
}

// Conn is a connection that records what it is sent.
type Conn struct {
	send  func([]byte) error
	close func() error

	mu      sync.Mutex
	frames  []Frame
	changed chan struct{} // closed at the next frame or at the end
	ended   error         // why reading stopped
	done    chan struct{}
}

// WebSocket connects to "host:port".
func WebSocket(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := DialWebSocket(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// DialWebSocket is WebSocket for goroutines that may not fail the test.
func DialWebSocket(addr string) (*Conn, error) {
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/ws", nil)
	if err != nil {
		return nil, fmt.Errorf("dial websocket: %w", err)
	}
	return startWebSocket(ws), nil
}

// Deflated is WebSocket with compression, to which the server must agree.
func Deflated(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := DialDeflated(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// DialDeflated is Deflated for goroutines that may not fail the test.
func DialDeflated(addr string) (*Conn, error) {
	dialer := websocket.Dialer{EnableCompression: true}
	ws, resp, err := dialer.Dial("ws://"+addr+"/ws", nil)
	if err != nil {
		return nil, fmt.Errorf("dial websocket: %w", err)
	}
	if agreed := resp.Header.Get("Sec-WebSocket-Extensions"); agreed == "" {
		return nil, errors.Join(errors.New("the server does not compress"), ws.Close())
	}
	return startWebSocket(ws), nil
}

func startWebSocket(ws *websocket.Conn) *Conn {
	var writing sync.Mutex // gorilla answers pings from the reader
	return start(func(b []byte) error {
		writing.Lock()
		defer writing.Unlock()
		return ws.WriteMessage(websocket.TextMessage, b)
	}, ws.Close, func() ([]byte, error) {
		_, b, err := ws.ReadMessage()
		return b, err
	})
}

// TCP connects to "host:port".
func TCP(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := DialTCP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// DialTCP is TCP for goroutines that may not fail the test.
func DialTCP(addr string) (*Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial tcp: %w", err)
	}
	return start(func(b []byte) error {
		_, err := conn.Write(Packet(b))
		return err
	}, conn.Close, func() ([]byte, error) { return ReadPacket(conn) }), nil
}

// Packet frames a payload as the seed's clients do: written here anew, so that a fault of the server's own framing
// cannot hide.
func Packet(payload []byte) []byte {
	b := []byte{'v', '1', 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(int16(4+len(payload))))
	return append(b, payload...)
}

// Packets reads one packet after another out of a buffer, without a look at what is in it.
type Packets struct{ r *bufio.Reader }

// NewPackets reads from the connection, which is its alone from then on.
func NewPackets(r io.Reader) *Packets { return &Packets{bufio.NewReaderSize(r, 64<<10)} }

// Next is the next payload, valid until the following call.
func (p *Packets) Next() ([]byte, error) {
	head, err := p.r.Peek(4)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	packet, err := p.r.Peek(n)
	if err != nil {
		return nil, err
	}
	_, err = p.r.Discard(n)
	return packet[4:], err
}

// ReadPacket reads the payload of the next packet.
func ReadPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(int16(binary.BigEndian.Uint16(head[2:])))
	if head[0] != 'v' || head[1] != '1' || n < 5 {
		return nil, fmt.Errorf("server sent the head % x", head)
	}
	payload := make([]byte, n-4)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

func start(send func([]byte) error, closing func() error, read func() ([]byte, error)) *Conn {
	c := &Conn{send: send, close: closing, changed: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for {
			b, err := read()
			var f Frame
			if err == nil {
				if err = json.Unmarshal(b, &f); err != nil {
					err = fmt.Errorf("server sent %q: %w", b, err)
				}
			}
			c.mu.Lock()
			if err != nil {
				c.ended = err
			} else {
				c.frames = append(c.frames, f)
			}
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// Send sends a frame.
func (c *Conn) Send(t testing.TB, frame any) {
	t.Helper()
	if err := c.TrySend(frame); err != nil {
		t.Fatal(err)
	}
}

// TrySend is Send for goroutines that may not fail the test.
func (c *Conn) TrySend(frame any) error {
	b, raw := frame.([]byte)
	if !raw {
		var err error
		if b, err = json.Marshal(frame); err != nil {
			return fmt.Errorf("encode frame: %w", err)
		}
	}
	if err := c.send(b); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Close ends the connection and waits for its reader.
func (c *Conn) Close() {
	_ = c.close() // it may have ended already
	<-c.done
}

// Frames are those recorded so far.
func (c *Conn) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Frame(nil), c.frames...)
}

// Await answers the first frame that match accepts, of those recorded and those to come.
func (c *Conn) Await(t testing.TB, what string, match func(Frame) bool) Frame {
	t.Helper()
	deadline := time.After(Patience)
	for seen := 0; ; {
		c.mu.Lock()
		frames, changed, ended := c.frames, c.changed, c.ended
		c.mu.Unlock()
		for ; seen < len(frames); seen++ {
			if match(frames[seen]) {
				return frames[seen]
			}
		}
		if ended != nil {
			t.Fatalf("connection ended before %s: %v; frames: %v", what, ended, frames)
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %s within %v; frames: %v", what, Patience, frames)
		}
	}
}

// AwaitOp answers the first frame with the op.
func (c *Conn) AwaitOp(t testing.TB, op int) Frame {
	t.Helper()
	return c.Await(t, fmt.Sprintf("op %d", op), func(f Frame) bool { return f.Op() == op })
}

// AwaitText answers the message frame with the text.
func (c *Conn) AwaitText(t testing.TB, text string) Frame {
	t.Helper()
	return c.Await(t, fmt.Sprintf("message %q", text), func(f Frame) bool {
		return (f.Op() == 2 || f.Op() == 3) && f.Str("msg") == text
	})
}

// AwaitError answers the error frame with the code.
func (c *Conn) AwaitError(t testing.TB, code string) Frame {
	t.Helper()
	return c.Await(t, "error "+code, func(f Frame) bool { return f.Op() == 21 && f.Str("code") == code })
}

// AwaitEnd waits until the server has ended the connection, and answers the websocket close code, 0 on tcp.
func (c *Conn) AwaitEnd(t testing.TB) int {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(Patience):
		t.Fatalf("connection not ended within %v; frames: %v", Patience, c.Frames())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var closed *websocket.CloseError
	if errors.As(c.ended, &closed) {
		return closed.Code
	}
	return 0
}

// Enter authenticates into a room as the seed's clients do and waits until the connection is in it.
func (c *Conn) Enter(t testing.TB, u *User, room int) {
	t.Helper()
	c.Send(t, map[string]any{"op": 6, "authToken": u.Token, "roomId": room})
	c.Await(t, "who is online in the room, oneself among them", func(f Frame) bool {
		people, _ := f["roomUserInfo"].(map[string]any)
		return f.Op() == 5 && f.Int("roomId") == room && people[fmt.Sprint(u.ID)] == u.Name
	})
}

// Texts are the texts of the room or private messages of a conversation, in the order in which they came.
func (c *Conn) Texts(conversation string) []string {
	var texts []string
	for _, f := range c.Frames() {
		if (f.Op() == 2 || f.Op() == 3) && f.Str("conversation") == conversation {
			texts = append(texts, f.Str("msg"))
		}
	}
	return texts
}
