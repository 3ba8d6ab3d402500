package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"gochat/layers/internal/contract"
)

// deflated is a message as a client may send it: flushed, without the last four bytes.
func deflated(t testing.TB, level int, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[:b.Len()-4]
}

// payloadOf is that of one frame, whose first byte must be as given.
func payloadOf(t testing.TB, frame []byte, first byte) []byte {
	t.Helper()
	if frame[0] != first || frame[1]&0x80 != 0 {
		t.Fatalf("a frame begins with % x, want %x, not masked", frame[:2], first)
	}
	size, payload := uint64(frame[1]), frame[2:]
	switch size {
	case 126:
		size, payload = uint64(binary.BigEndian.Uint16(payload)), payload[2:]
	case 127:
		size, payload = binary.BigEndian.Uint64(payload), payload[8:]
	}
	if size != uint64(len(payload)) {
		t.Fatalf("a frame says %d bytes, and has %d", size, len(payload))
	}
	return payload
}

// TestInflate has the examples of RFC 7692, 7.2.3, and what is not of that form.
func TestInflate(t *testing.T) {
	random := make([]byte, 5000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	long := deflated(t, 6, []byte(strings.Repeat("some text that is long enough, ", 100)))
	for _, c := range []struct {
		name, payload, want string
		code                contract.Code
	}{
		{"one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello", ""},
		{"not compressed", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello", ""},
		{"the last block", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello", ""},
		{"two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello", ""},
		{"no byte", "\x00", "", ""},
		{"the last block is empty", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x01", "Hello", ""},
		{"all that may be", string(deflated(t, 9, make([]byte, MaxFrame))), string(make([]byte, MaxFrame)), ""},
		{"incompressible", string(deflated(t, 9, random)), string(random), ""},

		{"a byte too many", string(deflated(t, 9, make([]byte, MaxFrame+1))), "", contract.TooLarge},
		{"a bomb", string(deflated(t, 9, make([]byte, 60<<20))), "", contract.TooLarge},
		{"nothing", "", "", contract.BadRequest},
		{"no such block", "\xff\xff\xff\xff", "", contract.BadRequest},
		{"text", `{"op":10}`, "", contract.BadRequest},
		{"half", string(long[:len(long)/2]), "", contract.BadRequest},
		{"more than the last block", "\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00", "", contract.BadRequest},
		{"refers to the message before", "\xf2\x00\x11\x00\x00", "", contract.BadRequest}, // 7.2.3.2
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Deflate
			for range 2 { // the second with what the first has used; what came stays as it is
				got, err := d.Inflate([]byte(c.payload))
				if next, err := d.Inflate([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00")); string(next) != "Hello" || err != nil {
					t.Fatalf("the next is %q, %v", next, err)
				}
				if string(got) != c.want || (err == nil) != (c.code == "") || err != nil && contract.CodeOf(err) != c.code {
					t.Fatalf("got %d bytes, %v, want %d, %q", len(got), err, len(c.want), c.code)
				}
			}
		})
	}
}

// TestDeflate: what is compressed is a whole frame behind what there was, or nothing if it would not be shorter.
func TestDeflate(t *testing.T) {
	random := make([]byte, 300)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	var d Deflate
	for _, c := range []struct {
		name, payload string
		shorter       bool
	}{
		{"text", strings.Repeat("some text ", 50), true},
		{"one of 64 bits", strings.Repeat("text", 100_000), true},
		{"random", string(random), false},
		{"short", "{}", false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, shorter := d.AppendText([]byte("before"), []byte(c.payload))
			frame, kept := bytes.CutPrefix(got, []byte("before"))
			switch {
			case !kept || shorter != c.shorter:
				t.Fatalf("got %.20q, %v", got, shorter)
			case !shorter && len(frame) != 0:
				t.Errorf("got %d bytes, want none", len(frame))
			case shorter && len(frame) >= len(c.payload):
				t.Errorf("got %d bytes of %d", len(frame), len(c.payload))
			}
			if shorter && len(c.payload) <= MaxFrame {
				if got, err := d.Inflate(payloadOf(t, frame, 0xc1)); string(got) != c.payload || err != nil {
					t.Errorf("got %.60q, %v back", got, err)
				}
			}
		})
	}
}

// TestDeflateAtOnce: many at once do not get one another's bytes.
func TestDeflateAtOnce(t *testing.T) {
	var d Deflate
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			want := []byte(strings.Repeat(string(rune('a'+i)), 1000+i))
			for range 200 {
				frame, shorter := d.AppendText(nil, want)
				if !shorter {
					t.Error("not shorter")
					return
				}
				if got, err := d.Inflate(frame[2:]); !bytes.Equal(got, want) || err != nil {
					t.Errorf("got %.20q, %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// What was compressed is what it was, whoever compressed it; what was not is refused, or is no longer than it may be.
func FuzzDeflate(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"op":3,"msg":"hello, hello, hello, hello"}`, "\xf2\x48\xcd\xc9\xc9\x07\x00", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
		strings.Repeat("a", 70_000)} {
		f.Add([]byte(seed))
	}
	var d Deflate
	f.Fuzz(func(t *testing.T, x []byte) {
		payloads := [][]byte{deflated(t, 6, x)}
		frame, shorter := d.AppendText(nil, x)
		if shorter {
			payloads = append(payloads, payloadOf(t, frame, 0xc1))
		} else if len(frame) > 0 {
			t.Errorf("%d bytes of no frame", len(frame))
		}
		for _, payload := range payloads {
			got, err := d.Inflate(payload)
			switch {
			case len(x) > MaxFrame:
				if contract.CodeOf(err) != contract.TooLarge {
					t.Errorf("%d bytes: got %v", len(x), err)
				}
			case err != nil || !bytes.Equal(got, x):
				t.Errorf("got %q, %v, want %q", got, err, x)
			}
		}
		got, err := d.Inflate(x)
		switch code := contract.CodeOf(err); {
		case err == nil && len(got) > MaxFrame, err != nil && code != contract.BadRequest && code != contract.TooLarge:
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}
