package layers

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"gochat/e2e/browser"
	"gochat/layers/internal/testclient"
)

// screenshotVariable names the file that TestLooks writes the screenshot of the README to.
const screenshotVariable = "LAYERS_TEST_SCREENSHOT"

// said is what is said in a conversation, and when: "today 15:04" or "yesterday 15:04".
type said struct{ at, who, text string }

// story is a morning before a release, by conversation. A conversation is a room's name, or "from>to".
var story = []struct {
	conversation string
	lines        []said
}{
	{"lobby", []said{
		{"yesterday 17:20", "admin", "Welcome, everybody. Rooms are on the left, people on the right."},
		{"today 08:55", "qa", "Good morning! The coffee machine works again ☕"},
	}},
	{"release 2.0", []said{
		{"yesterday 17:42", "admin", "Freeze is at noon tomorrow. What is still open?"},
		{"yesterday 17:44", "test", "Only the reconnect test."},
		{"yesterday 17:45", "demo", "I can take that one tonight."},
		{"today 09:02", "test", "Morning! How did it go?"},
		{"today 09:04", "demo", "I pulled the plug on a node every minute, all night long."},
		{"today 09:04", "demo", "Everybody came back, and nothing was missing."},
		{"today 09:06", "guest", "That is the best sentence I have read all week."},
		{"today 09:07", "admin", "Wonderful. And the slow phones?"},
		{"today 09:09", "demo", "They are told why they were cut off, come back a moment later, and read on where they were."},
		{"today 09:12", "support", "The release notes are ready, too."},
		{"today 09:14", "admin", "Then we ship at noon. Thank you all!"},
	}},
	{"coffee break", []said{{"today 08:58", "guest", "Who is in for ramen at one?"}, {"today 09:03", "qa", "Me!"}, {"today 09:05", "support", "Count me in"}}},
	{"on call", []said{{"yesterday 22:10", "support", "Handing over to qa. All quiet."}}},
	{"guest>demo", []said{{"today 09:08", "guest", "Do you have ten minutes before lunch?"}, {"today 09:10", "guest", "It is about the talk on Friday"}}},
	{"demo>test", []said{{"yesterday 18:01", "demo", "Could you look at my branch?"}, {"yesterday 18:20", "test", "Looks good to me. Ship it!"}}},
}

// TestLooks shows the page in the middle of a conversation, as `gochat up` serves it, light and dark, on a desk and
// on a phone, and checks that everything has its place. With -artifacts the pictures are kept.
func TestLooks(t *testing.T) {
	dir := t.TempDir()
	r := up(t, dir, upConfig())
	users := make(map[string]*testclient.User)
	for _, name := range []string{"demo", "test", "admin"} {
		users[name], _ = login(t, r, name, "111111")
	}
	for _, name := range []string{"guest", "support", "qa"} {
		users[name] = testclient.Register(t, r.api(), name)
	}
	rooms := tell(t, users, filepath.Join(dir, "gochat.db"))
	users["demo"].Must(t, "POST", "/v1/rooms", map[string]any{"name": "salary talks", "private": true}, nil)
	release := rooms["release 2.0"]
	users["demo"].Must(t, "PUT", fmt.Sprintf("/v1/conversations/room:%d/read", release), map[string]any{"seq": 9}, nil)

	b := openBrowser(t, r.Page)
	b.Do(t, scheme("light"), chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: "en-GB"})
		return err
	}), chromedp.Reload())
	var guest *testclient.Conn
	for name, u := range users {
		if name != "demo" {
			c := testclient.WebSocket(t, r.WebSocket)
			c.Enter(t, u, release)
			if name == "guest" {
				guest = c
			}
		}
	}
	t.Run("login", func(t *testing.T) { look(t, b, "login", "login-submit") })
	b.Login(t, "demo", "111111")
	b.Click(t, fmt.Sprintf("room-item-%d", release))
	b.Shows(t, "online-count", fmt.Sprint(len(users)))
	eventually(t, "the conversation", func() bool { return len(b.Messages(t)) == 11 })
	eventually(t, "somebody typing", func() bool {
		guest.Send(t, map[string]any{"op": 14, "conversation": fmt.Sprintf("room:%d", release)})
		return b.Text(t, "typing") != ""
	})
	b.Do(t, chromedp.MouseEvent("mouseMoved", 700, 20))

	t.Run("light", func(t *testing.T) {
		picture := look(t, b, "light", "composer")
		if path := os.Getenv(screenshotVariable); path != "" {
			keep(t, path, picture)
		}
	})
	browser.Eval[bool](t, b, `([...document.querySelectorAll('[data-testid="message-details"]')].at(-1).click(), true)`)
	t.Run("details", func(t *testing.T) { look(t, b, "details", "details-trace") })
	browser.Eval[bool](t, b, `([...document.querySelectorAll('[data-testid="message-details"]')].at(-1).click(), true)`)
	b.Click(t, "new-room")
	t.Run("new room", func(t *testing.T) { look(t, b, "new-room", "new-room-submit") })
	b.Do(t, chromedp.KeyEvent("\x1b"), scheme("dark"))
	t.Run("dark", func(t *testing.T) { look(t, b, "dark", "composer") })
	b.Do(t, scheme("light"), chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch))
	t.Run("phone", func(t *testing.T) { look(t, b, "phone", "composer") })
	b.Click(t, "people-toggle")
	t.Run("people on a phone", func(t *testing.T) { look(t, b, "phone-people", fmt.Sprintf("online-user-%d", users["demo"].ID)) })
	b.Do(t, chromedp.KeyEvent("\x1b"))
	b.Click(t, "back")
	t.Run("list on a phone", func(t *testing.T) { look(t, b, "phone-list", "new-room") })
	b.Do(t, scheme("dark"))
	t.Run("list on a phone in the dark", func(t *testing.T) { look(t, b, "phone-list-dark", "logout") })
	b.Faultless(t)
}

