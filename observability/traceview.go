package observability

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// messageKeys are the attributes that name a message, as an integer or as text.
var messageKeys = [...]attribute.Key{"gochat.message.id", "messaging.message.id"}

// traceSummary is a trace in the list, as a page and as JSON.
type traceSummary struct {
	TraceID    string    `json:"traceId"`
	Start      time.Time `json:"start"`      // of the first span
	DurationMs float64   `json:"durationMs"` // from the first start to the last end
	Root       string    `json:"root"`       // name of the first span without a parent, else of the first whose parent is not here
	Services   []string  `json:"services"`   // in the order of their first spans
	SpanCount  int       `json:"spanCount"`  // of those that are here
	NotKept    int       `json:"notKept"`    // spans beyond the bounds
	Errors     int       `json:"errors"`     // spans with that status
	MessageIDs []string  `json:"messageIds"` // named by any span

	Took time.Duration `json:"-"`
}

// traceDetail is a trace by itself, as a page and as JSON.
type traceDetail struct {
	traceSummary
	Spans []spanView `json:"spans"` // children below their parents, in the order of their starts
}

// spanView is a row of the waterfall.
type spanView struct {
	SpanID        string          `json:"spanId"`
	ParentID      string          `json:"parentId,omitempty"`
	ParentMissing bool            `json:"parentMissing,omitempty"` // it has a parent that is not here
	Depth         int             `json:"depth"`                   // 0 for a root
	Service       string          `json:"service"`
	Instance      string          `json:"instance"`
	Name          string          `json:"name"`
	Kind          string          `json:"kind"`
	Start         time.Time       `json:"start"`
	OffsetMs      float64         `json:"offsetMs"` // from the start of the trace
	DurationMs    float64         `json:"durationMs"`
	Status        string          `json:"status"` // Unset, Ok or Error
	Reason        string          `json:"reason,omitempty"`
	Attributes    []attributeView `json:"attributes,omitempty"`
	Events        []eventView     `json:"events,omitempty"`
	Links         []linkView      `json:"links,omitempty"`
	NotKept       int             `json:"notKept,omitempty"` // attributes, events and links beyond the bounds

	Offset time.Duration `json:"-"`
	Took   time.Duration `json:"-"`
	Left   float64       `json:"-"` // of its bar, in per cent of the trace
	Width  float64       `json:"-"`
}

// attributeView has every value as text: an integer above 2^53 would be another in JavaScript.
type attributeView struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type eventView struct {
	Name       string          `json:"name"`
	OffsetMs   float64         `json:"offsetMs"` // from the start of the span
	Attributes []attributeView `json:"attributes,omitempty"`

	Offset time.Duration `json:"-"`
}

type linkView struct {
	TraceID    string          `json:"traceId"`
	SpanID     string          `json:"spanId"`
	Kept       bool            `json:"kept"` // the trace is here
	Attributes []attributeView `json:"attributes,omitempty"`
}

// summarize reads a trace that has spans.
func summarize(t keptTrace) traceSummary {
	spans := byStart(t.spans)
	here := make(map[trace.SpanID]bool, len(spans))
	for _, s := range spans {
		here[s.id] = true
	}
	sum := traceSummary{
		TraceID: t.id.String(), Start: spans[0].start, SpanCount: len(spans), NotKept: t.more,
		Services: []string{}, MessageIDs: []string{},
	}
	var root, orphan *keptSpan
	for _, s := range spans {
		sum.Took = max(sum.Took, s.end.Sub(sum.Start))
		switch {
		case root == nil && !s.parent.IsValid():
			root = s
		case orphan == nil && s.parent.IsValid() && !here[s.parent]:
			orphan = s
		}
		if !slices.Contains(sum.Services, s.service) {
			sum.Services = append(sum.Services, s.service)
		}
		if s.status == codes.Error {
			sum.Errors++
		}
		for _, a := range s.attributes {
			if !slices.Contains(messageKeys[:], a.Key) {
				continue
			}
			if id := a.Value.String(); id != "" && !slices.Contains(sum.MessageIDs, id) {
				sum.MessageIDs = append(sum.MessageIDs, id)
			}
		}
	}
	switch {
	case root != nil:
		sum.Root = root.name
	case orphan != nil:
		sum.Root = orphan.name
	default:
		sum.Root = spans[0].name
	}
	sum.DurationMs = milliseconds(sum.Took)
	return sum
}

// detail reads a trace that has spans. kept says which traces are here.
func detail(t keptTrace, kept func(trace.TraceID) bool) traceDetail {
	d := traceDetail{traceSummary: summarize(t), Spans: make([]spanView, 0, len(t.spans))}
	spans := byStart(t.spans)
	here := make(map[trace.SpanID]bool, len(spans))
	for _, s := range spans {
		here[s.id] = true
	}
	var roots []*keptSpan
	children := make(map[trace.SpanID][]*keptSpan)
	for _, s := range spans {
		if s.parent.IsValid() && here[s.parent] {
			children[s.parent] = append(children[s.parent], s)
		} else {
			roots = append(roots, s)
		}
	}
	shown := make(map[*keptSpan]bool, len(spans))
	var show func(s *keptSpan, depth int)
	show = func(s *keptSpan, depth int) {
		if shown[s] {
			return
		}
		shown[s] = true
		v := d.view(s, kept)
		v.Depth, v.ParentMissing = depth, s.parent.IsValid() && !here[s.parent]
		d.Spans = append(d.Spans, v)
		for _, child := range children[s.id] {
			show(child, depth+1)
		}
	}
	for _, s := range roots {
		show(s, 0)
	}
	for _, s := range spans { // whose parents lead in a circle, which only a broken sender makes
		show(s, 0)
	}
	return d
}

func (d *traceDetail) view(s *keptSpan, kept func(trace.TraceID) bool) spanView {
	v := spanView{
		SpanID: s.id.String(), Service: s.service, Instance: s.instance, Name: s.name, Kind: s.kind.String(), Start: s.start,
		Status: s.status.String(), Reason: s.reason, Attributes: viewAttributes(s.attributes), NotKept: s.more,
		Offset: s.start.Sub(d.Start), Took: max(s.end.Sub(s.start), 0),
	}
	if s.parent.IsValid() {
		v.ParentID = s.parent.String()
	}
	v.OffsetMs, v.DurationMs = milliseconds(v.Offset), milliseconds(v.Took)
	if d.Took > 0 {
		v.Left, v.Width = 100*float64(v.Offset)/float64(d.Took), 100*float64(v.Took)/float64(d.Took)
	}
	for _, e := range s.events {
		offset := e.at.Sub(s.start)
		v.Events = append(v.Events, eventView{Name: e.name, OffsetMs: milliseconds(offset), Attributes: viewAttributes(e.attributes), Offset: offset})
	}
	for _, l := range s.links {
		v.Links = append(v.Links, linkView{TraceID: l.trace.String(), SpanID: l.span.String(), Kept: kept(l.trace), Attributes: viewAttributes(l.attributes)})
	}
	return v
}

func viewAttributes(from []attribute.KeyValue) []attributeView {
	var to []attributeView
	for _, a := range from {
		to = append(to, attributeView{string(a.Key), a.Value.String()})
	}
	return to
}

// byStart is a sorted copy; of spans that start together, the one that ended last is first, since it holds the other.
func byStart(spans []*keptSpan) []*keptSpan {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b *keptSpan) int {
		if order := a.start.Compare(b.start); order != 0 {
			return order
		}
		return b.end.Compare(a.end)
	})
	return spans
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
