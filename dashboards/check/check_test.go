package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// board is a dashboard without a fault; panel and target are put into it.
const (
	board = `{"uid": "UID", "title": "TITLE", "description": "d", "tags": ["gochat"], "refresh": "30s", "timezone": "browser", "schemaVersion": 42,
		"time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1, "editable": true,
		"templating": {"list": [
			{"type": "datasource", "name": "datasource", "label": "l", "description": "d", "skipUrlSync": false, "query": "prometheus"},
			{"type": "query", "name": "job", "label": "l", "description": "d", "skipUrlSync": false, "datasource": {"type": "prometheus", "uid": "$datasource"},
				"query": {"query": "label_values(gochat_build_info, job)"}},
			{"type": "query", "name": "instance", "label": "l", "description": "d", "skipUrlSync": false, "datasource": {"type": "prometheus", "uid": "$datasource"},
				"query": {"query": "label_values(gochat_build_info{job=~\"$job\"}, instance)"}}]},
		"links": [
			{"title": "all", "type": "dashboards", "icon": "", "tooltip": "", "tags": ["gochat"], "asDropdown": true, "targetBlank": false, "includeVars": true, "keepTime": true},
			{"title": "next", "type": "link", "icon": "", "tooltip": "", "url": "/d/other?var=${job}", "tags": [], "asDropdown": false, "targetBlank": false, "includeVars": true, "keepTime": true}],
		"panels": [
			{"type": "row", "id": 1, "title": "Is it well", "collapsed": false, "panels": [], "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}},
			{"type": "timeseries", "id": 2, "title": "Frames, p99", "description": "d", "datasource": {"type": "prometheus", "uid": "$datasource"},
				"gridPos": {"x": 0, "y": 1, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "s"}, "overrides": []},
				"targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "$datasource"}, "legendFormat": "{{op}} p99", "exemplar": true,
					"expr": "histogram_quantile(0.99, sum by (le, op) (rate(gochat_frame_seconds_bucket{job=~\"$job\",instance=~\"$instance\"}[$__rate_interval])))"}]},
			{"type": "stat", "id": 3, "title": "Closes", "description": "d", "datasource": {"type": "prometheus", "uid": "$datasource"},
				"gridPos": {"x": 12, "y": 1, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "short",
					"thresholds": {"mode": "absolute", "steps": [{"value": null, "color": "green"}]}}, "overrides": [
						{"matcher": {"id": "byName", "options": "closed"}, "properties": [{"id": "unit", "value": "cps"}, {"id": "noValue", "value": "none"}]}]},
				"targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "$datasource"}, "legendFormat": "closed",
					"expr": "sum(increase(gochat_closes_total{job=~\"$job\",instance=~\"$instance\"}[$__range])) / sum(gochat_connections{job=~\"$job\",instance=~\"$instance\"})"}]},
			{"type": "row", "id": 4, "title": "Where on the path", "collapsed": false, "panels": [], "gridPos": {"x": 0, "y": 9, "w": 24, "h": 1}},
			{"type": "row", "id": 5, "title": "Which resource", "collapsed": true, "gridPos": {"x": 0, "y": 10, "w": 24, "h": 1}, "panels": [
				{"type": "heatmap", "id": 7, "title": "Inside", "description": "d", "datasource": {"type": "prometheus", "uid": "$datasource"},
					"gridPos": {"x": 0, "y": 11, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "s"}, "overrides": []},
					"options": {"yAxis": {"unit": "s"}, "color": {"scheme": "Oranges", "fill": "x", "exponent": 0.5, "steps": 64, "reverse": false},
						"showValue": "auto", "legend": {"show": true}, "tooltip": {"mode": "single"}, "exemplars": {"color": "red"}},
					"targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "$datasource"}, "legendFormat": "{{le}}",
						"expr": "sum by (le) (rate(gochat_frame_seconds_bucket{job=~\"$job\",instance=~\"$instance\"}[$__rate_interval]))"}]},
				{"type": "timeseries", "id": 8, "title": "Beside", "description": "d", "datasource": {"type": "prometheus", "uid": "$datasource"},
					"gridPos": {"x": 12, "y": 11, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "bytes"}, "overrides": [
						{"matcher": {"id": "byName", "options": "all of x"}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}]}]},
					"targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "$datasource"}, "legendFormat": "all of {{instance}}",
						"expr": "sum by (instance) (gochat_connections{job=~\"$job\",instance=~\"$instance\"})"}]}]},
			{"type": "row", "id": 6, "title": "The runtime", "collapsed": false, "panels": [], "gridPos": {"x": 0, "y": 11, "w": 24, "h": 1}}],
		"annotations": {"list": [
			{"builtIn": 1, "name": "Notes", "enable": true, "iconColor": "blue", "datasource": {"type": "grafana", "uid": "-- Grafana --"}},
			{"name": "Drains", "enable": true, "iconColor": "red", "datasource": {"type": "prometheus", "uid": "$datasource"}, "titleFormat": "{{instance}}",
				"target": {"refId": "A", "expr": "count by (instance) (gochat_connections{job=~\"$job\",instance=~\"$instance\"}) == 0"}},
			{"name": "Closes", "enable": true, "iconColor": "red", "datasource": {"type": "prometheus", "uid": "$datasource"}, "textFormat": "{{code}}",
				"expr": "sum by (code) (increase(gochat_closes_total{job=~\"$job\",instance=~\"$instance\"}[$__rate_interval])) > 9"}]}}`

	rules = `groups:
  - name: recorded
    rules:
      - record: job:gochat_closes:rate5m
        expr: sum by (job, code) (rate(gochat_closes_total[5m]))
  - name: alerts
    rules:
      - alert: GochatCloses
        expr: job:gochat_closes:rate5m > 1
        for: 1m
        labels: {severity: page}
        annotations:
          summary: Connections are closed
          description: "{{ $labels.job }} closes {{ $value | humanize }} a second for {{ $labels.code }}."
          dashboard: /d/one
          runbook: dashboards/RUNBOOK.md#gochatcloses
      - alert: GochatDown
        expr: up == 0
        labels: {severity: ticket}
        annotations:
          summary: A process is down
          description: "{{ $labels.instance }} is not scraped."
          dashboard: /d/other
          runbook: dashboards/RUNBOOK.md#gochatdown
`
	tests = `tests:
  - alert_rule_test:
      - {alertname: GochatCloses, exp_alerts: [{exp_labels: {}}]}
      - {alertname: GochatCloses}
      - {alertname: GochatDown, exp_alerts: [{exp_labels: {}}]}
      - {alertname: GochatDown}
    promql_expr_test:
      - {expr: 'job:gochat_closes:rate5m{code="x"}'}
`
	book = `# Runbook

## GochatCloses

**Meaning.** a
**First look.** b
**Likely causes.** c
**What to do.** d

## GochatDown

**Meaning.** a
**First look.** b
**Likely causes.** c
**What to do.** d
`
	metrics = `[
		{"name": "gochat_build_info", "type": "gauge", "labels": ["version"]},
		{"name": "gochat_connections", "type": "gauge", "labels": ["layer", "transport"]},
		{"name": "gochat_closes_total", "type": "counter", "labels": ["code", "layer"]},
		{"name": "gochat_frame_seconds", "type": "histogram", "labels": ["layer", "op"]},
		{"name": "gochat_store_seconds", "type": "histogram", "labels": ["layer", "op"]}
	]`
	page = `# TYPE gochat_build_info gauge
gochat_build_info{version="1"} 1
# TYPE gochat_connections gauge
gochat_connections{layer="connect",transport="tcp"} 1
gochat_connections{layer="connect",transport="websocket"} 0
# TYPE gochat_closes_total counter
gochat_closes_total{code="replaced",layer="connect"} 0
gochat_closes_total{code="slow_consumer",layer="connect"} 2
# TYPE gochat_frame_seconds histogram
gochat_frame_seconds_bucket{layer="connect",op="2",le="0.25"} 1
gochat_frame_seconds_bucket{layer="connect",op="2",le="1"} 1
gochat_frame_seconds_bucket{layer="connect",op="2",le="+Inf"} 1
gochat_frame_seconds_sum{layer="connect",op="2"} 0.1
gochat_frame_seconds_count{layer="connect",op="2"} 1
# TYPE go_goroutines gauge
go_goroutines 9
`
)

