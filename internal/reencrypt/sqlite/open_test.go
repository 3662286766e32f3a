package sqlite_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
)

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"sqlite:///srv/app.db":               "sqlite:///srv/app.db",
		"SQLite:///srv/app.db":               "sqlite:///srv/app.db",
		"sqlite:/srv/app.db":                 "sqlite:///srv/app.db",
		"sqlite:///srv/./x/../app.db":        "sqlite:///srv/app.db",
		"sqlite:///srv/a%20b%3F%23%25.db":    "sqlite:///srv/a%20b%3F%23%25.db",
		"sqlite:///srv/ü.db":                 "sqlite:///srv/%C3%BC.db",
		"sqlite:relative.db":                 "",
		"sqlite://relative/app.db":           "",
		"sqlite://localhost/app.db":          "",
		"sqlite://user:secret@/srv/app.db":   "",
		"sqlite:///srv/app.db?mode=memory":   "",
		"sqlite:///srv/app.db?":              "",
		"sqlite:///srv/app.db#x":             "",
		"sqlite:///srv/a%00.db":              "",
		"sqlite:///srv/":                     "",
		"sqlite:///":                         "",
		"sqlite:":                            "",
		"sqlite::memory:":                    "",
		"sqlite:///srv/%zz":                  "",
		"postgres://user@host/db":            "",
		"/srv/app.db":                        "",
		"":                                   "",
		"file:///srv/app.db":                 "",
		"sqlite:///..":                       "",
		"sqlite:///srv/app.db;ATTACH 'x'":    "sqlite:///srv/app.db;ATTACH%20%27x%27",
		"sqlite:///srv/app.db&_pragma=x(1)":  "sqlite:///srv/app.db&_pragma=x%281%29",
		"sqlite:///srv/x.db%3F_pragma=y":     "sqlite:///srv/x.db%3F_pragma=y",
		"sqlite:///srv/x.db%26vfs=unix-none": "sqlite:///srv/x.db&vfs=unix-none",
	} {
		got, err := sqlite.Driver{}.Parse(reencrypt.NewDSN(url))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parsing %q: %q, %v, want %q", url, got, err, want)
		}
		if err != nil && (fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "db" || fault.NextOf(err) == "" || strings.Contains(err.Error(), "secret")) {
			t.Errorf("parsing %q: %v (field %q, next %q)", url, err, fault.FieldOf(err), fault.NextOf(err))
		}
		if again, _ := (sqlite.Driver{}).Parse(reencrypt.NewDSN(got)); want != "" && again != got {
			t.Errorf("what is printed of %q is another URL when it is read again: %q", url, again)
		}
	}
}

// TestOpenRefuses: what isn't a database of somebody's is refused in plain words, and nothing is made in its place.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("text", strings.Repeat("Dear diary, this is no database. ", 100))
	write("encrypted", strings.Repeat("\x8f\x03\xd1", 2000))
	write("file", "")
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	for name, code := range map[string]api.Code{
		"missing": api.CodeNotFound, "no/such/dir": api.CodeNotFound, "dangling": api.CodeNotFound, "dir": api.CodeInvalid,
		"text": api.CodeInvalid, "encrypted": api.CodeInvalid, "file/below": api.CodeUnavailable,
	} {
		db, err := sqlite.Driver{}.Open(t.Context(), reencrypt.NewDSN("sqlite://"+filepath.Join(dir, name)), reencrypt.Session{})
		if err == nil {
			db.Close()
		}
		if fault.CodeOf(err) != code || fault.FieldOf(err) != "db" {
			t.Errorf("opening %s: code %q, field %q: %v", name, fault.CodeOf(err), fault.FieldOf(err), err)
		}
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the directory was\n%s\nand is now\n%s", before, after)
	}
}

// listing is every file below a directory with its mode.
func listing(tb testing.TB, dir string) string {
	tb.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			out.WriteString(info.Mode().String() + " " + path + "\n")
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

// TestFileStaysTheApplications: a whole life of a column leaves everything but its values as it was: the file's mode and
// owner, what stands in its header, its schema, and no file beside it that wasn't there.
func TestFileStaysTheApplications(t *testing.T) {
	for _, journal := range []string{"WAL", "DELETE"} {
		t.Run(journal, func(t *testing.T) {
			app := fresh(t, "journal_mode("+journal+")", "page_size(8192)")
			app.Exec(t, "PRAGMA user_version = 4711", "PRAGMA application_id = 99", "CREATE TABLE people (id INTEGER PRIMARY KEY, ssn TEXT)",
				"CREATE INDEX by_ssn ON people (ssn)", "INSERT INTO people VALUES (1, 'one'), (2, 'two')")
			path := pathOf(t, app)
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			if err := chown(path); err != nil {
				t.Fatal(err)
			}
			state := func() string {
				var out strings.Builder
				for _, pragma := range []string{"journal_mode", "user_version", "application_id", "page_size", "encoding", "auto_vacuum", "schema_version", "integrity_check"} {
					out.WriteString(pragma + " " + string(app.Rows(t, "PRAGMA "+pragma)[0][0]) + "\n")
				}
				for _, row := range app.Rows(t, "SELECT sql FROM sqlite_schema") {
					out.Write(row[0])
				}
				return out.String() + owner(t, path) + listing(t, filepath.Dir(path))
			}
			before := state()
			keys := connectortest.NewKeySet(envelope.SuiteStandard)
			db := open(t, app.URL)
			columns := map[string]*connectortest.KeySet{"ssn": keys}
			for _, kind := range []reencrypt.Kind{reencrypt.KindEncrypt, reencrypt.KindReencrypt, reencrypt.KindVerify, reencrypt.KindDecrypt} {
				keys.Rotate()
				connectortest.MustFinish(t, connectortest.Work(t, db, "people", columns, kind))
			}
			if after := state(); after != before {
				t.Errorf("the file was\n%s\nand is now\n%s", before, after)
			}
		})
	}
}

// TestHeldExclusively: an application that lets nobody in is named, not taken for a broken file.
func TestHeldExclusively(t *testing.T) {
	app := fresh(t, "journal_mode(DELETE)", "locking_mode(EXCLUSIVE)")
	app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, ssn TEXT)")
	_, err := sqlite.Driver{}.Open(t.Context(), reencrypt.NewDSN(app.URL), reencrypt.Session{LockTimeout: time.Millisecond})
	if fault.CodeOf(err) != api.CodeBusy || fault.FieldOf(err) != "db" || fault.NextOf(err) == "" {
		t.Errorf("opening a file that is held: %v", err)
	}
}
