// Package traces receives what a system tells of its messages by OpenTelemetry, and decides whether the trace of a message is
// the one that OBSERVABILITY asks for: one root, every hop from the request to the sockets under the hop before it, in its time,
// about this message and no other, and what is said to be written is what clients got.
package traces

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-faster/city"
)

// Message is a message as its sender and its receivers know it.
type Message struct {
	Root         string // the span that its trace begins with: "receive frame" or the route
	ID           string
	TraceID      string
	Conversation string
	Seq          int
	Parent       string // the span that a client's traceparent named; "" without one
	Frames       []Frame
	Held         [][]int // users whose connections it is for, by node: a receiver, or the sender whose own connection gets no copy
	Offline      bool    // whom it is for has no connection
	Routed       bool    // the node that was asked has passed it on: only it knew which conversation it is of
	MayBeLate    bool    // so many came at once that a node may have been late with this one, see LateWithoutReason
}

// Frame is the message as one client got it.
type Frame struct {
	ID, TraceID string
	Seq         int
}

// nodes is on how many there are any.
func (m *Message) nodes() (n int) {
	for _, users := range m.Held {
		if len(users) > 0 {
			n++
		}
	}
	return n
}

// fanOuts are the buckets in which the message has a span, for each node: those with a member of the room, each once;
// or those of the people, one for each of them.
func (m *Message) fanOuts(buckets int) (byNode []string) {
	for _, users := range m.Held {
		if len(users) == 0 {
			continue
		}
		var of []int
		for _, u := range users {
			of = append(of, int(city.Hash64([]byte(strconv.Itoa(u)))&uint64(buckets-1)))
		}
		slices.Sort(of)
		if strings.HasPrefix(m.Conversation, "room:") {
			of = slices.Compact(of)
		}
		byNode = append(byNode, fmt.Sprint(of))
	}
	slices.Sort(byNode)
	return byNode
}

// edge is spans that a trace has under others: "service name KIND".
type edge struct {
	name, parent string
	want         int // of them; -1 is one for each bucket, see fanOuts
}

// edges are what the trace of the message has.
func (m *Message) edges() []edge {
	caller := "api"
	if m.Root == "receive frame" {
		caller = "connect"
	}
	root := caller + " " + m.Root + " SERVER"
	edges := []edge{
		{root, "", 1},
		{caller + " Logic/Send CLIENT", root, 1},
		{"logic Logic/Send SERVER", caller + " Logic/Send CLIENT", 1},
	}
	if m.Routed {
		edges[2].want, edges[2].parent = 2, "" // that it is a chain shows by each having one parent
		edges = append(edges, edge{"logic Logic/Send CLIENT", "logic Logic/Send SERVER", 1})
	}
	return append(edges, []edge{
		{"logic commit INTERNAL", "logic Logic/Send SERVER", 1},
		{"logic send gochat.deliveries PRODUCER", "logic Logic/Send SERVER", 1},
		{process, "logic send gochat.deliveries PRODUCER", 1},
		{pushing, process, m.nodes()},
		{pushed, pushing, m.nodes()},
		{fanOut, pushed, -1},
	}...)
}

const (
	process = "task process gochat.deliveries CONSUMER"
	pushing = "task Connect/Push CLIENT"
	pushed  = "connect Connect/Push SERVER"
	fanOut  = "connect fan-out bucket INTERNAL"
)

// trace is the spans of one message.
type trace struct {
	*Message
	spans []*Span
	byID  map[string]*Span
	named map[string][]*Span // by "service name KIND"
	wrong []string
}

func (t *trace) fault(format string, args ...any) {
	t.wrong = append(t.wrong, fmt.Sprintf(format, args...))
}

// Check says all that is wrong with the spans of the message's trace, in a system whose connect nodes have so many buckets.
func (m *Message) Check(spans []*Span, buckets int) []string {
	t := &trace{Message: m, spans: spans, byID: make(map[string]*Span), named: make(map[string][]*Span)}
	for _, span := range spans {
		if t.byID[span.ID] != nil {
			t.fault("two spans have the id %s", span.ID)
		}
		t.byID[span.ID] = span
		key := strings.TrimPrefix(span.Service, "gochat-") + " " + span.Name + " " + span.Kind
		t.named[key] = append(t.named[key], span)
	}
	t.tree()
	t.hops()
	t.buckets(buckets)
	t.consumed()
	t.written()
	return t.wrong
}

// tree checks that all of it is under one root, in its time, and about one message.
func (t *trace) tree() {
	roots := 0
	for _, span := range t.spans {
		parent := t.byID[span.Parent]
		switch {
		case span.Parent == t.Parent:
			roots++
			if span.Name != t.Root {
				t.fault("the root is %q, want %q", span.Name, t.Root)
			}
		case parent == nil:
			t.fault("%s %s: its parent has not come", span.Service, span.Name)
		case span.Start.Before(parent.Start):
			t.fault("%s begins before its parent %s", span.Name, parent.Name)
		}
		for _, key := range []string{"gochat.message.id", "messaging.message.id"} {
			if id, has := span.Attrs[key]; has && id != t.ID {
				t.fault("%s: %s is %s, want %s", span.Name, key, id, t.ID)
			}
		}
	}
	if roots != 1 {
		t.fault("%d spans under %q, want 1 root", roots, t.Parent)
	}
}

