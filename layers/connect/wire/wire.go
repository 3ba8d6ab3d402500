// Package wire is what clients and gochat say to each other: one JSON vocabulary, and the two framings that carry
// it, websocket and tcp.
//
// Decode judges what clients send and lets nothing through that a later part would have to judge again. The Append
// functions write what the server sends. They append to dst, as the built-in does, so that a caller can reuse a
// buffer or put a header before a frame; none keeps dst or what it was given. Every frame they write for values
// within the limits of the contract package fits one tcp packet, so that no message exists that some client cannot
// be sent.
//
// Nothing here does I/O but PacketReader, which is for clients, and all but PacketReader may be called by many goroutines at once.
package wire

import (
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

// Op says what a frame is about.
type Op int

const (
	OpDirect     Op = 2
	OpRoom       Op = 3
	OpCount      Op = 4
	OpRoomInfo   Op = 5
	OpAuth       Op = 6
	OpPing       Op = 10
	OpPong       Op = 11
	OpReplay     Op = 12
	OpRead       Op = 13
	OpTyping     Op = 14
	OpEnter      Op = 15
	OpLeave      Op = 16
	OpAck        Op = 20
	OpError      Op = 21
	OpReplayDone Op = 22
	OpGoingAway  Op = 23
)

// Sizes in bytes.
const (
	TCPHeader    = 4         // 'v' '1' and the length
	MaxTCPPacket = 1<<15 - 1 // with its header: what a signed 16-bit length can say
	MaxFrame     = 64 << 10  // of one websocket message from a client

	maxTCPPayload = MaxTCPPacket - TCPHeader

	// maxEnvelope bounds a message frame without its text: every number at its longest, and the names and the client
	// id made of characters that take six bytes each.
	maxEnvelope = 2 << 10

	// MaxEncodedText bounds EncodedTextLen of a message's text. contract.MaxTextBytes alone does not keep a message
	// within a tcp packet, since a control character takes six bytes in JSON and a quote takes two.
	MaxEncodedText = maxTCPPayload - maxEnvelope
)

// ValidText reports whether the payload of a websocket text message is UTF-8. If it is not, the connection ends with
// 1007.
func ValidText(payload []byte) bool { return utf8.Valid(payload) }

// CheckText answers whether a message may say text, by whichever way it came: BadRequest if it is empty, is not
// UTF-8 or holds a NUL, which PostgreSQL cannot store; TooLarge above contract.MaxTextBytes, or if its message frame
// might not fit a tcp packet.
func CheckText(text string) error {
	switch {
	case text == "":
		return contract.Errorf(contract.BadRequest, "msg is missing or empty")
	case len(text) > contract.MaxTextBytes:
		return contract.Errorf(contract.TooLarge, "msg is over %d bytes", contract.MaxTextBytes)
	case !utf8.ValidString(text) || hasNUL(text):
		return contract.Errorf(contract.BadRequest, "msg is not text: it is not UTF-8 or holds a NUL")
	case EncodedTextLen(text) > MaxEncodedText:
		return contract.Errorf(contract.TooLarge, "msg is over %d bytes once escaped", MaxEncodedText)
	}
	return nil
}
