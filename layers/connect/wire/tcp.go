package wire

import (
	"encoding/binary"
	"errors"
	"io"

	"gochat/layers/internal/contract"
)

// minTCPPacket is a header and the least payload, one byte.
const minTCPPacket = TCPHeader + 1

// AppendTCP appends a packet with the payload. It fails, with dst as it was, with TooLarge if the packet would be
// over MaxTCPPacket, so that the length never wraps, and with BadRequest for an empty payload, which no reader takes.
func AppendTCP(dst, payload []byte) ([]byte, error) {
	switch {
	case len(payload) == 0:
		return dst, contract.Errorf(contract.BadRequest, "a tcp packet has a payload")
	case len(payload) > maxTCPPayload:
		return dst, contract.Errorf(contract.TooLarge, "a tcp packet is %d bytes at most", MaxTCPPacket)
	}
	dst = append(dst, 'v', '1')
	dst = binary.BigEndian.AppendUint16(dst, uint16(TCPHeader+len(payload)))
	return append(dst, payload...), nil
}

// NextPacket answers the payload of the packet that b begins with, and how long the packet is: more than len(b) is how much
// must be there to go on. It fails with BadRequest for a header that is not one: there is no way to find the next packet.
func NextPacket(b []byte) (payload []byte, size int, err error) {
	if len(b) < TCPHeader {
		return nil, TCPHeader, nil
	}
	if b[0] != 'v' || b[1] != '1' {
		return nil, 0, contract.Errorf(contract.BadRequest, "a tcp packet begins with v1")
	}
	// Signed, as in the protocol: what would be over MaxTCPPacket is negative.
	size = int(int16(binary.BigEndian.Uint16(b[2:])))
	if size < minTCPPacket {
		return nil, 0, contract.Errorf(contract.BadRequest, "a tcp packet is %d to %d bytes", minTCPPacket, MaxTCPPacket)
	}
	if len(b) < size {
		return nil, size, nil
	}
	return b[TCPHeader:size:size], size, nil
}

// smallBuffer is what PacketReader keeps. Most packets fit it, and several glued ones.
const smallBuffer = 448

// PacketReader takes packets from a connection, however they are split or glued. It belongs to one goroutine.
//
// It reads ahead at most smallBuffer bytes. A packet that needs more gets a buffer of exactly its length, which has
// been checked by then, and which is given up at the next call.
type PacketReader struct {
	src        io.Reader
	buf        []byte // small[:], or the one large packet
	start, end int    // buf[start:end] is read and not yet answered
	small      [smallBuffer]byte
}

// NewPacketReader reads from r, which should have deadlines: a packet may take for ever to come.
func NewPacketReader(r io.Reader) *PacketReader {
	p := &PacketReader{src: r}
	p.buf = p.small[:]
	return p
}

// Next blocks until a packet is whole and answers its payload, valid until the next call. It fails with
//   - io.EOF if the connection ends between packets, io.ErrUnexpectedEOF if it ends inside one;
//   - BadRequest for a header that is not one: there is no way to find the next packet, so every later call fails too;
//   - any other error of the connection as it is. After a deadline, the next call goes on where this one stopped.
func (p *PacketReader) Next() ([]byte, error) {
	if p.start == p.end {
		p.buf, p.start, p.end = p.small[:], 0, 0
	}
	for want := TCPHeader; ; {
		if err := p.fill(want); err != nil {
			return nil, err
		}
		payload, size, err := NextPacket(p.buf[p.start:p.end])
		if err != nil {
			return nil, err
		}
		if payload != nil {
			p.start += size
			return payload, nil
		}
		want = size
	}
}

// fill makes buf[start:end] at least n bytes long.
func (p *PacketReader) fill(n int) error {
	have := p.end - p.start
	if have >= n {
		return nil
	}
	if p.start+n > len(p.buf) {
		to := p.buf
		if n > len(to) {
			to = make([]byte, n)
		}
		copy(to, p.buf[p.start:p.end])
		p.buf, p.start, p.end = to, 0, have
	}
	read, err := io.ReadAtLeast(p.src, p.buf[p.end:], n-have)
	p.end += read
	if errors.Is(err, io.EOF) && p.end > p.start {
		return io.ErrUnexpectedEOF
	}
	return err
}
