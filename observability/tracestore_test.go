package observability

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// epoch is when the spans of the tests start.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func traceID(n int) (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func spanID(n int) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// stub is a sampled span of a millisecond; parent 0 is none.
func stub(t, span, parent int) tracetest.SpanStub {
	s := tracetest.SpanStub{
		Name:        fmt.Sprintf("span %d", span),
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID(t), SpanID: spanID(span), TraceFlags: trace.FlagsSampled}),
		StartTime:   epoch, EndTime: epoch.Add(time.Millisecond),
		Resource: resource.NewSchemaless(attribute.String("service.name", "gochat-api"), attribute.String("service.instance.id", "api-1")),
	}
	if parent != 0 {
		s.Parent = trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID(t), SpanID: spanID(parent), TraceFlags: trace.FlagsSampled})
	}
	return s
}

// ids are the traces that are kept, the one joined last first.
func (s *traceStore) ids() (ids []int) {
	for _, t := range s.all() {
		ids = append(ids, int(binary.BigEndian.Uint64(t.id[8:])))
	}
	return ids
}

func TestTheTraceJoinedLongestAgoGoes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ended []int // traces whose spans end, in order
		want  []int
	}{
		{"none", nil, nil},
		{"as many as fit", []int{1, 2, 3}, []int{3, 2, 1}},
		{"more", []int{1, 2, 3, 4, 5}, []int{5, 4, 3}},
		{"one is joined", []int{1, 2, 3, 1, 4}, []int{4, 1, 3}},
		{"one is joined after it had gone", []int{1, 2, 3, 4, 1}, []int{1, 4, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTraceStore(3)
			for i, id := range tc.ended {
				s.OnEnd(stub(id, i+1, 0).Snapshot())
			}
			if got := s.ids(); !slices.Equal(got, tc.want) {
				t.Errorf("kept %v, want %v", got, tc.want)
			}
			if len(s.traces) != len(tc.want) || s.messages.Len()+s.others.Len() != len(tc.want) {
				t.Errorf("%d by id, %d in order, want %d", len(s.traces), s.messages.Len()+s.others.Len(), len(tc.want))
			}
		})
	}
}

// TestMessagesStayLongest: what is no message's goes first, the oldest first, but for a part of the room.
func TestMessagesStayLongest(t *testing.T) {
	for _, tc := range []struct {
		name  string
		most  int
		ended []int // traces whose spans end, in order; those below 100 have a message
		want  []int
	}{
		{"others go first", 4, []int{1, 100, 2, 101, 3, 102}, []int{102, 3, 2, 1}},
		{"messages go, the oldest first, when there is nothing else", 4, []int{1, 2, 3, 4, 1, 5}, []int{5, 1, 4, 3}},
		{"there is room for some others", 16, []int{100, 101, 102, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
			[]int{16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 102, 101}},
		{"what was joined last stays, though there is room for nothing else", 1, []int{100, 1, 101, 102, 2}, []int{2}},
		{"and so does another", 1, []int{1, 100}, []int{100}},
		{"others have all the room that nobody needs", 4, []int{100, 101, 102, 103, 104}, []int{104, 103, 102, 101}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTraceStore(tc.most)
			for i, id := range tc.ended {
				span := stub(id, i+1, 0)
				if id < 100 {
					span.Attributes = []attribute.KeyValue{AttrMessageID.String("7")}
				}
				s.OnEnd(span.Snapshot())
			}
			if got := s.ids(); !slices.Equal(got, tc.want) {
				t.Errorf("kept %v, want %v", got, tc.want)
			}
		})
	}
	t.Run("a message's from its second span on", func(t *testing.T) {
		s := newTraceStore(2)
		s.OnEnd(stub(1, 1, 0).Snapshot())
		late := stub(1, 2, 1)
		late.Attributes = []attribute.KeyValue{AttrMessageID.String("7")}
		s.OnEnd(late.Snapshot())
		for i := range 3 {
			s.OnEnd(stub(100+i, 3, 0).Snapshot())
		}
		s.OnEnd(stub(1, 4, 1).Snapshot()) // one without keeps it one
		if got := s.ids(); !slices.Equal(got, []int{1, 102}) || s.messages.Len() != 1 || s.others.Len() != 1 {
			t.Errorf("kept %v, %d of messages, want 1 and 102", got, s.messages.Len())
		}
		sum, ofOthers := 0, 0
		for _, kept := range s.all() {
			sum += kept.bytes
			if !kept.message {
				ofOthers += kept.bytes
			}
		}
		if sum != s.bytes || ofOthers != s.ofOthers {
			t.Errorf("%d bytes, %d of others, are counted as %d and %d", sum, ofOthers, s.bytes, s.ofOthers)
		}
	})
}

