package wire

import (
	"bytes"
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
