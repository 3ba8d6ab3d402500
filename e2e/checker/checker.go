// Package checker decides whether a chat system has kept its word. Tests tell it everything that clients have sent,
// what was acknowledged and every message that came, in the order in which it came; after all clients have asked
// for what they miss, Verify answers every way in which what they saw contradicts
//
//   - G1, accepted means stored: what was acknowledged reaches everybody it was meant for,
//   - G2, one order: a conversation has the same messages under the same seqs for all, without a hole, in that order,
//   - G4, sent once: a message that was sent again under its client id is one message,
//   - G7, nobody is spoken for: a message is from the session's user, and was sent by that user,
//
// and that a private message is between the two: nobody else is given it, and it is in no other conversation.
//
// It knows nothing of how clients connect. All methods may be called concurrently.
package checker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Message is a message as a client saw it.
type Message struct {
	ID           string
	Conversation string
	Seq          int64
	From         int64  // user
	ClientID     string // the sender's name for it
	Text         string
}

// Receipt is an acknowledgement of a send.
type Receipt struct {
	ID           string
	Conversation string
	Seq          int64
}

// Violation is one way in which the system broke its word.
type Violation struct {
	Kind   Kind
	Detail string
}

func (v Violation) String() string { return string(v.Kind) + ": " + v.Detail }

// Kind says which word was broken.
type Kind string

// Kinds.
const (
	Lost      Kind = "lost"       // acknowledged, and somebody it was meant for has not got it
	Hole      Kind = "hole"       // a client has a later message, and not this one
	Disagree  Kind = "disagree"   // one seq of a conversation is two messages
	Doubled   Kind = "doubled"    // one message has two seqs or ids
	Disorder  Kind = "disorder"   // a client was given a message after a later one
	Repeated  Kind = "repeated"   // one connection was given a message twice
	Invented  Kind = "invented"   // nobody has sent it
	SpokenFor Kind = "spoken for" // it bears the name of another than its sender
	Leaked    Kind = "leaked"     // private, and given to a third
	Misplaced Kind = "misplaced"  // in another conversation than it was sent to
)

// sent is what a user has handed over under a client id.
type sent struct {
	user     int64
	clientID string
}

// send is what was handed over.
type send struct {
	text string
	to   int64 // user; 0 is the room
}

// place is one seq of a conversation.
type place struct {
	conversation string
	seq          int64
}

// Checker is the record of one run.
type Checker struct {
	mu       sync.Mutex
	sends    map[sent]send
	receipts map[sent][]Receipt
	clients  []*Client
}

// New is an empty record.
func New() *Checker {
	return &Checker{sends: make(map[sent]send), receipts: make(map[sent][]Receipt)}
}

// Sending notes, before the fact, that the user sends a text under a client id, to another user, or, with to 0, to a
// room; again for each retry, or once.
func (c *Checker) Sending(user int64, clientID, text string, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends[sent{user, clientID}] = send{text, to}
}

// Acknowledged notes an answer to a send.
func (c *Checker) Acknowledged(user int64, clientID string, r Receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receipts[sent{user, clientID}] = append(c.receipts[sent{user, clientID}], r)
}

// Count answers how many sends there were, how many of them were acknowledged, and how many messages came.
func (c *Checker) Count() (sends, acknowledged, received int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.clients {
		for _, connection := range client.connections {
			received += len(connection)
		}
	}
	return len(c.sends), len(c.receipts), received
}

// Client is one person's program: it lives through many connections and remembers what it was given.
type Client struct {
	checker     *Checker
	name        string
	user        int64
	after       map[string]int64 // by conversation it is to have in full: all that follows this seq
	connections [][]Message
}

