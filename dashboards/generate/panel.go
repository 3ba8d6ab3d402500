package main

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// board is one dashboard.
type board struct {
	file, uid, title, help string
	rows                   []row
}

// The rows of every dashboard, in the order in which people read.
const (
	isItWell      = "Is it well"
	whereOnPath   = "Where on the path"
	whichResource = "Which resource"
	theRuntime    = "The runtime"
)

type row struct {
	title  string
	panels []panel
}

type kind int

const (
	lines   kind = iota // over time
	number              // of this moment, not the last that there was
	heat                // of a histogram's buckets
	ranking             // bars, the longest first
)

// panel shows what queries answer. Widths are of 24, heights are the kind's.
type panel struct {
	kind        kind
	title, help string
	unit        string // Grafana's id of it
	width       uint32
	queries     []query
	good        []step // thresholds of a number, from the lowest on
	stacked     bool
	exemplars   bool              // traces of the latencies shown
	words       map[string]string // of a number's values
	none        string            // shown where there is no value; else that nobody reports
}

// query is PromQL. In it {@ stands for the selectors by job and instance, and [@] for the interval of rates.
type query struct{ expr, legend string }

// step is a colour from a value on.
type step struct {
	from  float64
	color string
}

const (
	good = "green"
	warn = "orange"
	bad  = "red"
)

// lowIsGood are thresholds of what should be small.
func lowIsGood(warnFrom, badFrom float64) []step {
	return []step{{0, good}, {warnFrom, warn}, {badFrom, bad}}
}

// highIsGood are thresholds of what should be large.
func highIsGood(warnBelow, goodFrom float64) []step {
	return []step{{0, bad}, {warnBelow, warn}, {goodFrom, good}}
}

// outcomes are what becomes of messages and the like, with the colour that each has in every panel over time.
func outcomes() []struct{ name, color string } {
	return []struct{ name, color string }{
		{"written", good}, {"queued", "light-green"}, {"offline", "blue"},
		{"slow", warn}, {"gone", "yellow"}, {"lost", bad}, {"error", "dark-red"},
	}
}

// neutral is of what is neither.
func neutral() []step { return []step{{0, "blue"}} }

// quantiles are the queries for some of a histogram's quantiles, with further labels to tell apart by.
func quantiles(metric, by string, of ...string) []query {
	var all []query
	for _, q := range of {
		legend := "p" + (strings.TrimPrefix(q, "0.") + "0")[:2]
		grouping := "le"
		for label := range strings.SplitSeq(by, ",") {
			if label != "" {
				grouping += ", " + label
				legend = "{{" + label + "}} " + legend
			}
		}
		all = append(all, query{fmt.Sprintf("histogram_quantile(%s, sum by (%s) (rate(%s[@])))", q, grouping, metric), legend})
	}
	return all
}

func expand(expr string) string {
	return strings.NewReplacer("{@", `{job=~"$job",instance=~"$instance"`, "[@]", "[$__rate_interval]").Replace(expr)
}

// build makes the dashboard, with a link to the next.
//
//lint:ignore SA1019 the newer model is of Grafana 12 and later
func (b board) build(next board) (dashboard.Dashboard, error) {
	//lint:ignore SA1019 as above
	to := dashboard.NewDashboardBuilder("gochat: " + b.title)
	to.Uid(b.uid).Description(b.help).Tags([]string{"gochat"}).Refresh("30s").Time("now-1h", "now").Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).Links(links(next))
	for _, v := range variables() {
		to.WithVariable(v)
	}
	id := uint32(0)
	for _, r := range b.rows {
		id++
		to.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, p := range r.panels {
			id++
			to.WithPanel(p.builder(id))
		}
	}
	return to.Build()
}

// metrics is the Prometheus that people choose.
func metrics() common.DataSourceRef {
	return common.DataSourceRef{Type: new("prometheus"), Uid: new("$datasource")}
}

func variables() []cog.Builder[dashboard.VariableModel] {
	query := func(name, label, help, of string) cog.Builder[dashboard.VariableModel] {
		return dashboard.NewQueryVariableBuilder(name).Label(label).Description(help).Datasource(metrics()).
			Query(dashboard.StringOrMap{Map: map[string]any{"qryType": 1, "query": of, "refId": name}}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).IncludeAll(true).
			Current(dashboard.VariableOption{
				Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
				Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
			})
	}
	return []cog.Builder[dashboard.VariableModel]{
		dashboard.NewDatasourceVariableBuilder("datasource").Label("Metrics").Description("The Prometheus to ask.").Type("prometheus"),
		dashboard.NewDatasourceVariableBuilder("traces").Label("Traces").Description("Where the traces are.").Type("tempo"),
		query("job", "Job", "Which jobs of the scrape.", "label_values(gochat_build_info, job)"),
		query("instance", "Instance", "Which processes.", `label_values(gochat_build_info{job=~"$job"}, instance)`),
	}
}

