// Package preview draws a dashboard's panels from what a Prometheus answers, roughly as Grafana lays them out. It shows what the
// queries give; how Grafana looks, it does not.
package preview

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Options are which part of a dashboard is drawn, and of when.
type Options struct {
	API      v1.API
	From, To time.Time
	Fill     func(expr string) string // puts values in the place of the dashboard's variables
	Rows     int                      // of panels are drawn from the top, rows' titles among them; 0 is all
}

// The grid of a dashboard is 24 wide.
const (
	columns      = 24
	columnWidth  = vg.Length(36) // points
	rowHeight    = vg.Length(26)
	most         = 8 // series of a panel that are named
	steps        = 120
	margin       = vg.Length(6)
	dotsPerPoint = 96
)

type board struct {
	Title  string
	Panels []panel
}

type panel struct {
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr, LegendFormat string }
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Steps []struct {
					Value *float64
					Color string
				}
			}
			NoValue  string
			Mappings []struct {
				Options map[string]struct{ Text string }
			}
		}
	}
}

// Render draws the dashboard, which is Grafana's JSON, as a PNG. One of which no panel has a value, or that has panels of a kind that
// is not known here, is an error: titles and axes alone look like a picture.
func Render(ctx context.Context, dashboard []byte, o Options, to io.Writer) error {
	var b board
	if err := json.Unmarshal(dashboard, &b); err != nil {
		return err
	}
	height := 0
	for _, p := range b.Panels {
		if bottom := p.GridPos.Y + p.GridPos.H; o.Rows == 0 || bottom <= o.Rows {
			height = max(height, bottom)
		}
	}
	if height == 0 {
		return errors.New("no panels")
	}
	img := vgimg.NewWith(vgimg.UseWH(columns*columnWidth, vg.Length(height)*rowHeight), vgimg.UseDPI(dotsPerPoint))
	all := draw.New(img)
	shown := false
	for _, p := range b.Panels {
		if p.GridPos.Y+p.GridPos.H > height {
			continue
		}
		has, err := p.draw(ctx, o, cell(all, p))
		if err != nil {
			return fmt.Errorf("panel %q: %w", p.Title, err)
		}
		shown = shown || has
	}
	if !shown {
		return errors.New("no panel has a value")
	}
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(to)
	return err
}

// cell is where the panel lies.
func cell(all draw.Canvas, p panel) draw.Canvas {
	left, right := vg.Length(p.GridPos.X)*columnWidth, vg.Length(p.GridPos.X+p.GridPos.W)*columnWidth
	top, bottom := all.Max.Y-vg.Length(p.GridPos.Y)*rowHeight, all.Max.Y-vg.Length(p.GridPos.Y+p.GridPos.H)*rowHeight
	return draw.Crop(all, left+margin-all.Min.X, right-margin-all.Max.X, bottom+margin/2-all.Min.Y, top-margin/2-all.Max.Y)
}

// draw draws the panel, and reports whether it has a value.
func (p panel) draw(ctx context.Context, o Options, c draw.Canvas) (bool, error) {
	switch p.Type {
	case "row":
		write(c, 13, color.Black, vg.Point{X: c.Min.X, Y: c.Min.Y + 4}, p.Title)
		return false, nil
	case "stat":
		return p.number(ctx, o, c)
	case "bargauge":
		return p.bars(ctx, o, c)
	case "heatmap":
		return p.heat(ctx, o, c)
	case "timeseries":
		return p.lines(ctx, o, c)
	}
	return false, fmt.Errorf("unknown type %q", p.Type)
}

func write(c draw.Canvas, size float64, ink color.Color, at vg.Point, text string) {
	style := draw.TextStyle{Color: ink, Font: font.From(plot.DefaultFont, vg.Points(size)), Handler: plot.DefaultTextHandler}
	c.FillText(style, at, text)
}

// number is the last value, in the colour of its threshold.
func (p panel) number(ctx context.Context, o Options, c draw.Canvas) (bool, error) {
	write(c, 9, color.Gray{80}, vg.Point{X: c.Min.X, Y: c.Max.Y - 14}, p.Title)
	got, _, _, err := o.API.Query(ctx, o.Fill(p.Targets[0].Expr), o.To)
	if err != nil {
		return false, err
	}
	text, ink := cmp.Or(p.FieldConfig.Defaults.NoValue, "no value"), color.Color(color.Gray{120})
	v, _ := got.(model.Vector)
	has := len(v) > 0 && !math.IsNaN(float64(v[0].Value))
	if has {
		value := float64(v[0].Value)
		text = inUnit(value, p.FieldConfig.Defaults.Unit)
		for _, m := range p.FieldConfig.Defaults.Mappings {
			text = cmp.Or(m.Options[strconv.FormatFloat(value, 'g', -1, 64)].Text, text)
		}
		for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
			if step.Value == nil || value >= *step.Value {
				ink = named(step.Color)
			}
		}
	}
	write(c, 20, ink, vg.Point{X: c.Min.X, Y: c.Max.Y - 44}, text)
	return has, nil
}