// TestOthersHaveTheirPartOfTheMemory: traces that are no message's, few but large, go before messages' when memory runs out.
func TestOthersHaveTheirPartOfTheMemory(t *testing.T) {
	const most = 16
	s := newTraceStore(most)
	add := func(id, spans int) {
		span := stub(id, 1, 0)
		if id < 100 {
			span.Attributes = append(span.Attributes, AttrMessageID.String("7"))
		}
		for i := len(span.Attributes); i < attributesMost; i++ {
			span.Attributes = append(span.Attributes, attribute.String(fmt.Sprint("key", i), strings.Repeat("x", textMost)))
		}
		for n := range spans {
			span.SpanContext = stub(id, n+1, 0).SpanContext
			s.OnEnd(span.Snapshot())
		}
	}
	add(100, 10)
	add(101, 10)
	if s.others.Len() > most/othersPart || s.ofOthers <= s.mostBytes/othersPart {
		t.Fatalf("%d others have %d bytes: want few with more than %d", s.others.Len(), s.ofOthers, s.mostBytes/othersPart)
	}
	want := []int{101}
	for id := 1; slices.Contains(s.ids(), 100) && id < most; id++ {
		add(id, 9)
		want = append(want, id)
	}
	got := s.ids()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || s.bytes > s.mostBytes {
		t.Errorf("kept %v with %d of %d bytes, want %v", got, s.bytes, s.mostBytes, want)
	}
}

// TestALateSpanJoinsItsTrace, and what was read before does not change.
func TestALateSpanJoinsItsTrace(t *testing.T) {
	s := newTraceStore(3)
	s.OnEnd(stub(1, 1, 0).Snapshot())
	s.OnEnd(stub(2, 2, 0).Snapshot())
	before, _ := s.get(traceID(1))
	s.OnEnd(stub(1, 3, 1).Snapshot())
	after, found := s.get(traceID(1))
	if !found || len(before.spans) != 1 || len(after.spans) != 2 || after.spans[1].id != spanID(3) || after.spans[1].parent != spanID(1) {
		t.Errorf("%d spans before, %d after, want 1 and 2, the late one last", len(before.spans), len(after.spans))
	}
	if _, found := s.get(traceID(9)); found {
		t.Error("found a trace that never was")
	}
}

func TestOnlyWhatIsSampledIsKept(t *testing.T) {
	s := newTraceStore(3)
	span := stub(1, 1, 0)
	span.SpanContext = span.SpanContext.WithTraceFlags(0)
	s.OnEnd(span.Snapshot())
	if got := s.ids(); len(got) != 0 {
		t.Errorf("kept %v, want nothing", got)
	}
}

