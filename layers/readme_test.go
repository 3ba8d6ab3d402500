package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestReadmeNamesTests holds what the README promises to the tests that it names.
func TestReadmeNamesTests(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	named, faults := namedTests(t, string(readme))
	if named < 20 {
		t.Errorf("found %d names of tests in the README: want its table", named)
	}
	for _, fault := range faults {
		t.Error("the README names", fault)
	}
}

func TestNamedTests(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // what is wrong, "" if nothing is
	}{
		{"a test", "| a | b | `layers.TestFaults` |", ""},
		{"a test of a layer", "`layers/task.TestMoved`", ""},
		{"tests of one package", "`layers/connect.TestNeverHeard`, `TestLostLast`; `layers.TestLedger`", ""},
		{"a subtest by a constant", "`layers.TestFaults/rabbitmq`", ""},
		{"a subtest by its table", "`layers.TestQueueDrivers/kafka_nowhere`", ""},
		{"a subtest as it is written", "`layers.TestQueueDrivers/kafka nowhere`", ""},
		{"a case of the suite", "| `queuetest`: an item at fault; `layers.TestLedger` |", ""},

		{"no such test", "`layers.TestNothing`", "layers.TestNothing, which there is not"},
		{"a test of another package", "`layers/logic.TestFaults`", "layers/logic.TestFaults, which there is not"},
		{"a test of another package than the one before", "`layers/connect.TestLostLast`, `TestFaults`", "layers/connect.TestFaults, which"},
		{"no such package", "`layers/nowhere.TestFaults`", "layers/nowhere.TestFaults, which there is not"},
		{"a part of a name", "`layers.TestFault`", "layers.TestFault, which there is not"},
		{"a package of the line before", "`layers.TestFaults`\n`TestUpKilled`", "TestUpKilled without its package"},
		{"no such subtest", "`layers.TestFaults/pigeon`", "layers.TestFaults/pigeon: the test has no such name"},
		{"a subtest of another test", "`layers.TestUpKilled/rabbitmq`", "layers.TestUpKilled/rabbitmq: the test has no such name"},
		{"no such subtest of a subtest", "`layers.TestFaults/rabbitmq/pigeon`", "the test has no such name"},
		{"no such case of the suite", "| `queuetest`: an item |", `"an item", which is no case of queuetest`},
		{"a name in another form", "see TestFaults", "a test in another form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, faults := namedTests(t, c.text)
			if got := strings.Join(faults, "\n"); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

var (
	testForm  = regexp.MustCompile("`(?:([\\w/]+)\\.)?(Test[A-Z]\\w*)(?:/([^`]+))?`") // package.Test/subtest
	suiteForm = regexp.MustCompile("`queuetest`: ([^;|\n]+)")
	testName  = regexp.MustCompile(`\bTest[A-Z]\w*`)
)

// namedTests counts the tests that a text names, and says which there are not. One that is named without a package is of
// the package named before it in the line. A subtest is there if its name is in the test's source.
func namedTests(t *testing.T, text string) (named int, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	known := make(map[string]map[string][]string)
	functions := func(folder string) map[string][]string {
		if known[folder] == nil {
			known[folder] = functionsIn(t, filepath.Join("..", folder))
		}
		return known[folder]
	}
	for line := range strings.SplitSeq(text, "\n") {
		folder := ""
		found := testForm.FindAllStringSubmatch(line, -1)
		named += len(found)
		for _, is := range found {
			if is[1] != "" {
				folder = is[1]
			}
			if folder == "" {
				fault("%s without its package", is[2])
				continue
			}
			words, there := functions(folder)[is[2]]
			if !there {
				fault("%s.%s, which there is not", folder, is[2])
				continue
			}
			for sub := range strings.SplitSeq(is[3], "/") {
				if sub != "" && !slices.Contains(words, strings.ReplaceAll(sub, "_", " ")) && !slices.Contains(words, sub) {
					fault("%s.%s/%s: the test has no such name", folder, is[2], is[3])
				}
			}
		}
		if len(testName.FindAllString(line, -1)) > len(found) {
			fault("a test in another form than `package.Test/subtest`: %s", line)
		}
		for _, is := range suiteForm.FindAllStringSubmatch(line, -1) {
			if name := strings.TrimSpace(is[1]); !slices.Contains(functions("layers/internal/queue/queuetest")["Exercise"], name) {
				fault("%q, which is no case of queuetest", name)
			}
		}
	}
	return named, faults
}

// testsIn are the tests that a folder's files have.
func testsIn(t *testing.T, folder string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(functionsIn(t, folder))), func(name string) bool {
		return !strings.HasPrefix(name, "Test")
	})
}

// functionsIn are the functions of a folder's files, with the strings in each: literals and the package's own constants.
func functionsIn(t *testing.T, folder string) map[string][]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	constants := make(map[string]string)
	bodies := make(map[string]*ast.BlockStmt)
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			switch d := declared.(type) {
			case *ast.FuncDecl:
				inTests := strings.HasSuffix(path, "_test.go")
				if d.Recv == nil && d.Body != nil && (inTests || !strings.HasPrefix(d.Name.Name, "Test")) {
					bodies[d.Name.Name] = d.Body
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					values, is := spec.(*ast.ValueSpec)
					if !is || d.Tok != token.CONST || len(values.Values) != 1 {
						continue
					}
					if text, is := literal(values.Values[0]); is {
						constants[values.Names[0].Name] = text
					}
				}
			}
		}
	}
	functions := make(map[string][]string)
	for name, body := range bodies {
		functions[name] = []string{}
		ast.Inspect(body, func(n ast.Node) bool {
			text, is := literal(n)
			if id, isName := n.(*ast.Ident); isName {
				text, is = constants[id.Name]
			}
			if is {
				functions[name] = append(functions[name], text)
			}
			return true
		})
	}
	return functions
}

// literal is the text of a string literal.
func literal(n ast.Node) (string, bool) {
	lit, is := n.(*ast.BasicLit)
	if !is || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}
