package observability

import (
	"container/list"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Bounds of what is kept of traces.
const (
	keepMost       = 10_000   // traces that may be asked for
	spansMost      = 500      // of a trace
	attributesMost = 32       // of a span, and of each of its events and links
	eventsMost     = 32       // of a span
	linksMost      = 128      // of a span: as many as the SDK takes
	textMost       = 256      // bytes of a name and of an attribute's value
	traceBytes     = 64 << 10 // of memory that a trace may take, on average
	othersPart     = 8        // this part of the room, at least one trace, is for traces that are no message's
	traceOverhead  = 256      // bytes of a trace without spans: the struct, its place in the map and in the list
	moreMark       = "…"      // stands after a text that was cut
)

// traceStore keeps the spans that have ended, by trace, in bounded memory. When there are too many traces, or when all
// together take more than traceBytes for each, one goes: the one that no span has joined for longest of those that are no
// message's, which have AttrMessageID on none of their spans, so that what a system does by itself does not push people's
// messages out; or of the messages', once the others have but their part of the room. Spans that come late, by a repair or
// a second attempt, join their trace.
//
// Its methods may be called concurrently. OnEnd holds the lock for a look-up and an append.
type traceStore struct {
	most, mostBytes int

	mu       sync.Mutex
	traces   map[trace.TraceID]*list.Element // of messages or others
	messages list.List                       // of *keptTrace; the one joined last is in front
	others   list.List                       // likewise
	joins    uint64                          // ever
	bytes    int                             // of all of them, never above mostBytes
	ofOthers int                             // bytes among them
}

var _ sdktrace.SpanProcessor = (*traceStore)(nil)

// keptTrace is what is here of a trace. A copy of it, made under the lock, may be read without: spans only grows, and
// what is in it does not change.
type keptTrace struct {
	id    trace.TraceID
	spans []*keptSpan // in the order in which they ended; never empty
	more  int         // spans beyond the bounds, which were not kept
	bytes int

	message bool   // it is a message's
	joined  uint64 // the join at which it was the last time
}

// keptSpan shares no memory with the span that it was made of, save what is the process's own: keys and the resource.
type keptSpan struct {
	id, parent        trace.SpanID
	service, instance string
	name              string
	kind              trace.SpanKind
	start, end        time.Time
	status            codes.Code
	reason            string // of the status
	attributes        []attribute.KeyValue
	events            []keptEvent
	links             []keptLink
	more              int // attributes, events and links beyond the bounds, which were not kept
}

type keptEvent struct {
	name       string
	at         time.Time
	attributes []attribute.KeyValue
}

type keptLink struct {
	trace      trace.TraceID
	span       trace.SpanID
	attributes []attribute.KeyValue
}

func newTraceStore(most int) *traceStore {
	return &traceStore{most: most, mostBytes: most * traceBytes, traces: make(map[trace.TraceID]*list.Element)}
}

// OnStart does nothing: a span is kept once it has ended.
func (s *traceStore) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps a copy of a sampled span.
func (s *traceStore) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	kept, bytes := keep(span)
	message := slices.ContainsFunc(span.Attributes(), func(a attribute.KeyValue) bool { return a.Key == AttrMessageID })
	s.add(span.SpanContext().TraceID(), kept, bytes, message)
}

// Shutdown does nothing: what is kept may be looked at until the process ends.
func (s *traceStore) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing: nothing waits.
func (s *traceStore) ForceFlush(context.Context) error { return nil }

func (s *traceStore) add(id trace.TraceID, span *keptSpan, bytes int, message bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.traces[id]
	if place == nil {
		if traceOverhead+bytes > s.mostBytes { // a span can be larger than a small store
			return
		}
		place = s.put(&keptTrace{id: id, bytes: traceOverhead, message: message})
	} else if t := place.Value.(*keptTrace); message && !t.message {
		s.take(place)
		t.message = true
		place = s.put(t)
	} else {
		s.among(t).MoveToFront(place)
	}
	t := place.Value.(*keptTrace)
	s.joins++
	t.joined = s.joins
	// A trace that would fill the store by itself is full: then there is always another one that can go below.
	if len(t.spans) >= spansMost || t.bytes+bytes > s.mostBytes {
		t.more++
	} else {
		t.spans = append(t.spans, span)
		s.grow(t, bytes)
	}
	for len(s.traces) > s.most || s.bytes > s.mostBytes {
		s.take(s.leastWanted(place))
	}
}

// leastWanted is the trace that goes first, never the one that was joined just now.
func (s *traceStore) leastWanted(joined *list.Element) *list.Element {
	first, second := s.messages.Back(), s.others.Back()
	if s.others.Len() > s.most/othersPart || s.ofOthers > s.mostBytes/othersPart {
		first, second = second, first
	}
	if first == nil || first == joined {
		return second
	}
	return first
}

