package main

import (
	"bytes"
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
