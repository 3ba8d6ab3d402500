// Package terminal is the chat client for people at a terminal, and for scripts. It speaks to a gochat as any
// client does, by REST and tcp, and relies on nothing that a stranger's client could not.
//
// # What it promises
//
// The messages of a conversation are printed in seq order, each once, whether they come live, by replay, or as the
// ack of a line written here. A line is printed once the server has stored it. Lines go out one after the other,
// in the order in which they were written, each until it is acknowledged or refused for good, under one clientId
// however often it is sent. Nothing that others write can steer the terminal: see clean.
//
// # How it works
//
// One goroutine, loop, owns all state and acts on what comes: a line, a frame, the answer to a request, a tick.
// Others only wait, for input, for the socket, for an answer, and hand over functions that loop calls. While a
// command waits for its answer no further line is read, so that a script's lines act in their order.
//
// A connection begins with one frame that authenticates, enters the room and names the last seq of every
// conversation, followed by a ping: its pong says that all that is done. A hole in a conversation that does not
// close by itself, and a head that a pong says is ahead, is asked for with a replay.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"gochat/layers/internal/contract"
)

// Options say where and as whom to chat.
type Options struct {
	API      string // base URL of the REST API
	TCP      string // host:port of the tcp socket
	User     string
	Room     contract.RoomID // the first to be in
	Register bool            // makes the account instead of logging in to it
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if base, err := url.Parse(o.API); err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return fmt.Errorf("api %q: want http://HOST:PORT", o.API)
	}
	if _, _, err := net.SplitHostPort(o.TCP); err != nil {
		return fmt.Errorf("tcp %q: want HOST:PORT", o.TCP)
	}
	if o.User == "" {
		return errors.New("user: not given")
	}
	if o.Room <= 0 {
		return fmt.Errorf("room %d: want a positive number", o.Room)
	}
	return nil
}

// Terminal is one run of the client. All but what New sets belongs to the goroutine of Run.
type Terminal struct {
	options    Options
	in         io.Reader
	out        io.Writer
	console    *console
	rest       *rest
	events     chan func() // called by loop, one after the other
	goroutines sync.WaitGroup

	me       contract.UserID
	name     string
	room     contract.RoomID
	logs     map[contract.Conversation]*conversation // direct ones, and the room's
	allKnown bool                                    // every direct conversation that there was at the start is in logs
	people   people
	trace    string // of the last message printed
	outbox   outbox

	link      *link // nil while there is no connection and none is being made
	attempt   int   // how often in a row connecting has failed
	connectAt time.Time
	paced     bool // connectAt is what the server has asked for
	greeted   bool // it has been connected before
	loss      bool // the loss of the connection has been told

	busy    bool      // a command waits for its answer
	leaveBy time.Time // set when no more input comes: until then the first line that waits must be through
	over    bool
	err     error // why it is over
}

// New makes a client that reads lines from in and prints to out. Both should be *os.File to be used as a terminal.
// At the end of Run reading is interrupted if in is an *os.File; another reader is closed if it is an io.Closer, and
// must end by itself if it is not.
func New(o Options, in io.Reader, out io.Writer) (*Terminal, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Terminal{
		options: o, in: in, out: out, room: o.Room,
		rest:   newREST(o.API),
		events: make(chan func()),
		logs:   make(map[contract.Conversation]*conversation),
	}, nil
}

// How long things may take.
const (
	tick        = 100 * time.Millisecond
	leaveWithin = 2 * time.Second  // for the session's end, and for each of a person's last lines
	drainWithin = 10 * time.Second // for each of a script's last lines
)

// Run chats until the input ends, /quit, the end of ctx or the end of the session, and has then logged out and
// given the terminal back. What was written is sent first unless ctx has ended. It fails if it cannot log in, if the
// server has ended the session, and if lines were left unsent. It is called once.
func (t *Terminal) Run(ctx context.Context) (err error) {
	t.console, err = openConsole(t.in, t.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.console.close()) }()
	defer t.rest.close()
	ctx, cancel := context.WithCancel(ctx)
	defer t.goroutines.Wait()
	defer context.AfterFunc(ctx, t.console.interrupt)()
	defer t.console.interrupt()
	defer cancel()

	password, err := t.console.password("Password of " + clean(t.options.User) + ": ")
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("no password was given")
	case err != nil:
		return fmt.Errorf("read password: %w", err)
	}
	if err := t.begin(ctx, password); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer t.leave(ctx)
	t.loop(ctx)
	return t.err
}

