package connect

import (
	"net/http"

	"github.com/gorilla/websocket"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
	"gochat/layers/internal/httpd"
)

// handler upgrades at /ws. gorilla shakes hands; from then on frames are read by the channel's reader and written by the
// channel, so that an idle connection holds no buffer and no goroutine.
func (c *Connect) handler() http.Handler {
	upgrader := websocket.Upgrader{
		CheckOrigin: func(r *http.Request) bool { return httpd.OriginAllowed(r, c.cfg.WebSocket.AllowedOrigins) },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	deflating := upgrader
	deflating.EnableCompression = true
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if !c.begin() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the node takes no more connections", http.StatusServiceUnavailable)
			return
		}
		defer c.goroutines.Done()
		u, t := &upgrader, webSocket
		if c.cfg.WebSocket.Compression && offersDeflate(r.Header) {
			u, t = &deflating, deflated
		}
		conn, err := u.Upgrade(w, r, nil)
		if err != nil {
			return // the upgrader has answered
		}
		c.admit(conn.NetConn(), t)
	})
	return mux
}

var (
	errNotUTF8 = contract.Errorf(contract.BadRequest, "text is not UTF-8")
	errBinary  = contract.Errorf(contract.BadRequest, "want text messages, not binary")
)

// onFrame acts on one frame. An error is for endFor.
func (c *channel) onFrame(f *wire.Frame) (closed bool, err error) {
	switch f.Opcode {
	case wire.OpcodePing:
		c.sendRaw(wire.AppendControl(nil, wire.OpcodePong, f.Payload))
		return false, nil
	case wire.OpcodePong:
		return false, nil
	case wire.OpcodeClose:
		code, err := wire.CloseReceived(f.Payload)
		if err == nil {
			c.sendRaw(wire.AppendControl(nil, wire.OpcodeClose, wire.ClosePayload(code, "")))
		}
		return err == nil, err
	}
	continues := c.partial != nil && c.partial.inParts
	switch {
	case continues != (f.Opcode == wire.OpcodeContinuation):
		return false, &wire.ViolationError{What: "a message's frames are not one after the other"}
	case f.Compressed && c.transport != deflated:
		return false, &wire.ViolationError{What: "compression was not agreed upon"}
	case f.Compressed && continues:
		return false, &wire.ViolationError{What: "a message is compressed from its first frame on"}
	case f.Opcode == wire.OpcodeBinary:
		return false, errBinary
	case !continues && f.Final:
		return false, c.text(f.Payload, f.Compressed)
	case c.partial == nil:
		c.partial = &partial{}
	}
	p := c.partial
	if !continues {
		p.compressed = f.Compressed
	}
	if len(p.message)+len(f.Payload) > wire.MaxFrame {
		return false, wire.ErrTooLarge
	}
	p.message, p.inParts = append(p.message, f.Payload...), !f.Final
	if !f.Final {
		return false, nil
	}
	message := p.message
	p.message = nil
	return false, c.text(message, p.compressed)
}

// text acts on a whole message.
func (c *channel) text(message []byte, compressed bool) error {
	c.begunAt.Store(0)
	if compressed {
		var err error
		if message, err = c.srv.deflate.Inflate(message); err != nil {
			return err
		}
	}
	if !wire.ValidText(message) {
		return errNotUTF8
	}
	c.handle(message)
	return nil
}
