package httpapi

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestOpenAPIDescribesTheTable(t *testing.T) {
	r := newRig(t)
	w := r.call("GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			Schemas map[string]struct {
				Required   []string
				Properties map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("%v, version %q", err, doc.OpenAPI)
	}
	ids := map[string]bool{}
	for _, row := range r.Routes() {
		var op struct {
			OperationID string
			Security    []map[string][]string
			Parameters  []parameter
			RequestBody *struct{ Required bool }
			Responses   map[string]json.RawMessage
		}
		if err := json.Unmarshal(doc.Paths[row.Pattern][strings.ToLower(row.Method)], &op); err != nil {
			t.Errorf("%s %s: %v", row.Method, row.Pattern, err)
			continue
		}
		if ids[op.OperationID] || op.OperationID == "" {
			t.Errorf("%s %s: operation id %q", row.Method, row.Pattern, op.OperationID)
		}
		ids[op.OperationID] = true
		if row.Public != (len(op.Security) == 0) || (row.In() != nil) != (op.RequestBody != nil) || op.Responses["default"] == nil {
			t.Errorf("%s %s: %+v", row.Method, row.Pattern, op)
		}
		for _, q := range row.Query {
			if want := (parameter{q.Name, "query", q.Name == row.Needs}); !slices.Contains(op.Parameters, want) {
				t.Errorf("%s %s: %+v is missing among %+v", row.Method, row.Pattern, want, op.Parameters)
			}
		}
	}
	for _, ref := range refs(w.Body.String()) {
		if _, ok := doc.Components.Schemas[ref]; !ok {
			t.Errorf("schema %s is referred to and isn't there", ref)
		}
	}
	// What the strict decoder demands is what the document says is required.
	for _, row := range r.Routes() {
		if row.In() == nil {
			continue
		}
		schema := doc.Components.Schemas[row.In().Name()]
		for _, m := range row.plan.members {
			if m.required != slices.Contains(schema.Required, m.name) || schema.Properties[m.name] == nil {
				t.Errorf("%s.%s: required %v", row.In().Name(), m.name, m.required)
			}
		}
	}
}

type parameter struct {
	Name, In string
	Required bool
}

func refs(doc string) (names []string) {
	for _, part := range strings.Split(doc, `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		names = append(names, name)
	}
	return names
}

// Row 24: nowhere can a caller choose a nonce, an IV or a salt.
func TestAdvisory_CVE_2023_4680_routes(t *testing.T) {
	for _, row := range newRig(t).Routes() {
		if row.In() == nil {
			continue
		}
		for _, m := range row.plan.members {
			for _, word := range []string{"nonce", "iv", "salt", "aad", "counter"} {
				if strings.EqualFold(m.name, word) {
					t.Errorf("%s %s takes %s", row.Method, row.Pattern, m.name)
				}
			}
		}
	}
}
