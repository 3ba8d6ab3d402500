package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// metric is what gochat's admin server says of one.
type metric struct {
	Name, Type string
	Labels     []string
	values     map[string][]string // of labels, of the series that there are
}

type catalog map[string]metric

// others are metrics that gochat does not register and rules may ask for, with who has them.
func others() catalog {
	return catalog{
		"up":                             {Name: "up", Type: "gauge"},            // Prometheus itself
		"probe_success":                  {Name: "probe_success", Type: "gauge"}, // the blackbox exporter
		"probe_ssl_earliest_cert_expiry": {Name: "probe_ssl_earliest_cert_expiry", Type: "gauge"},
	}
}

// series is one kind of series of a metric.
type series struct {
	metric
	part string // bucket, sum or count of a histogram, else ""
}

// find answers what the name is a series of.
func (k catalog) find(name string) (series, bool) {
	if m, has := k[name]; has && m.Type != "histogram" {
		return series{m, ""}, true
	}
	for _, part := range []string{"bucket", "sum", "count"} {
		m, has := k[strings.TrimSuffix(name, "_"+part)]
		if has && strings.HasSuffix(name, "_"+part) && (m.Type == "histogram" || m.Type == "summary" && part != "bucket") {
			return series{m, part}, true
		}
	}
	return series{}, false
}

func (s series) isCounter() bool { return s.Type == "counter" || s.part != "" }

// Of a scrape each series has these too.
var scraped = []string{"job", "instance"}

// expression is what is to be checked, and by which rules.
type expression struct {
	where, text string
	selectors   map[string]string // matchers that each selector has to have; nil for rules
}

// The parser knows no variables of Grafana: durations stand for them that nobody else writes.
var intervals = map[string]time.Duration{"$__rate_interval": 7919 * time.Millisecond, "$__range": 7907 * time.Millisecond}

// result is what is known of what an expression gives.
type result struct {
	labels    []string  // that it may have, nil if they are not known
	quantiles []float64 // that are taken in it
}

// checkExpr parses the expression, and reports what it gives.
func (c *checker) checkExpr(e expression) (r result) {
	text := e.text
	for name, stands := range intervals {
		text = strings.ReplaceAll(text, name, fmt.Sprintf("%dms", stands.Milliseconds()))
	}
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		c.fault(e.where, "does not parse: %v", err)
		return r
	}
	asked := 0
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			asked++
			c.selector(e, n, path)
		case *parser.MatrixSelector:
			c.interval(e, n, path)
		case *parser.AggregateExpr:
			c.grouping(e, n)
		case *parser.Call:
			if q, is := c.quantile(e, n); is {
				r.quantiles = append(r.quantiles, q)
			}
		case *parser.BinaryExpr:
			c.matching(e, n)
		}
		return nil
	})
	if asked == 0 {
		c.fault(e.where, "asks for no metric")
	}
	r.labels = c.labelsOf(parsed)
	return r
}

func (c *checker) find(name string) (series, bool) {
	if s, has := c.known.find(name); has {
		return s, true
	}
	return others().find(name)
}

// selector checks one metric's name, its labels, and that what only grows is looked at by how fast.
func (c *checker) selector(e expression, n *parser.VectorSelector, path []parser.Node) {
	for name, want := range e.selectors {
		if !slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
			return m.Name == name && m.Type == labels.MatchRegexp && m.Value == want
		}) {
			c.fault(e.where, "%s is not selected by %s=~%q", n.Name, name, want)
		}
	}
	function := functionOf(path)
	rates := slices.Contains([]string{"rate", "irate", "increase"}, function)
	if has, recorded := c.recorded[n.Name]; recorded {
		for _, m := range n.LabelMatchers {
			if m.Name != model.MetricNameLabel && has != nil && !slices.Contains(has, m.Name) {
				c.fault(e.where, "%s has no label %q", n.Name, m.Name)
			}
		}
		if rates {
			c.fault(e.where, "%s is recorded, and no counter, in %s", n.Name, function)
		}
		return
	}
	s, has := c.find(n.Name)
	if !has {
		c.fault(e.where, "%s is no metric of the program", n.Name)
		return
	}
	for _, m := range n.LabelMatchers {
		if m.Name != model.MetricNameLabel && !s.has(m.Name) {
			c.fault(e.where, "%s has no label %q", n.Name, m.Name)
		}
		c.value(e, s, m)
	}
	switch {
	case s.isCounter() && !rates && !strings.HasPrefix(function, "absent") && !onlyWhether(path):
		c.fault(e.where, "%s is a counter, outside of rate and increase", n.Name)
	case !s.isCounter() && rates:
		c.fault(e.where, "%s is a %s, in %s", n.Name, s.Type, function)
	}
}

