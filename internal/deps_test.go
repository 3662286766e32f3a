// Package internal_test holds the house to its plan: which room stands on which floor, and that stairs only go down.
// The plan is docs/architecture.md; a broken rule fails here with the file that breaks it.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn"

// floors lists the rooms from the ground up. A room may import rooms of earlier rows only; rooms of one row are
// neighbours and never import one another. A driver (a folder inside a room of driverRooms) imports its own room and what
// that room may import.
var floors = [][]string{
	{"api"},
	{"internal/fault", "internal/failpoint", "internal/buildinfo", "internal/clock"},
	{"internal/material"},
	{"internal/envelope", "internal/foreign"},
	{"."}, // the SDK: users' programs; api and the ground only
	{"internal/keys", "internal/access", "internal/audit", "internal/jobs", "internal/datasets", "internal/incidents"},
	{"internal/store", "internal/keyring", "internal/authn"},
	{"internal/gate", "internal/runner"},
	{"internal/kms", "internal/reencrypt", "internal/oversight"},
	{"internal/rotation", "internal/report", "internal/incident"},
	{"internal/httpapi"},
	{"internal/server"},
	{"embedded"},
	{"keyturntest", "internal/demo"},
	{"cmd/keyturn"},
}

// driverRooms are the rooms whose sub-folders are drivers: only the room itself's floor, the server and tests' harnesses may name them.
var driverRooms = []string{"internal/store", "internal/keyring", "internal/authn", "internal/reencrypt"}

// outside are tools and test harnesses; they may import anything, and nothing of the house imports them.
var outside = []string{"internal/pgtest", "internal/vaulttest", "internal/mariatest", "internal/mototest", "internal/sqlitetest", "internal/proctest", "internal/faulttest", "internal/tools", "internal/bench", "internal/pins", "internal/soak"}

// harness folders live inside a room for its drivers' tests and are imported by tests only.
func isHarness(room string) bool {
	base := path.Base(room)
	return base == "storetest" || base == "keyringtest" || base == "connectortest"
}

// fences says who alone may import a package from outside the house (prefix match): rooms or their drivers.
var fences = map[string][]string{
	"database/sql":               {".", "internal/store", "internal/reencrypt", "internal/runner", "internal/demo"}, // SDK: driver.Valuer; runner: River's *sql.Tx; demo: its own application
	"github.com/jackc/pgx":       {"internal/store", "internal/reencrypt"},
	"github.com/go-sql-driver":   {"internal/reencrypt"},
	"modernc.org/sqlite":         {"internal/store", "internal/reencrypt", "internal/demo"},
	"net/http":                   {".", "internal/authn", "internal/keyring", "internal/httpapi", "internal/server", "embedded", "cmd/keyturn"},
	"github.com/riverqueue":      {"internal/runner", "internal/store"},
	"github.com/aws":             {"internal/keyring"},
	"github.com/miekg/pkcs11":    {"internal/keyring"},
	"github.com/spf13/cobra":     {"cmd/keyturn"},
	"github.com/danielgtaylor":   {"internal/httpapi"},
	"github.com/knadh/koanf":     {"internal/server"},
	"golang.org/x/mod/sumdb":     {"internal/audit"},
	"github.com/prometheus":      {"internal/httpapi", "internal/server"},
	"github.com/pressly/goose":   {"internal/store"},
	"github.com/openbao":         {"internal/keyring"},
	"github.com/ProtonMail":      {"internal/foreign"},
	"github.com/fernet":          {},
	"github.com/tink-crypto":     {},
	"pgregory.net/rapid":         {},
	"github.com/anishathalye":    {}, // porcupine: tests only
	"github.com/hanwen/go-fuse":  {},
	"github.com/rogpeppe":        {},
	"github.com/golang-jwt/jwt":  {},
	"encoding/gob":               {},
	"text/template":              {},
	"unsafe":                     {},
	"crypto/md5":                 {},
	"github.com/go-playground/":  {"internal/server"},
	"github.com/robfig/cron":     {"internal/runner", "internal/jobs"},
	"crypto/sha1":                {},
	"math/rand":                  {"internal/demo", "internal/runner"}, // fictitious patients; jitter
	"golang.org/x/crypto/argon2": {"internal/authn"},
}

// pureRooms do no I/O and never look at a clock: time and randomness are arguments.
var pureRooms = []string{"internal/keys", "internal/access", "internal/audit", "internal/jobs", "internal/datasets", "internal/incidents"}

type source struct {
	file, room string
	imports    []string
	ast        *ast.File
	fset       *token.FileSet
}