// links are to the others, to the next, and to the traces of messages.
func links(next board) []cog.Builder[dashboard.DashboardLink] {
	panes := `{"a":{"datasource":"${traces}","queries":[{"refId":"A","datasource":{"type":"tempo","uid":"${traces}"},` +
		`"queryType":"traceql","query":"{span.gochat.message.id != \"\"}"}],"range":{"from":"${__from}","to":"${__to}"}}}`
	// What Grafana puts its variables into is not escaped.
	traces := "/explore?schemaVersion=1&panes=" + regexp.MustCompile(`%24%7B(\w+)%7D`).ReplaceAllString(url.QueryEscape(panes), "$${$1}")
	return []cog.Builder[dashboard.DashboardLink]{
		link{dashboard.DashboardLink{Title: "gochat", Type: dashboard.DashboardLinkTypeDashboards, Icon: "external link", Tooltip: "The other dashboards",
			Tags: []string{"gochat"}, AsDropdown: true, IncludeVars: true, KeepTime: true}},
		link{dashboard.DashboardLink{Title: "Next: " + next.title, Type: dashboard.DashboardLinkTypeLink, Icon: "dashboard", Tooltip: next.help,
			Url: new("/d/" + next.uid), Tags: []string{}, IncludeVars: true, KeepTime: true}},
		link{dashboard.DashboardLink{Title: "Traces", Type: dashboard.DashboardLinkTypeLink, Icon: "bolt", Tooltip: "Traces of messages in this time",
			Url: new(traces), Tags: []string{}, TargetBlank: true}},
	}
}

// link is built already.
type link struct{ dashboard.DashboardLink }

func (l link) Build() (dashboard.DashboardLink, error) { return l.DashboardLink, nil }

func (p panel) builder(id uint32) cog.Builder[dashboard.Panel] {
	var targets []*prometheus.DataqueryBuilder
	for i, q := range p.queries {
		t := prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Expr(expand(q.expr)).LegendFormat(q.legend).Datasource(metrics())
		switch p.kind {
		case number, ranking:
			t = t.Instant()
		case heat:
			t = t.Range().Format(prometheus.PromQueryFormatHeatmap)
		default:
			t = t.Range().Exemplar(p.exemplars)
		}
		targets = append(targets, t)
	}
	steps := p.good
	if steps == nil {
		steps = neutral()
	}
	thresholds := dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute)
	var levels []dashboard.Threshold
	for i, s := range steps {
		t := dashboard.Threshold{Color: s.color}
		if i > 0 { // the first has no lower end
			t.Value = &s.from
		}
		levels = append(levels, t)
	}
	thresholds = thresholds.Steps(levels)
	last := common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})
	switch p.kind {
	case number:
		return fill(stat.NewPanelBuilder(), p, id, targets).Height(4).Thresholds(thresholds).
			ReduceOptions(last).GraphMode(common.BigValueGraphModeNone).Orientation(common.VizOrientationAuto).ColorMode(common.BigValueColorModeValue).
			Mappings(mappings(p.words))
	case heat:
		return fill(heatmap.NewPanelBuilder(), p, id, targets).Calculate(false).YAxis(heatmap.NewYAxisConfigBuilder().Unit(p.unit)).
			Tooltip(heatmap.NewHeatmapTooltipBuilder().Mode(common.TooltipDisplayModeSingle))
	case ranking:
		return fill(bargauge.NewPanelBuilder(), p, id, targets).Thresholds(thresholds).
			ReduceOptions(last).Orientation(common.VizOrientationHorizontal).DisplayMode(common.BarGaugeDisplayModeBasic)
	}
	b := fill(timeseries.NewPanelBuilder(), p, id, targets).Min(0).FillOpacity(10).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.stacked {
		b = b.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
	}
	for _, o := range outcomes() {
		if slices.ContainsFunc(p.queries, func(q query) bool { return q.legend == "{{outcome}}" || q.legend == o.name }) {
			fixed := dashboard.FieldColor{Mode: dashboard.FieldColorModeIdFixed, FixedColor: &o.color}
			b = b.OverrideByName(o.name, []dashboard.DynamicConfigValue{{Id: "color", Value: fixed}})
		}
	}
	return b
}

// panelBuilder is what the builders of all kinds of panels have.
type panelBuilder[B any] interface {
	cog.Builder[dashboard.Panel]
	Id(uint32) B
	Title(string) B
	Description(string) B
	Unit(string) B
	Datasource(common.DataSourceRef) B
	Span(uint32) B
	Height(uint32) B
	NoValue(string) B
	WithTarget(cog.Builder[variants.Dataquery]) B
}

// fill gives the builder what panels of every kind say.
func fill[B panelBuilder[B]](b B, p panel, id uint32, targets []*prometheus.DataqueryBuilder) B {
	b = b.Id(id).Title(p.title).Description(p.help).Unit(p.unit).Datasource(metrics()).Span(p.width).Height(8).
		NoValue(cmp.Or(p.none, "nobody reports"))
	for _, t := range targets {
		b = b.WithTarget(t)
	}
	return b
}

// mappings say values in words.
func mappings(words map[string]string) []dashboard.ValueMapping {
	if words == nil {
		return nil
	}
	options := make(map[string]dashboard.ValueMappingResult)
	for value, word := range words {
		options[value] = dashboard.ValueMappingResult{Text: &word}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}
