package wire

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

// Opcodes of websocket frames (RFC 6455, 11.8).
const (
	OpcodeContinuation = 0
	OpcodeText         = 1
	OpcodeBinary       = 2
	OpcodeClose        = 8
	OpcodePing         = 9
	OpcodePong         = 10
)

// CloseViolation is the close code of a connection whose client violates RFC 6455 (7.4.1).
const CloseViolation = 1002

// ViolationError is what a client did against RFC 6455. It ends the connection with CloseViolation.
type ViolationError struct{ What string }

func (e *ViolationError) Error() string { return "against RFC 6455: " + e.What }

func violation(what string) error { return &ViolationError{what} }

// Frame is one frame of a websocket client.
type Frame struct {
	Final      bool
	Compressed bool // the first of a compressed message (RFC 7692, 6)
	Opcode     byte
	Payload    []byte
}

// Control reports whether the frame is none of a message.
func (f *Frame) Control() bool { return f.Opcode >= OpcodeClose }

// payloadLength is how long the payload of the frame is that b, of two bytes at least, begins with, and where in b what follows
// the length starts: beyond its end if the length is not there yet.
func payloadLength(b []byte) (length uint64, start int) {
	const header = 2
	length, start = uint64(b[1]&0x7f), header
	switch {
	case length == 126:
		if start += 2; len(b) >= start {
			length = uint64(binary.BigEndian.Uint16(b[header:]))
		}
	case length == 127:
		if start += 8; len(b) >= start {
			length = binary.BigEndian.Uint64(b[header:])
		}
	}
	return length, start
}

// NextFrame answers the frame that b begins with, its payload unmasked where it stands, and how long the frame is: more than
// len(b) is how much must be there to go on. It fails with a *ViolationError, and with TooLarge for a payload over MaxFrame,
// as soon as the header is there: nobody needs to hold the rest.
func NextFrame(b []byte) (f Frame, size int, err error) {
	const header, maskKey, reserved = 2, 4, 0x30
	if len(b) < header {
		return f, header, nil
	}
	f.Final, f.Compressed, f.Opcode = b[0]&0x80 != 0, b[0]&compressed != 0, b[0]&0x0f
	switch {
	case b[0]&reserved != 0:
		return f, 0, violation("a reserved bit is set")
	case f.Opcode > OpcodeBinary && f.Opcode < OpcodeClose || f.Opcode > OpcodePong:
		return f, 0, violation("the opcode is not known")
	case b[1]&0x80 == 0:
		return f, 0, violation("a client's frame is not masked")
	}
	length, start := payloadLength(b)
	if len(b) < start {
		return f, start, nil
	}
	switch {
	case f.Control() && (!f.Final || f.Compressed || length > maxControl):
		return f, 0, violation("a control frame is in parts, compressed or too long")
	case length > MaxFrame:
		return f, 0, ErrTooLarge
	}
	start += maskKey
	if size = start + int(length); len(b) < size {
		return f, size, nil
	}
	f.Payload = b[start:size:size]
	unmask(f.Payload, b[start-maskKey:start])
	return f, size, nil
}

// ErrTooLarge is that of a message over MaxFrame, however many frames it comes in.
var ErrTooLarge = contract.Errorf(contract.TooLarge, "want at most %d KiB a message", MaxFrame>>10)

// unmask undoes the masking of a client (RFC 6455, 5.3).
func unmask(b, key []byte) {
	word := uint64(binary.LittleEndian.Uint32(key))
	word |= word << 32
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
	}
	for i := range b {
		b[i] ^= key[i%len(key)]
	}
}

// CloseReceived is the code with which a client's close frame is answered: its own (RFC 6455, 5.5.1).
func CloseReceived(payload []byte) (code int, err error) {
	if len(payload) == 0 {
		return 1000, nil
	}
	if len(payload) == 1 {
		return 0, violation("a close frame has half a code")
	}
	code = int(binary.BigEndian.Uint16(payload))
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return 0, violation("the close code may not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, violation("the reason of a close frame is not UTF-8")
	}
	return code, nil
}

const (
	maxControl = 125  // the longest payload of a control frame (RFC 6455, 5.5)
	maxHeader  = 10   // the longest before a server's payload
	compressed = 0x40 // RSV1 (RFC 7692, 6)
)

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

// AppendControl appends a control frame of a server. A payload above 125 bytes is cut, since a longer frame would end the connection.
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