// hops checks that each is there, under the one before, and no other.
func (t *trace) hops() {
	edges := t.edges()
	for _, e := range edges {
		got := t.named[e.name]
		if e.want >= 0 && len(got) != e.want {
			t.fault("%d spans %q, want %d", len(got), e.name, e.want)
		}
		for _, span := range got {
			if e.parent != "" && !slices.Contains(t.named[e.parent], t.byID[span.Parent]) {
				t.fault("%q has another parent than %q", e.name, e.parent)
			}
			if _, has := span.Attrs["gochat.message.id"]; !has && span.Name != "Logic/Send" && span.Name != t.Root {
				t.fault("%q does not say which message", e.name)
			}
		}
	}
	for key, others := range t.named {
		// What was asked of the database on the way is all there may be besides.
		expected := slices.ContainsFunc(edges, func(e edge) bool { return e.name == key })
		if !expected && (!strings.HasPrefix(key, "logic ") || others[0].Attrs["db.system.name"] == "") {
			t.fault("%d spans %q, which nobody expects", len(others), key)
		}
	}
	for _, server := range t.named["logic Logic/Send SERVER"] {
		if t.Routed && server.Attrs["gochat.message.id"] == "" {
			continue // which has only passed it on
		}
		if server.Attrs["gochat.message.id"] != t.ID || server.Int("gochat.seq") != t.Seq {
			t.fault("logic's span says message %s, seq %s", server.Attrs["gochat.message.id"], server.Attrs["gochat.seq"])
		}
	}
}

// buckets checks that each node has a span for each bucket with somebody whom the message is for.
func (t *trace) buckets(buckets int) {
	var fanOuts []string
	for _, push := range t.named[pushed] {
		var of []int
		for _, span := range t.named[fanOut] {
			if span.Parent == push.ID && span.Instance == push.Instance {
				of = append(of, span.Int("gochat.bucket"))
			}
		}
		slices.Sort(of)
		fanOuts = append(fanOuts, fmt.Sprint(of))
	}
	slices.Sort(fanOuts)
	if want := t.fanOuts(buckets); !slices.Equal(fanOuts, want) {
		t.fault("fan-out in the buckets %v, want %v", fanOuts, want)
	}
}

// consumed checks what task says of it.
func (t *trace) consumed() {
	for _, consumer := range t.named[process] {
		producer := t.byID[consumer.Parent]
		if producer == nil || !slices.Contains(consumer.Links, Link{TraceID: t.TraceID, ID: producer.ID}) {
			t.fault("the consumer is not linked to the producer")
		}
		if consumer.Attrs["gochat.attempt"] != "1" {
			t.fault("attempt %s, want 1", consumer.Attrs["gochat.attempt"])
		}
		want := "pushed"
		if t.Offline {
			want = "offline"
		}
		if got := consumer.Attrs["gochat.outcome"]; got != want && !(t.MayBeLate && got == "late") {
			t.fault("outcome %s, want %s", got, want)
		}
	}
}

// written checks that what is said to be written is what came.
func (t *trace) written() {
	for _, name := range []string{pushing, pushed, fanOut} {
		n := 0
		for _, span := range t.named[name] {
			n += span.Int("gochat.written") + span.Int("gochat.queued")
		}
		if n != len(t.Frames) {
			t.fault("%q wrote %d in all, clients got %d", name, n, len(t.Frames))
		}
	}
	for _, f := range t.Frames {
		if f != (Frame{ID: t.ID, TraceID: t.TraceID, Seq: t.Seq}) {
			t.fault("a frame has id %s, trace %s, seq %d", f.ID, f.TraceID, f.Seq)
		}
	}
}

// LateWithoutReason answers which of all the spans say that a message is late, though no node that it went to has ever kept task
// waiting for as long as overdue: from when a message is taken until it is answered.
func LateWithoutReason(spans []*Span, overdue time.Duration) (found []*Span) {
	var consumers []*Span
	byID := make(map[string]*Span)
	for _, s := range spans {
		if s.Name == "process gochat.deliveries" {
			consumers = append(consumers, s)
			byID[s.ID] = s
		}
	}
	slow := make(map[string]bool)      // nodes
	nodes := make(map[string][]string) // of a consumer's pushes
	for _, s := range spans {
		if of := byID[s.Parent]; of != nil && s.Kind == "CLIENT" {
			node := s.Attrs["gochat.node"]
			nodes[of.ID] = append(nodes[of.ID], node)
			slow[node] = slow[node] || s.End.Sub(of.Start) >= overdue
		}
	}
	for _, s := range consumers {
		if s.Attrs["gochat.outcome"] == "late" && !slices.ContainsFunc(nodes[s.ID], func(node string) bool { return slow[node] }) {
			found = append(found, s)
		}
	}
	return found
}

// Accepted is the span in which logic accepted the message: what is stored names it. "" if there is none.
func (m *Message) Accepted(spans []*Span) string {
	for _, span := range spans {
		if span.Service == "gochat-logic" && span.Name == "Logic/Send" && span.Kind == "SERVER" && span.Attrs["gochat.message.id"] == m.ID {
			return span.ID
		}
	}
	return ""
}

// Picture is the trace in words.
func Picture(spans []*Span) string {
	var b strings.Builder
	for _, span := range spans {
		fmt.Fprintf(&b, "%s %s %s %s in %s %v\n", span.Service, span.Name, span.Kind, span.ID, span.Parent, span.Attrs)
	}
	return b.String()
}
