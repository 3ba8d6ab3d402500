package canary

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const (
	helloWithin  = 5 * time.Second // to connect and to authenticate
	writeWithin  = time.Second
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// transport is a way to send a message. It comes by the other one.
type transport int

const (
	webSocket transport = iota
	tcp
	transports
)

func (t transport) String() string { return [...]string{"websocket", "tcp"}[t] }

// way is one address of the node: its websocket is the first, then come those of tcp. Also how messages fare that are
// sent by it.
type way int

const firstWay way = 0

func (w way) transport() transport {
	if w == firstWay {
		return webSocket
	}
	return tcp
}

// link is one connection to the node, from the dialing to the end. Its fields belong to the goroutine of Canary.Run; what
// comes from a link that has been replaced is ignored.
type link struct {
	way    way
	cancel context.CancelFunc // closes it
	conn   net.Conn           // nil while it is being dialed
	ready  bool               // authenticated
	last   *contract.Error    // set if the last frame was a refusal that names no message: then it is why the link ends
}

// request is a frame to the node.
type request struct {
	Op        wire.Op         `json:"op"`
	AuthToken string          `json:"authToken,omitempty"`
	Device    string          `json:"device,omitempty"`
	ToUserID  contract.UserID `json:"toUserId,omitempty"`
	Msg       string          `json:"msg,omitempty"`
	ClientID  string          `json:"clientId,omitempty"`

	Traceparent string `json:"traceparent,omitempty"`
}

// answer is what the canary reads of a frame from the node, whichever it is.
type answer struct {
	Op          wire.Op         `json:"op"`
	ID          string          `json:"id"`
	ClientID    string          `json:"clientId"`
	FromUserID  contract.UserID `json:"fromUserId"`
	Traceparent string          `json:"traceparent"`
	TraceID     string          `json:"traceId"`
	Code        contract.Code   `json:"-"`
	Message     string          `json:"message"`
}

// frame is an answer, or a ping of the websocket to be answered.
type frame struct {
	answer
	ping []byte // nil if it is none
}

// decode reads a frame. The code is a word in a refusal alone: in a message it is a number.
func decode(payload []byte) (f frame, err error) {
	if err = json.Unmarshal(payload, &f.answer); err == nil && f.Op == wire.OpError {
		var word struct {
			Code contract.Code `json:"code"`
		}
		err = json.Unmarshal(payload, &word)
		f.Code = word.Code
	}
	if err != nil {
		return frame{}, fmt.Errorf("decode frame: %w", err)
	}
	return f, nil
}

// serve connects, then hands over every frame until the connection or ctx ends.
func serve(ctx context.Context, t transport, addr string, opened func(net.Conn), take func(frame)) error {
	dialer := net.Dialer{Timeout: helloWithin}
	conn, err := dialer.DialContext(ctx, "tcp", addr) // of a wildcard address this host is meant
	if err != nil {
		return err
	}
	closing := func() { _ = conn.Close() }
	defer closing()
	defer context.AfterFunc(ctx, closing)()
	_ = conn.SetDeadline(time.Now().Add(helloWithin)) // fails if it is closed, which whoever uses it is told
	next, err := framing(t, conn)
	if err != nil {
		return err
	}
	opened(conn)
	for {
		f, err := next()
		if err != nil {
			return err
		}
		if f.Op == wire.OpPong {
			_ = conn.SetReadDeadline(time.Time{}) // hello is over
		}
		take(f)
	}
}

// framing agrees on the transport, and answers what reads the next frame.
func framing(t transport, conn net.Conn) (next func() (frame, error), err error) {
	if t == tcp {
		packets := wire.NewPacketReader(conn)
		return func() (frame, error) {
			payload, err := packets.Next()
			if err != nil {
				return frame{}, err
			}
			return decode(payload)
		}, nil
	}
	r := bufio.NewReaderSize(conn, wire.MaxFrame+16) // with the longest header
	if err := upgrade(conn, r); err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return func() (frame, error) { return nextOfWebSocket(r) }, nil
}

// upgrade is the opening handshake (RFC 6455, 4.1).
func upgrade(conn net.Conn, r *bufio.Reader) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+conn.RemoteAddr().String()+"/ws", http.NoBody)
	if err != nil {
		return err
	}
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(key[:]))
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	return nil
}

// nextOfWebSocket passes over what asks for nothing.
func nextOfWebSocket(r *bufio.Reader) (frame, error) {
	for {
		f, err := cut(r)
		if err != nil {
			return frame{}, err
		}
		switch f.Opcode {
		case wire.OpcodeText:
			return decode(f.Payload)
		case wire.OpcodePing:
			return frame{ping: append([]byte{}, f.Payload...)}, nil
		case wire.OpcodeClose:
			code, err := wire.CloseReceived(f.Payload)
			if err != nil {
				return frame{}, err
			}
			return frame{}, fmt.Errorf("closed with %d", code)
		}
	}
}

// cut reads one frame, valid until the next call.
func cut(r *bufio.Reader) (wire.Frame, error) {
	for want := 1; ; {
		b, err := r.Peek(want)
		if err != nil {
			return wire.Frame{}, err
		}
		f, size, err := wire.NextFromServer(b)
		if err != nil {
			return wire.Frame{}, err
		}
		if size <= len(b) {
			_, err = r.Discard(size)
			return f, err
		}
		want = size
	}
}

// send writes one frame. A link that does not take it ends, which its reader tells.
func (l *link) send(r request) {
	payload, err := json.Marshal(r)
	if err == nil {
		err = l.write(wire.OpcodeText, payload)
	}
	if err != nil {
		l.cancel()
	}
}

func (l *link) write(opcode byte, payload []byte) error {
	var b []byte
	if l.way.transport() == webSocket {
		b = wire.AppendMasked(nil, opcode, payload, mathrand.Uint32())
	} else {
		var err error
		if b, err = wire.AppendTCP(nil, payload); err != nil {
			return err
		}
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := l.conn.Write(b)
	return err
}

// newTrace is a traceparent of the canary's own (W3C Trace Context), recorded by the others if sampled.
func newTrace(sampled bool) string {
	var ids [24]byte
	_, _ = rand.Read(ids[:]) // never fails; all zeroes, which are none, do not come
	flags := 0
	if sampled {
		flags = 1
	}
	return fmt.Sprintf("00-%x-%x-%02x", ids[:16], ids[16:], flags)
}

// backoff doubles up to lastBackoff. Its second half is random, so that many nodes do not try as one.
func backoff(attempt int) time.Duration {
	ceiling := min(firstBackoff<<min(attempt, 10), lastBackoff)
	return ceiling/2 + mathrand.N(ceiling/2)
}