// among is the list in which the trace has its place.
func (s *traceStore) among(t *keptTrace) *list.List {
	if t.message {
		return &s.messages
	}
	return &s.others
}

func (s *traceStore) put(t *keptTrace) *list.Element {
	place := s.among(t).PushFront(t)
	s.traces[t.id] = place
	s.count(t, t.bytes)
	return place
}

func (s *traceStore) take(place *list.Element) {
	t := place.Value.(*keptTrace)
	s.among(t).Remove(place)
	delete(s.traces, t.id)
	s.count(t, -t.bytes)
}

func (s *traceStore) grow(t *keptTrace, bytes int) {
	t.bytes += bytes
	s.count(t, bytes)
}

// count adds bytes of the trace to the sums.
func (s *traceStore) count(t *keptTrace, bytes int) {
	s.bytes += bytes
	if !t.message {
		s.ofOthers += bytes
	}
}

// all answers every trace, the one that was joined last first.
func (s *traceStore) all() []keptTrace {
	s.mu.Lock()
	defer s.mu.Unlock()
	traces := make([]keptTrace, 0, len(s.traces))
	message, other := s.messages.Front(), s.others.Front()
	for message != nil || other != nil {
		next := &message
		if message == nil || other != nil && other.Value.(*keptTrace).joined > message.Value.(*keptTrace).joined {
			next = &other
		}
		traces = append(traces, *(*next).Value.(*keptTrace))
		*next = (*next).Next()
	}
	return traces
}

// get answers one trace.
func (s *traceStore) get(id trace.TraceID) (t keptTrace, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place, found := s.traces[id]
	if !found {
		return keptTrace{}, false
	}
	return *place.Value.(*keptTrace), true
}

// keep copies what is kept of a span, and answers the memory that it takes.
func keep(s sdktrace.ReadOnlySpan) (span *keptSpan, bytes int) {
	k := keeper{bytes: int(unsafe.Sizeof(keptSpan{})) + int(unsafe.Sizeof(span))}
	span = &keptSpan{
		id: s.SpanContext().SpanID(), parent: s.Parent().SpanID(),
		service: named(s.Resource(), "service.name"), instance: named(s.Resource(), "service.instance.id"),
		name: k.text(s.Name()), kind: s.SpanKind(), start: s.StartTime(), end: s.EndTime(),
		status: s.Status().Code, reason: k.text(s.Status().Description),
		attributes: k.attributes(s.Attributes(), s.DroppedAttributes()),
	}
	if events := s.Events(); len(events) > 0 {
		span.events = make([]keptEvent, min(len(events), eventsMost))
		for i := range span.events {
			e := &events[i]
			span.events[i] = keptEvent{name: k.text(e.Name), at: e.Time, attributes: k.attributes(e.Attributes, e.DroppedAttributeCount)}
		}
		k.bytes += len(span.events) * int(unsafe.Sizeof(keptEvent{}))
		k.more += len(events) - len(span.events)
	}
	if links := s.Links(); len(links) > 0 {
		span.links = make([]keptLink, min(len(links), linksMost))
		for i := range span.links {
			l := &links[i]
			span.links[i] = keptLink{trace: l.SpanContext.TraceID(), span: l.SpanContext.SpanID(), attributes: k.attributes(l.Attributes, l.DroppedAttributeCount)}
		}
		k.bytes += len(span.links) * int(unsafe.Sizeof(keptLink{}))
		k.more += len(links) - len(span.links)
	}
	span.more = k.more + s.DroppedEvents() + s.DroppedLinks()
	return span, k.bytes
}

func named(r *resource.Resource, key attribute.Key) string {
	v, _ := r.Set().Value(key)
	return v.AsString()
}

// keeper counts while it copies.
type keeper struct {
	bytes int // that the copies take
	more  int // that were not copied
}

// text copies even what is short, which may be part of something long.
func (k *keeper) text(s string) string {
	if len(s) > textMost {
		end := textMost
		for end > textMost-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + moreMark
	} else {
		s = strings.Clone(s)
	}
	k.bytes += len(s)
	return s
}

func (k *keeper) attributes(from []attribute.KeyValue, dropped int) []attribute.KeyValue {
	k.more += dropped
	if len(from) == 0 {
		return nil
	}
	to := make([]attribute.KeyValue, min(len(from), attributesMost))
	for i := range to {
		to[i] = from[i]
		switch v := from[i].Value; v.Type() {
		case attribute.BOOL, attribute.INT64, attribute.FLOAT64:
		case attribute.STRING:
			to[i].Value = attribute.StringValue(k.text(v.AsString()))
		default: // a list or a map, which is rare, as text
			to[i].Value = attribute.StringValue(k.text(v.String()))
		}
	}
	k.bytes += len(to) * int(unsafe.Sizeof(attribute.KeyValue{}))
	k.more += len(from) - len(to)
	return to
}
