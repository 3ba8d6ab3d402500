package layers

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeNamesTests holds what the README promises to the tests that it names.
func TestReadmeNamesTests(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(string(readme), -1)
	if len(named) < 10 {
		t.Errorf("found %d names of tests in the README: want its table", len(named))
	}
	for _, name := range named {
		if !strings.Contains(all.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("the README names %s, which there is not", name)
		}
	}
}
