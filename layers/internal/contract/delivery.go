package contract

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// Delivery is one frame on its way from logic to the connections it is meant for: those in Room, or, if Room is
// 0, those of Users. The frame is encoded once, by logic, and is bytes from then on.
type Delivery struct {
	Conversation Conversation
	Seq          int64     // 0: a passing notice (typing, who is online) that is neither stored nor repaired
	Message      MessageID // 0 for a notice
	Room         RoomID
	Users        []UserID
	Except       ConnID    // this connection has been, or will be, answered by an ack
	AcceptedAt   time.Time // when logic accepted it, for the latency of the whole path; whole microseconds
	QueuedAt     time.Time // when it was ready for the queue; whole microseconds
	Frame        []byte    // one client frame: a JSON object
	Traceparent  string    // travels beside the encoded form, in the headers of the queue item
}

// deliveryVersion is the first byte of an encoded delivery; a layer refuses a version it does not know. The first version
// had no QueuedAt.
const deliveryVersion = 2

var errDelivery = errors.New("delivery: truncated or malformed")

// Append appends the encoded delivery, without its Traceparent, to b.
func (d *Delivery) Append(b []byte) []byte {
	b = append(b, deliveryVersion)
	b = appendString(b, string(d.Conversation))
	b = binary.AppendVarint(b, d.Seq)
	b = binary.AppendVarint(b, int64(d.Message))
	b = binary.AppendVarint(b, int64(d.Room))
	b = binary.AppendUvarint(b, uint64(len(d.Users)))
	for _, u := range d.Users {
		b = binary.AppendVarint(b, int64(u))
	}
	b = appendString(b, string(d.Except))
	b = binary.AppendVarint(b, d.AcceptedAt.UnixMicro())
	b = binary.AppendVarint(b, d.QueuedAt.UnixMicro()-d.AcceptedAt.UnixMicro())
	return appendString(b, string(d.Frame))
}

// Decode reads what Append wrote and refuses anything else. Frame aliases b.
func (d *Delivery) Decode(b []byte) error {
	if len(b) == 0 || b[0] < 1 || b[0] > deliveryVersion {
		return errDelivery
	}
	first := b[0] == 1
	r := reader{b: b[1:]}
	*d = Delivery{Conversation: Conversation(r.bytes())}
	d.Seq = r.varint()
	d.Message = MessageID(r.varint())
	d.Room = RoomID(r.varint())
	users := r.uvarint()
	if users > uint64(len(r.b)) { // each takes a byte at least: never allocate by an unchecked length
		return errDelivery
	}
	if users > 0 {
		d.Users = make([]UserID, users)
	}
	for i := range d.Users {
		d.Users[i] = UserID(r.varint())
	}
	d.Except = ConnID(r.bytes())
	accepted := r.varint()
	d.AcceptedAt = time.UnixMicro(accepted).UTC()
	d.QueuedAt = d.AcceptedAt
	if !first {
		d.QueuedAt = time.UnixMicro(accepted + r.varint()).UTC()
	}
	d.Frame = r.bytes()
	if r.failed || len(r.b) != 0 {
		return errDelivery
	}
	return nil
}

// MarshalBinary is the delivery as it crosses between processes, Traceparent included.
func (d *Delivery) MarshalBinary() ([]byte, error) {
	size := len(d.Traceparent) + len(d.Conversation) + len(d.Except) + len(d.Frame) + binary.MaxVarintLen64*(10+len(d.Users))
	return d.Append(appendString(make([]byte, 0, size), d.Traceparent)), nil
}

// UnmarshalBinary reads what MarshalBinary wrote and refuses anything else. It keeps nothing of b.
func (d *Delivery) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	traceparent := string(r.bytes())
	if r.failed {
		return errDelivery
	}
	err := d.Decode(bytes.Clone(r.b))
	d.Traceparent = traceparent
	return err
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) {
	if n <= 0 {
		r.failed, n = true, 0
	}
	r.b = r.b[n:]
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.take(n)
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.take(n)
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
