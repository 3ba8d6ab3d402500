package preview

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"testing"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotutil"
)

// prometheus answers queries from what it is given, of now and over time.
type prometheus struct {
	v1.API
	now  map[string]model.Vector
	over map[string]model.Matrix
	err  error
}

func (p prometheus) Query(_ context.Context, query string, _ time.Time, _ ...v1.Option) (model.Value, v1.Warnings, v1.Infos, error) {
	return p.now[query], nil, nil, p.err
}

func (p prometheus) QueryRange(_ context.Context, query string, _ v1.Range, _ ...v1.Option) (model.Value, v1.Warnings, v1.Infos, error) {
	return p.over[query], nil, nil, p.err
}

var from = time.Unix(1_700_000_000, 0)

// at is a series' value now, of that room.
func at(room string, value float64) *model.Sample {
	return &model.Sample{Metric: model.Metric{"room": model.LabelValue(room)}, Value: model.SampleValue(value)}
}

// steady is a series that has the value for the whole time.
func steady(label, name string, value float64) *model.SampleStream {
	s := &model.SampleStream{Metric: model.Metric{model.LabelName(label): model.LabelValue(name)}}
	for i := range 10 {
		s.Values = append(s.Values, model.SamplePair{
			Timestamp: model.TimeFromUnix(from.Unix() + int64(6*i)), Value: model.SampleValue(value)})
	}
	return s
}

// one is a dashboard of one panel that is 12 wide and 8 high.
func one(kind, more string) string {
	legend := "{{room}}"
	if kind == "heatmap" {
		legend = "{{le}}"
	}
	return fmt.Sprintf(`{"panels": [{"type": %q, "title": "T", "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
		"fieldConfig": {"defaults": {"unit": "s", "noValue": "none" %s}}, "targets": [{"expr": "q", "legendFormat": %q}]}]}`, kind, more, legend)
}

func render(board string, p prometheus, rows int) (image.Image, error) {
	var drawn bytes.Buffer
	o := Options{API: p, From: from, To: from.Add(time.Minute), Rows: rows, Fill: func(expr string) string { return expr }}
	if err := Render(context.Background(), []byte(board), o, &drawn); err != nil {
		return nil, err
	}
	return png.Decode(&drawn)
}

// where is the smallest rectangle that has all of the picture's dots of that colour, or of one that is so near to it, and no grey.
func where(picture image.Image, ink color.Color, near int) (r image.Rectangle) {
	want := rgb(ink)
	for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
		for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
			is := rgb(picture.At(x, y))
			far := 0
			for i := range is {
				far = max(far, is[i]-want[i], want[i]-is[i])
			}
			if far <= near && !grey(is) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return r
}

func rgb(c color.Color) [3]int {
	r, g, b, _ := c.RGBA()
	return [3]int{int(r >> 8), int(g >> 8), int(b >> 8)}
}

func grey(c [3]int) bool { return c[0] == c[1] && c[1] == c[2] }

// within is a part of a picture.
func within(picture image.Image, r image.Rectangle) image.Image {
	return picture.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(r)
}