func TestASpanIsKeptWhole(t *testing.T) {
	s := newTraceStore(3)
	span := stub(1, 2, 1)
	span.SpanKind = trace.SpanKindServer
	span.Status = sdktrace.Status{Code: 1, Description: "no such room"}
	span.Attributes = []attribute.KeyValue{attribute.Int64("gochat.message.id", 1<<62+1), attribute.Bool("b", true), attribute.StringSlice("list", []string{"x", "y"})}
	span.Events = []sdktrace.Event{{Name: "retry", Time: epoch.Add(time.Microsecond), Attributes: []attribute.KeyValue{attribute.Int("attempt", 2)}}}
	span.Links = []sdktrace.Link{{SpanContext: stub(7, 8, 0).SpanContext, Attributes: []attribute.KeyValue{attribute.String("why", "batch")}}}
	s.OnEnd(span.Snapshot())
	kept, _ := s.get(traceID(1))
	k := *kept.spans[0]
	got := fmt.Sprintln(k.id, k.parent, k.service, k.instance, k.name, k.kind, k.start.Equal(epoch), k.end.Sub(k.start), k.status, k.reason,
		viewAttributes(k.attributes), k.events[0].name, k.events[0].at.Sub(epoch), viewAttributes(k.events[0].attributes),
		k.links[0].trace, k.links[0].span, viewAttributes(k.links[0].attributes), k.more)
	want := fmt.Sprintln(spanID(2), spanID(1), "gochat-api", "api-1", "span 2", "server", true, time.Millisecond, "Error", "no such room",
		[]attributeView{{"gochat.message.id", "4611686018427387905"}, {"b", "true"}, {"list", `["x","y"]`}}, "retry", time.Microsecond,
		[]attributeView{{"attempt", "2"}}, traceID(7), spanID(8), []attributeView{{"why", "batch"}}, 0)
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestATraceIsBounded(t *testing.T) {
	s := newTraceStore(500)
	for i := range spansMost + 7 {
		s.OnEnd(stub(1, i+1, 0).Snapshot())
	}
	kept, _ := s.get(traceID(1))
	if len(kept.spans) != spansMost || kept.more != 7 {
		t.Errorf("kept %d spans and told of %d more, want %d and 7", len(kept.spans), kept.more, spansMost)
	}
}

func TestASpanIsBounded(t *testing.T) {
	span := stub(1, 1, 0)
	many := func(n int) (attributes []attribute.KeyValue) {
		for i := range n {
			attributes = append(attributes, attribute.Int(fmt.Sprint(i), i))
		}
		return attributes
	}
	span.Attributes, span.DroppedAttributes = many(attributesMost+1), 10
	for range eventsMost + 2 {
		span.Events = append(span.Events, sdktrace.Event{Attributes: many(1)})
	}
	span.Events[0].Attributes, span.Events[0].DroppedAttributeCount = many(attributesMost+4), 40
	span.DroppedEvents = 20
	for range linksMost + 8 {
		span.Links = append(span.Links, sdktrace.Link{})
	}
	span.Links[0].Attributes, span.Links[0].DroppedAttributeCount = many(attributesMost+16), 160
	span.DroppedLinks = 80
	kept, _ := keep(span.Snapshot())
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"attributes", len(kept.attributes), attributesMost}, {"events", len(kept.events), eventsMost}, {"links", len(kept.links), linksMost},
		{"attributes of an event", len(kept.events[0].attributes), attributesMost}, {"attributes of a link", len(kept.links[0].attributes), attributesMost},
		{"told of more", kept.more, 1 + 2 + 4 + 8 + 16 + 10 + 20 + 40 + 80 + 160},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	long := strings.Repeat("x", textMost)
	for _, tc := range []struct{ name, text, want string }{
		{"short", "GET", "GET"},
		{"as long as may be", long, long},
		{"longer", long + "y", long + moreMark},
		{"between the bytes of a letter", long[:textMost-1] + "é" + long, long[:textMost-1] + moreMark},
		{"no text at all", strings.Repeat("\x80", 2*textMost), strings.Repeat("\x80", textMost-4) + moreMark},
	} {
		t.Run(tc.name, func(t *testing.T) {
			span := stub(1, 1, 0)
			span.Name, span.Status.Description = tc.text, tc.text
			span.Attributes = []attribute.KeyValue{attribute.String("a", tc.text)}
			span.Events = []sdktrace.Event{{Name: tc.text}}
			kept, _ := keep(span.Snapshot())
			for _, got := range []string{kept.name, kept.reason, kept.attributes[0].Value.AsString(), kept.events[0].name} {
				if got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
				if unsafe.StringData(got) == unsafe.StringData(tc.text) {
					t.Error("the text is the span's own, with whatever it is part of")
				}
			}
		})
	}
	span := stub(1, 1, 0)
	span.Attributes = []attribute.KeyValue{attribute.StringSlice("a", slices.Repeat([]string{"0123456789"}, 1000))}
	if kept, _ := keep(span.Snapshot()); len(kept.attributes[0].Value.AsString()) != textMost+len(moreMark) {
		t.Errorf("a list takes %d bytes", len(kept.attributes[0].Value.AsString()))
	}
}