// Client adds one. after names the conversations of which it is to have everything beyond a seq.
func (c *Checker) Client(name string, user int64, after map[string]int64) *Client {
	client := &Client{checker: c, name: name, user: user, after: maps.Clone(after)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients = append(c.clients, client)
	return client
}

// Connected notes the beginning of a connection, live messages and replays alike.
func (cl *Client) Connected() {
	cl.checker.mu.Lock()
	defer cl.checker.mu.Unlock()
	cl.connections = append(cl.connections, nil)
}

// Received notes a message that the present connection was given.
func (cl *Client) Received(m Message) {
	cl.checker.mu.Lock()
	defer cl.checker.mu.Unlock()
	last := len(cl.connections) - 1
	cl.connections[last] = append(cl.connections[last], m)
}

// Has answers the highest seq of the conversation up to which the client has everything, counting what it sent
// itself and was acknowledged: what it would name to resume.
func (cl *Client) Has(conversation string) int64 {
	cl.checker.mu.Lock()
	defer cl.checker.mu.Unlock()
	have := cl.checker.have(cl)
	last := cl.after[conversation]
	for have[place{conversation, last + 1}] {
		last++
	}
	return last
}

// have is what a client was given or acknowledged. It is called with mu held.
func (c *Checker) have(cl *Client) map[place]bool {
	have := make(map[place]bool)
	for _, connection := range cl.connections {
		for _, m := range connection {
			have[place{m.Conversation, m.Seq}] = true
		}
	}
	for by, receipts := range c.receipts {
		if by.user == cl.user {
			for _, r := range receipts {
				have[place{r.Conversation, r.Seq}] = true
			}
		}
	}
	return have
}

// maxOfKind bounds how many violations of a kind are told in full.
const maxOfKind = 10

// Verify answers every violation, or the first of each kind and how many more there are. Call it when every client
// has asked for what it misses and been answered.
func (c *Checker) Verify() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &verdict{checker: c, at: make(map[place]Message), where: make(map[string]place), ids: make(map[sent]string), found: make(map[Kind][]string)}
	v.receipts()
	for _, client := range c.clients {
		for number, connection := range client.connections {
			v.connection(client, number, connection)
		}
	}
	for _, client := range c.clients {
		v.complete(client)
	}
	return v.violations()
}

// verdict is one look at the record.
type verdict struct {
	checker *Checker
	at      map[place]Message // what all agree on; from a receipt alone, without text
	where   map[string]place  // by message id
	ids     map[sent]string   // the message that a send has become
	found   map[Kind][]string
}

func (v *verdict) say(kind Kind, format string, args ...any) {
	v.found[kind] = append(v.found[kind], fmt.Sprintf(format, args...))
}

// agree holds what was said of one place against what others have said of it.
func (v *verdict) agree(m Message, who string) {
	p := place{m.Conversation, m.Seq}
	by := sent{m.From, m.ClientID}
	if first, known := v.at[p]; known && first.ID != m.ID {
		v.say(Disagree, "%s %d is message %s, for %s it is %s", p.conversation, p.seq, first.ID, who, m.ID)
	} else if known && first.Text != "" && m.Text != "" && (first.Text != m.Text || first.From != m.From) {
		v.say(Disagree, "%s %d is %q of %d, for %s it is %q of %d", p.conversation, p.seq, first.Text, first.From, who, m.Text, m.From)
	} else if !known || first.Text == "" {
		v.at[p] = m
	}
	if other, known := v.where[m.ID]; known && other != p {
		v.say(Doubled, "message %s is %s %d, for %s it is %s %d", m.ID, other.conversation, other.seq, who, p.conversation, p.seq)
	} else {
		v.where[m.ID] = p
	}
	if m.ClientID == "" {
		return
	}
	if other, known := v.ids[by]; known && other != m.ID {
		v.say(Doubled, "what %d sent as %q is message %s, for %s it is %s", m.From, m.ClientID, other, who, m.ID)
	} else {
		v.ids[by] = m.ID
	}
}

func (v *verdict) receipts() {
	for by, receipts := range v.checker.receipts {
		for _, r := range receipts {
			m := Message{ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, From: by.user, ClientID: by.clientID}
			v.agree(m, "its sender")
			v.placed(m, "its sender")
		}
	}
}