// TestNumber has a number be in the colour of the threshold that it has passed, and in no other.
func TestNumber(t *testing.T) {
	const thresholds = `, "thresholds": {"steps": [{"value": null, "color": "green"}, {"value": 1, "color": "orange"}, {"value": 2, "color": "red"}]}`
	for value, want := range map[float64]string{0: "green", 0.9: "green", 1: "orange", 1.9: "orange", 2: "red", 9: "red"} {
		t.Run(fmt.Sprint(value), func(t *testing.T) {
			picture, err := render(one("stat", thresholds), prometheus{now: map[string]model.Vector{"q": {at("", value)}}}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, ink := range []string{"green", "orange", "red"} {
				if got := !where(picture, named(ink), 0).Empty(); got != (ink == want) {
					t.Errorf("%s: %v, want %s", ink, got, want)
				}
			}
		})
	}
}

// TestBars has bars be as long as their values, the longest first.
func TestBars(t *testing.T) {
	length := func(values ...*model.Sample) (int, image.Rectangle) {
		picture, err := render(one("bargauge", ""), prometheus{now: map[string]model.Vector{"q": values}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := where(picture, named("blue"), 0)
		last := within(picture, image.Rect(0, r.Max.Y-3, picture.Bounds().Max.X, r.Max.Y))
		return where(last, named("blue"), 0).Dx(), r
	}
	alone, all := length(at("a", 4))
	if alone != all.Dx() || alone < 100 {
		t.Errorf("a bar of its own is %d long, of %v", alone, all)
	}
	half, both := length(at("b", 2), at("a", 4))
	if half < alone*48/100 || half > alone*52/100 || both.Dx() != alone {
		t.Errorf("a value half as high is %d long, the highest %d: want half of %d", half, both.Dx(), alone)
	}
	if _, none := length(at("a", 0), at("b", 0)); none.Dx() > 2 {
		t.Errorf("bars of 0 are %d long", none.Dx())
	}
}

// TestLines has each series be a line of its own, the higher the higher its values are, over the whole time.
func TestLines(t *testing.T) {
	picture, err := render(one("timeseries", ""), prometheus{over: map[string]model.Matrix{"q": {
		steady("room", "low", 1), steady("room", "high", 4), steady("room", "middle", 2)}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	plotted := within(picture, image.Rect(picture.Bounds().Dx()/4, 0, picture.Bounds().Dx(), picture.Bounds().Dy())) // without the legend
	var lines []image.Rectangle
	for i := range 3 {
		lines = append(lines, where(plotted, plotutil.Color(i), 60))
	}
	for i, l := range lines {
		if l.Dx() < 100 || l.Dy() > 4 {
			t.Errorf("line %d of a steady value is %v", i, l.Size())
		}
	}
	high, middle, low := lines[0].Min.Y, lines[1].Min.Y, lines[2].Min.Y
	if high >= middle || middle >= low {
		t.Errorf("4, 2 and 1 are at %d, %d and %d", high, middle, low)
	}
	if far, near := middle-high, low-middle; far < near*18/10 || far > near*22/10 {
		t.Errorf("4 is %d above 2, which is %d above 1", far, near)
	}
}

// TestHeat has a bucket not count what those below it have, and the buckets lie in the order of their bounds.
func TestHeat(t *testing.T) {
	picture, err := render(one("heatmap", ""), prometheus{over: map[string]model.Matrix{"q": {
		steady("le", "+Inf", 7), steady("le", "0.25", 0), steady("le", "10.0", 7), steady("le", "1.0", 7)}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	colours := moreland.SmoothBlueRed().Palette(64).Colors()
	none, all := where(picture, colours[0], 0), where(picture, colours[len(colours)-1], 0)
	if all.Empty() || none.Max.Y-all.Max.Y < none.Dy()/5 || all.Min.Y-none.Min.Y < none.Dy()*2/5 {
		t.Errorf("all are at %v of %v, want them in the second bucket of four from below", all, none)
	}
	if all.Dx() < none.Dx()*9/10 {
		t.Errorf("%d wide of %d", all.Dx(), none.Dx())
	}
}

// TestNothing has a picture that shows no value, or not all panels, be none.
func TestNothing(t *testing.T) {
	some := prometheus{now: map[string]model.Vector{"q": {at("", 1)}}}
	for _, c := range []struct {
		name, board string
		p           prometheus
		want        string
	}{
		{"number", one("stat", ""), prometheus{}, "no panel has a value"},
		{"number that is none", one("stat", ""), prometheus{now: map[string]model.Vector{"q": {at("", math.NaN())}}}, "no panel has a value"},
		{"bars", one("bargauge", ""), prometheus{}, "no panel has a value"},
		{"lines", one("timeseries", ""), prometheus{}, "no panel has a value"},
		{"heat", one("heatmap", ""), prometheus{}, "no panel has a value"},
		{"heat of no count", one("heatmap", ""), prometheus{over: map[string]model.Matrix{"q": {steady("le", "1.0", 0)}}}, "no panel has a value"},
		{"row alone", `{"panels": [{"type": "row", "title": "T", "gridPos": {"w": 24, "h": 1}}]}`, some, "no panel has a value"},
		{"no panels", `{"panels": []}`, some, "no panels"},
		{"unknown type", one("table", ""), some, `panel "T": unknown type "table"`},
		{"no answer", one("stat", ""), prometheus{err: errors.New("down")}, `panel "T": down`},
		{"no answer over time", one("timeseries", ""), prometheus{err: errors.New("down")}, `panel "T": down`},
		{"no dashboard", "[]", some, "json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := render(c.board, c.p, 0); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestRows has panels lie where the dashboard has them, and those below the rows that are wanted be left out.
func TestRows(t *testing.T) {
	const board = `{"panels": [
		{"type": "stat", "gridPos": {"x": 12, "y": 0, "w": 12, "h": 4}, "targets": [{"expr": "q"}], "fieldConfig": {"defaults": {"thresholds": {"steps": [{"color": "red"}]}}}},
		{"type": "stat", "gridPos": {"x": 0, "y": 4, "w": 12, "h": 4}, "targets": [{"expr": "q"}], "fieldConfig": {"defaults": {"thresholds": {"steps": [{"color": "green"}]}}}},
		{"type": "table", "gridPos": {"x": 0, "y": 8, "w": 12, "h": 4}}]}`
	some := prometheus{now: map[string]model.Vector{"q": {at("", 1)}}}
	picture, err := render(board, some, 8)
	if err != nil {
		t.Fatal(err)
	}
	middle := image.Pt(picture.Bounds().Dx()/2, picture.Bounds().Dy()/2)
	if r := where(picture, named("red"), 0); r.Empty() || r.Min.X < middle.X || r.Max.Y > middle.Y {
		t.Errorf("at %v of %v, want above, on the right", r, picture.Bounds())
	}
	if r := where(picture, named("green"), 0); r.Empty() || r.Max.X > middle.X || r.Min.Y < middle.Y {
		t.Errorf("at %v of %v, want below, on the left", r, picture.Bounds())
	}
	top, err := render(board, some, 4)
	if err != nil {
		t.Fatal(err)
	}
	if !where(top, named("green"), 0).Empty() || where(top, named("red"), 0).Empty() || top.Bounds().Dy() > middle.Y+1 {
		t.Errorf("the upper rows are %v of %v", top.Bounds(), picture.Bounds())
	}
}

// TestUnits has values be written as Grafana has them.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		value      float64
		unit, want string
	}{
		{0.00025, "s", "250 µs"},
		{0.25, "s", "250 ms"},
		{2.5, "s", "2.5 s"},
		{0, "s", "0"},
		{0.125, "percentunit", "12.5 %"},
		{2048, "bytes", "2 KiB"},
		{512, "Bps", "512 B/s"},
		{12.5, "mps", "12.5 msg/s"},
		{12345, "short", "12345"},
		{0.1234, "short", "0.123"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got := inUnit(c.value, c.unit); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestLegend has labels be put into legends.
func TestLegend(t *testing.T) {
	got := legend("{{instance}} of {{job}}", model.Metric{"instance": "a", "job": "b"})
	if got != "a of b" {
		t.Errorf("got %q", got)
	}
}