// big is a span that takes about 10 KB.
func big(t, span int) sdktrace.ReadOnlySpan {
	s := stub(t, span, 0)
	s.Name = "big"
	for i := range attributesMost {
		s.Attributes = append(s.Attributes, attribute.String(fmt.Sprint(i), strings.Repeat("x", textMost)))
	}
	return s.Snapshot()
}

// TestMemoryIsBounded whatever comes, and what is counted is what is there.
func TestMemoryIsBounded(t *testing.T) {
	_, size := keep(big(1, 1))
	if least := attributesMost * textMost; size < least || size > 2*least {
		t.Fatalf("a span with %d bytes of text is counted as %d", least, size)
	}
	check := func(t *testing.T, s *traceStore) {
		t.Helper()
		sum := 0
		for _, kept := range s.all() {
			of := traceOverhead
			for range kept.spans {
				of += size
			}
			if of != kept.bytes {
				t.Fatalf("%d spans of %d bytes are counted as %d", len(kept.spans), size, kept.bytes)
			}
			sum += of
		}
		if sum != s.bytes || sum > s.mostBytes {
			t.Fatalf("%d bytes are there and %d counted, of %d", sum, s.bytes, s.mostBytes)
		}
	}
	t.Run("many big traces", func(t *testing.T) {
		s := newTraceStore(10)
		for i := range 1000 {
			s.OnEnd(big(i/20, i+1))
			check(t, s)
		}
		if got := s.ids(); len(got) < 2 || len(got) > 4 || got[0] != 49 {
			t.Errorf("kept %v, want the last few", got)
		}
	})
	t.Run("one that would fill the store", func(t *testing.T) {
		s := newTraceStore(2)
		s.OnEnd(big(1, 1))
		for i := range 100 {
			s.OnEnd(big(2, i+2))
			check(t, s)
		}
		kept, _ := s.get(traceID(2))
		if got := s.ids(); !slices.Equal(got, []int{2}) || kept.more == 0 || len(kept.spans)+kept.more != 100 {
			t.Errorf("kept %v, %d spans and told of %d more, want trace 2 and 100 together", got, len(kept.spans), kept.more)
		}
	})
}

// TestASpanLargerThanTheStore is not kept, and pushes nothing out.
func TestASpanLargerThanTheStore(t *testing.T) {
	huge := func(t int) sdktrace.ReadOnlySpan {
		s := stub(t, 1, 0)
		for range eventsMost {
			s.Events = append(s.Events, sdktrace.Event{Attributes: slices.Repeat([]attribute.KeyValue{attribute.String("a", strings.Repeat("x", textMost))}, attributesMost)})
		}
		return s.Snapshot()
	}
	s := newTraceStore(2)
	if _, size := keep(huge(1)); size <= s.mostBytes {
		t.Fatalf("%d bytes fit into %d", size, s.mostBytes)
	}
	s.OnEnd(huge(1))
	s.OnEnd(stub(2, 2, 0).Snapshot())
	s.OnEnd(huge(2))
	s.OnEnd(huge(3))
	kept := s.all()
	if len(kept) != 1 || kept[0].id != traceID(2) || len(kept[0].spans) != 1 || kept[0].more != 1 || s.bytes != kept[0].bytes {
		t.Errorf("kept %v, want trace 2 with one span and told of one more", s.ids())
	}
}

