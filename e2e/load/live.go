package load

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"gochat/e2e/checker"
)

// Ops of the client protocol.
const (
	opDirect = 2
	opRoom   = 3
	opAuth   = 6
	opPing   = 10
	opReplay = 12
	opAck    = 20
	opError  = 21
	opDone   = 22
)

// frame is all that a person reads of what the server sends.
type frame struct {
	Op           int    `json:"op"`
	ID           string `json:"id"`
	Conversation string `json:"conversation"`
	Seq          int64  `json:"seq"`
	From         int64  `json:"fromUserId"`
	ClientID     string `json:"clientId"`
	Text         string `json:"msg"`
	Code         any    `json:"code"` // a number in messages, a word in errors
	RetryAfterMS int64  `json:"retryAfterMs"`
	To           int64  `json:"to"`
	More         bool   `json:"more"`
}

// Link is a connection of either transport.
type Link interface {
	Send(frame any) error // as JSON; may be called concurrently
	Read() ([]byte, error)
	Close()
}

// live holds a connection until ctx ends.
func (p *person) live(ctx context.Context) {
	for turn := p.number; ctx.Err() == nil; turn++ {
		if err := p.connection(ctx, turn); err != nil && ctx.Err() == nil {
			p.crowd.options.Log("%s: %v", p.name, err)
		}
		select {
		case <-time.After(time.Duration(50+17*(turn%8)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// connection is one connection from its beginning to its end.
func (p *person) connection(ctx context.Context, turn int) error {
	l, err := p.dial(turn)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, l.Close)()
	p.seen.Connected()
	p.mu.Lock()
	token := p.token
	clear(p.done)
	p.mu.Unlock()
	err = l.Send(map[string]any{"op": opAuth, "authToken": token, "roomId": p.crowd.options.Room, "device": "load", "resume": p.missing()})
	if err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	defer func() {
		p.mu.Lock()
		p.link = nil
		p.mu.Unlock()
	}()
	for {
		data, err := l.Read()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			return fmt.Errorf("server sent %.100q: %w", data, err)
		}
		if err := p.act(ctx, l, &f); err != nil {
			return err
		}
	}
}

// missing is what a resume names: every conversation that the person may have something of.
func (p *person) missing() map[string]int64 {
	have := make(map[string]int64, len(p.due))
	for conversation := range p.due {
		have[conversation] = p.seen.Has(conversation)
	}
	return have
}

func (p *person) act(ctx context.Context, l Link, f *frame) error {
	switch f.Op {
	case opRoom, opDirect:
		p.seen.Received(checker.Message{ID: f.ID, Conversation: f.Conversation, Seq: f.Seq, From: f.From, ClientID: f.ClientID, Text: f.Text})
	case opAck:
		p.answered(f.ClientID, answer{receipt: checker.Receipt{ID: f.ID, Conversation: f.Conversation, Seq: f.Seq}})
	case opPing:
		return l.Send(map[string]any{"op": opPing + 1})
	case opDone:
		return p.page(l, f)
	case opError:
		switch f.Code {
		case "unauthenticated", "session_ended":
			if err := p.logIn(ctx, "/v1/login", http.StatusOK); err != nil {
				return fmt.Errorf("log in again: %w", err)
			}
			return errors.New("the session had ended, logged in again")
		}
		if f.ClientID != "" {
			p.answered(f.ClientID, answer{err: fmt.Errorf("refused: %v", f.Code), retry: time.Duration(f.RetryAfterMS) * time.Millisecond})
			return nil
		}
		return fmt.Errorf("refused: %v", f.Code) // the authentication, or a resume: another connection tries again
	}
	return nil
}

func (p *person) answered(clientID string, a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting := p.waiting[clientID]; waiting != nil {
		select {
		case waiting <- a:
		default: // answered already
		}
	}
}

// page is the end of a page of a replay. The first one says that the connection is authenticated and in the room.
func (p *person) page(l Link, f *frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = l
	if f.More {
		return l.Send(map[string]any{"op": opReplay, "resume": map[string]int64{f.Conversation: f.To}})
	}
	p.done[f.Conversation] = true
	if p.synced != nil && len(p.done) == len(p.due) {
		close(p.synced)
		p.synced = nil
	}
	return nil
}

// resync asks for everything that is missing, on whatever connection there is, until all of it has been answered.
func (p *person) resync(ctx context.Context) error {
	for {
		synced := make(chan struct{})
		p.mu.Lock()
		clear(p.done)
		p.synced = synced
		l := p.link
		p.mu.Unlock()
		if l != nil {
			_ = l.Send(map[string]any{"op": opReplay, "resume": p.missing()}) // one that is broken is followed by another
		}
		select {
		case <-synced:
			return nil
		case <-time.After(Patience):
		case <-ctx.Done():
			return fmt.Errorf("%s: not synchronised: %w", p.name, ctx.Err())
		}
	}
}

// dial connects by websocket and tcp by turns.
func (p *person) dial(turn int) (Link, error) {
	a := p.crowd.options.Addresses
	if turn%2 == 0 || len(a.TCP) == 0 {
		return DialWebSocket(a.WebSocket[turn/2%len(a.WebSocket)], a.TLS)
	}
	return DialTCP(a.TCP[turn/2%len(a.TCP)], nil)
}

// DialWebSocket connects to the websocket at host:port, over TLS if there is a configuration for it.
func DialWebSocket(addr string, secure *tls.Config) (Link, error) { return DialFrom(addr, secure, "") }

// DialFrom is DialWebSocket by a page of that origin, as browsers tell it.
func DialFrom(addr string, secure *tls.Config, origin string) (Link, error) {
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	dialer := websocket.Dialer{HandshakeTimeout: Patience, TLSClientConfig: secure}
	scheme := "ws"
	if secure != nil {
		scheme = "wss"
	}
	conn, _, err := dialer.Dial(scheme+"://"+addr+"/ws", header)
	if err != nil {
		return nil, err
	}
	return &webSocket{conn: conn}, nil
}

// DialTCP connects to the tcp socket at host:port, over TLS if there is a configuration for it.
func DialTCP(addr string, secure *tls.Config) (Link, error) {
	dialer := &net.Dialer{Timeout: Patience}
	var conn net.Conn
	var err error
	if secure != nil {
		conn, err = tls.DialWithDialer(dialer, "tcp", addr, secure)
	} else {
		conn, err = dialer.Dial("tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	return &tcp{conn: conn}, nil
}

// A server pings at least once in this time; a connection that is silent for longer is dead.
const silence = 2 * time.Minute

type webSocket struct {
	conn *websocket.Conn
	mu   sync.Mutex
}

func (w *webSocket) Send(frame any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(Patience))
	return w.conn.WriteJSON(frame)
}

func (w *webSocket) Read() ([]byte, error) {
	_ = w.conn.SetReadDeadline(time.Now().Add(silence))
	_, data, err := w.conn.ReadMessage()
	return data, err
}

func (w *webSocket) Close() { _ = w.conn.Close() }

type tcp struct {
	conn net.Conn
	mu   sync.Mutex
}

// tcpHeader is "v1" and the length of the packet, these four bytes included.
const tcpHeader = 4

func (c *tcp) Send(frame any) error {
	payload, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	packet := binary.BigEndian.AppendUint16([]byte("v1"), uint16(tcpHeader+len(payload)))
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(Patience))
	_, err = c.conn.Write(append(packet, payload...))
	return err
}

func (c *tcp) Read() ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(silence))
	var header [tcpHeader]byte
	if _, err := io.ReadFull(c.conn, header[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(header[2:])) - tcpHeader
	if string(header[:2]) != "v1" || n < 1 {
		return nil, fmt.Errorf("server sent the header % x", header)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(c.conn, payload)
	return payload, err
}

func (c *tcp) Close() { _ = c.conn.Close() }
