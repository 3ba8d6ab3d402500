package layers

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// homes are the only packages, with what is below them, that may import a vendor.
var homes = map[string][]string{
	"github.com/smallnest/rpcx":                    {"layers/internal/rpc"},
	"go.etcd.io/etcd/client/v3":                    {"layers/internal/discovery"},
	"go.etcd.io/etcd/server/v3":                    {"layers/internal/embedded"},
	"github.com/redis/go-redis":                    {"layers/internal/queue/redis", "layers/internal/session"},
	"github.com/twmb/franz-go":                     {"layers/internal/queue/kafka"},
	"github.com/alicebob/miniredis":                {"layers/internal/embedded"},
	"github.com/rabbitmq/amqp091-go":               {"layers/internal/queue/rabbitmq"},
	"gorm.io":                                      {"layers/internal/store"},
	"github.com/glebarez/sqlite":                   {"layers/internal/store"},
	"github.com/jackc/pgx":                         {"layers/internal/store"},
	"github.com/pressly/goose":                     {"layers/internal/store"},
	"github.com/gin-gonic/gin":                     {"layers/api"},
	"github.com/danielgtaylor/huma":                {"layers/api"},
	"github.com/gorilla/websocket":                 {"layers/connect", "layers/internal/testclient", "e2e"},
	"github.com/bwmarrin/snowflake":                {"layers/internal/ids"},
	"github.com/knadh/koanf":                       {"layers/internal/config"},
	"github.com/spf13/cobra":                       {"cmd/gochat"},
	"github.com/HdrHistogram/hdrhistogram-go":      {"layers/internal/bench"},
	"go.opentelemetry.io/otel/sdk":                 {"observability"},
	"go.opentelemetry.io/otel/exporters":           {"observability"},
	"github.com/prometheus/client_golang/promhttp": {"observability"},
}

// ours says what a package may import of this module. The first rule whose place fits decides.
var ours = []struct {
	place string
	may   []string
}{
	{"layers/internal/contract", nil},
	{"layers/connect/wire", []string{"layers/internal/contract"}},
	{"layers/api", []string{"layers/internal/contract", "layers/internal/address", "layers/internal/httpd", "layers/connect/wire", "observability"}},
	{"layers/logic", []string{"layers/internal/contract", "layers/connect/wire", "observability"}},
	{"layers/connect", []string{"layers/internal/contract", "layers/internal/address", "layers/internal/httpd", "layers/connect/wire", "observability"}},
	{"layers/task", []string{"layers/internal/contract", "observability"}},
	{"layers/site", []string{"layers/internal/address", "layers/internal/httpd", "observability"}},
	{"layers/internal", []string{"layers/internal", "layers/connect/wire", "migrations", "observability"}},
	{"layers", []string{"layers", "observability"}},
	{"observability", nil},
	{"migrations", nil},
	{"cmd", []string{"layers", "observability"}},
	{"e2e", []string{"e2e"}}, // it speaks through the network alone
}

// within reports whether a path is the place or below it.
func within(path, place string) bool { return path == place || strings.HasPrefix(path, place+"/") }

// violation answers what is wrong with one package importing another, "" if nothing is.
func violation(from, imported string) string {
	if local, ok := strings.CutPrefix(imported, "gochat/"); ok {
		for _, rule := range ours {
			if !within(from, rule.place) {
				continue
			}
			if within(local, from) || slices.ContainsFunc(rule.may, func(may string) bool {
				return local == may || may == "layers/internal" && within(local, may) || (rule.place == "layers" || rule.place == "e2e") && within(local, may)
			}) {
				return ""
			}
			return fmt.Sprintf("%s may not import %s", from, local)
		}
		return fmt.Sprintf("no rule says what %s may import", from)
	}
	if within(from, "layers/internal/contract") && strings.Contains(strings.Split(imported, "/")[0], ".") {
		return fmt.Sprintf("%s imports %s, not the standard library", from, imported)
	}
	for vendor, places := range homes {
		if within(imported, vendor) && !slices.ContainsFunc(places, func(place string) bool { return within(from, place) }) {
			return fmt.Sprintf("%s imports %s, whose home is %s", from, imported, strings.Join(places, ", "))
		}
	}
	return ""
}

// TestImports keeps the directions of the house: a layer never imports another, and each vendor has one home.
func TestImports(t *testing.T) {
	var files int
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		from, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		// Packages that serve tests alone stand outside the house's directions.
		if within(from, "layers/internal/testclient") || within(from, "layers/internal/testdeps") || within(from, "layers/api/seedtest") ||
			within(from, "layers/internal/queue/queuetest") {
			return nil
		}
		for _, i := range file.Imports {
			if wrong := violation(filepath.ToSlash(from), strings.Trim(i.Path.Value, `"`)); wrong != "" {
				t.Error(wrong)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("looked at %d files only", files)
	}
}

// TestImportsControl breaks each rule and sees it noticed.
func TestImportsControl(t *testing.T) {
	for _, c := range []struct{ from, imported string }{
		{"layers/api", "gochat/layers/logic"},
		{"layers/logic", "gochat/layers/internal/store"},
		{"layers/connect", "gochat/layers/internal/session"},
		{"layers/connect/wire", "gochat/observability"},
		{"layers/internal/store", "gochat/layers/logic"},
		{"layers/internal/contract", "github.com/google/uuid"},
		{"layers/logic", "github.com/redis/go-redis/v9"},
		{"layers/internal/queue/redis", "github.com/twmb/franz-go/pkg/kgo"},
		{"layers/connect", "github.com/smallnest/rpcx/client"},
		{"layers/api", "gorm.io/gorm"},
		{"layers", "github.com/HdrHistogram/hdrhistogram-go"},
		{"layers/internal/bench", "gochat/layers/connect"},
		{"observability", "gochat/layers/internal/contract"},
		{"cmd/gochat", "gochat/layers/internal/store"},
		{"somewhere", "gochat/layers"},
	} {
		if violation(c.from, c.imported) == "" {
			t.Errorf("%s importing %s went unnoticed", c.from, c.imported)
		}
	}
	if wrong := violation("layers/api", "gochat/layers/internal/contract"); wrong != "" {
		t.Errorf("what is allowed is refused: %s", wrong)
	}
}
