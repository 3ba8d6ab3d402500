package wire

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

// maxControl is the longest payload of a control frame (RFC 6455, 5.5).
const maxControl = 125

// AppendText appends payload as one whole text frame of a server: not masked, not compressed (RFC 6455, 5.2).
func AppendText(dst, payload []byte) []byte {
	const finalText = 0x81
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, finalText, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, finalText, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, finalText, 127), uint64(n))
	}
	return append(dst, payload...)
}

// AppendControl appends a control frame of a server: opcode 8 is close, 9 ping, 10 pong. A payload above 125 bytes is
// cut, since a longer frame would end the connection.
func AppendControl(dst []byte, opcode byte, payload []byte) []byte {
	payload = payload[:min(len(payload), maxControl)]
	return append(append(dst, 0x80|opcode, byte(len(payload))), payload...)
}

// ClosePayload is the payload of a close frame. The reason is made UTF-8, and cut at a character to fit the frame.
func ClosePayload(code int, reason string) []byte {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if n := maxControl - 2; len(reason) > n {
		for !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// CloseCode is the websocket close code of a connection that ends because of c: 1011, an error of the server, for
// codes that are no reason to end one.
func CloseCode(c contract.Code) int {
	switch c {
	case contract.BadRequest:
		return 1007
	case contract.Unauthenticated:
		return 1008
	case contract.TooLarge:
		return 1009
	case contract.Unavailable:
		return 1012
	case contract.SessionEnded:
		return 4001
	case contract.Replaced:
		return 4002
	case contract.SlowConsumer:
		return 4003
	}
	return 1011
}
