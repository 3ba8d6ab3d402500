package connect

import (
	"bytes"
	"errors"
	"io"
	"net"
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
// channel, so that nothing else writes to the socket once frames flow, but for the close frame with which gorilla
// ends a connection that violates RFC 6455.
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
		if !c.begin() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the node takes no more connections", http.StatusServiceUnavailable)
			return
		}
		defer c.goroutines.Done()
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // the upgrader has answered
		}
		// The handler returns, so that the server's buffers and goroutine for this connection are given back.
		c.admit(conn.NetConn(), webSocket, func(ch *channel) { c.serveWebSocket(ch, conn) })
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
			ch.finish(err)
			return
		}
		if ch.isEnded() {
			ch.discard()
			return
		}
		ch.touch()
		err = c.readMessage(ch, kind, r)
		if bad := (*contract.Error)(nil); errors.As(err, &bad) {
			ch.end(bad.Code, bad.Message)
			ch.discard()
			return
		} else if err != nil {
			ch.finish(err)
			return
		}
	}
}

// finish lets a peer that broke the websocket protocol read why: gorilla has answered it with a close frame. Any
// other error of reading means that there is nobody left to read it.
func (c *channel) finish(err error) {
	var closed *websocket.CloseError
	var network net.Error
	if errors.As(err, &closed) || errors.As(err, &network) {
		return
	}
	c.mu.Lock()
	c.ended = true
	c.closeWrite()
	c.mu.Unlock()
	c.discard()
}

// readMessage reads one message into a shared buffer and acts on it. It fails with a contract.Error for a message
// that ends the connection, and with the connection's own error if that has ended.
func (c *Connect) readMessage(ch *channel, kind int, r io.Reader) error {
	buf := c.buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 2*wire.MaxFrame {
			c.buffers.Put(buf)
		}
	}()
	into := bytes.NewBuffer((*buf)[:0])
	ch.readWithin(c.timeouts.packet)
	defer ch.readWithin(0)
	if _, err := into.ReadFrom(io.LimitReader(r, wire.MaxFrame+1)); err != nil {
		return err
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
