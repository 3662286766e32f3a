package server

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

// configSource is the source of Config: the comments at its fields are the text of the reference page, so that neither
// can say something else than the other.
//
//go:embed config.go
var configSource string

// Setting is one key of the configuration, for --help and for the reference page.
type Setting struct {
	Key, Env, Default, Rule, Text string
}

// Settings lists every key of the configuration in the order of the fields.
func Settings() []Setting {
	var cfg Config
	comments := fieldComments()
	var out []Setting
	for _, s := range settingsOf(&cfg) {
		out = append(out, Setting{Key: s.path, Env: s.env(), Default: s.def, Rule: s.rule, Text: comments[s.field]})
	}
	return out
}

// fieldComments reads the comments of the structs' fields, by "Struct.Field". The source is this package's own, so it
// parses; TestEverySettingIsExplained holds it to having all of them.
func fieldComments() map[string]string {
	out := map[string]string{}
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", configSource, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return out
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if body, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range body.Fields.List {
				for _, name := range f.Names {
					out[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return true
	})
	return out
}

// Reference is docs/reference/configuration.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Printed from the fields of internal/server/config.go by its tests (go test ./internal/server -update). Don't edit. -->

keyturn reads ` + "`keyturn.yaml`" + ` in its data directory, then the environment, then flags; later wins. Unknown keys are errors,
and everything is checked before anything starts: all problems are printed at once, never with a value. Durations are
written ` + "`90s`, `12h` or `30d`" + `; a list in the environment is separated by commas.

Other variables that begin with KEYTURN_ are errors too, except those that a master key's ` + "`env://NAME`" + ` names,
` + "`KEYTURN_MASTER_KEY`, `KEYTURN_PKCS11_PIN`, `KEYTURN_DATASET_…`" + ` (addresses of datasets' databases), those of the command line, and those that
Kubernetes makes for a service called keyturn.
`)
	for _, s := range Settings() {
		def := "empty"
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\nDefault: %s. Environment: `%s`.", s.Key, s.Text, def, s.Env)
		if s.Rule != "" {
			fmt.Fprintf(&b, " It %s.", s.Rule)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// ruleOf puts a field's rule into words, for the reference: the part that isn't plain from the field's comment.
func ruleOf(f reflect.StructField) string {
	var texts []string
	for part := range strings.SplitSeq(f.Tag.Get("validate"), ",") {
		tag, param, _ := strings.Cut(part, "=")
		switch tag {
		case "min", "max", "oneof":
			texts = append(texts, strings.TrimPrefix(ruleText(tag, param, f.Type.Kind()), "must "))
		case "loopback", "printascii", "abspath":
			texts = append(texts, strings.TrimPrefix(ruleTexts[tag], "must "))
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return "must " + strings.Join(texts, " and ")
}
