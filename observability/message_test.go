package observability

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestTraceparent holds what reads and writes traceparents to OpenTelemetry's own propagator, on good ones and on ones
// with a byte changed, cut off or added.
func TestTraceparent(t *testing.T) {
	forms := []string{"", "00", sampledParent, sampledParent + "-more", "01" + sampledParent[2:], "01" + sampledParent[2:] + "-more",
		"01" + sampledParent[2:] + "more", "ff" + sampledParent[2:], "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "0A" + sampledParent[2:]}
	const bytes = "0123456789abcdefABCDEF- gé"
	for range 20_000 {
		b := []byte(sampledParent)
		b[rand.IntN(len(b))] = bytes[rand.IntN(len(bytes))]
		switch rand.IntN(4) {
		case 0:
			b = b[:rand.IntN(len(b))]
		case 1:
			b = append(b, bytes[rand.IntN(len(bytes))])
		}
		forms = append(forms, string(b))
	}
	for _, form := range forms {
		if strings.HasPrefix(form, "00") && len(form) == len(sampledParent)+1 && form[len(sampledParent)] == '-' {
			continue // nothing may follow in version 0, of which the propagator thinks otherwise
		}
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": form}))
		if got := SpanContext(form); !got.Equal(want) {
			t.Errorf("%q: got %v, want %v", form, got, want)
		}
		if want.IsValid() && IsSampled(form) != want.IsSampled() {
			t.Errorf("%q: sampled %v, want %v", form, IsSampled(form), want.IsSampled())
		}
		ctx := Remote(context.Background(), form)
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		if got := Traceparent(ctx); got != carrier["traceparent"] {
			t.Errorf("%q: written as %q, want %q", form, got, carrier["traceparent"])
		}
	}
	if kept := Traceparent(Remote(Remote(context.Background(), sampledParent), "none")); kept != sampledParent {
		t.Errorf("after one that is none: got %q, want that of before", kept)
	}
}

// TestExemplars: a value has the trace beside it if that is recorded.
func TestExemplars(t *testing.T) {
	exemplar := func(observe func(prometheus.Observer)) string {
		h := prometheus.NewHistogram(LatencyOpts("h", "h"))
		observe(h)
		var m dto.Metric
		if err := h.Write(&m); err != nil {
			t.Fatal(err)
		}
		if m.Histogram.GetSampleCount() != 1 {
			t.Error("the value is not counted")
		}
		for _, b := range m.Histogram.Bucket {
			for _, l := range b.Exemplar.GetLabel() {
				return l.GetValue()
			}
		}
		return ""
	}
	unsampled := sampledParent[:len(sampledParent)-1] + "0"
	for parent, want := range map[string]string{sampledParent: sampledParent[3:35], unsampled: "", "": ""} {
		if got := exemplar(func(o prometheus.Observer) { ObserveIn(o, 0.01, parent) }); got != want {
			t.Errorf("%q: the exemplar is of trace %q, want %q", parent, got, want)
		}
		if got := exemplar(func(o prometheus.Observer) { Observe(o, 0.01, SpanContext(parent)) }); got != want {
			t.Errorf("%q: the exemplar is of trace %q, want %q", parent, got, want)
		}
	}
}

func BenchmarkTraceparent(b *testing.B) {
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = SpanContext(sampledParent)
		}
	})
	b.Run("exemplar", func(b *testing.B) {
		h := prometheus.NewHistogram(LatencyOpts("h", "h"))
		b.ReportAllocs()
		for b.Loop() {
			ObserveIn(h, 0.01, sampledParent)
		}
	})
	b.Run("write", func(b *testing.B) {
		ctx := Remote(context.Background(), sampledParent)
		b.ReportAllocs()
		for b.Loop() {
			_ = Traceparent(ctx)
		}
	})
}
