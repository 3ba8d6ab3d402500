package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

// server frames a payload as servers do.
func server(transport, payload string) []byte {
	if transport == WebSocket {
		return wire.AppendText(nil, []byte(payload))
	}
	b, err := wire.AppendTCP(nil, []byte(payload))
	if err != nil {
		panic(err)
	}
	return b
}

// TestSplitAndGlued cuts a stream of frames of many lengths at random places, and finds the same frames.
func TestSplitAndGlued(t *testing.T) {
	for _, transport := range []string{WebSocket, TCP} {
		t.Run(transport, func(t *testing.T) {
			for seed := range uint64(200) {
				random := rand.New(rand.NewPCG(seed, 1))
				var stream []byte
				var want, got []string
				for range 30 {
					text := strings.Repeat("x", 1+random.IntN([]int{10, 130, 3000, 32000}[random.IntN(4)]))
					want = append(want, text)
					stream = append(stream, server(transport, text)...)
				}
				var have []byte
				for len(stream) > 0 {
					n := min(len(stream), 1+random.IntN(5000))
					have = append(have, stream[:n]...)
					stream = stream[n:]
					for {
						f, n, err := cutFrame(transport, have)
						if err != nil {
							t.Fatal(err)
						}
						if n == 0 {
							break
						}
						got = append(got, string(f.payload))
						have = have[n:]
					}
				}
				if !slices.Equal(got, want) || len(have) > 0 {
					t.Fatalf("seed %d: got %d frames and %d bytes more, want %d", seed, len(got), len(have), len(want))
				}
			}
		})
	}
}

func TestCutFrameRefuses(t *testing.T) {
	for _, c := range []struct{ name, transport, in string }{
		{"tcp, another magic", TCP, "v2\x00\x05x"},
		{"tcp, no payload", TCP, "v1\x00\x04"},
		{"tcp, negative length", TCP, "v1\xff\xff"},
		{"websocket, fragmented", WebSocket, "\x01\x01x"},
		{"websocket, compressed", WebSocket, "\xc1\x01x"},
		{"websocket, masked", WebSocket, "\x81\x81aaaax"},
		{"websocket, endless", WebSocket, "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if f, n, err := cutFrame(c.transport, []byte(c.in)); err == nil {
				t.Errorf("got %v, %d bytes", f, n)
			}
		})
	}
}

// TestAppendFrame reads what clients send as RFC 6455 and the protocol say.
func TestAppendFrame(t *testing.T) {
	for _, n := range []int{1, 7, 8, 125, 126, 1000, 65535, 65536} {
		payload := bytes.Repeat([]byte("abcdefghi"), n)[:n]
		b, at := appendFrame([]byte("before"), WebSocket, opcodeText, payload, 0x01020304)
		b = b[len("before"):]
		if b[0] != 0x81 || b[1]&0x80 == 0 {
			t.Fatalf("%d bytes: header % x", n, b[:2])
		}
		plain := slices.Clone(b[at:])
		for i := range plain {
			plain[i] ^= b[at-4+i%4]
		}
		length, header := int(b[1]&0x7f), 2
		switch length {
		case 126:
			length, header = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			length, header = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		if !bytes.Equal(plain, payload) || length != n || at != header+4 {
			t.Errorf("%d bytes: length %d, payload at %d", n, length, at)
		}
	}
	b, _ := appendFrame(nil, TCP, opcodeText, []byte("{}"), 9)
	if string(b) != "v1\x00\x06{}" {
		t.Errorf("tcp: got %q", b)
	}
}

// TestOp and the code are found in what the server's own encoder writes, whatever a text says.
func TestOp(t *testing.T) {
	message := wire.AppendMessage(nil, &contract.Message{Text: `{"op":20,"code":"internal"}`, Room: 3, Conversation: "room:3"})
	for _, c := range []struct {
		name string
		in   []byte
		op   wire.Op
		code string
	}{
		{"message with a text like a frame", message, wire.OpRoom, unknownCode},
		{"ack", wire.AppendAck(nil, "c", &contract.Receipt{}), wire.OpAck, unknownCode},
		{"error", wire.AppendError(nil, "c", "", &contract.Error{Code: contract.RateLimited, Message: "m"}), wire.OpError, "rate_limited"},
		{"ping", wire.AppendPing(nil), wire.OpPing, unknownCode},
		{"code with an escape", []byte(`{"op":21,"code":"\u001b"}`), wire.OpError, unknownCode},
		{"code without an end", []byte(`{"op":21,"code":"abc`), wire.OpError, unknownCode},
		{"no op", []byte(`{}`), 0, unknownCode},
		{"op without a number", []byte(`{"op":`), 0, unknownCode},
	} {
		t.Run(c.name, func(t *testing.T) {
			if op, code := opOf(c.in), codeOf(c.in); op != c.op || code != c.code {
				t.Errorf("got %d, %q, want %d, %q", op, code, c.op, c.code)
			}
		})
	}
}

func TestMarker(t *testing.T) {
	prefix := marker{run: 0xabc}.prefix()
	want := marker{group: 0xfffffe, number: 77_000_000, due: 1<<48 - 1}
	b := make([]byte, markerLen)
	marker{0xabc, want.group, want.number, want.due}.put(b)
	if string(b) != "bench-00000abc-fffffe-0496ed40-ffffffffffff" {
		t.Errorf("got %s", b)
	}
	frame := fmt.Appendf(nil, `{"code":0,"msg":"%s padding","op":3,"clientId":"%s"}`, b, b)
	if got, ok := findMarker(frame, prefix); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	for name, in := range map[string]string{
		"none": "", "of another run": strings.Replace(string(b), "abc", "abd", 1), "cut": string(b[:markerLen-1]),
		"not hex": strings.Replace(string(b), "ed4", "eg4", 1),
	} {
		if got, ok := findMarker([]byte(in), prefix); ok {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	for cut := range frame { // never panics
		findMarker(frame[:cut], prefix)
		findMarker(frame[cut:], prefix)
	}
}

func TestTemplate(t *testing.T) {
	for _, transport := range []string{WebSocket, TCP} {
		mark := make([]byte, markerLen)
		marker{run: 5}.put(mark)
		payload := fmt.Appendf(nil, `{"op":3,"msg":"%s","clientId":"%s"}`, mark, mark)
		b, masked := appendFrame(nil, transport, opcodeText, payload, 0)
		tmpl := newTemplate(b, marker{run: 5}.prefix(), masked)
		m := marker{run: 6, group: 1, number: 2, due: 3}
		got := tmpl.render(nil, m, 0xfeedbeef)
		if masked > 0 {
			mask(got[masked:], got[masked-4:masked], 0xfeedbeef)
			got = got[masked:]
		} else {
			got = got[wire.TCPHeader:]
		}
		m.put(mark)
		if want := fmt.Sprintf(`{"op":3,"msg":"%s","clientId":"%s"}`, mark, mark); string(got) != want {
			t.Errorf("%s: got %s, want %s", transport, got, want)
		}
	}
}
