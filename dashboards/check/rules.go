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
)

// ruleFiles are the rules, what tests them, and what people do about them.
type ruleFiles struct {
	rules   map[string][]byte // by file
	tests   string            // all of them, one after the other
	runbook string
}

const runbook = "RUNBOOK.md"

func readRules(files fs.FS) (ruleFiles, error) {
	r := ruleFiles{rules: make(map[string][]byte)}
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
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return r, err
		}
		r.tests += string(content)
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
					c.recorded[rule.Record] = true
				}
			}
		}
	}
	alerts := make(map[string]bool)
	for _, file := range sorted(groups) {
		for _, g := range groups[file].Groups {
			for _, rule := range g.Rules {
				where := file + ": " + rule.Record + rule.Alert
				c.checkExpr(expression{where: where, text: rule.Expr})
				if rule.Alert != "" {
					alerts[rule.Alert] = true
					c.alert(where, rule, r)
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
	if !regexp.MustCompile(`alertname: ` + regexp.QuoteMeta(rule.Alert) + `\b`).MatchString(r.tests) {
		c.fault(where, "has no test")
	}
}

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
