//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"gochat/e2e/browser"
)

// inBrowsers: two people chat on the page, each in a Chromium, as it is served and by the addresses that it is told.
func (s *target) inBrowsers(t *testing.T) {
	open := func() *browser.Browser {
		return browser.Open(t, s.opened, chromedp.Flag("ignore-certificate-errors", true), // it is the test's own
			chromedp.Flag("host-resolver-rules", s.resolved))
	}
	ann, bob := open(), open()
	room, name := unique("browsers"), unique("ann")
	ann.Click(t, "register-toggle")
	ann.Login(t, name, "secret-password")
	ann.Shows(t, "status", "Connected")
	ann.Click(t, "new-room")
	ann.Write(t, "new-room-name", room)
	ann.Click(t, "new-room-submit")
	ann.Shows(t, "conversation-title", room)
	bob.Click(t, "register-toggle")
	bob.Login(t, unique("bob"), "secret-password")
	bob.Shows(t, "status", "Connected")
	bob.Write(t, "search", room)
	var found struct{ Rooms []struct{ ID int } }
	s.must(t, s.register(t, unique("cem")), http.MethodGet, "/v1/rooms?query="+room, nil, &found)
	if len(found.Rooms) != 1 {
		t.Fatalf("found %v, want one room", found)
	}
	bob.Click(t, fmt.Sprint("room-item-", found.Rooms[0].ID))
	bob.Shows(t, "conversation-title", room)
	bob.Click(t, "join-room")
	bob.Shows(t, "join-room", "")
	ann.Say(t, "do you see this?")
	eventually(t, "ann's message on bob's page", func() bool { return len(bob.Texts(t)) == 1 })
	bob.Say(t, "I do")
	for _, b := range []*browser.Browser{ann, bob} {
		eventually(t, "both messages on the page", func() bool {
			texts := b.Texts(t)
			return len(texts) == 2 && texts[0] == "do you see this?" && texts[1] == "I do"
		})
		b.Faultless(t)
	}
}
