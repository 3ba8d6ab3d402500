package api

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"gochat/layers/internal/contract"
	"gochat/observability"
)

type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		Security    []map[string][]string
		Responses   map[string]struct{ Content map[string]any }
		Parameters  []struct {
			Name   string
			Schema struct{ Maximum float64 }
		}
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]struct{ MaxLength int }
		}
	}
}

func readDocument(t *testing.T) (document, []byte) {
	t.Helper()
	g := do(t, "GET", start(t, &scripted{}, observability.Discard())+"/v1/openapi.json", "")
	if ct := g.header.Get("Content-Type"); g.status != 200 || ct != "application/json" {
		t.Fatalf("got %d, content type %q", g.status, ct)
	}
	var d document
	if err := json.Unmarshal(g.raw, &d); err != nil {
		t.Fatal(err)
	}
	return d, g.raw
}

// The golden list is the protocol's table: a route that comes or goes changes it.
func TestOpenAPIListsEachRoute(t *testing.T) {
	d, _ := readDocument(t)
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("got version %q, want 3.1", d.OpenAPI)
	}
	var routes, ids []string
	for path, methods := range d.Paths {
		for method, op := range methods {
			access := "bearer"
			if len(op.Security) == 0 {
				access = "open"
			}
			routes = append(routes, fmt.Sprintf("%s %s %s", strings.ToUpper(method), path, access))
			ids = append(ids, op.OperationID)
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok {
				t.Errorf("%s %s does not say how it fails", method, path)
			}
		}
	}
	slices.Sort(routes)
	golden, err := os.ReadFile("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(routes, "\n") + "\n"; got != string(golden) {
		t.Errorf("got\n%s\nwant\n%s", got, golden)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != len(routes) {
		t.Errorf("operation ids are not unique: %v", ids)
	}
}

func TestOpenAPIStatesTheContractsLimits(t *testing.T) {
	d, raw := readDocument(t)
	lengths := []struct {
		schema, property string
		want             int
	}{
		{"Credentials", "name", contract.MaxNameBytes},
		{"Credentials", "password", contract.MaxPasswordBytes},
		{"Credentials", "device", contract.MaxDeviceBytes},
		{"NewRoom", "name", contract.MaxRoomNameBytes},
		{"NewMessage", "msg", contract.MaxTextBytes},
		{"NewMessage", "clientId", contract.MaxClientIDBytes},
	}
	for _, l := range lengths {
		if got := d.Components.Schemas[l.schema].Properties[l.property].MaxLength; got != l.want {
			t.Errorf("%s.%s: got maxLength %d, want %d", l.schema, l.property, got, l.want)
		}
	}
	pages := 0
	for path, methods := range d.Paths {
		for _, p := range methods["get"].Parameters {
			if p.Name == "limit" {
				pages++
				if p.Schema.Maximum != contract.MaxPage {
					t.Errorf("%s: got limit up to %v, want %d", path, p.Schema.Maximum, contract.MaxPage)
				}
			}
		}
	}
	if pages != 6 {
		t.Errorf("got %d routes with a limit, want 6", pages)
	}
	for _, stranger := range []string{"ErrorModel", "ErrorDetail", "$schema"} {
		if strings.Contains(string(raw), stranger) {
			t.Errorf("the document holds %s", stranger)
		}
	}
}

// No page of the API loads anything from elsewhere.
func TestNoDocumentationPages(t *testing.T) {
	base := start(t, &scripted{}, observability.Discard())
	for _, path := range []string{"/docs", "/v1/docs", "/openapi.json", "/schemas/Room.json"} {
		if g := do(t, "GET", base+path, ""); g.status != 404 {
			t.Errorf("%s: got %d, want 404", path, g.status)
		}
	}
}
