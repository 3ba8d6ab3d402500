package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"gochat/layers/connect/wire"
)

// Websocket opcodes (RFC 6455, 11.8).
const (
	opcodeText  = 1
	opcodeClose = 8
	opcodePing  = 9
	opcodePong  = 10
)

// frame is one that the server has sent. Its payload aliases what it was cut from.
type frame struct {
	opcode  byte // of a tcp packet opcodeText
	payload []byte
}

// cutFrame takes the first frame off b. n is its length with header, 0 if it is not whole.
func cutFrame(transport string, b []byte) (f frame, n int, err error) {
	if transport == TCP {
		return cutPacket(b)
	}
	return cutWebSocket(b)
}

func cutPacket(b []byte) (frame, int, error) {
	if len(b) < wire.TCPHeader {
		return frame{}, 0, nil
	}
	n := int(int16(binary.BigEndian.Uint16(b[2:])))
	if b[0] != 'v' || b[1] != '1' || n <= wire.TCPHeader {
		return frame{}, 0, fmt.Errorf("not a packet: % x", b[:wire.TCPHeader])
	}
	if len(b) < n {
		return frame{}, 0, nil
	}
	return frame{opcodeText, b[wire.TCPHeader:n]}, n, nil
}

var errFrame = errors.New("not a whole, plain websocket frame of a server")

func cutWebSocket(b []byte) (frame, int, error) {
	f, n, err := wire.NextFromServer(b)
	if err != nil || len(b) < n {
		return frame{}, 0, err
	}
	return frame{f.Opcode, f.Payload}, n, nil
}

// maxFrame is what the buffer of the reader is sure to hold.
const maxFrame = 128 << 10

// appendFrame appends a frame of a client, and answers where its payload begins if that is masked, counted from the
// frame's beginning, else 0.
func appendFrame(dst []byte, transport string, opcode byte, payload []byte, key uint32) (out []byte, masked int) {
	if transport == TCP {
		dst = append(dst, 'v', '1')
		dst = binary.BigEndian.AppendUint16(dst, uint16(wire.TCPHeader+len(payload)))
		return append(dst, payload...), 0
	}
	out = wire.AppendMasked(dst, opcode, payload, key)
	return out, len(out) - len(dst) - len(payload)
}

// mask writes the key and applies it (RFC 6455, 5.3). Applied to 0 it changes nothing, so that key 0 leaves plain text.
func mask(payload, key []byte, with uint32) {
	binary.LittleEndian.PutUint32(key, with)
	wide := uint64(with)<<32 | uint64(with)
	for len(payload) >= 8 {
		binary.LittleEndian.PutUint64(payload, binary.LittleEndian.Uint64(payload)^wide)
		payload = payload[8:]
	}
	for i := range payload {
		payload[i] ^= key[i&3]
	}
}

var (
	opKey   = []byte(`"op":`)
	codeKey = []byte(`"code":"`)
)

// opOf is the number after the first "op" of a JSON object, 0 if there is none. A text cannot feign one, since quotes in
// it are escaped.
func opOf(payload []byte) (op wire.Op) {
	at := bytes.Index(payload, opKey)
	if at < 0 {
		return 0
	}
	for _, c := range payload[at+len(opKey):] {
		if c < '0' || c > '9' || op > 1000 {
			break
		}
		op = op*10 + wire.Op(c-'0')
	}
	return op
}

// unknownCode stands for what is no code word.
const unknownCode = "unknown"

// codeOf is the code word of an error frame.
func codeOf(payload []byte) string {
	at := bytes.Index(payload, codeKey)
	if at < 0 {
		return unknownCode
	}
	word := payload[at+len(codeKey):]
	for i, c := range word {
		switch {
		case c == '"' && i > 0:
			return string(word[:i])
		case i == 32 || (c < 'a' || c > 'z') && c != '_':
			return unknownCode
		}
	}
	return unknownCode
}
