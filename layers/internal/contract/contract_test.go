package contract

import (
	"strings"
	"testing"
)

func TestConversationNames(t *testing.T) {
	for _, c := range []struct {
		name Conversation
		want Parties // zero: refused
	}{
		{"room:1", Parties{Room: 1}},
		{"room:9223372036854775807", Parties{Room: 1<<63 - 1}},
		{"dm:3:17", Parties{Low: 3, High: 17}},
		{"dm:7:7", Parties{Low: 7, High: 7}},

		{"", Parties{}},
		{"room", Parties{}},
		{"room:", Parties{}},
		{"room:0", Parties{}},
		{"room:-1", Parties{}},
		{"room:+1", Parties{}},
		{"room:01", Parties{}},
		{"room: 1", Parties{}},
		{"room:1 ", Parties{}},
		{"room:1\x00", Parties{}},
		{"room:1:2", Parties{}},
		{"room:٣", Parties{}},
		{"room:9223372036854775808", Parties{}},
		{"Room:1", Parties{}},
		{"dm:17:3", Parties{}},
		{"dm:3", Parties{}},
		{"dm:3:", Parties{}},
		{"dm:0:3", Parties{}},
		{"dm:-3:3", Parties{}},
		{"dm:3:017", Parties{}},
		{"dm:3:17:18", Parties{}},
		{Conversation("room:" + strings.Repeat("1", 1000)), Parties{}},
	} {
		t.Run(string(c.name[:min(len(c.name), 30)]), func(t *testing.T) {
			got, err := c.name.Parse()
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if refused := c.want == (Parties{}); refused != (err != nil) || refused && CodeOf(err) != BadRequest {
				t.Errorf("got %v, refused wanted: %v", err, refused)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("the error repeats %d bytes", len(err.Error()))
			}
		})
	}
}

func TestParties(t *testing.T) {
	direct, err := DirectConversation(17, 3).Parse()
	if err != nil || direct != (Parties{Low: 3, High: 17}) {
		t.Fatalf("got %+v, %v", direct, err)
	}
	if !direct.Includes(3) || !direct.Includes(17) || direct.Includes(4) || direct.Includes(0) {
		t.Error("a direct conversation includes its two users and nobody else")
	}
	if direct.Other(3) != 17 || direct.Other(17) != 3 || (Parties{Low: 7, High: 7}).Other(7) != 7 {
		t.Error("the other of two is not the one asked about")
	}
	if (Parties{Room: 1}).Includes(0) {
		t.Error("a room includes nobody by name")
	}
}

func TestNodeRefs(t *testing.T) {
	want := NodeRef{ID: "connect-17", Epoch: 421}
	if got, err := ParseNodeRef(want.String()); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, s := range []string{"", "connect-17", "@1", "connect-17@", "connect-17@0", "connect-17@-1", "connect-17@x", "a@1@2"} {
		if got, err := ParseNodeRef(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

func TestSessionNamesHideTheToken(t *testing.T) {
	got := SessionOf("token")
	const sha256 = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"
	if got != sha256 {
		t.Errorf("got %s, want the lower-case hex SHA-256", got)
	}
}

// A name that Parse accepts is the one that its parties make: no two names are of one conversation.
func FuzzConversation(f *testing.F) {
	for _, s := range []string{"room:1", "dm:3:17", "dm:7:7", "room:01", "dm:17:3", "room:+1", "dm:1", "", ":", "room:9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Conversation(s).Parse()
		if err != nil {
			if CodeOf(err) != BadRequest || p != (Parties{}) {
				t.Errorf("got %+v, %v", p, err)
			}
			return
		}
		made := RoomConversation(p.Room)
		if p.Room == 0 {
			made = DirectConversation(p.High, p.Low)
		}
		if string(made) != s || p.Room < 0 || p.Room == 0 && (p.Low <= 0 || p.High < p.Low) {
			t.Errorf("%q is accepted as %+v, which makes %q", s, p, made)
		}
	})
}