func good() map[string]string {
	one := strings.NewReplacer("UID", "one", "TITLE", "One").Replace(board)
	other := strings.NewReplacer("UID", "other", "TITLE", "Other", "/d/other", "/d/one").Replace(board)
	return map[string]string{"one.json": one, "other.json": other, "rules/rules.yml": rules, "rules/tests/rules.yml": tests, "RUNBOOK.md": book}
}

// known is what a program with these metrics says of them.
func known(t *testing.T) catalog {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"metrics.json": metrics, "page.txt": page} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := load(filepath.Join(dir, "metrics.json"), filepath.Join(dir, "page.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func check(t *testing.T, files map[string]string) []string {
	t.Helper()
	all := make(fstest.MapFS)
	for name, content := range files {
		all[name] = &fstest.MapFile{Data: []byte(content)}
	}
	found, err := faults(all, known(t))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestGood has the example without a fault, so that the faults below are those that were planted.
func TestGood(t *testing.T) {
	if found := check(t, good()); len(found) > 0 {
		t.Errorf("found %s", strings.Join(found, "\n"))
	}
}

// TestPlanted plants one fault after another: each is found, and said where it is.
func TestPlanted(t *testing.T) {
	const selected = `{job=~\"$job\",instance=~\"$instance\"}`
	quantile := "histogram_quantile(0.99, sum by (le, op) (rate(gochat_frame_seconds_bucket" + selected + "[$__rate_interval])))"
	for _, c := range []struct {
		name, file, old, new, want string
	}{
		// expressions
		{"does not parse", "one.json", "sum(increase(", "sum(increase((", `one.json: "Closes": does not parse`},
		{"no such metric", "one.json", "gochat_connections" + selected, "gochat_conections" + selected, "gochat_conections is no metric of the program"},
		{"part of what is no histogram", "one.json", "gochat_connections" + selected, "gochat_connections_sum" + selected, "gochat_connections_sum is no metric"},
		{"histogram itself", "one.json", "gochat_frame_seconds_bucket", "gochat_frame_seconds", "gochat_frame_seconds is no metric"},
		{"counter as it is", "one.json", "sum(increase(gochat_closes_total" + selected + "[$__range]))", "sum(gochat_closes_total" + selected + ")", "gochat_closes_total is a counter, outside of rate"},
		{"count as it is", "one.json", "sum(gochat_connections" + selected + ")", "sum(gochat_frame_seconds_count" + selected + ")", "gochat_frame_seconds_count is a counter, outside of rate"},
		{"counter's maximum", "one.json", "sum(increase(gochat_closes_total" + selected + "[$__range]))", "max_over_time(gochat_closes_total" + selected + "[$__rate_interval])", "is a counter, outside of rate"},
		{"rate of a gauge", "one.json", "sum(gochat_connections" + selected + ")", "sum(rate(gochat_connections" + selected + "[$__rate_interval]))", "gochat_connections is a gauge, in rate"},
		{"no job", "one.json", "gochat_connections" + selected, `gochat_connections{instance=~\"$instance\"}`, `gochat_connections is not selected by job=~"$job"`},
		{"no instance", "one.json", "gochat_connections" + selected, `gochat_connections{job=~\"$job\"}`, `gochat_connections is not selected by instance`},
		{"job itself", "one.json", "gochat_connections" + selected, `gochat_connections{job=\"$job\",instance=~\"$instance\"}`, `is not selected by job`},
		{"own interval", "one.json", "[$__rate_interval]", "[5m]", "is over 5m0s, not over $__rate_interval"},
		{"rate over the range", "one.json", "[$__rate_interval]", "[$__range]", "not over $__rate_interval"},
		{"no such label", "one.json", "gochat_connections" + selected, `gochat_connections{job=~\"$job\",instance=~\"$instance\",bucket=\"1\"}`, `gochat_connections has no label "bucket"`},
		{"grouped by no label", "one.json", "sum by (le, op)", "sum by (le, op, room)", `grouped by "room"`},
		{"legend of no label", "one.json", "{{op}}", "{{room}}", `the legend names "room"`},
		{"legend of a label that is summed up", "one.json", "{{op}}", "{{layer}}", `the legend names "layer"`},
		{"quantile of no buckets", "one.json", "sum by (le, op)", "sum by (op)", "a quantile of what has no buckets"},
		{"quantile in percent", "one.json", "histogram_quantile(0.99", "histogram_quantile(99", "takes the quantile 99: want a number between 0 and 1"},
		{"quantile that is the highest", "one.json", "histogram_quantile(0.99", "histogram_quantile(1", "takes the quantile 1:"},
		{"quantile that is the lowest", "one.json", "histogram_quantile(0.99", "histogram_quantile(0", "takes the quantile 0:"},
		{"quantile that is no number", "one.json", "histogram_quantile(0.99", "histogram_quantile(scalar(vector(0.99))", "takes the quantile scalar(vector(0.99)):"},
		{"quantile over time in percent", "rules/rules.yml", "expr: up == 0", "expr: quantile_over_time(50, up[1h]) == 0", "takes the quantile 50:"},
		{"legend of another quantile", "one.json", "{{op}} p99", "{{op}} p50", `"Frames, p99": the legend names p50, which is not taken`},
		{"legend of a quantile where there is none", "one.json", `"legendFormat": "closed"`, `"legendFormat": "closed, p99"`, `"Closes": the legend names p99`},
		{"title of another quantile", "one.json", "Frames, p99", "Frames, p999", `the title names p999, which is not taken`},
		{"title of one quantile of two", "one.json", "histogram_quantile(0.99", "histogram_quantile(0.9, rate(gochat_frame_seconds_bucket" + selected + "[$__rate_interval])) + histogram_quantile(0.99", `the title names other quantiles than 0.9`},
		{"bound that there is not", "one.json", "gochat_frame_seconds_bucket" + selected, `gochat_frame_seconds_bucket{job=~\"$job\",instance=~\"$instance\",le=\"0.3\"}`, `gochat_frame_seconds has no le "0.3"`},
		{"value that there is not", "one.json", "gochat_connections" + selected, `gochat_connections{job=~\"$job\",instance=~\"$instance\",transport=\"udp\"}`, `gochat_connections has no transport "udp"`},
		{"value that there is not in a rule", "rules/rules.yml", "rate(gochat_closes_total[5m])", `rate(gochat_closes_total{code="slow"}[5m])`, `gochat_closes_total has no code "slow"`},
		{"value that there is not in a variable", "one.json", `label_values(gochat_build_info, job)`, `label_values(gochat_connections{layer=\"tasks\"}, job)`, `gochat_connections has no layer "tasks"`},
		{"no metric at all", "one.json", quantile, "vector(1)", "asks for no metric"},
		{"nothing asked", "one.json", `"targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "$datasource"}, "legendFormat": "closed",`, `"targets": [], "x": [{`, "asks for nothing"},
		{"no exemplars", "one.json", `"exemplar": true`, `"exemplar": false`, "shows no exemplars"},
		// panels
		{"no title", "one.json", `"title": "Closes"`, `"title": ""`, `one.json: "": has no title`},
		{"no description", "one.json", `"title": "Closes", "description": "d"`, `"title": "Closes", "description": ""`, `"Closes": has no description`},
		{"no unit", "one.json", `"unit": "short"`, `"unit": ""`, `"Closes": has no unit`},
		{"no thresholds", "one.json", `[{"value": null, "color": "green"}]`, `[]`, `"Closes": has no thresholds`},
		{"another datasource", "one.json", `"title": "Closes", "description": "d", "datasource": {"type": "prometheus", "uid": "$datasource"}`, `"title": "Closes", "description": "d", "datasource": {"type": "prometheus", "uid": "mine"}`, `"Closes": does not ask $datasource`},
		{"two of one id", "one.json", `"id": 3`, `"id": 2`, `has the id 2`},
		{"one on the other", "one.json", `"gridPos": {"x": 12, "y": 1,`, `"gridPos": {"x": 11, "y": 1,`, `"Closes" lies on "Frames, p99"`},
		{"beyond the edge", "one.json", `"gridPos": {"x": 12, "y": 1,`, `"gridPos": {"x": 13, "y": 1,`, `"Closes" does not fit`},
		{"rows in disorder", "one.json", `"title": "The runtime"`, `"title": "Is it well"`, `the row "Is it well" is not where it should be`},
		{"another row", "one.json", `"title": "The runtime"`, `"title": "Other"`, `the row "Other" is not where it should be`},
		{"field that Grafana does not have", "one.json", `"title": "Closes"`, `"tittle": "Closes", "title": "Closes"`, `is not as Grafana has it`},
		{"no word where there is no value", "one.json", `"unit": "short"`, `"noValue": "", "unit": "short"`, "shows nothing where there is no value"},
		{"unit that Grafana does not have", "one.json", `"unit": "s"`, `"unit": "secs"`, `"Frames, p99": has the unit "secs"`},
		{"unit of an axis", "one.json", `"yAxis": {"unit": "s"}`, `"yAxis": {"unit": "secs"}`, `"Inside": has the unit "secs"`},
		{"unit of an override", "one.json", `{"id": "unit", "value": "cps"}`, `{"id": "unit", "value": "closes"}`, `"Closes": override of closed: has the unit "closes"`},
		{"no word in an override", "one.json", `{"id": "noValue", "value": "none"}`, `{"id": "noValue", "value": ""}`, `"Closes": override of closed: shows nothing`},
		{"link of an override", "one.json", `{"id": "noValue", "value": "none"}`, `{"id": "links", "value": [{"title": "x", "url": "/d/another"}]}`, `"Closes": override of closed: the link "x" is to /d/another, which is not there`},
		{"link of a value", "one.json", `"unit": "short"`, `"links": [{"title": "x", "url": "/d/another"}], "unit": "short"`, `"Closes": the link "x" is to /d/another, which is not there`},
		{"override of no series", "one.json", `"options": "closed"`, `"options": "close"`, `"Closes": has an override of "close", which no legend reads`},
		{"override of no series of a label", "one.json", `"options": "all of x"`, `"options": "x"`, `"Beside": has an override of "x", which no legend reads`},
		// a collapsed row's panels
		{"no such metric inside", "one.json", "sum by (le) (rate(gochat_frame_seconds_bucket", "sum by (le) (rate(gochat_frames_seconds_bucket", `"Inside": gochat_frames_seconds_bucket is no metric`},
		{"no description inside", "one.json", `"title": "Inside", "description": "d"`, `"title": "Inside", "description": ""`, `"Inside": has no description`},
		{"id of one outside", "one.json", `"id": 7`, `"id": 2`, `"Inside" has the id 2, as "Frames, p99" has`},
		{"one on the other inside", "one.json", `"gridPos": {"x": 12, "y": 11,`, `"gridPos": {"x": 11, "y": 11,`, `"Beside" lies on "Inside"`},
		{"beyond the edge inside", "one.json", `"gridPos": {"x": 12, "y": 11,`, `"gridPos": {"x": 13, "y": 11,`, `"Beside" does not fit`},
		// annotations
		{"annotation of no metric", "one.json", "count by (instance) (gochat_connections", "count by (instance) (gochat_conections", `annotation "Drains": gochat_conections is no metric`},
		{"annotation of all there is", "one.json", `count by (instance) (gochat_connections{job=~\"$job\",`, `count by (instance) (gochat_connections{`, `annotation "Drains": gochat_connections is not selected by job`},
		{"annotation as of old", "one.json", "sum by (code) (increase(gochat_closes_total", "sum by (code) (increase(gochat_close_total", `annotation "Closes": gochat_close_total is no metric`},
		{"annotation with a label that is summed up", "one.json", `"textFormat": "{{code}}"`, `"textFormat": "{{layer}}"`, `annotation "Closes": the legend names "layer"`},
		{"annotation that asks for nothing", "one.json", `"target": {"refId": "A", "expr": "`, `"target": {"refId": "A", "legendFormat": "`, `annotation "Drains": asks for nothing`},
		{"annotation of another source", "one.json", `"iconColor": "red", "datasource": {"type": "prometheus", "uid": "$datasource"}`, `"iconColor": "red", "datasource": {"type": "prometheus", "uid": "mine"}`, `annotation "Drains": does not ask $datasource`},
		// dashboards
		{"two of one uid", "one.json", `"uid": "one"`, `"uid": "other"`, `has the uid "other" of`},
		{"two of one title", "one.json", `"title": "One"`, `"title": "Other"`, `has the title of`},
		{"no description of it all", "one.json", `"title": "One", "description": "d"`, `"title": "One", "description": ""`, `one.json: has no description`},
		{"other times", "other.json", `now-1h`, `now-6h`, `time is not as in one.json`},
		{"other tags", "other.json", `"tags": ["gochat"], "refresh"`, `"tags": ["x"], "refresh"`, `tags is not as in one.json`},
		{"no variable", "one.json", `"name": "instance"`, `"name": "node"`, `has no variable instance`},
		{"variable of no metric", "one.json", `label_values(gochat_build_info, job)`, `label_values(gochat_info, job)`, `variable job: gochat_info is no metric`},
		{"variable of another source", "one.json", `"name": "job", "label": "l", "description": "d", "skipUrlSync": false, "datasource": {"type": "prometheus", "uid": "$datasource"}`, `"name": "job", "label": "l", "description": "d", "skipUrlSync": false, "datasource": {"type": "prometheus", "uid": "mine"}`, `variable job: does not ask $datasource`},
		{"variable of all that there is", "one.json", `"query": {"query": "label_values(gochat_build_info, job)"}`, `"allValue": ".*", "query": {"query": "label_values(gochat_build_info, job)"}`, `all of it is ".*"`},
		{"dashboards of no tag", "one.json", `"tooltip": "", "tags": ["gochat"], `, `"tooltip": "", `, "is to dashboards of no tag"},
		{"link to what is not there", "one.json", `/d/other?`, `/d/another?`, `which is not there`},
		{"link that leads nowhere", "one.json", `"url": "/d/other?var=${job}"`, `"url": "other"`, `leads nowhere`},
		{"link with another variable", "one.json", `${job}`, `${rom}`, `has the variable "rom"`},
		// rules
		{"unknown field", "rules/rules.yml", "for: 1m", "four: 1m", "four"},
		{"rule that does not parse", "rules/rules.yml", "up == 0", "up === 0", "rules/rules.yml"},
		{"rule of no metric", "rules/rules.yml", "rate(gochat_closes_total[5m])", "rate(gochat_close_total[5m])", "gochat_close_total is no metric"},
		{"alert of what nobody records", "rules/rules.yml", "expr: job:gochat_closes:rate5m > 1", "expr: job:gochat_closes:rate1m > 1", "job:gochat_closes:rate1m is no metric"},
		{"counter in a rule", "rules/rules.yml", "rate(gochat_closes_total[5m])", "gochat_closes_total", "is a counter, outside of rate"},
		{"no severity", "rules/rules.yml", "severity: page", "severity: urgent", `severity "urgent"`},
		{"no summary", "rules/rules.yml", "summary: Connections are closed", "title: Connections are closed", "has no summary"},
		{"no runbook", "rules/rules.yml", "runbook: dashboards/RUNBOOK.md#gochatcloses", "book: x", "has no runbook"},
		{"another place in the runbook", "rules/rules.yml", "RUNBOOK.md#gochatcloses", "RUNBOOK.md#gochatclosed", "is not there"},
		{"another dashboard", "rules/rules.yml", "dashboard: /d/one", "dashboard: /d/two", `its dashboard "/d/two" is not there`},
		{"label that the alert does not have", "rules/rules.yml", "expr: job:gochat_closes:rate5m > 1", "expr: sum by (job) (rate(gochat_closes_total[5m])) > 1", `names the label "code"`},
		{"template that does not parse", "rules/rules.yml", "{{ $value | humanize }}", "{{ $value | humanise }}", "humanise"},
		{"no test in which it fires", "rules/tests/rules.yml", "{alertname: GochatDown, exp_alerts: [{exp_labels: {}}]}", "{alertname: GochatDown}", "GochatDown: has no test in which it fires"},
		{"no test in which it does not", "rules/tests/rules.yml", "      - {alertname: GochatDown}\n", "", "GochatDown: has no test in which it does not fire"},
		{"no test of a record", "rules/tests/rules.yml", "job:gochat_closes", "job:gochat_opens", "job:gochat_closes:rate5m: has no test"},
		{"record like a metric", "rules/rules.yml", "record: job:gochat_closes:rate5m", "record: gochat_connections", "is no name for what a rule records"},
		{"record without its level", "rules/rules.yml", "record: job:gochat_closes:rate5m", "record: gochat_closes_rate5m", "is no name for what a rule records"},
		{"label that the record does not have", "rules/rules.yml", "expr: job:gochat_closes:rate5m > 1", `expr: job:gochat_closes:rate5m{instance="x"} > 1`, `has no label "instance"`},
		{"grouped by what the record does not have", "rules/rules.yml", "expr: job:gochat_closes:rate5m > 1", `expr: sum by (job, code, bucket) (job:gochat_closes:rate5m) > 1`, `grouped by "bucket"`},
		{"template of what the record does not have", "rules/rules.yml", "for {{ $labels.code }}", "for {{ $labels.bucket }}", `names the label "bucket"`},
		{"rate of a record", "rules/rules.yml", "expr: job:gochat_closes:rate5m > 1", "expr: rate(job:gochat_closes:rate5m[5m]) > 1", "is recorded, and no counter, in rate"},
		{"sides that never match", "rules/rules.yml", "expr: up == 0", "expr: gochat_connections / gochat_build_info == 0", "never match"},
		{"section of no alert", "RUNBOOK.md", "# Runbook\n", "# Runbook\n\n## GochatUp\n", `"GochatUp" is no alert`},
		{"section without its parts", "RUNBOOK.md", "**Likely causes.** c\n", "", "**Likely causes.** is not there"},
		{"section in disorder", "RUNBOOK.md", "**Meaning.** a\n**First look.** b\n", "**First look.** b\n**Meaning.** a\n", "not in its place"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := maps.Clone(good())
			if !strings.Contains(files[c.file], c.old) {
				t.Fatalf("there is no %s to put the fault in", c.old)
			}
			files[c.file] = strings.Replace(files[c.file], c.old, c.new, 1)
			found := check(t, files)
			if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// TestNothingThere has files be missing: what finds nothing to check must not pass.
func TestNothingThere(t *testing.T) {
	for _, missing := range []string{"*.json", "rules/rules.yml", "RUNBOOK.md"} {
		t.Run(missing, func(t *testing.T) {
			files := make(fstest.MapFS)
			for name, content := range good() {
				if name != missing && !(missing == "*.json" && strings.HasSuffix(name, ".json")) {
					files[name] = &fstest.MapFile{Data: []byte(content)}
				}
			}
			if _, err := faults(files, catalog{}); err == nil {
				t.Error("no error")
			}
		})
	}
	dir := t.TempDir() + "/"
	for name, content := range map[string]string{"metrics": metrics, "page": page, "empty": "", "none": "[]", "others": "go_goroutines 9\n"} {
		if err := os.WriteFile(dir+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := load(dir+"metrics", dir+"page"); err != nil {
		t.Fatal(err)
	}
	const nobody = "http://127.0.0.1:1/metrics"
	for _, from := range [][2]string{
		{dir + "empty", dir + "page"}, {dir + "none", dir + "page"}, {dir + "not", dir + "page"}, {nobody, dir + "page"},
		{dir + "metrics", dir + "empty"}, {dir + "metrics", dir + "others"}, {dir + "metrics", dir + "none"}, {dir + "metrics", dir + "not"}, {dir + "metrics", nobody},
	} {
		if _, err := load(from[0], from[1]); err == nil {
			t.Errorf("%s: no error", from)
		}
	}
}

// TestValues has labels be what they can be, as far as that is known.
func TestValues(t *testing.T) {
	for _, c := range []struct{ selector, want string }{
		{`gochat_connections{transport="tcp"}`, ""},
		{`gochat_connections{transport=~"tcp|websocket"}`, ""},
		{`gochat_connections{transport=~"web.+"}`, ""},
		{`gochat_connections{transport!="tcp"}`, ""},
		{`gochat_connections{transport!~"web.+"}`, ""},
		{`gochat_connections{transport=""}`, ""},
		{`gochat_connections{layer="api"}`, ""},
		{`gochat_frame_seconds_bucket{le="0.25"}`, ""},
		{`gochat_frame_seconds_bucket{le="1.0"}`, ""},
		{`gochat_frame_seconds_bucket{le="+Inf"}`, ""},
		{`gochat_store_seconds_bucket{le="0.3",op="x"}`, ""}, // no series tells
		{`gochat_build_info{version="2"}`, ""},               // others may come
		{`gochat_closes_total{code="slow_consumer"}`, ""},
		{`gochat_closes_total{code=~"[45]..|ok"}`, ""},
		{`gochat_closes_total{code=~"5.."}`, ""},
		{`gochat_connections{transport="udp"}`, `gochat_connections has no transport "udp"`},
		{`gochat_connections{transport=~"tcp|udp"}`, `gochat_connections has no transport "udp"`},
		{`gochat_connections{transport=~"u.+"}`, `gochat_connections has no transport that "u.+" matches`},
		{`gochat_connections{transport!="udp"}`, `gochat_connections has no transport "udp"`},
		{`gochat_connections{transport!~"tcp|udp"}`, `gochat_connections has no transport "udp"`},
		{`gochat_connections{transport!~"u.+"}`, `gochat_connections has no transport that "u.+" matches`},
		{`gochat_connections{layer="logik"}`, `gochat_connections has no layer "logik"`},
		{`gochat_frame_seconds_bucket{le="0.3"}`, `gochat_frame_seconds has no le "0.3"`},
		{`gochat_frame_seconds_bucket{le="1"}`, `gochat_frame_seconds has no le "1"`}, // no scrape has it so
		{`gochat_frame_seconds_count{op="3"}`, `gochat_frame_seconds has no op "3"`},
		{`gochat_closes_total{code=~"slow_consumer|slow"}`, `gochat_closes_total has no code "slow"`},
		{`gochat_closes_total{code=~"6.."}`, `gochat_closes_total has no code that "6.." matches`},
	} {
		t.Run(c.selector, func(t *testing.T) {
			k := &checker{known: known(t)}
			k.checkExpr(expression{where: "here", text: "group(" + c.selector + ")"})
			if got := strings.Join(k.found, "\n"); got != c.want && got != "here: "+c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestNames has quantiles be told by their names, however many digits these have.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		text  string
		taken []float64
		good  bool
	}{
		{"wait", []float64{0.99}, true},
		{"p5", []float64{0.05}, true},
		{"p50 {{p99}}", []float64{0.5}, true},
		{"p99.9", []float64{0.999}, true},
		{"p999", []float64{0.999}, true},
		{"p50 and p90", []float64{0.5, 0.9, 0.9}, true},
		{"http2", nil, true},
		{"p5", []float64{0.5}, false},
		{"p100", []float64{0.99}, false},
		{"p50", []float64{0.5, 0.9}, false},
		{"p50 and p90", []float64{0.5}, false},
	} {
		t.Run(c.text, func(t *testing.T) {
			var k checker
			if k.names("here", "legend", c.text, c.taken); (len(k.found) == 0) != c.good {
				t.Errorf("of %v found %q", c.taken, k.found)
			}
		})
	}
}

// TestAnchors has headings lead where links to them go.
func TestAnchors(t *testing.T) {
	got := anchors("# One Two\ntext\n## GochatDown\n")
	if !slices.Equal(got, []string{"one-two", "gochatdown"}) {
		t.Errorf("got %q", got)
	}
}
