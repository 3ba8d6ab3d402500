package config

import (
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines is the line of each dotted key and table of a TOML document that is known to parse. Of a table that is
// written several times it is the last.
func keyLines(document []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(document)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = note(&p, e, "", lines)
		case unstable.KeyValue:
			noteValue(&p, e, table, lines)
		}
	}
	return lines
}

// noteValue goes down into inline tables.
func noteValue(p *unstable.Parser, e *unstable.Node, section string, lines map[string]int) {
	key := note(p, e, section, lines)
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for it := e.Value().Children(); it.Next(); {
		noteValue(p, it.Node(), key, lines)
	}
}

func note(p *unstable.Parser, e *unstable.Node, section string, lines map[string]int) (key string) {
	var words []string
	line := 0
	for it := e.Key(); it.Next(); {
		words = append(words, string(it.Node().Data))
		line = p.Shape(it.Node().Raw).Start.Line
	}
	key = join(section, strings.Join(words, "."))
	lines[key] = line
	return key
}