// TestSpansEndWhileTracesAreRead: with -race, that what was read is not written to.
func TestSpansEndWhileTracesAreRead(t *testing.T) {
	const writers, traces, spans = 4, 50, 20
	s := newTraceStore(writers * traces)
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		reading.Go(func() {
			for {
				for _, kept := range s.all() {
					detail(kept, func(trace.TraceID) bool { return false })
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range traces * spans {
				s.OnEnd(stub(i%traces, w*traces*spans+i+1, 0).Snapshot()) // every writer to the same traces
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	for _, kept := range s.all() {
		if len(kept.spans) != writers*spans {
			t.Fatalf("a trace has %d spans, want %d", len(kept.spans), writers*spans)
		}
	}
	if got := len(s.ids()); got != traces {
		t.Errorf("%d traces, want %d", got, traces)
	}
}

func TestWhatKeepsTraces(t *testing.T) {
	for _, tc := range []struct {
		name     string
		env      map[string]string
		keep     int
		endpoint bool
		kept     bool
		sent     int
	}{
		{"by default none", nil, 0, false, false, 0},
		{"without an endpoint", nil, 5, false, true, 0},
		{"beside an endpoint", nil, 5, true, true, 2},
		{"an endpoint alone", nil, 0, true, false, 2},
		{"no exporter", map[string]string{"OTEL_TRACES_EXPORTER": "none"}, 5, true, true, 0},
		{"disabled", map[string]string{"OTEL_SDK_DISABLED": "true"}, 5, true, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var sent sink
			if tc.endpoint {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sent.startHTTP(t))
			}
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			cfg := traceAll()
			cfg.Trace.Keep = tc.keep
			o, err := Setup(t.Context(), cfg, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			ctx, root := layer(t, o, "api", "api-1").Traces.Tracer("test").Start(t.Context(), "request")
			_, child := layer(t, o, "logic", "logic-2").Traces.Tracer("test").Start(ctx, "accept")
			child.End()
			root.End()
			if err := o.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := len(sent.sent()); got != tc.sent {
				t.Errorf("sent %d spans, want %d", got, tc.sent)
			}
			if got := o.KeepsTraces(); got != tc.kept {
				t.Fatalf("keeps traces: %t, want %t", got, tc.kept)
			}
			if !tc.kept {
				return
			}
			kept, found := o.kept.get(root.SpanContext().TraceID())
			if !found || len(kept.spans) != 2 {
				t.Fatalf("found %t with %d spans, want 2", found, len(kept.spans))
			}
			if a, b := kept.spans[0], kept.spans[1]; a.service != "gochat-logic" || a.instance != "logic-2" || a.parent != b.id || b.service != "gochat-api" {
				t.Errorf("kept %s of %s below %s of %s", a.name, a.service, b.name, b.service)
			}
		})
	}
}

// BenchmarkOnEnd keeps spans like those of a message: eight to a trace, five attributes each.
func BenchmarkOnEnd(b *testing.B) {
	s := newTraceStore(500)
	spans := make([]sdktrace.ReadOnlySpan, 8*1000)
	for i := range spans {
		span := stub(i/8, i+1, i)
		span.Attributes = []attribute.KeyValue{
			attribute.String("rpc.system.name", "rpcx"), attribute.String("rpc.method", "Logic/Send"), attribute.Int64("gochat.message.id", int64(i)),
			attribute.Int("gochat.batch", 3), attribute.String("server.address", "127.0.0.1:40123"),
		}
		spans[i] = span.Snapshot()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.OnEnd(spans[i%len(spans)])
	}
}