// scheme has the page light or dark, and without motion, which a picture would catch halfway.
func scheme(value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: value}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
		return err
	})
}

// tell has the story told, and answers the rooms by name.
func tell(t testing.TB, users map[string]*testclient.User, database string) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+database+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rooms := map[string]int{"lobby": 1}
	for _, c := range story {
		path := ""
		from, to, direct := strings.Cut(c.conversation, ">")
		if !direct {
			if rooms[c.conversation] == 0 {
				var room struct{ ID int }
				users["admin"].Must(t, "POST", "/v1/rooms", map[string]any{"name": c.conversation}, &room)
				rooms[c.conversation] = room.ID
			}
			for _, u := range users {
				u.Must(t, "POST", fmt.Sprintf("/v1/rooms/%d/join", rooms[c.conversation]), nil, nil)
			}
			path = fmt.Sprintf("/v1/rooms/%d/messages", rooms[c.conversation])
		}
		for _, line := range c.lines {
			if direct {
				other := to
				if line.who == to {
					other = from
				}
				path = fmt.Sprintf("/v1/users/%d/messages", users[other].ID)
			}
			var receipt struct{ ID string }
			users[line.who].Must(t, "POST", path, map[string]any{"msg": line.text}, &receipt)
			if _, err := db.ExecContext(t.Context(), "UPDATE messages SET created_at = ? WHERE id = ?", when(t, line.at).UnixMilli(), receipt.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rooms
}

// when reads "today 15:04" or "yesterday 15:04".
func when(t testing.TB, at string) time.Time {
	t.Helper()
	day, clock, _ := strings.Cut(at, " ")
	of, err := time.Parse("15:04", clock)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	date := now.Day()
	if day == "yesterday" {
		date--
	}
	return time.Date(now.Year(), now.Month(), date, of.Hour(), of.Minute(), 0, 0, time.Local)
}

// look takes a picture and checks that the page needs no scrolling sideways and that what one acts on is in view.
func look(t *testing.T, b *browser.Browser, name, acts string) []byte {
	t.Helper()
	if wide := browser.Eval[int](t, b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
		t.Errorf("the page is %d px wider than its window", wide)
	}
	inView := browser.Eval[bool](t, b, `(r => r.width > 0 && r.left >= 0 && r.top >= 0 && r.right <= innerWidth && r.bottom <= innerHeight)(
		document.querySelector('[data-testid=%q]').getBoundingClientRect())`, acts)
	if !inView {
		t.Errorf("%s is not in view", acts)
	}
	return picture(t, b, name)
}

// picture is one of what the browser shows, which -artifacts keeps.
func picture(t *testing.T, b *browser.Browser, name string) []byte {
	t.Helper()
	raw, err := chromedp.Run(b.Tab, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return raw
}

// keep writes a picture to a file that is to be stored for good: Chromium writes PNG fast, not small.
func keep(t *testing.T, path string, raw []byte) {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
