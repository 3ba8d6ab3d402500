package wire

import (
	"encoding/binary"
	"math"
)

// AppendMasked appends payload as one whole frame of a websocket client, masked with the key (RFC 6455, 5.3). The payload
// is the end of it.
func AppendMasked(dst []byte, opcode byte, payload []byte, key uint32) []byte {
	const final, masked = 0x80, 0x80
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, final|opcode, masked|byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, final|opcode, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, final|opcode, masked|127), uint64(n))
	}
	dst = binary.LittleEndian.AppendUint32(dst, key)
	dst = append(dst, payload...)
	at := len(dst) - len(payload)
	unmask(dst[at:], dst[at-4:at]) // which undoes itself
	return dst
}

// NextFromServer answers the frame that b begins with, as a client reads it, and how long the frame is: more than len(b) is
// how much must be there to go on. It knows what servers of gochat send to clients that did not ask for compression: text
// that is not in parts, and control frames. It fails with a *ViolationError for anything else, and with TooLarge for a
// payload over MaxFrame.
func NextFromServer(b []byte) (f Frame, size int, err error) {
	const header = 2
	if len(b) < header {
		return f, header, nil
	}
	f.Final, f.Opcode = b[0]&0x80 != 0, b[0]&0x0f
	switch {
	case b[0]&0x70 != 0 || !f.Final:
		return f, 0, violation("a server's frame is compressed, or in parts")
	case b[1]&0x80 != 0:
		return f, 0, violation("a server's frame is masked")
	}
	length, start := payloadLength(b)
	if len(b) < start {
		return f, start, nil
	}
	if length > MaxFrame {
		return f, 0, ErrTooLarge
	}
	if size = start + int(length); len(b) >= size {
		f.Payload = b[start:size:size]
	}
	return f, size, nil
}
