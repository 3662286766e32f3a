package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// beside are the folders whose programs no user runs: harnesses, benches, campaigns, tools.
var beside = []string{"internal/pgtest", "internal/vaulttest", "internal/mariatest", "internal/mototest", "internal/faulttest", "internal/proctest", "internal/bench", "internal/soak", "internal/tools", "internal/pins", "tools"}

// product calls fn for every parsed file that ends up in what users run or link.
func product(t *testing.T, fn func(name string, f *ast.File)) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || slices.Contains(beside, name)) {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		fn(name, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("looked at %d files only: is this the right folder?", files)
	}
}

func forbidImports(t *testing.T, why string, forbidden ...string) {
	t.Helper()
	product(t, func(name string, f *ast.File) {
		for _, imp := range f.Imports {
			if path, err := strconv.Unquote(imp.Path.Value); err != nil || slices.Contains(forbidden, path) {
				t.Errorf("%s imports %s: %s", name, imp.Path.Value, why)
			}
		}
	})
}

// Row 71: a plugin's name led to the start of an arbitrary program. Nothing that users run starts programs.
func TestAdvisory_GHSA_32gq_x56h_299c(t *testing.T) {
	forbidImports(t, "keyturn starts no other program, so no input can name one", "os/exec", "plugin")
}

// Row 73: user data was evaluated as a template. Nothing that users run has a template language with functions; the
// templates of datasets only put column values into places. The one page that is written with html/template is a constant
// of the program, and data meets it as text.
func TestAdvisory_CVE_2025_49828(t *testing.T) {
	forbidImports(t, "user data must never meet a template language", "text/template")
	const page, text = "cmd/keyturn/incidentreport.go", "reportPage"
	product(t, func(name string, f *ast.File) {
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"html/template"` }) {
			return
		}
		if name != page {
			t.Errorf("%s imports html/template: user data must never meet a template language", name)
			return
		}
		constant, parsed := false, 0
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				for _, spec := range n.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && v.Names[0].Name == text {
						constant = n.Tok == token.CONST
					}
				}
			case *ast.SelectorExpr:
				if slices.Contains([]string{"ParseFiles", "ParseGlob", "ParseFS", "HTML", "JS", "URL", "HTMLAttr", "JSStr", "Srcset"}, n.Sel.Name) {
					t.Errorf("%s: %s takes what the page must not take", name, n.Sel.Name)
				}
			case *ast.CallExpr:
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Parse" {
					id, ok := n.Args[0].(*ast.Ident)
					if parsed++; !ok || id.Name != text {
						t.Errorf("%s parses another template than its constant", name)
					}
				}
			}
			return true
		})
		if !constant || parsed != 1 {
			t.Errorf("%s: the page is a constant %v, parsed %d times", name, constant, parsed)
		}
	})
}

// leavesIntegrityOut is the name of a flag, field of a request or setting that would do what users of others reach for
// when a check stands in their way.
var leavesIntegrityOut = regexp.MustCompile(`(?i)^-{0,2}(ignore|skip|no|disable|without)[-_]?(mac|integrity|verify|verification|tag|auth|commitment|tls[-_]?verify)$|^(-{0,2})insecure([-_]?skip[-_]?verify)?$`)

// Row 72: users switched integrity off to get work done, because they could. There is no such word to say.
func TestAdvisory_SOPS_437(t *testing.T) {
	for _, word := range []string{"--ignore-mac", "no-verify", "skipIntegrity", "insecure", "disable_verification"} {
		if !leavesIntegrityOut.MatchString(word) {
			t.Fatalf("the pattern doesn't find %q", word)
		}
	}
	product(t, func(name string, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" `\"':,=\t\n", r) }) {
				if leavesIntegrityOut.MatchString(word) {
					t.Errorf("%s: %q: integrity can't be switched off", name, word)
				}
			}
			return true
		})
	})
}
