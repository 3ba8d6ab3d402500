package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// What a client writes is what NextFrame reads, which has golden and fuzz tests of its own.
func TestAppendMasked(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 125, 126, 1000, 65535, 65536} {
		payload := bytes.Repeat([]byte("abcdefghi"), n)[:n]
		b := AppendMasked([]byte("before"), OpcodeText, payload, 0x01020304)
		if n >= 8 && bytes.Contains(b, payload) {
			t.Errorf("%d bytes are not masked", n)
		}
		f, size, err := NextFrame(slices.Clone(b[len("before"):]))
		if err != nil || size != len(b)-len("before") || f.Opcode != OpcodeText || !f.Final || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: got %d of opcode %d in a frame of %d, %v", n, len(f.Payload), f.Opcode, size, err)
		}
	}
}

// What the server writes a client reads, however little of it has come.
func TestNextFromServer(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 1000, 65535, 65536} {
		payload := bytes.Repeat([]byte("abcdefghi"), n)[:n]
		whole := AppendText(nil, payload)
		want := 2
		for have := 0; have < len(whole); have = want {
			f, size, err := NextFromServer(whole[:have])
			if err != nil || size <= have || size > len(whole) || f.Payload != nil {
				t.Fatalf("%d bytes, %d of the frame: size %d, %v", n, have, size, err)
			}
			want = size
		}
		f, size, err := NextFromServer(append(slices.Clone(whole), "more"...))
		if err != nil || size != len(whole) || f.Opcode != OpcodeText || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: got %d of opcode %d in a frame of %d, %v", n, len(f.Payload), f.Opcode, size, err)
		}
	}
	f, _, err := NextFromServer(AppendControl(nil, OpcodeClose, ClosePayload(4001, "ended")))
	if code, _ := CloseReceived(f.Payload); err != nil || f.Opcode != OpcodeClose || code != 4001 {
		t.Errorf("a close frame: got %+v, %v", f, err)
	}
}

func TestNextFromServerRefuses(t *testing.T) {
	for _, c := range []struct{ name, in string }{
		{"in parts", "\x01\x01x"},
		{"compressed", "\xc1\x01x"},
		{"masked", "\x81\x81aaaax"},
	} {
		var violated *ViolationError
		if _, _, err := NextFromServer([]byte(c.in)); !errors.As(err, &violated) {
			t.Errorf("%s: got %v, want what is violated", c.name, err)
		}
	}
	if _, _, err := NextFromServer([]byte("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless: got %v, want that it is too large", err)
	}
}
