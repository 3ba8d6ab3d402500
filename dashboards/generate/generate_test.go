package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestGenerated has the files be what the program writes: who changes one changes the program.
func TestGenerated(t *testing.T) {
	files, err := render()
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Glob("../*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(files) {
		t.Errorf("%d files are there, %d are generated", len(there), len(files))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what is generated: go run ./generate", name)
		}
	}
	again, err := render()
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if !bytes.Equal(files[name], again[name]) {
			t.Errorf("%s is another each time", name)
		}
	}
}

// TestColours has what is lost be red wherever it is a line, by its own name or as one of the outcomes.
func TestColours(t *testing.T) {
	files, err := render()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, content := range files {
		var board struct {
			Panels []struct {
				Title, Type string
				Targets     []struct{ LegendFormat string }
				FieldConfig struct {
					Overrides []struct {
						Matcher    struct{ ID, Options string }
						Properties []struct {
							ID    string
							Value struct{ Mode, FixedColor string }
						}
					}
				}
			}
		}
		if err := json.Unmarshal(content, &board); err != nil {
			t.Fatal(err)
		}
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				if p.Type != "timeseries" || target.LegendFormat != "{{outcome}}" && target.LegendFormat != "lost" {
					continue
				}
				n++
				color := ""
				for _, o := range p.FieldConfig.Overrides {
					if o.Matcher.ID == "byName" && o.Matcher.Options == "lost" && o.Properties[0].ID == "color" && o.Properties[0].Value.Mode == "fixed" {
						color = o.Properties[0].Value.FixedColor
					}
				}
				if color != "red" {
					t.Errorf("%s: %s: lost is %q", name, p.Title, color)
				}
			}
		}
	}
	if n < 2 {
		t.Errorf("%d such lines", n)
	}
}
