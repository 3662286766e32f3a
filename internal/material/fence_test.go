package material_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root of the repository as seen from this folder.
const root = "../.."

// mayExpose are the rooms, with their folders, that may read secret bytes.
var mayExpose = []string{"internal/material", "internal/envelope", "internal/foreign", "internal/keyring"}

// Reading secret bytes is one word, and only the rooms that need them for cryptography may say it (CRYPTO.md, Material
// in memory). Tests are excepted: they compare.
func TestExposeStaysInItsRooms(t *testing.T) {
	found := 0
	for path, file := range productFiles(t, root) {
		n := len(exposures(file))
		found += n
		if n > 0 && !inRooms(path, mayExpose) {
			t.Errorf("%s reads secret bytes by Expose: hand the *material.Bytes to envelope, foreign or keyring instead", path)
		}
	}
	if found == 0 {
		t.Error("no Expose found at all: this test looks in the wrong place")
	}
}

// secretRooms are where secrets are compared.
var secretRooms = []string{"internal/material", "internal/envelope", "internal/foreign", "internal/keyring", "internal/authn"}

// GHSA-34fc-gh42-pj53 (row 54): a recovery token was compared byte by byte. Here nothing that is named like a secret is
// compared by an operator, and no general comparison of bytes is used at all in the rooms that hold secrets:
// crypto/subtle and hmac.Equal only.
func TestAdvisory_GHSA_34fc_gh42_pj53(t *testing.T) {
	looked := map[string]bool{}
	for path, file := range productFiles(t, root) {
		for _, room := range secretRooms {
			if inRooms(path, []string{room}) && !isHarness(path) {
				looked[room] = true
				for _, what := range leakyComparisons(file) {
					t.Errorf("%s: %s", path, what)
				}
			}
		}
	}
	if !looked["internal/material"] || !looked["internal/envelope"] {
		t.Errorf("looked only into %v", looked)
	}
}

// The rule finds what it is for, and leaves the rest alone.
func TestLeakyComparisonsAreFound(t *testing.T) {
	for code, want := range map[string]int{
		`bytes.Equal(a, b)`:                     1,
		`bytes.Compare(a, b) == 0`:              1,
		`slices.Equal(a, b)`:                    1,
		`reflect.DeepEqual(a, b)`:               1,
		`string(m.Expose()) == x`:               1,
		`tok.Hash == want`:                      1,
		`want != sha256.Sum256(secret)`:         1,
		`string(mac) != string(other)`:          1,
		`string(tag[:]) == s`:                   1,
		`token == "x"`:                          1,
		`hmac.Equal(mac, tag)`:                  0,
		`subtle.ConstantTimeCompare(a, b) == 1`: 0,
		`len(token) == 32`:                      0,
		`token == nil`:                          0,
		`token == ""`:                           0,
		`m.Len() != 32`:                         0,
		`header == other`:                       0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", "package p; var _ = "+code, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(leakyComparisons(file)); got != want {
			t.Errorf("%s: %d findings, want %d", code, got, want)
		}
	}
}

func exposures(file *ast.File) (calls []*ast.SelectorExpr) {
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Expose" {
			calls = append(calls, sel)
		}
		return true
	})
	return calls
}

var leakyCalls = map[string]bool{"bytes.Equal": true, "bytes.Compare": true, "slices.Equal": true, "slices.Compare": true, "reflect.DeepEqual": true}

var secretName = regexp.MustCompile(`(?i)^(.*(secret|token|hash|digest|passphrase|password|expose|sum256|sum512|checksum|okm|subkey).*|mac|tag|com|dk|want(mac|tag)|material|fingerprint)$`)

func leakyComparisons(file *ast.File) (found []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if name := dotted(n.Fun); leakyCalls[name] {
				found = append(found, name+" stops at the first difference: use hmac.Equal")
			}
		case *ast.BinaryExpr:
			if n.Op != token.EQL && n.Op != token.NEQ || isHarmless(n.X) || isHarmless(n.Y) {
				return true
			}
			for _, side := range []ast.Expr{n.X, n.Y} {
				if name := secretIn(side); name != "" {
					found = append(found, "an operator compares "+name+": use hmac.Equal")
					break
				}
			}
		}
		return true
	})
	return found
}

// isHarmless: comparing with nil, the empty string or a number tells whether something is there, not what it is.
func isHarmless(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "nil"
	case *ast.BasicLit:
		return e.Kind == token.INT || e.Value == `""`
	case *ast.CallExpr:
		name := dotted(e.Fun)
		return name == "len" || name == "cap" || strings.HasSuffix(name, ".Len")
	}
	return false
}

// secretIn is the name in e that sounds like a secret.
func secretIn(e ast.Expr) (name string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" && secretName.MatchString(id.Name) {
			name = id.Name
		}
		return name == ""
	})
	return name
}

func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	}
	return ""
}

// isHarness: a folder of test helpers compares what it made up itself.
func isHarness(file string) bool { return strings.HasSuffix(path.Dir(file), "test") }

func inRooms(path string, rooms []string) bool {
	for _, room := range rooms {
		if strings.HasPrefix(path, room+"/") {
			return true
		}
	}
	return false
}

// productFiles yields every Go file of the repository that isn't a test, by its path from the root.
func productFiles(t *testing.T, root string) map[string]*ast.File {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("the root of the repository isn't where this test thinks: %v", err)
	}
	files := map[string]*ast.File{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil // a file that doesn't parse doesn't build either; the compiler says so better
		}
		rel, err := filepath.Rel(root, path)
		files[filepath.ToSlash(rel)] = file
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