// connection looks at what one connection was given, in its order.
func (v *verdict) connection(cl *Client, number int, messages []Message) {
	who := fmt.Sprintf("%s on connection %d", cl.name, number+1)
	last := make(map[string]int64)
	given := make(map[place]bool)
	for _, m := range messages {
		v.agree(m, who)
		v.origin(m, who)
		v.placed(m, who)
		v.private(m, cl, who)
		p := place{m.Conversation, m.Seq}
		switch {
		case given[p]:
			v.say(Repeated, "%s was given %s %d twice", who, m.Conversation, m.Seq)
		case m.Seq < last[m.Conversation]:
			v.say(Disorder, "%s was given %s %d after %d", who, m.Conversation, m.Seq, last[m.Conversation])
		}
		given[p] = true
		last[m.Conversation] = max(last[m.Conversation], m.Seq)
	}
}

// origin asks who has sent it.
func (v *verdict) origin(m Message, who string) {
	first, known := v.checker.sends[sent{m.From, m.ClientID}]
	if known && first.text == m.Text {
		return
	}
	for by, other := range v.checker.sends {
		if other.text == m.Text && (m.ClientID == "" || by.clientID == m.ClientID) && by.user != m.From {
			v.say(SpokenFor, "%s was given %q as of %d, who sent it is %d", who, m.Text, m.From, by.user)
			return
		}
	}
	v.say(Invented, "%s was given %q of %d, which nobody has sent", who, m.Text, m.From)
}

// placed asks whether it is where it was sent to.
func (v *verdict) placed(m Message, who string) {
	s, known := v.checker.sends[sent{m.From, m.ClientID}]
	if !known {
		return
	}
	if s.to == 0 {
		if !strings.HasPrefix(m.Conversation, "room:") {
			v.say(Misplaced, "message %s of %d to a room is for %s in %s", m.ID, m.From, who, m.Conversation)
		}
	} else if want := Direct(m.From, s.to); m.Conversation != want {
		v.say(Misplaced, "message %s of %d to %d is for %s in %s, want %s", m.ID, m.From, s.to, who, m.Conversation, want)
	}
}

// private asks whether it was meant for the client.
func (v *verdict) private(m Message, cl *Client, who string) {
	s := v.checker.sends[sent{m.From, m.ClientID}]
	if s.to != 0 && cl.user != s.to && cl.user != m.From {
		v.say(Leaked, "%s was given message %s, which %d sent to %d alone", who, m.ID, m.From, s.to)
	}
}

// Direct is the conversation of two users.
func Direct(a, b int64) string { return fmt.Sprintf("dm:%d:%d", min(a, b), max(a, b)) }

// complete looks for what a client lacks in the conversations that it is to have.
func (v *verdict) complete(cl *Client) {
	have := v.checker.have(cl)
	acknowledged := make(map[string]bool)
	for _, receipts := range v.checker.receipts {
		for _, r := range receipts {
			acknowledged[r.ID] = true
		}
	}
	for conversation, after := range cl.after {
		end := after
		for p := range have {
			if p.conversation == conversation {
				end = max(end, p.seq)
			}
		}
		for p, m := range v.at {
			if p.conversation == conversation && p.seq > after && !have[p] && acknowledged[m.ID] {
				v.say(Lost, "%s has not got %s %d, message %s, which was acknowledged to %d", cl.name, conversation, p.seq, m.ID, m.From)
			}
		}
		for seq := after + 1; seq < end; seq++ {
			if !have[place{conversation, seq}] {
				v.say(Hole, "%s has %s up to %d without %d", cl.name, conversation, end, seq)
			}
		}
	}
}

func (v *verdict) violations() []Violation {
	var all []Violation
	for kind, details := range v.found {
		slices.Sort(details)
		for _, d := range details[:min(len(details), maxOfKind)] {
			all = append(all, Violation{kind, d})
		}
		if more := len(details) - maxOfKind; more > 0 {
			all = append(all, Violation{kind, fmt.Sprintf("and %d more", more)})
		}
	}
	slices.SortStableFunc(all, func(a, b Violation) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

// Report is the violations as lines, "" if there are none.
func Report(violations []Violation) string {
	lines := make([]string, len(violations))
	for i, v := range violations {
		lines[i] = v.String()
	}
	return strings.Join(lines, "\n")
}
