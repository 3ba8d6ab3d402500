package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// object is part of a dashboard as its file has it: what is checked is what people import.
type object map[string]any

func (o object) text(key string) string { s, _ := o[key].(string); return s }

func (o object) number(key string) int { n, _ := o[key].(float64); return int(n) }

func (o object) object(key string) object { m, _ := o[key].(map[string]any); return m }

func (o object) list(key string) (all []object) {
	some, _ := o[key].([]any)
	for _, one := range some {
		if m, is := one.(map[string]any); is {
			all = append(all, m)
		}
	}
	return all
}

type boardFile struct {
	file string
	raw  []byte
	object
}

// readBoards reads the dashboards, which are the JSON files at the top.
func readBoards(files fs.FS) ([]boardFile, error) {
	names, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil, err
	}
	var all []boardFile
	for _, name := range names {
		b := boardFile{file: name}
		if b.raw, err = fs.ReadFile(files, name); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b.raw, &b.object); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, b)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no dashboards")
	}
	return all, nil
}

// order is that of the rows.
func order() []string {
	return []string{"Is it well", "Where on the path", "Which resource", "The runtime"}
}

// selectors are what every query of a dashboard selects by.
func selectors() map[string]string { return map[string]string{"job": "$job", "instance": "$instance"} }

// Of these latencies there are exemplars, so their panels show them.
var withExemplars = regexp.MustCompile(`histogram_quantile\(.*gochat_(message_\w+|canary|fanout|http_request|frame|rpc_\w+|store)_seconds_bucket`)

func (c *checker) dashboards(all []boardFile) {
	plugins.RegisterDefaultPlugins()
	titles := make(map[string]string)
	for _, b := range all {
		var strict dashboard.Dashboard //lint:ignore SA1019 the newer model is of Grafana 12 and later
		var none cog.BuildErrors       // of a good one it answers these, of which there are none
		if err := strict.UnmarshalJSONStrict(b.raw); err != nil && !(errors.As(err, &none) && len(none) == 0) {
			c.fault(b.file, "is not as Grafana has it: %v", err)
		}
		if uid := b.text("uid"); c.uids[uid] != b.file {
			c.fault(b.file, "has the uid %q of %s", uid, c.uids[uid])
		}
		if other := titles[b.text("title")]; other != "" {
			c.fault(b.file, "has the title of %s", other)
		}
		titles[b.text("title")] = b.file
		for _, key := range []string{"uid", "title", "description"} {
			if b.text(key) == "" {
				c.fault(b.file, "has no %s", key)
			}
		}
		for _, key := range []string{"refresh", "timezone"} {
			if b.text(key) != all[0].text(key) {
				c.fault(b.file, "%s is not as in %s", key, all[0].file)
			}
		}
		for _, key := range []string{"tags", "templating", "time", "schemaVersion", "graphTooltip"} {
			if !same(b.object[key], all[0].object[key]) {
				c.fault(b.file, "%s is not as in %s", key, all[0].file)
			}
		}
		c.variables(b)
		c.annotations(b)
		c.links(b.file, b, b.list("links"))
		c.layout(b)
		for _, p := range b.panels() {
			c.panel(b, p)
		}
	}
}

