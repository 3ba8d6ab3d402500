// Command generate writes the Grafana dashboards of this module as JSON files, each of which can be imported by itself:
//
//	go run ./generate [directory]
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	into := "."
	if len(os.Args) > 1 {
		into = os.Args[1]
	}
	if err := writeAll(into); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func writeAll(into string) error {
	files, err := render()
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(into, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// boards are all dashboards, in the order in which people go from one to the next.
func boards() []board {
	return []board{messages(), locks(), fanout(), queue(), layers(), goRuntime()}
}

// render answers the files by name.
func render() (map[string][]byte, error) {
	files := make(map[string][]byte)
	all := boards()
	for i, b := range all {
		built, err := b.build(all[(i+1)%len(all)])
		if err != nil {
			return nil, fmt.Errorf("dashboard %q: %w", b.title, err)
		}
		var out bytes.Buffer
		to := json.NewEncoder(&out)
		to.SetEscapeHTML(false)
		to.SetIndent("", "  ")
		if err := to.Encode(built); err != nil {
			return nil, fmt.Errorf("dashboard %q: %w", b.title, err)
		}
		files[b.file] = out.Bytes()
	}
	return files, nil
}