// onlyWhether reports whether it is only asked whether there is such a series, not for its value.
func onlyWhether(path []parser.Node) bool {
	if len(path) == 0 {
		return false
	}
	above, is := path[len(path)-1].(*parser.AggregateExpr)
	return is && above.Op == parser.GROUP
}

// functionOf is the function that the selector is the argument of.
func functionOf(path []parser.Node) string {
	for _, above := range slices.Backward(path) {
		switch a := above.(type) {
		case *parser.Call:
			return a.Func.Name
		case *parser.MatrixSelector, *parser.SubqueryExpr, *parser.ParenExpr, *parser.StepInvariantExpr, parser.Expressions:
			continue
		}
		break
	}
	return ""
}

func (s series) has(label string) bool {
	return slices.Contains(s.Labels, label) || slices.Contains(scraped, label) || s.part == "bucket" && label == labels.BucketLabel
}

// interval checks that dashboards take rates over the interval that Grafana has for it.
func (c *checker) interval(e expression, n *parser.MatrixSelector, path []parser.Node) {
	if e.selectors == nil {
		return
	}
	want := []time.Duration{intervals["$__rate_interval"]}
	for _, above := range slices.Backward(path) {
		if call, is := above.(*parser.Call); is && call.Func.Name == "increase" {
			want = append(want, intervals["$__range"])
		}
	}
	if !slices.Contains(want, n.Range) {
		c.fault(e.where, "%s is over %v, not over $__rate_interval", n.VectorSelector, n.Range)
	}
}

// grouping checks that what is told apart by is there.
func (c *checker) grouping(e expression, n *parser.AggregateExpr) {
	inner := c.labelsOf(n.Expr)
	if n.Without || inner == nil {
		return
	}
	for _, label := range n.Grouping {
		if !slices.Contains(inner, label) {
			c.fault(e.where, "grouped by %q, which %s does not have", label, n.Expr)
		}
	}
}

// quantile checks that a quantile is one, and is taken of buckets; it answers which it is.
func (c *checker) quantile(e expression, n *parser.Call) (q float64, is bool) {
	switch n.Func.Name {
	case "histogram_quantile":
		if inner := c.labelsOf(n.Args[1]); inner != nil && !slices.Contains(inner, labels.BucketLabel) {
			c.fault(e.where, "a quantile of what has no buckets: %s", n.Args[1])
		}
	case "quantile_over_time":
	default:
		return 0, false
	}
	number, is := n.Args[0].(*parser.NumberLiteral)
	if !is || !(number.Val > 0 && number.Val < 1) {
		c.fault(e.where, "takes the quantile %s: want a number between 0 and 1", n.Args[0])
		return 0, false
	}
	return number.Val, true
}

// matching checks that the two sides can have a series of the same labels: where nothing else is said, all of them count.
func (c *checker) matching(e expression, n *parser.BinaryExpr) {
	if n.VectorMatching == nil || n.VectorMatching.On || len(n.VectorMatching.MatchingLabels) > 0 || n.Op == parser.LOR {
		return
	}
	left, right := c.labelsOf(n.LHS), c.labelsOf(n.RHS)
	if left == nil || right == nil {
		return
	}
	for _, label := range slices.Concat(left, right) {
		if slices.Contains(left, label) != slices.Contains(right, label) {
			c.fault(e.where, "%s and %s never match: only one has the label %q", n.LHS, n.RHS, label)
			return
		}
	}
}

