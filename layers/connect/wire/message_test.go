package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gochat/layers/internal/contract"
)

// marshal is encoding/json without HTML escaping.
func marshal(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func TestMessageFrameEqualsEncodingJSON(t *testing.T) {
	var ascii strings.Builder
	for c := range byte(utf8.RuneSelf) {
		ascii.WriteByte(c)
	}
	for name, text := range map[string]string{
		"plain":              "hello",
		"empty":              "",
		"every ASCII byte":   ascii.String(),
		"HTML":               "<script>&amp;</script>",
		"JavaScript lines":   "a\u2028b\u2029c",
		"not UTF-8":          "a\xffb\xc3",
		"cut and surrogates": "\xe2\x82\xed\xa0\x80",
		"replacement itself": "\uFFFD",
		"beyond the BMP":     "\U0001F600\U0010FFFF",
	} {
		for _, m := range []*contract.Message{roomMessage(), directMessage()} {
			m.Text, m.FromName, m.ClientID = text, text, text
			if m.Direct() {
				m.ToName = text
			}
			got, want := AppendMessage(nil, m), marshal(t, FromMessage(m))
			if !bytes.Equal(got, want) {
				t.Errorf("%s\ngot  %s\nwant %s", name, got, want)
			}
		}
	}
}

func TestMessageHasAllFields(t *testing.T) {
	want := []string{
		"code", "msg", "fromUserId", "fromUserName", "toUserId", "toUserName", "roomId", "op", "createTime",
		"id", "conversation", "seq", "clientId", "createdAt", "traceId", "traceparent",
	}
	var got []string
	for name := range members(AppendMessage(nil, &contract.Message{})) {
		got = append(got, string(unquote(name)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFromMessage(t *testing.T) {
	room := roomMessage()
	room.ToName = "left over"
	if got := FromMessage(room); got.Op != OpRoom || got.ToUserID != 0 || got.ToUserName != "" || got.RoomID != 1 {
		t.Errorf("in a room: got %+v", got)
	}
	direct := directMessage()
	direct.Room = 4
	got := FromMessage(direct)
	if got.Op != OpDirect || got.ToUserID != 3 || got.ToUserName != "anna" || got.RoomID != 4 {
		t.Errorf("private: got %+v", got)
	}
	if got.CreateTime != "2026-03-01 12:30:45" || got.CreatedAt != "2026-03-01T12:30:45.067Z" {
		t.Errorf("times: got %s and %s, want UTC", got.CreateTime, got.CreatedAt)
	}
}

func TestTraceparent(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, c := range []struct {
		name, in string
		valid    bool
	}{
		{"sampled", testTraceparent, true},
		{"not sampled", "00-" + trace + "-" + parent + "-00", true},
		{"a later version", "cc-" + trace + "-" + parent + "-09", true},
		{"none", "", false},
		{"version ff", "ff-" + trace + "-" + parent + "-01", false},
		{"upper case", "00-" + strings.ToUpper(trace) + "-" + parent + "-01", false},
		{"zero trace", "00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false},
		{"zero parent", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false},
		{"not hex", "00-" + strings.Repeat("g", 32) + "-" + parent + "-01", false},
		{"flags not hex", testTraceparent[:53] + "0x", false},
		{"version not hex", "x" + testTraceparent[1:], false},
		{"dash moved", "00-" + trace + parent + "--01", false},
		{"longer", testTraceparent + "-x", false},
		{"shorter", testTraceparent[:54], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := roomMessage()
			m.Traceparent = c.in
			want := Message{}
			if c.valid {
				want.Traceparent, want.TraceID = c.in, trace
			}
			if got := FromMessage(m); got.Traceparent != want.Traceparent || got.TraceID != want.TraceID {
				t.Errorf("message: got %q and %q, want %q and %q", got.Traceparent, got.TraceID, want.Traceparent, want.TraceID)
			}
			req, err := Decode(fmt.Appendf(nil, `{"op":10,"traceparent":%q}`, c.in))
			if err != nil || req.Traceparent != want.Traceparent {
				t.Errorf("request: got %q, %v, want %q", req.Traceparent, err, want.Traceparent)
			}
		})
	}
}

// widest makes a message whose fields are at their limits, of characters that take the most bytes.
func widest(text string) *contract.Message {
	wide := strings.Repeat("\x01", 64)
	return &contract.Message{
		ID: math.MaxInt64, Seq: math.MaxInt64, Room: math.MaxInt64,
		From: math.MaxInt64, FromName: wide[:contract.MaxNameBytes],
		To: math.MaxInt64, ToName: wide[:contract.MaxNameBytes],
		Conversation: contract.DirectConversation(math.MaxInt64, math.MaxInt64),
		ClientID:     wide[:contract.MaxClientIDBytes],
		Text:         text,
		CreatedAt:    time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC),
		Traceparent:  testTraceparent,
	}
}

// Whatever CheckText accepts can be sent to every client: the longest text of each kind of character, around the place
// where CheckText begins to refuse.
func TestAcceptedMessageFitsTCP(t *testing.T) {
	for name, char := range map[string]string{
		"letter": "a", "quote": `"`, "newline": "\n", "control": "\x01", "JavaScript line": "\u2028", "emoji": "\U0001F600",
	} {
		t.Run(name, func(t *testing.T) {
			n := sort.Search(contract.MaxTextBytes, func(n int) bool { return CheckText(strings.Repeat(char, n+1)) != nil })
			longest := strings.Repeat(char, n)
			if err := CheckText(longest); err != nil {
				t.Fatal(err)
			}
			over := CheckText(longest + char)
			if contract.CodeOf(over) != contract.TooLarge {
				t.Errorf("one more: got %v, want %s", over, contract.TooLarge)
			}
			if _, err := AppendTCP(nil, AppendMessage(nil, widest(longest))); err != nil {
				t.Errorf("%d characters accepted that do not fit: %v", len(longest)/len(char), err)
			}
		})
	}
	plain := strings.Repeat("a", contract.MaxTextBytes)
	if err := CheckText(plain); err != nil {
		t.Errorf("%d plain bytes: %v", len(plain), err)
	}
}

// maxEnvelope is enough, and the limit above would be wrong without it.
func TestEnvelopeBound(t *testing.T) {
	envelope := len(AppendMessage(nil, widest("")))
	if envelope > maxEnvelope || envelope < maxEnvelope/2 {
		t.Errorf("the widest envelope is %d bytes, the bound %d", envelope, maxEnvelope)
	}
	if _, err := AppendTCP(nil, AppendMessage(nil, widest(strings.Repeat("\x01", contract.MaxTextBytes)))); err == nil {
		t.Error("contract.MaxTextBytes would do without a bound on the escaped text")
	}
}

func TestCheckText(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       contract.Code
	}{
		{"plain", "hello", ""},
		{"space", " ", ""},
		{"empty", "", contract.BadRequest},
		{"NUL", "a\x00b", contract.BadRequest},
		{"not UTF-8", "a\xff", contract.BadRequest},
		{"longest", strings.Repeat("a", contract.MaxTextBytes), ""},
		{"longer", strings.Repeat("a", contract.MaxTextBytes+1), contract.TooLarge},
		{"longest escaped", strings.Repeat("\n", MaxEncodedText/2), ""},
		{"longer escaped", strings.Repeat("\n", MaxEncodedText/2+1), contract.TooLarge},
	} {
		if got := contract.CodeOf(CheckText(c.text)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// However long the names, the list fits a packet, is JSON, and keeps the lowest ids.
func TestRoomInfoIsBounded(t *testing.T) {
	users := make([]contract.User, 0, 300)
	for i := range 300 {
		users = append(users, contract.User{ID: contract.UserID(300 - i)})
	}
	for _, c := range []struct {
		name, user string
		want       int // 0 for whatever fits
	}{
		{"short names", "demo", contract.MaxOnlineNames},
		{"longest plain names", strings.Repeat("a", contract.MaxNameBytes), contract.MaxOnlineNames},
		{"longest escaped names", strings.Repeat("\x01", contract.MaxNameBytes), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range users {
				users[i].Name = c.user
			}
			before := make([]byte, MaxTCPPacket) // counts for nothing
			frame := AppendRoomInfo(before, 1, len(users), users)[len(before):]
			if _, err := AppendTCP(nil, frame); err != nil {
				t.Fatal(err)
			}
			var got struct {
				Count        int
				RoomUserInfo map[contract.UserID]string
			}
			if err := json.Unmarshal(frame, &got); err != nil {
				t.Fatal(err)
			}
			n := len(got.RoomUserInfo)
			if got.Count != len(users) || n == 0 || c.want != 0 && n != c.want {
				t.Errorf("got count %d and %d names, want %d and %d", got.Count, n, len(users), c.want)
			}
			for id := range contract.UserID(n) {
				if got.RoomUserInfo[id+1] != c.user {
					t.Errorf("user %d is missing", id+1)
				}
			}
			if users[0].ID != 300 {
				t.Error("the caller's slice was sorted")
			}
		})
	}
}

func TestWidestPongFitsTCP(t *testing.T) {
	heads := map[contract.Conversation]int64{}
	for i := range contract.UserID(contract.MaxResume) {
		heads[contract.DirectConversation(math.MaxInt64-i, math.MaxInt64)] = math.MaxInt64
	}
	if _, err := AppendTCP(nil, AppendPong(nil, heads)); err != nil {
		t.Error(err)
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	for name, text := range map[string]string{
		"short":   "hello there, how are you?",
		"escaped": strings.Repeat("\"quoted\"\n", 20),
		"16KiB":   strings.Repeat("a", contract.MaxTextBytes),
	} {
		b.Run(name, func(b *testing.B) {
			m := roomMessage()
			m.Text = text
			buf := AppendMessage(nil, m)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				buf = AppendMessage(buf[:0], m)
			}
		})
	}
}
