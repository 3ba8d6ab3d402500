package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

func TestControlFrameIsBounded(t *testing.T) {
	for payload, want := range map[int]int{0: 2, 1: 3, 125: 127, 126: 127, 70_000: 127} {
		got := AppendControl(nil, 9, bytes.Repeat([]byte("p"), payload))
		if len(got) != want || int(got[1]) != len(got)-2 || got[0] != 0x89 {
			t.Errorf("%d bytes: got a frame of %d, %x, want %d", payload, len(got), got[:2], want)
		}
	}
}

func TestClosePayload(t *testing.T) {
	for _, c := range []struct{ name, reason, want string }{
		{"none", "", ""},
		{"short", "slow_consumer", "slow_consumer"},
		{"longest", strings.Repeat("r", 123), strings.Repeat("r", 123)},
		{"longer", strings.Repeat("r", 124), strings.Repeat("r", 123)},
		{"cut at a character", strings.Repeat("r", 122) + "é", strings.Repeat("r", 122)},
		{"not UTF-8", "a\xff", "a\uFFFD"},
	} {
		got := ClosePayload(4003, c.reason)
		if string(got) != "\x0f\xa3"+c.want || len(got) > 125 || !utf8.Valid(got[2:]) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCloseCode(t *testing.T) {
	for code, want := range map[contract.Code]int{
		contract.BadRequest: 1007, contract.Unauthenticated: 1008, contract.TooLarge: 1009, contract.Unavailable: 1012,
		contract.SessionEnded: 4001, contract.Replaced: 4002, contract.SlowConsumer: 4003,
		contract.Internal: 1011, contract.NotFound: 1011, "": 1011,
	} {
		if got := CloseCode(code); got != want {
			t.Errorf("%q: got %d, want %d", code, got, want)
		}
	}
}

func TestValidText(t *testing.T) {
	for text, want := range map[string]bool{"": true, "zoë": true, "\xff": false, "\xed\xa0\x80": false} {
		if got := ValidText([]byte(text)); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// clientFrame is a frame as a client makes it.
func clientFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 1<<16-1:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{0xde, 0xad, 0xbe, 0xef}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// TestNextFrame reads frames of every length of header, when they are there and before.
func TestNextFrame(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 9, 125, 126, 127, 4096, 1<<16 - 1, 1 << 16} {
		payload := bytes.Repeat([]byte("0123456789abc"), n/13+1)[:n]
		whole := clientFrame(0x81, payload)
		for _, have := range []int{0, 1, 2, 3, 4, 9, 13, len(whole) - 1} {
			if have >= len(whole) {
				continue
			}
			f, size, err := NextFrame(bytes.Clone(whole[:have]))
			if err != nil || size <= have || size > len(whole) || f.Payload != nil {
				t.Errorf("%d of %d bytes: got size %d, %v", have, len(whole), size, err)
			}
		}
		f, size, err := NextFrame(append(bytes.Clone(whole), "next"...))
		if err != nil || size != len(whole) || !bytes.Equal(f.Payload, payload) || !f.Final || f.Opcode != OpcodeText || f.Compressed {
			t.Errorf("%d bytes: got %d of opcode %d, size %d, %v", n, len(f.Payload), f.Opcode, size, err)
		}
	}
}

// TestNextFrameRefuses what RFC 6455 forbids, as soon as the header shows it.
func TestNextFrameRefuses(t *testing.T) {
	unmasked := func(b []byte) []byte { b[1] &^= 0x80; return b }
	for _, c := range []struct {
		name string
		b    []byte
		want contract.Code // "" is a violation
	}{
		{"reserved bit", clientFrame(0xa1, nil), ""},
		{"opcode 3", clientFrame(0x83, nil), ""},
		{"opcode 11", clientFrame(0x8b, nil), ""},
		{"not masked", unmasked(clientFrame(0x81, []byte("x"))), ""},
		{"a ping in parts", clientFrame(0x09, nil), ""},
		{"a compressed ping", clientFrame(0xc9, nil), ""},
		{"a long ping", clientFrame(0x89, make([]byte, 126))[:4], ""},
		{"one over", clientFrame(0x81, make([]byte, MaxFrame+1))[:10], contract.TooLarge},
		{"the longest there is", append([]byte{0x81, 0xff}, bytes.Repeat([]byte{0xff}, 8)...), contract.TooLarge},
	} {
		_, _, err := NextFrame(c.b)
		var violation *ViolationError
		if got := contract.CodeOf(err); c.want != "" && got != c.want || c.want == "" && !errors.As(err, &violation) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestCloseReceived(t *testing.T) {
	payload := func(code uint16, reason string) []byte {
		return append(binary.BigEndian.AppendUint16(nil, code), reason...)
	}
	for _, c := range []struct {
		name    string
		payload []byte
		want    int // 0 is a violation
	}{
		{"none", nil, 1000},
		{"normal", payload(1000, "bye"), 1000},
		{"of an application", payload(4999, ""), 4999},
		{"half a code", []byte{3}, 0},
		{"below all", payload(999, ""), 0},
		{"no status, which is never sent", payload(1005, ""), 0},
		{"abnormal, which is never sent", payload(1006, ""), 0},
		{"above all", payload(5000, ""), 0},
		{"not UTF-8", payload(1000, "\xff"), 0},
	} {
		if got, err := CloseReceived(c.payload); got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s: got %d, %v, want %d", c.name, got, err, c.want)
		}
	}
}

func BenchmarkNextFrame(b *testing.B) {
	frame := clientFrame(0x81, []byte(`{"op":3,"roomId":1,"clientId":"0123456789","msg":"`+strings.Repeat("m", 120)+`"}`))
	b.ReportAllocs()
	for b.Loop() {
		if _, size, err := NextFrame(frame); err != nil || size != len(frame) {
			b.Fatal(size, err)
		}
	}
}