func named(name string) color.Color {
	switch name {
	case "green":
		return color.RGBA{R: 0x2f, G: 0x85, B: 0x3c, A: 0xff}
	case "orange":
		return color.RGBA{R: 0xd9, G: 0x76, B: 0x06, A: 0xff}
	case "red":
		return color.RGBA{R: 0xc5, G: 0x30, B: 0x30, A: 0xff}
	}
	return color.RGBA{R: 0x2b, G: 0x6c, B: 0xb0, A: 0xff}
}

// line is one series with its name.
type line struct {
	name   string
	points plotter.XYs
	last   float64
}

// over asks all of the panel's queries for the whole time.
func (p panel) over(ctx context.Context, o Options) (all []line, err error) {
	r := v1.Range{Start: o.From, End: o.To, Step: max(time.Second, o.To.Sub(o.From)/steps)}
	for _, t := range p.Targets {
		got, _, _, err := o.API.QueryRange(ctx, o.Fill(t.Expr), r)
		if err != nil {
			return nil, err
		}
		matrix, _ := got.(model.Matrix)
		for _, s := range matrix {
			l := line{name: legend(t.LegendFormat, s.Metric)}
			for _, v := range s.Values {
				if value := float64(v.Value); !math.IsNaN(value) && !math.IsInf(value, 0) {
					l.points, l.last = append(l.points, plotter.XY{X: float64(v.Timestamp.Unix()), Y: value}), value
				}
			}
			if len(l.points) > 0 {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

func legend(format string, of model.Metric) string {
	for name, value := range of {
		format = strings.ReplaceAll(format, "{{"+string(name)+"}}", string(value))
	}
	return format
}

// axes is a plot with what all panels over time have.
func (p panel) axes(o Options) *plot.Plot {
	pl := plot.New()
	pl.Title.Text = p.Title
	pl.Title.TextStyle.Font = font.From(plot.DefaultFont, vg.Points(9))
	pl.X.Min, pl.X.Max = float64(o.From.Unix()), float64(o.To.Unix())
	pl.X.Tick.Marker = plot.TimeTicks{Format: "15:04:05", Ticker: fewTicks{3, func(v float64) string { return fmt.Sprint(v) }}}
	for _, style := range []*draw.TextStyle{&pl.X.Tick.Label, &pl.Y.Tick.Label, &pl.Legend.TextStyle} {
		style.Font = font.From(plot.DefaultFont, vg.Points(7))
	}
	return pl
}

// fewTicks are so many, with their values in words.
type fewTicks struct {
	n    int
	word func(float64) string
}

func (f fewTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for i := range f.n {
		at := low + (high-low)*(float64(i)+.5)/float64(f.n)
		ticks = append(ticks, plot.Tick{Value: at, Label: f.word(at)})
	}
	return ticks
}

// inWords are the usual ticks, with their values in words.
type inWords struct{ word func(float64) string }

func (w inWords) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = w.word(ticks[i].Value)
		}
	}
	return ticks
}

func (p panel) lines(ctx context.Context, o Options, c draw.Canvas) (bool, error) {
	all, err := p.over(ctx, o)
	if err != nil {
		return false, err
	}
	pl := p.axes(o)
	pl.Y.Min = 0
	slices.SortStableFunc(all, func(a, b line) int { return cmp.Compare(b.last, a.last) })
	for i, l := range all {
		drawn, err := plotter.NewLine(l.points)
		if err != nil {
			return false, err
		}
		drawn.Color, drawn.Width = plotutil.Color(i), vg.Points(1.2)
		pl.Add(drawn)
		if i < most {
			pl.Legend.Add(l.name, drawn)
		}
		for _, point := range l.points {
			pl.Y.Max = max(pl.Y.Max, point.Y)
		}
	}
	if pl.Y.Max <= 0 || math.IsInf(pl.Y.Max, 0) {
		pl.Y.Max = 1
	}
	if len(all) == 0 {
		pl.Title.Text += ": " + cmp.Or(p.FieldConfig.Defaults.NoValue, "no value")
	}
	pl.Legend.Top, pl.Legend.Left = true, true
	pl.Y.Max *= 1.2 // room for the legend
	pl.Y.Tick.Marker = inWords{func(v float64) string { return inUnit(v, p.FieldConfig.Defaults.Unit) }}
	pl.Draw(c)
	return len(all) > 0, nil
}

// bars are the highest values of now.
func (p panel) bars(ctx context.Context, o Options, c draw.Canvas) (bool, error) {
	write(c, 9, color.Black, vg.Point{X: c.Min.X, Y: c.Max.Y - 12}, p.Title)
	got, _, _, err := o.API.Query(ctx, o.Fill(p.Targets[0].Expr), o.To)
	if err != nil {
		return false, err
	}
	v, _ := got.(model.Vector)
	slices.SortFunc(v, func(a, b *model.Sample) int { return cmp.Compare(b.Value, a.Value) })
	if len(v) == 0 {
		write(c, 9, color.Gray{120}, vg.Point{X: c.Min.X, Y: c.Max.Y - 30}, cmp.Or(p.FieldConfig.Defaults.NoValue, "no value"))
		return false, nil
	}
	room := (c.Max.Y - c.Min.Y - 20) / vg.Length(max(len(v), 8))
	for i, s := range v {
		top := c.Max.Y - 18 - vg.Length(i)*room
		share := vg.Length(s.Value / v[0].Value)
		if !(share > 0) { // nor a number, where the highest is 0
			share = 0
		}
		long := 90 + (c.Max.X-c.Min.X-150)*share
		c.FillPolygon(named("blue"), []vg.Point{{X: c.Min.X + 90, Y: top - room + 2}, {X: c.Min.X + long, Y: top - room + 2},
			{X: c.Min.X + long, Y: top}, {X: c.Min.X + 90, Y: top}})
		write(c, 7, color.Black, vg.Point{X: c.Min.X, Y: top - room + 3}, legend(p.Targets[0].LegendFormat, s.Metric))
		write(c, 7, color.Black, vg.Point{X: c.Min.X + long + 3, Y: top - room + 3}, inUnit(float64(s.Value), p.FieldConfig.Defaults.Unit))
	}
	return true, nil
}

// grid is a histogram's buckets over time, each without those below.
type grid struct {
	times  []float64
	counts [][]float64 // by bucket, from the lowest, and time
}

func (g grid) Dims() (int, int)     { return len(g.times), len(g.counts) }
func (g grid) X(c int) float64      { return g.times[c] }
func (g grid) Y(r int) float64      { return float64(r) }
func (g grid) Z(c, r int) float64   { return g.counts[r][c] }
func (g grid) highest() (n float64) { return slices.Max(append(slices.Concat(g.counts...), 0)) }

func (p panel) heat(ctx context.Context, o Options, c draw.Canvas) (bool, error) {
	all, err := p.over(ctx, o)
	if err != nil {
		return false, err
	}
	slices.SortFunc(all, func(a, b line) int { return cmp.Compare(upTo(a), upTo(b)) })
	pl := p.axes(o)
	var g grid
	if len(all) > 0 {
		for _, point := range all[len(all)-1].points {
			g.times = append(g.times, point.X)
		}
	}
	below := make([]float64, len(g.times))
	for _, l := range all {
		now := make([]float64, len(g.times))
		for i := range min(len(g.times), len(l.points)) {
			now[i], below[i] = max(0, l.points[i].Y-below[i]), l.points[i].Y
		}
		g.counts = append(g.counts, now)
	}
	has := len(g.times) > 1 && g.highest() > 0
	if has {
		colours := moreland.SmoothBlueRed().Palette(64)
		pl.Add(plotter.NewHeatMap(g, colours))
		var ticks []plot.Tick
		for i, l := range all {
			ticks = append(ticks, plot.Tick{Value: float64(i), Label: "≤ " + inUnit(upTo(l), "s")})
		}
		pl.Y.Tick.Marker = plot.ConstantTicks(ticks)
	} else {
		pl.Title.Text += ": none"
		pl.Y.Max = 1
	}
	pl.Draw(c)
	return has, nil
}

// upTo is a bucket's upper bound, which its line is named for.
func upTo(l line) float64 { v, _ := strconv.ParseFloat(l.name, 64); return v }

// inUnit writes a value as Grafana's units would have it, roughly.
func inUnit(v float64, unit string) string {
	short := func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	switch unit {
	case "s":
		switch {
		case math.IsInf(v, 0) || v == 0:
			return short(v)
		case v < 1e-3:
			return short(v*1e6) + " µs"
		case v < 1:
			return short(v*1e3) + " ms"
		}
		return short(v) + " s"
	case "percentunit":
		return short(100*v) + " %"
	case "bytes", "Bps":
		names := []string{"B", "KiB", "MiB", "GiB", "TiB"}
		i := 0
		for ; v >= 1024 && i < len(names)-1; i++ {
			v /= 1024
		}
		text := short(v) + " " + names[i]
		if unit == "Bps" {
			text += "/s"
		}
		return text
	}
	text := short(v)
	if v >= 1000 {
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	if names := map[string]string{"mps": "msg/s", "cps": "/s", "ops": "ops/s", "wps": "writes/s", "reqps": "req/s"}; names[unit] != "" {
		text += " " + names[unit]
	}
	return text
}