// labelsOf are the labels that the result may have, nil if that is not known.
func (c *checker) labelsOf(n parser.Node) []string {
	switch n := n.(type) {
	case *parser.VectorSelector:
		if recorded, is := c.recorded[n.Name]; is {
			return slices.Clone(recorded)
		}
		if s, has := c.find(n.Name); has {
			all := slices.Concat(s.Labels, scraped)
			if s.part == "bucket" {
				all = append(all, labels.BucketLabel)
			}
			return all
		}
		return nil
	case *parser.MatrixSelector:
		return c.labelsOf(n.VectorSelector)
	case *parser.SubqueryExpr:
		return c.labelsOf(n.Expr)
	case *parser.ParenExpr:
		return c.labelsOf(n.Expr)
	case *parser.UnaryExpr:
		return c.labelsOf(n.Expr)
	case *parser.AggregateExpr:
		inner := c.labelsOf(n.Expr)
		switch {
		case n.Op == parser.TOPK || n.Op == parser.BOTTOMK:
			return inner
		case n.Without && inner == nil:
			return nil
		case n.Without:
			return slices.DeleteFunc(slices.Clone(inner), func(l string) bool { return slices.Contains(n.Grouping, l) })
		}
		return append([]string{}, n.Grouping...)
	case *parser.Call:
		for _, arg := range slices.Backward(n.Args) { // what is not a parameter comes last, but for label_replace
			if arg.Type() == parser.ValueTypeMatrix || arg.Type() == parser.ValueTypeVector {
				inner := c.labelsOf(arg)
				if n.Func.Name == "histogram_quantile" {
					inner = slices.DeleteFunc(slices.Clone(inner), func(l string) bool { return l == labels.BucketLabel })
				}
				return inner
			}
		}
		return []string{}
	case *parser.BinaryExpr:
		left, right := c.labelsOf(n.LHS), c.labelsOf(n.RHS)
		switch {
		case n.LHS.Type() == parser.ValueTypeScalar:
			return right
		case n.Op == parser.LOR && left != nil && right != nil:
			return append(slices.Clone(left), right...)
		case n.VectorMatching == nil || n.Op.IsSetOperator():
			return left
		case n.VectorMatching.Card == parser.CardOneToMany:
			return right
		case n.VectorMatching.Card == parser.CardOneToOne && n.VectorMatching.On:
			return slices.Clone(n.VectorMatching.MatchingLabels)
		}
		return left
	}
	return []string{}
}

var inLegend = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// legend checks that what a legend names is in the result.
func (c *checker) legend(where, legend string, result []string) {
	for _, named := range inLegend.FindAllStringSubmatch(legend, -1) {
		if result != nil && !slices.Contains(result, named[1]) {
			c.fault(where, "the legend names %q, which the result does not have", named[1])
		}
	}
}

// p99 is a quantile's name, and so are p5, p99.9 and p999.
var quantileName = regexp.MustCompile(`\bp(\d+)(?:\.(\d+))?\b`)

// names checks that a text that names quantiles names those that are taken.
func (c *checker) names(where, what, text string, taken []float64) {
	var named []float64
	for _, m := range quantileName.FindAllStringSubmatch(inLegend.ReplaceAllString(text, ""), -1) {
		digits := m[1] + m[2]
		if len(m[1]) == 1 {
			digits = "0" + digits
		}
		q, _ := strconv.ParseFloat("0."+digits, 64)
		if named = append(named, q); !slices.Contains(taken, q) {
			c.fault(where, "the %s names %s, which is not taken", what, m[0])
		}
	}
	for _, q := range taken {
		if len(named) > 0 && !slices.Contains(named, q) {
			c.fault(where, "the %s names other quantiles than %v", what, q)
		}
	}
}

// mayRead reports whether the legend is that name once labels are put in.
func mayRead(legend, name string) bool {
	parts := inLegend.Split(legend, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".+") + "$").MatchString(name)
}

// sorted are a map's keys in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
