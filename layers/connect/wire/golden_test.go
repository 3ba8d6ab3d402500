package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gochat/layers/internal/contract"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testTraceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func roomMessage() *contract.Message {
	return &contract.Message{
		ID: 1837465019283746501, Conversation: "room:1", Seq: 131,
		From: 7, FromName: "demo", Room: contract.Lobby, ClientID: "c-1", Text: "hello",
		CreatedAt:   time.Date(2026, 3, 1, 12, 30, 45, 67_000_000, time.UTC),
		Traceparent: testTraceparent,
	}
}

func directMessage() *contract.Message {
	m := roomMessage()
	m.Conversation, m.Seq, m.Room = "dm:3:7", 9, 0
	m.To, m.ToName, m.ClientID, m.Traceparent = 3, "anna", "", ""
	m.Text = "\"<b>\\&\u2028\n\x01 \u00e9 \U0001f600"
	m.CreatedAt = m.CreatedAt.In(time.FixedZone("elsewhere", 2*60*60))
	return m
}

type namedBytes struct {
	name string
	data []byte
}

// golden compares the cases, each a line of its own, with the file.
func golden(t *testing.T, file string, cases []namedBytes, show func([]byte) string) {
	t.Helper()
	var got strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&got, "# %s\n%s\n", c.name, show(c.data))
	}
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", path, got.String(), want)
	}
}

func TestGoldenFrames(t *testing.T) {
	receipt := &contract.Receipt{ID: 1837465019283746501, Conversation: "room:1", Seq: 131, TraceID: testTraceparent[3:35]}
	users := []contract.User{{ID: 12, Name: "zoë"}, {ID: 7, Name: "demo"}, {ID: 100, Name: `"q"`}}
	cases := []namedBytes{
		{"message in a room", AppendMessage(nil, roomMessage())},
		{"private message", AppendMessage(nil, directMessage())},
		{"count", AppendCount(nil, 1, 3)},
		{"room info", AppendRoomInfo(nil, 1, 250, users)},
		{"room info, nobody", AppendRoomInfo(nil, 2, 0, nil)},
		{"ping", AppendPing(nil)},
		{"pong", AppendPong(nil, nil)},
		{"pong, nothing ahead", AppendPong(nil, map[contract.Conversation]int64{})},
		{"pong with heads", AppendPong(nil, map[contract.Conversation]int64{"room:2": 5, "dm:3:7": 8, "room:1": 123})},
		{"read", AppendRead(nil, "room:1", 130)},
		{"typing", AppendTyping(nil, "room:1", 7, "demo")},
		{"ack", AppendAck(nil, "c-1", receipt)},
		{"ack without client id and trace", AppendAck(nil, "", &contract.Receipt{ID: 1, Conversation: "dm:3:7", Seq: 1})},
		{"error", AppendError(nil, "", "", &contract.Error{Code: contract.NotFound, Message: "room 9"})},
		{"error with client id and time", AppendError(nil, "c-1", "", &contract.Error{Code: contract.RateLimited, Message: "slower", RetryAfter: 800 * time.Millisecond})},
		{"error, time rounded up", AppendError(nil, "", "", &contract.Error{Code: contract.Unavailable, Message: "later", RetryAfter: time.Microsecond})},
		{"replay done", AppendReplayDone(nil, "room:1", 121, 130, false)},
		{"replay done, more", AppendReplayDone(nil, "dm:3:7", 1, 200, true)},
		{"going away", AppendGoingAway(nil, 1840*time.Millisecond)},
		{"going away at once", AppendGoingAway(nil, -time.Second)},
	}
	golden(t, "frames.golden", cases, func(b []byte) string { return string(b) })
	for _, c := range cases {
		if !json.Valid(c.data) {
			t.Errorf("%s is not JSON: %s", c.name, c.data)
		}
	}
}

func TestGoldenTCP(t *testing.T) {
	var cases []namedBytes
	for _, c := range []namedBytes{
		{"one byte", []byte("0")},
		{"ping", AppendPing(nil)},
		{"256 bytes", bytes.Repeat([]byte(" "), 256)},
		{"the longest, its header", bytes.Repeat([]byte(" "), MaxTCPPacket-TCPHeader)},
	} {
		packet, err := AppendTCP(nil, c.data)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, namedBytes{c.name, packet[:min(len(packet), 16)]})
	}
	golden(t, "tcp.golden", cases, hex.EncodeToString)
}

func TestGoldenWebsocket(t *testing.T) {
	header := func(payload int) []byte {
		frame := AppendText(nil, make([]byte, payload))
		return frame[:len(frame)-payload]
	}
	golden(t, "websocket.golden", []namedBytes{
		{"text of 0", header(0)},
		{"text of 125", header(125)},
		{"text of 126", header(126)},
		{"text of 65535", header(65535)},
		{"text of 65536", header(65536)},
		{"text, whole", AppendText(nil, []byte("Hello"))}, // as in RFC 6455, 5.7
		{"close 1008", AppendControl(nil, 8, ClosePayload(1008, "unauthenticated"))},
		{"ping", AppendControl(nil, 9, nil)},
		{"pong", AppendControl(nil, 10, []byte("Hello"))},
	}, hex.EncodeToString)
}

// A frame may be built behind a header or in a buffer used before: what stands there stays.
func TestAppendKeepsPrefix(t *testing.T) {
	prefix := []byte("before")
	tcp := func(dst []byte) []byte {
		dst, err := AppendTCP(dst, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return dst
	}
	for name, add := range map[string]func([]byte) []byte{
		"message":     func(b []byte) []byte { return AppendMessage(b, roomMessage()) },
		"count":       func(b []byte) []byte { return AppendCount(b, 1, 2) },
		"room info":   func(b []byte) []byte { return AppendRoomInfo(b, 1, 1, []contract.User{{ID: 1, Name: "a"}}) },
		"pong":        func(b []byte) []byte { return AppendPong(b, map[contract.Conversation]int64{"room:1": 1}) },
		"ack":         func(b []byte) []byte { return AppendAck(b, "c", &contract.Receipt{}) },
		"error":       func(b []byte) []byte { return AppendError(b, "c", "", &contract.Error{}) },
		"replay done": func(b []byte) []byte { return AppendReplayDone(b, "room:1", 1, 2, true) },
		"tcp":         tcp,
		"text":        func(b []byte) []byte { return AppendText(b, []byte("x")) },
		"control":     func(b []byte) []byte { return AppendControl(b, 9, []byte("x")) },
	} {
		if got, want := add(bytes.Clone(prefix)), append(bytes.Clone(prefix), add(nil)...); !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
