package httpapi

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/buildinfo"
)

// document prints the table as an OpenAPI 3.1 document. The schemas are made from the Go types by huma's registry; of
// huma nothing else is used.
func document(routes []*Route) ([]byte, error) {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "keyturn", Version: buildinfo.String(),
			Description: "Keys, ciphertexts and the audit log of one keyturn store. Errors are RFC 9457 problem documents with a stable code."},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {Type: "http", Scheme: "bearer", Description: "a token of keyturn principal create; on the unix socket the peer's user id may stand for it"},
			},
		},
		Paths: map[string]*huma.PathItem{},
	}
	for _, r := range routes {
		item := doc.Paths[r.Pattern]
		if item == nil {
			item = &huma.PathItem{}
			doc.Paths[r.Pattern] = item
		}
		op := operation(doc.Components.Schemas, r)
		switch r.Method {
		case "GET":
			item.Get = op
		case "POST":
			item.Post = op
		case "DELETE":
			item.Delete = op
		}
	}
	return json.MarshalIndent(doc, "", "  ")
}

// operation is one row of the document.
func operation(schemas huma.Registry, r *Route) *huma.Operation {
	op := &huma.Operation{
		OperationID: operationID(r), Summary: r.Summary, Tags: []string{tagOf(r)},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong",
			Content:     map[string]*huma.MediaType{problemType[0]: {Schema: schemas.Schema(reflect.TypeFor[api.Problem](), true, "")}},
		}},
	}
	if !r.Public {
		op.Security = []map[string][]string{{"token": {}}}
	}
	if r.Action != "" {
		op.Description = "Needs the action " + string(r.Action) + "."
	}
	op.Parameters = parameters(r)
	if r.in != nil {
		op.RequestBody = &huma.RequestBody{Required: r.plan.needsBody(),
			Content: map[string]*huma.MediaType{jsonType[0]: {Schema: schemas.Schema(r.in, true, "")}}}
	}
	status, answer := answerOf(schemas, r)
	op.Responses[status] = answer
	return op
}

func answerOf(schemas huma.Registry, r *Route) (status string, answer *huma.Response) {
	if r.Pattern == "/metrics" {
		return "200", &huma.Response{Description: "The Prometheus text format", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: "string"}}}}
	}
	if r.out == nil {
		return "204", &huma.Response{Description: "Done"}
	}
	schema := schemas.Schema(r.out, true, "Document")
	if r.stream {
		return "200", &huma.Response{Description: "One JSON document a line", Content: map[string]*huma.MediaType{linesType[0]: {Schema: schema}}}
	}
	return "200", &huma.Response{Description: "Done", Content: map[string]*huma.MediaType{jsonType[0]: {Schema: schema}}}
}

// variable finds the {…} of a pattern.
var variable = regexp.MustCompile(`\{([a-z]+)\}`)

func parameters(r *Route) (out []*huma.Param) {
	if m := variable.FindStringSubmatch(r.Pattern); m != nil {
		out = append(out, &huma.Param{Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	for _, p := range r.Query {
		schema := &huma.Schema{Type: p.Type}
		if p.Type == "date-time" {
			schema = &huma.Schema{Type: "string", Format: p.Type}
		}
		out = append(out, &huma.Param{Name: p.Name, In: "query", Required: p.Name == r.Needs, Description: p.Describes, Schema: schema})
	}
	return out
}

// operationID is e.g. "post-keys-key-encrypt-batch": unique, because method and pattern are.
func operationID(r *Route) string {
	path := strings.NewReplacer("{", "", "}", "", "/", "-", ".", "-").Replace(strings.TrimPrefix(r.Pattern, "/v1"))
	return strings.ToLower(r.Method) + path
}

func tagOf(r *Route) string {
	if r.Public {
		return "public"
	}
	return strings.Split(r.Pattern, "/")[2]
}
