package connect

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/httpd"
)

// Websocket opcodes (RFC 6455, 11.8).
const (
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// readBuffer is what gorilla keeps for an idle connection.
const readBuffer = 512

// handler upgrades at /ws. gorilla shakes hands and reads; what goes out is framed by wire and written by the
// channel, so that nothing else writes to the socket once frames flow.
func (c *Connect) handler() http.Handler {
	upgrader := websocket.Upgrader{
		ReadBufferSize:  readBuffer,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(r *http.Request) bool { return httpd.OriginAllowed(r, c.cfg.WebSocket.AllowedOrigins) },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // the upgrader has answered
		}
		ch := c.admit(conn.NetConn(), webSocket)
		if ch == nil {
			_ = conn.Close()
			return
		}
		// The handler returns, so that the server's buffers and goroutine for this connection are given back.
		c.goroutines.Go(func() { c.serveWebSocket(ch, conn) })
	})
	return mux
}

var (
	errNotUTF8  = contract.Errorf(contract.BadRequest, "text is not UTF-8")
	errBinary   = contract.Errorf(contract.BadRequest, "want text messages, not binary")
	errTooLarge = contract.Errorf(contract.TooLarge, "want at most 64 KiB a message")
)

// serveWebSocket reads until the connection ends.
func (c *Connect) serveWebSocket(ch *channel, conn *websocket.Conn) {
	defer c.dismiss(ch)
	conn.SetPingHandler(func(data string) error {
		ch.touch()
		ch.sendRaw(wire.AppendControl(nil, opPong, []byte(data)))
		return nil
	})
	conn.SetPongHandler(func(string) error { ch.touch(); return nil })
	conn.SetCloseHandler(func(code int, _ string) error {
		if code == websocket.CloseNoStatusReceived {
			code = websocket.CloseNormalClosure
		}
		ch.sendRaw(wire.AppendControl(nil, opClose, wire.ClosePayload(code, "")))
		return nil
	})
	deadline := c.authDeadline(ch)
	defer deadline.Stop()
	for {
		kind, r, err := conn.NextReader()
		if err != nil {
			return
		}
		ch.touch()
		if err := c.readMessage(ch, kind, r); err != nil {
			if e := contract.AsError(err); e.Code != contract.Internal {
				ch.end(e.Code, e.Message)
				c.discard(conn)
			}
			return
		}
		if ch.isEnded() {
			c.discard(conn)
			return
		}
	}
}

// discard reads on until the peer closes or the deadline that end has set, since closing a socket with unread
// bytes would take back the last frames.
func (c *Connect) discard(conn *websocket.Conn) {
	_, _ = io.Copy(io.Discard, conn.NetConn())
}

// readMessage reads one message into a shared buffer and acts on it. An error that is a contract.Error ends the
// connection with its code.
func (c *Connect) readMessage(ch *channel, kind int, r io.Reader) error {
	buf := c.buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 2*wire.MaxFrame {
			c.buffers.Put(buf)
		}
	}()
	into := bytes.NewBuffer((*buf)[:0])
	if _, err := into.ReadFrom(io.LimitReader(r, wire.MaxFrame+1)); err != nil {
		return errors.Join(errReading, err)
	}
	*buf = into.Bytes()
	switch {
	case into.Len() > wire.MaxFrame:
		return errTooLarge
	case kind != websocket.TextMessage:
		return errBinary
	case !wire.ValidText(into.Bytes()):
		return errNotUTF8
	}
	ch.handle(into.Bytes())
	return nil
}

// errReading marks a connection that broke while a message was read.
var errReading = errors.New("read message")
