package wire

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"

	"gochat/layers/internal/contract"
)

// Deflate compresses and inflates messages as RFC 7692 says, each by itself: without context takeover. So what it works with,
// 1.2 MB to compress and 110 KiB to inflate, belongs to no connection: there are as many as messages are
// worked on at once, and the collector takes those that are not used. The zero value is ready. It must not be copied.
type Deflate struct {
	deflaters sync.Pool // of *deflater
	inflaters sync.Pool // of *inflater
}

type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

type inflater struct {
	r   io.ReadCloser // and a flate.Resetter
	src source
	out [MaxFrame + 1]byte
}

const (
	// flushed ends what was flushed, and is not sent (RFC 7692, 7.2.1).
	flushed = "\x00\x00\xff\xff"

	// lastBlock is empty, and spares the reader an unexpected end.
	lastBlock = "\x01\x00\x00\xff\xff"
)

// AppendText appends payload as one whole compressed text frame of a server. It is false, and nothing is appended, if that
// would not be shorter than the payload.
func (d *Deflate) AppendText(dst, payload []byte) ([]byte, bool) {
	c, ok := d.deflaters.Get().(*deflater)
	if !ok {
		c = &deflater{}
		c.w, _ = flate.NewWriter(nil, flate.BestSpeed) // fails for a level that does not exist alone
	}
	defer d.deflaters.Put(c)
	c.out.Reset()
	c.w.Reset(&c.out)
	_, _ = c.w.Write(payload) // a bytes.Buffer takes everything
	_ = c.w.Flush()
	deflated, ok := bytes.CutSuffix(c.out.Bytes(), []byte(flushed))
	if !ok || len(deflated) >= len(payload) {
		return dst, false
	}
	start := len(dst)
	if dst == nil {
		dst = make([]byte, 0, len(deflated)+maxHeader)
	}
	dst = AppendText(dst, deflated)
	dst[start] |= compressed
	return dst, true
}

var errDeflate = contract.Errorf(contract.BadRequest, "the message is not compressed as RFC 7692 says")

// Inflate is the message whose compressed payload was sent, in memory of its own. It fails with BadRequest for what was not
// compressed as RFC 7692 says, and with TooLarge for a message over MaxFrame, of which no more than that is inflated.
func (d *Deflate) Inflate(payload []byte) ([]byte, error) {
	c, ok := d.inflaters.Get().(*inflater)
	if !ok {
		c = &inflater{}
		c.r = flate.NewReader(&c.src)
	}
	defer d.inflaters.Put(c)
	c.src = source{payload, flushed + lastBlock}
	defer func() { c.src = source{} }() // the payload is the caller's
	if err := c.r.(flate.Resetter).Reset(&c.src, nil); err != nil {
		return nil, errDeflate
	}
	for n := 0; n < len(c.out); {
		m, err := c.r.Read(c.out[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF) && n <= MaxFrame:
			if !c.src.atEnd() {
				return nil, errDeflate
			}
			return bytes.Clone(c.out[:n]), nil
		case err != nil && !errors.Is(err, io.EOF):
			return nil, errDeflate
		}
	}
	return nil, ErrTooLarge
}

// source is a payload, and what ends it. It gives single bytes, so that flate puts no buffer before it and reads no byte more
// than it needs.
type source struct {
	payload []byte
	end     string
}

// atEnd reports whether flate has stopped where a message may end.
func (s *source) atEnd() bool {
	switch len(s.end) {
	case 0, len(lastBlock):
		return true
	case len(flushed + lastBlock): // a block said that it is the last (7.2.3.4): no more follows than an empty one's beginning
		return len(s.payload) == 0 || len(s.payload) == 1 && s.payload[0] == 0
	}
	return false // what was sent broke off
}

func (s *source) ReadByte() (byte, error) {
	switch {
	case len(s.payload) > 0:
		b := s.payload[0]
		s.payload = s.payload[1:]
		return b, nil
	case len(s.end) > 0:
		b := s.end[0]
		s.end = s.end[1:]
		return b, nil
	}
	return 0, io.EOF
}

func (s *source) Read(into []byte) (n int, err error) {
	switch {
	case len(into) == 0:
	case len(s.payload) > 0:
		n = copy(into, s.payload)
		s.payload = s.payload[n:]
	case len(s.end) > 0:
		n = copy(into, s.end)
		s.end = s.end[n:]
	default:
		err = io.EOF
	}
	return n, err
}