// begin logs in and learns where the conversations stand.
func (t *Terminal) begin(ctx context.Context, password string) error {
	grant, err := t.rest.logIn(ctx, t.options.User, password, t.options.Register)
	if err != nil {
		return fmt.Errorf("log in as %s: %w", clean(t.options.User), err)
	}
	t.me, t.name = grant.UserID, grant.Name
	entries, err := t.rest.inbox(ctx)
	if err != nil {
		return fmt.Errorf("load conversations: %w", err)
	}
	t.learn(entries)
	t.allKnown = len(entries) < contract.MaxPage
	room, head, err := t.rest.room(ctx, t.room)
	if err != nil {
		return fmt.Errorf("enter room %d: %w", t.room, err)
	}
	t.moveTo(room, head)
	return nil
}

// loop acts on what comes until it is over.
func (t *Terminal) loop(ctx context.Context) {
	lines := make(chan string)
	t.goroutines.Go(func() { t.read(ctx, lines) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	t.connect(ctx)
	for !t.over {
		accept := lines
		if t.busy || t.outbox.full() || !t.leaveBy.IsZero() {
			accept = nil
		}
		select {
		case line := <-accept:
			t.input(ctx, line)
		case event := <-t.events:
			event()
		case now := <-ticker.C:
			t.tick(ctx, now)
		case <-ctx.Done():
			return
		}
		if !t.leaveBy.IsZero() && !t.busy && t.outbox.empty() {
			return
		}
	}
}

// read hands over lines until there are no more.
func (t *Terminal) read(ctx context.Context, lines chan<- string) {
	for {
		line, err := t.console.readLine()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.post(ctx, func() { t.say("* cannot read further: %v", err) })
			}
			t.post(ctx, t.noMoreInput)
			return
		}
		select {
		case lines <- line:
		case <-ctx.Done():
			return
		}
	}
}

// noMoreInput has loop end once all is sent that can be.
func (t *Terminal) noMoreInput() {
	if t.leaveBy.IsZero() {
		t.leaveBy = time.Now().Add(t.patience())
	}
}

// patience is how long a line may take when no more input comes. A person does not wait for a server that is away.
func (t *Terminal) patience() time.Duration {
	if t.console.tty != nil {
		return leaveWithin
	}
	return drainWithin
}

// tick does what is due.
func (t *Terminal) tick(ctx context.Context, now time.Time) {
	t.tendLink(ctx, now)
	t.sendNext(now)
	if l := t.outbox.late(now); l != nil {
		t.say("* not confirmed yet: %s", l.text)
	}
	for name, c := range t.logs {
		if c.holeLasts(now) {
			t.replay(now, name)
		}
		if c.markDue(now) {
			t.mark(ctx, now, name)
		}
	}
	if !t.leaveBy.IsZero() && now.After(t.leaveBy) {
		err := errors.New("left without an answer from the server")
		if n := len(t.outbox.waiting); n > 0 {
			err = fmt.Errorf("left with %d lines unsent", n)
		}
		t.end(err)
	}
}

// end has loop return; the first reason counts.
func (t *Terminal) end(err error) {
	if !t.over {
		t.over, t.err = true, err
	}
}

// leave closes the connection, keeps the read marks and ends the session.
func (t *Terminal) leave(ctx context.Context) {
	if t.link != nil {
		t.link.cancel()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	for name, c := range t.logs {
		if c.unmarked() {
			_ = t.rest.markRead(ctx, name, c.printed) // else it is printed once more the next time
		}
	}
	_ = t.rest.logOut(ctx) // else it expires by itself
}

// post has loop call f, unless ctx ends before.
func (t *Terminal) post(ctx context.Context, f func()) {
	select {
	case t.events <- f:
	case <-ctx.Done():
	}
}

// fetch asks the server without holding up loop, which calls the function that ask answers.
func (t *Terminal) fetch(ctx context.Context, ask func(context.Context) func()) {
	t.goroutines.Go(func() {
		apply := ask(ctx)
		t.post(ctx, apply)
	})
}

// command is fetch for a line, during which no other line is read.
func (t *Terminal) command(ctx context.Context, ask func(context.Context) (func(), error)) {
	t.busy = true
	t.fetch(ctx, func(ctx context.Context) func() {
		apply, err := ask(ctx)
		return func() {
			t.busy = false
			if err != nil {
				t.complain(err)
				return
			}
			apply()
		}
	})
}

// say prints one line. What does not print ends the client: nobody sees it.
func (t *Terminal) say(format string, args ...any) {
	if err := t.console.print(clean(fmt.Sprintf(format, args...))); err != nil {
		t.end(fmt.Errorf("print: %w", err))
	}
}

// complain says that something did not succeed: the sentence for people, the code for reports.
func (t *Terminal) complain(err error) {
	var e *contract.Error
	if errors.As(err, &e) {
		t.say("* %s (%s)", e.Message, e.Code)
		return
	}
	t.say("* %v", err)
}