func TestStairsGoOneWay(t *testing.T) {
	floorOf := map[string]int{}
	for i, rooms := range floors {
		for _, r := range rooms {
			floorOf[r] = i
		}
	}
	seen := map[string]bool{}
	for _, s := range sources(t) {
		from := home(s.room)
		if slices.Contains(outside, from) || isHarness(s.room) {
			continue
		}
		seen[from] = true
		floor, ok := floorOf[from]
		if !ok {
			t.Errorf("%s: room %q stands on no floor: add it to the list above and to docs/architecture.md", s.file, from)
			continue
		}
		for _, imp := range s.imports {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				continue
			}
			full := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			if full == "" {
				full = "."
			}
			to := home(full)
			if slices.Contains(outside, to) || isHarness(full) {
				if from != "keyturntest" {
					t.Errorf("%s imports %s, which is for tests and tools only", s.file, full)
				}
				continue
			}
			if to == from {
				if full != to && s.room == from {
					t.Errorf("%s: room %s imports its own driver %s; only server joins drivers", s.file, from, full)
				}
				continue
			}
			if full != to && from != "internal/server" {
				t.Errorf("%s imports the driver %s; only server may", s.file, full)
			}
			if floorOf[to] >= floor {
				t.Errorf("%s: %s (floor %d) imports %s (floor %d): stairs only go down", s.file, from, floor, to, floorOf[to])
			}
		}
	}
	for room := range floorOf {
		if !seen[room] {
			t.Errorf("floor list names %q, which does not exist", room)
		}
	}
}

func TestSDKImportsOnlyTheGround(t *testing.T) {
	allowed := []string{"api", "internal/fault", "internal/material", "internal/envelope"}
	for _, s := range sources(t) {
		if s.room != "." {
			continue
		}
		for _, imp := range s.imports {
			if rest, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(allowed, rest) {
				t.Errorf("%s imports %s: a program that only dials must not link a server", s.file, rest)
			}
		}
	}
}

func TestFences(t *testing.T) {
	for _, s := range sources(t) {
		from := home(s.room)
		if slices.Contains(outside, from) || isHarness(s.room) || from == "keyturntest" {
			continue
		}
		for _, imp := range s.imports {
			for prefix, who := range fences {
				if (imp == prefix || strings.HasPrefix(imp, strings.TrimSuffix(prefix, "/")+"/")) && !slices.Contains(who, from) {
					t.Errorf("%s imports %s; only %v may", s.file, imp, who)
				}
			}
		}
	}
}

func TestFloorOneIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if !slices.Contains(pureRooms, s.room) {
			continue
		}
		for _, imp := range s.imports {
			if imp == "os" || imp == "crypto/rand" || imp == "math/rand/v2" || imp == "net" || imp == "log/slog" {
				t.Errorf("%s imports %s: rooms of floor 1 do no I/O; take it as an argument", s.file, imp)
			}
		}
		forbidCalls(t, s, "time", "Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker")
	}
}

func TestNoInitAndNoDefaultLogger(t *testing.T) {
	for _, s := range sources(t) {
		if home(s.room) == "internal/pins" {
			continue
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init(): registration is a visible line in server instead", s.file)
			}
		}
		for _, imp := range s.imports {
			if imp == "log" && !isHarness(s.room) {
				t.Errorf("%s imports log; use the *slog.Logger that you were given", s.file)
			}
		}
	}
}

func TestEveryPackageTeaches(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if s.ast.Doc != nil {
			docs[s.room] += len(s.ast.Doc.Text())
		} else {
			docs[s.room] += 0
		}
	}
	for room, n := range docs {
		if n < 120 {
			t.Errorf("package %s: a doc comment of %d characters teaches nobody", room, n)
		}
	}
}

func forbidCalls(t *testing.T, s source, pkg string, names ...string) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && id.Name == pkg && id.Obj == nil && slices.Contains(names, sel.Sel.Name) {
			t.Errorf("%s: %s.%s: time is an argument here", s.fset.Position(sel.Pos()), pkg, sel.Sel.Name)
		}
		return true
	})
}

// home is the room a package belongs to: its own path, or for a driver or a sub-package the room above it.
func home(pkg string) string {
	for _, rooms := range append(floors, outside, driverRooms) {
		for _, r := range rooms {
			if r != "." && (pkg == r || strings.HasPrefix(pkg, r+"/")) {
				return r
			}
		}
	}
	return pkg
}

// sources parses every Go file of the house that is not a test.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" && p == filepath.Join("..", "tools") || name == "vaultserver") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room, err := filepath.Rel("..", filepath.Dir(p))
		if err != nil {
			return err
		}
		s := source{file: p, room: filepath.ToSlash(room), ast: f, fset: fset}
		for _, imp := range f.Imports {
			v, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, v)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatalf("reading the house: %v", err)
	}
	if len(out) < 5 {
		t.Fatalf("found %d files only: is the test looking at the right folder?", len(out))
	}
	return out
}
