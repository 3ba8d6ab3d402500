package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// look notes the values of labels, and the bounds of buckets, that the page of the program's series shows.
func (k catalog) look(page io.Reader) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return err
	}
	shown := false
	for name, family := range families {
		m, has := k[name]
		if !has {
			continue
		}
		shown = true
		m.values = make(map[string][]string)
		for _, one := range family.GetMetric() {
			for _, l := range one.GetLabel() {
				m.values[l.GetName()] = append(m.values[l.GetName()], l.GetValue())
			}
			for _, b := range one.GetHistogram().GetBucket() { // as Prometheus has it: 1.0, not 1
				m.values[labels.BucketLabel] = append(m.values[labels.BucketLabel], labels.FormatOpenMetricsFloat(b.GetUpperBound()))
			}
		}
		k[name] = m
	}
	if !shown {
		return fmt.Errorf("no series of these metrics")
	}
	return nil
}

// layers are all that the label layer may be. The page does not tell: api has no series before its first request.
func layers() []string { return []string{"api", "cluster", "connect", "logic", "site", "task"} }

// ahead are labels of which a metric that has any series has one for each value, from the start on. Those of others, as of a route,
// begin with what they count: of these the page may not show all.
func ahead() []string { return []string{labels.BucketLabel, "op", "outcome", "stage", "transport"} }

// valuesOf are what the metric's label may be, none if that is not known.
func (c *checker) valuesOf(s series, label string) (all []string) {
	switch {
	case label == "layer":
		return layers()
	case slices.Contains(ahead(), label):
		return s.values[label]
	case label == "code": // a code word, which some metrics have from the start on, or what HTTP has for it
		for _, m := range c.known {
			all = append(all, m.values[label]...)
		}
		if all != nil {
			all = append(all, "ok")
			for status := 100; status < 600; status++ {
				all = append(all, strconv.Itoa(status))
			}
		}
	}
	return all
}

// value checks that what a series is selected by, or left out for, is there.
func (c *checker) value(e expression, s series, m *labels.Matcher) {
	all := c.valuesOf(s, m.Name)
	if len(all) == 0 {
		return
	}
	if m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp {
		m, _ = m.Inverse() // it compiled before
	}
	named := m.SetMatches()
	if m.Type == labels.MatchEqual {
		named = []string{m.Value}
	}
	for _, value := range named {
		if value != "" && !slices.Contains(all, value) {
			c.fault(e.where, "%s has no %s %q", s.Name, m.Name, value)
		}
	}
	if len(named) == 0 && !slices.ContainsFunc(all, m.Matches) {
		c.fault(e.where, "%s has no %s that %q matches", s.Name, m.Name, m.Value)
	}
}