func same(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// panels are all but the rows; those of a collapsed row are in the row.
func (b boardFile) panels() (all []object) {
	for _, p := range b.list("panels") {
		if p.text("type") != "row" {
			all = append(all, p)
		}
		all = append(all, p.list("panels")...)
	}
	return all
}

func (b boardFile) variables() (names []string) {
	for _, v := range b.object.object("templating").list("list") {
		names = append(names, v.text("name"))
	}
	return names
}

func (c *checker) variables(b boardFile) {
	for _, want := range []string{"datasource", "job", "instance"} {
		if !slices.Contains(b.variables(), want) {
			c.fault(b.file, "has no variable %s", want)
		}
	}
	for _, v := range b.object.object("templating").list("list") {
		where := b.file + ": variable " + v.text("name")
		if v.text("label") == "" || v.text("description") == "" {
			c.fault(where, "has no label, or no description")
		}
		if v.text("type") != "query" {
			continue
		}
		if v.object("datasource").text("uid") != "$datasource" {
			c.fault(where, "does not ask $datasource")
		}
		if v.text("allValue") != "" {
			c.fault(where, "all of it is %q, which is more than this system's", v.text("allValue"))
		}
		of := labelValues.FindStringSubmatch(v.object("query").text("query"))
		if of == nil {
			c.fault(where, "does not ask for the values of a label")
			continue
		}
		c.checkExpr(expression{where: where, text: of[1]})
	}
}

// annotations checks what is marked in all panels.
func (c *checker) annotations(b boardFile) {
	for _, a := range b.object.object("annotations").list("list") {
		if a.number("builtIn") == 1 { // what people write down in Grafana
			continue
		}
		where := fmt.Sprintf("%s: annotation %q", b.file, a.text("name"))
		if a.object("datasource").text("uid") != "$datasource" {
			c.fault(where, "does not ask $datasource")
		}
		target := a.object("target").text("expr") // of old it is the annotation's own
		if target == "" && a.text("expr") == "" {
			c.fault(where, "asks for nothing")
		}
		for _, expr := range []string{target, a.text("expr")} {
			if expr != "" {
				result := c.checkExpr(expression{where, expr, selectors()})
				c.legend(where, a.text("titleFormat")+a.text("textFormat"), result.labels)
			}
		}
	}
}

var labelValues = regexp.MustCompile(`^label_values\((.+), \w+\)$`)

var inURL = regexp.MustCompile(`\$\{?(\w+)`)

// links checks that they lead somewhere.
func (c *checker) links(where string, b boardFile, all []object) {
	for _, l := range all {
		url := l.text("url")
		if l.text("title") == "" {
			c.fault(where, "a link has no title")
		}
		switch uid, toBoard := strings.CutPrefix(url, "/d/"); {
		case l.text("type") == "dashboards":
			if tags, _ := l["tags"].([]any); len(tags) == 0 {
				c.fault(where, "the link %q is to dashboards of no tag", l.text("title"))
			}
		case toBoard && c.uids[strings.SplitN(uid, "?", 2)[0]] == "":
			c.fault(where, "the link %q is to %s, which is not there", l.text("title"), url)
		case !toBoard && !strings.HasPrefix(url, "/explore?") && !strings.HasPrefix(url, "https://"):
			c.fault(where, "the link %q leads nowhere: %q", l.text("title"), url)
		}
		for _, name := range inURL.FindAllStringSubmatch(url, -1) {
			if !strings.HasPrefix(name[1], "__") && !slices.Contains(b.variables(), name[1]) {
				c.fault(where, "the link %q has the variable %q, which is not there", l.text("title"), name[1])
			}
		}
	}
}

// layout checks rows, ids and places.
func (c *checker) layout(b boardFile) {
	ids := make(map[int]string)
	taken := make(map[[2]int]string)
	rows, last := order(), -1
	for i, p := range b.list("panels") {
		title := p.text("title")
		if p.text("type") == "row" {
			at := slices.Index(rows, title)
			if at <= last {
				c.fault(b.file, "the row %q is not where it should be: %s", title, strings.Join(rows, ", "))
			}
			last = at
		} else if i == 0 {
			c.fault(b.file, "%q is in no row", title)
		}
		c.place(b, p, ids, taken)
		within := make(map[[2]int]string) // what a collapsed row holds lies where what follows lies meanwhile
		for _, inner := range p.list("panels") {
			c.place(b, inner, ids, within)
		}
	}
	if last != len(rows)-1 {
		c.fault(b.file, "has not all rows: %s", strings.Join(rows, ", "))
	}
}

// place checks that the panel has an id and a place of its own.
func (c *checker) place(b boardFile, p object, ids map[int]string, taken map[[2]int]string) {
	title := p.text("title")
	id := p.number("id")
	if other, twice := ids[id]; twice || id == 0 {
		c.fault(b.file, "%q has the id %d, as %q has", title, id, other)
	}
	ids[id] = title
	at := p.object("gridPos")
	x, y, w, h := at.number("x"), at.number("y"), at.number("w"), at.number("h")
	if w == 0 || h == 0 || x+w > 24 {
		c.fault(b.file, "%q does not fit: %d wide at %d of 24, %d high", title, w, x, h)
	}
	for i := x; i < x+w; i++ {
		for j := y; j < y+h; j++ {
			if other := taken[[2]int{i, j}]; other != "" && other != title {
				c.fault(b.file, "%q lies on %q", title, other)
			}
			taken[[2]int{i, j}] = title
		}
	}
}

func (c *checker) panel(b boardFile, p object) {
	where := fmt.Sprintf("%s: %q", b.file, p.text("title"))
	defaults := p.object("fieldConfig").object("defaults")
	for what, is := range map[string]string{"title": p.text("title"), "description": p.text("description"), "unit": defaults.text("unit")} {
		if is == "" {
			c.fault(where, "has no %s", what)
		}
	}
	if p.text("type") == "stat" && len(defaults.object("thresholds").list("steps")) == 0 {
		c.fault(where, "has no thresholds")
	}
	c.field(where, b, defaults)
	c.field(where, b, p.object("options").object("yAxis")) // a heat map's
	c.overrides(where, b, p)
	c.links(where, b, p.list("links"))
	if len(p.list("targets")) == 0 {
		c.fault(where, "asks for nothing")
	}
	refs := make(map[string]bool)
	var taken []float64
	for _, t := range p.list("targets") {
		if refs[t.text("refId")] {
			c.fault(where, "has two queries %s", t.text("refId"))
		}
		refs[t.text("refId")] = true
		for _, source := range []object{p.object("datasource"), t.object("datasource")} {
			if source.text("uid") != "$datasource" {
				c.fault(where, "does not ask $datasource")
			}
		}
		expr := t.text("expr")
		result := c.checkExpr(expression{where, expr, selectors()})
		c.legend(where, t.text("legendFormat"), result.labels)
		c.names(where, "legend", t.text("legendFormat"), result.quantiles)
		taken = append(taken, result.quantiles...)
		if shown, _ := t["exemplar"].(bool); p.text("type") == "timeseries" && withExemplars.MatchString(expr) && !shown {
			c.fault(where, "shows no exemplars of %s", expr)
		}
	}
	c.names(where, "title", p.text("title"), taken)
}

// units are those of Grafana's units that are used here, by their ids: of another it would show the id.
func units() []string {
	return []string{"Bps", "bytes", "cps", "mps", "ops", "percentunit", "reqps", "s", "short", "wps"}
}

// field checks how values are shown: all of a panel, or those of an override.
func (c *checker) field(where string, b boardFile, f object) {
	if unit, has := f["unit"]; has && !slices.Contains(units(), f.text("unit")) {
		c.fault(where, "has the unit %q: want one of %s", unit, strings.Join(units(), ", "))
	}
	if value, has := f["noValue"]; has && value == "" {
		c.fault(where, "shows nothing where there is no value")
	}
	c.links(where, b, f.list("links"))
}

// overrides checks how some of the panel's series are shown, and that there are such.
func (c *checker) overrides(where string, b boardFile, p object) {
	for _, o := range p.object("fieldConfig").list("overrides") {
		of := o.object("matcher")
		f := make(object)
		for _, property := range o.list("properties") {
			f[property.text("id")] = property["value"]
		}
		c.field(fmt.Sprintf("%s: override of %v", where, of["options"]), b, f)
		if of.text("id") == "byName" && !slices.ContainsFunc(p.list("targets"), func(t object) bool {
			return mayRead(t.text("legendFormat"), of.text("options"))
		}) {
			c.fault(where, "has an override of %q, which no legend reads", of["options"])
		}
	}
}
