package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// ruleFiles are the rules, what tests them, and what people do about them.
type ruleFiles struct {
	rules   map[string][]byte // by file
	tests   map[string][]byte
	runbook string
}

const runbook = "RUNBOOK.md"

func readRules(files fs.FS) (ruleFiles, error) {
	r := ruleFiles{rules: make(map[string][]byte), tests: make(map[string][]byte)}
	names, err := fs.Glob(files, "rules/*.yml")
	if err != nil {
		return r, err
	}
	for _, name := range names {
		if r.rules[name], err = fs.ReadFile(files, name); err != nil {
			return r, err
		}
	}
	if len(r.rules) == 0 {
		return r, fmt.Errorf("no rules")
	}
	tests, err := fs.Glob(files, "rules/tests/*.yml")
	if err != nil {
		return r, err
	}
	for _, name := range tests {
		if r.tests[name], err = fs.ReadFile(files, name); err != nil {
			return r, err
		}
	}
	content, err := fs.ReadFile(files, runbook)
	r.runbook = string(content)
	return r, err
}

func (c *checker) rules(r ruleFiles) {
	groups := make(map[string]*rulefmt.RuleGroups)
	for _, file := range sorted(r.rules) {
		parsed, errs := rulefmt.Parse(r.rules[file], false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range errs {
			c.fault(file, "%v", err)
		}
		if parsed == nil {
			continue
		}
		groups[file] = parsed
		for _, g := range parsed.Groups {
			for _, rule := range g.Rules {
				if rule.Record != "" {
					c.record(file+": "+rule.Record, rule)
				}
			}
		}
	}
	tested := c.tested(r.tests)
	alerts := make(map[string]bool)
	for _, file := range sorted(groups) {
		for _, g := range groups[file].Groups {
			for _, rule := range g.Rules {
				where := file + ": " + rule.Record + rule.Alert
				c.checkExpr(expression{where: where, text: rule.Expr})
				if rule.Alert == "" {
					if !tested.records[rule.Record] {
						c.fault(where, "has no test")
					}
					continue
				}
				alerts[rule.Alert] = true
				c.alert(where, rule, r)
				if !tested.fires[rule.Alert] {
					c.fault(where, "has no test in which it fires")
				}
				if !tested.silent[rule.Alert] {
					c.fault(where, "has no test in which it does not fire")
				}
			}
		}
	}
	c.book(r.runbook, alerts)
}

// alert checks what people are told.
func (c *checker) alert(where string, rule rulefmt.Rule, r ruleFiles) {
	if s := rule.Labels["severity"]; s != "page" && s != "ticket" {
		c.fault(where, "severity %q: want page or ticket", s)
	}
	for _, key := range []string{"summary", "description", "dashboard", "runbook"} {
		if rule.Annotations[key] == "" {
			c.fault(where, "has no %s", key)
		}
	}
	for name := range allLabels(rule.Annotations) {
		if known := c.exprLabels(rule.Expr); known != nil && !slices.Contains(known, name) && rule.Labels[name] == "" {
			c.fault(where, "names the label %q, which its expression does not have", name)
		}
	}
	if uid, is := strings.CutPrefix(rule.Annotations["dashboard"], "/d/"); !is || c.uids[uid] == "" {
		c.fault(where, "its dashboard %q is not there", rule.Annotations["dashboard"])
	}
	file, anchor, _ := strings.Cut(rule.Annotations["runbook"], "#")
	if path.Base(file) != runbook || !slices.Contains(anchors(r.runbook), anchor) {
		c.fault(where, "its place in the runbook, %q, is not there", rule.Annotations["runbook"])
	}
}

// record takes note of what the rule records, whose name is like no other metric's.
func (c *checker) record(where string, rule rulefmt.Rule) {
	if _, known := c.find(rule.Record); known || !strings.Contains(rule.Record, ":") {
		c.fault(where, "is no name for what a rule records: want level:metric:operations")
	}
	all := c.exprLabels(rule.Expr)
	if all != nil {
		for label := range rule.Labels {
			all = append(all, label)
		}
	}
	c.recorded[rule.Record] = all
}

// tested are rules by what their tests show of them.
type tested struct{ fires, silent, records map[string]bool }

func (c *checker) tested(files map[string][]byte) tested {
	is := tested{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
	for _, file := range sorted(files) {
		var all struct {
			Tests []struct {
				Alerts []struct {
					Name string `yaml:"alertname"`
					Want []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
				Exprs []struct{ Expr string } `yaml:"promql_expr_test"`
			}
		}
		if err := yaml.Unmarshal(files[file], &all); err != nil {
			c.fault(file, "%v", err)
		}
		for _, test := range all.Tests {
			for _, a := range test.Alerts {
				if len(a.Want) > 0 {
					is.fires[a.Name] = true
				} else {
					is.silent[a.Name] = true
				}
			}
			for _, e := range test.Exprs {
				for _, name := range recordName.FindAllString(e.Expr, -1) {
					is.records[name] = true
				}
			}
		}
	}
	return is
}

var recordName = regexp.MustCompile(`\w+:[\w:]+`)

var inTemplate = regexp.MustCompile(`\$labels\.(\w+)`)

func allLabels(annotations map[string]string) map[string]bool {
	found := make(map[string]bool)
	for _, text := range annotations {
		for _, m := range inTemplate.FindAllStringSubmatch(text, -1) {
			found[m[1]] = true
		}
	}
	return found
}

func (c *checker) exprLabels(expr string) []string {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return nil
	}
	return c.labelsOf(parsed)
}

var heading = regexp.MustCompile(`(?m)^(#+) +(.+)$`)

// anchors are those of the headings, as GitHub makes them.
func anchors(markdown string) (all []string) {
	for _, h := range heading.FindAllStringSubmatch(markdown, -1) {
		all = append(all, strings.ReplaceAll(strings.ToLower(strings.TrimSpace(h[2])), " ", "-"))
	}
	return all
}

// book checks that each section is of an alert, and says all that one needs.
func (c *checker) book(markdown string, alerts map[string]bool) {
	parts := regexp.MustCompile(`(?m)^## `).Split(markdown, -1)
	for _, part := range parts[1:] {
		name, text, _ := strings.Cut(part, "\n")
		name = strings.TrimSpace(name)
		if !alerts[name] {
			c.fault(runbook, "%q is no alert", name)
		}
		at := 0
		for _, want := range []string{"**Meaning.**", "**First look.**", "**Likely causes.**", "**What to do.**"} {
			next := strings.Index(text, want)
			if next < at {
				c.fault(runbook, "%s: %s is not there, or not in its place", name, want)
			}
			at = max(at, next)
		}
	}
}
