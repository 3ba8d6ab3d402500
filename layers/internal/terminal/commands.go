package terminal

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"gochat/layers/connect/wire"
	"gochat/layers/internal/contract"
)

const defaultHistory = 20

// commands are what a line that begins with a slash may ask for.
var commands = []struct {
	name, args, help string
	run              func(t *Terminal, ctx context.Context, args string) (ok bool) // false if the args are not as they should be
}{
	{"/rooms", "", "list the rooms", (*Terminal).listRooms},
	{"/room", "ID", "go to another room", (*Terminal).goToRoom},
	{"/new", "NAME", "make a room and go there", (*Terminal).newRoom},
	{"/msg", "USER TEXT", "send privately", (*Terminal).sendPrivately},
	{"/who", "", "list who is in the room", (*Terminal).listOnline},
	{"/history", "[N]", "print what precedes in the room", (*Terminal).printHistory},
	{"/trace", "", "print the trace id of the last message", (*Terminal).printTrace},
	{"/quit", "", "leave, as Ctrl-D does", (*Terminal).quit},
}

// input acts on one line of input.
func (t *Terminal) input(ctx context.Context, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	if !isCommand(text) {
		t.write(line{room: t.room, text: text})
		return
	}
	name, args, _ := strings.Cut(text, " ")
	args = strings.TrimSpace(args)
	if name == "/help" {
		t.help()
		return
	}
	for _, c := range commands {
		if c.name == name {
			if !c.run(t, ctx, args) {
				t.say("* usage: %s %s", c.name, c.args)
			}
			return
		}
	}
	t.say("* there is no command %s; /help lists them", name)
}

func isCommand(text string) bool { return strings.HasPrefix(text, "/") }

func (t *Terminal) help() {
	t.say("* a line is sent to the room; one that begins with a slash is a command:")
	for _, c := range commands {
		t.say("*   %-20s %s", c.name+" "+c.args, c.help)
	}
}

func (t *Terminal) listRooms(ctx context.Context, args string) bool {
	if args != "" {
		return false
	}
	t.command(ctx, func(ctx context.Context) (func(), error) {
		rooms, more, err := t.rest.rooms(ctx)
		return func() {
			for _, r := range rooms {
				note := ""
				if r.Private {
					note = " (private)"
				}
				if r.ID == t.room {
					note += " (here)"
				}
				t.say("* room %d: %s%s", r.ID, r.Name, note)
			}
			if more {
				t.say("* and others")
			}
		}, err
	})
	return true
}

func (t *Terminal) goToRoom(ctx context.Context, args string) bool {
	id, err := strconv.ParseInt(args, 10, 64)
	if err != nil || id <= 0 {
		return false
	}
	t.command(ctx, func(ctx context.Context) (func(), error) {
		found, head, err := t.rest.room(ctx, contract.RoomID(id))
		return func() { t.moveTo(found, head) }, err
	})
	return true
}

func (t *Terminal) newRoom(ctx context.Context, args string) bool {
	if args == "" {
		return false
	}
	t.command(ctx, func(ctx context.Context) (func(), error) {
		made, err := t.rest.makeRoom(ctx, args)
		return func() { t.moveTo(made, 0) }, err
	})
	return true
}

// moveTo leaves the room for another, in which head is the last seq.
func (t *Terminal) moveTo(to *room, head int64) {
	delete(t.logs, contract.RoomConversation(t.room))
	here := contract.RoomConversation(to.ID)
	c := newConversation(head)
	c.marked = math.MaxInt64
	c.askedAt = time.Now()
	t.room, t.people, t.logs[here] = to.ID, people{}, c
	t.say("* in room %d: %s", to.ID, to.Name)
	t.send(request{Op: wire.OpAuth, AuthToken: t.rest.token, RoomID: to.ID, Resume: seqs{here: head}})
}

func (t *Terminal) sendPrivately(ctx context.Context, args string) bool {
	name, text, _ := strings.Cut(args, " ")
	text = strings.TrimSpace(text)
	if text == "" {
		return false
	}
	t.command(ctx, func(ctx context.Context) (func(), error) {
		to, err := t.rest.user(ctx, name)
		return func() { t.write(line{to: to, text: text}) }, err
	})
	return true
}

func (t *Terminal) listOnline(ctx context.Context, args string) bool {
	if args != "" {
		return false
	}
	room := t.room
	t.command(ctx, func(ctx context.Context) (func(), error) {
		there, err := t.rest.online(ctx, room)
		return func() {
			names := make(map[contract.UserID]string, len(there.Users))
			for _, u := range there.Users {
				names[u.ID] = u.Name
			}
			t.say("* %d online: %s", there.Count, listed(there.Count, names))
		}, err
	})
	return true
}

// printHistory prints the messages before those that it, or the room, has printed first.
func (t *Terminal) printHistory(ctx context.Context, args string) bool {
	n := defaultHistory
	if args != "" {
		var err error
		if n, err = strconv.Atoi(args); err != nil || n < 1 {
			return false
		}
	}
	room, c := t.room, t.logs[contract.RoomConversation(t.room)]
	before := c.first
	t.command(ctx, func(ctx context.Context) (func(), error) {
		page, err := t.rest.history(ctx, room, before, min(n, contract.MaxPage))
		return func() {
			if len(page) == 0 {
				t.say("* nothing was said before")
				return
			}
			c.first = page[0].Seq
			t.say("* %d messages before:", len(page))
			for i := range page {
				t.say("%s", t.format(&page[i]))
			}
			t.say("* until here")
		}, err
	})
	return true
}

func (t *Terminal) printTrace(_ context.Context, args string) bool {
	switch {
	case args != "":
		return false
	case t.trace == "":
		t.say("* no message with a trace yet")
	default:
		t.say("* trace %s", t.trace)
	}
	return true
}

func (t *Terminal) quit(_ context.Context, args string) bool {
	if args != "" {
		return false
	}
	t.noMoreInput()
	return true
}

// show prints messages.
func (t *Terminal) show(messages ...wire.Message) {
	for i := range messages {
		t.say("%s", t.format(&messages[i]))
		t.trace = messages[i].TraceID
	}
}

// format is how a message is printed: when, from whom, and to whom if that is not the room one is in.
func (t *Terminal) format(m *wire.Message) string {
	when := "--:--"
	if at, err := time.Parse(time.RFC3339, m.CreatedAt); err == nil {
		at, layout := at.Local(), "15:04"
		if time.Since(at) > 24*time.Hour {
			layout = "2006-01-02 15:04"
		}
		when = at.Format(layout)
	}
	to := ""
	switch {
	case m.Op == wire.OpDirect && m.FromUserID == t.me:
		to = fmt.Sprintf(" to %s (private)", m.ToUserName)
	case m.Op == wire.OpDirect:
		to = " (private)"
	case m.RoomID != t.room:
		to = fmt.Sprintf(" (room %d)", m.RoomID)
	}
	return fmt.Sprintf("%s %s%s: %s", when, m.FromUserName, to, m.Msg)
}
