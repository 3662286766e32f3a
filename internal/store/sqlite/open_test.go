package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// raw opens the file without any of the store's settings.
func raw(t *testing.T, path string, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	return db
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(path string)
		code    api.Code
		says    string
	}{
		"another program's database": {func(p string) { raw(t, p, `CREATE TABLE bookmarks (url TEXT)`).Close() }, api.CodeIntegrity, "another program"},
		"no database": {func(p string) {
			if err := os.WriteFile(p, []byte(strings.Repeat("hello ", 900)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, api.CodeIntegrity, "not a database"},
		"a newer keyturn's tables": {func(p string) {
			st, err := sqlite.Open(t.Context(), p, sqlite.Config{})
			if err != nil {
				t.Fatal(err)
			}
			st.Close()
			raw(t, p, `INSERT INTO migrations (version_id, is_applied) VALUES (900, 1)`).Close()
		}, api.CodeUnavailable, "version 900"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyturn.db")
			c.prepare(path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = sqlite.Open(t.Context(), path, sqlite.Config{})
			if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || fault.NextOf(err) == "" {
				t.Errorf("got %v (%s), want %s, %q and a next step", err, fault.CodeOf(err), c.code, c.says)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the refused file was changed (%v)", err)
			}
		})
	}
}

// TestKilledBeforeWALMode (P1): a kill amid the first transactions, which come before WAL mode, leaves a half-written file
// and a rollback journal. The next opening plays that back and goes on.
func TestKilledBeforeWALMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	raw(t, path, `PRAGMA journal_mode = DELETE`, `PRAGMA user_version = 1`,
		`PRAGMA cache_size = 1`, `BEGIN`, `CREATE TABLE half (b BLOB)`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 200) INSERT INTO half SELECT randomblob(3000) FROM n`)
	killed := filepath.Join(t.TempDir(), "keyturn.db")
	for _, suffix := range []string{"", "-journal"} { // what the disk holds at this moment
		content, err := os.ReadFile(path + suffix)
		if err != nil || len(content) < 4096 {
			t.Fatalf("%q: %d bytes, %v: nothing to play back", suffix, len(content), err)
		}
		if err := os.WriteFile(killed+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st, err := sqlite.Open(t.Context(), killed, sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	if _, err := os.Stat(killed + "-journal"); !os.IsNotExist(err) {
		t.Errorf("the journal was not played back: %v", err)
	}
}

// TestAnotherWriterIsWaitedForThenNamed: a process that holds the file is waited for, and then named as the reason.
func TestAnotherWriterIsWaitedForThenNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	st, err := sqlite.Open(t.Context(), path, sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	holder := raw(t, path)
	if _, err := holder.Exec(`PRAGMA journal_mode = WAL; BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), path, sqlite.Config{BusyTimeout: 20 * time.Millisecond})
	if fault.CodeOf(err) != api.CodeBusy || fault.NextOf(err) == "" {
		t.Errorf("opening while another process writes: %v (%s), want busy", err, fault.CodeOf(err))
	}
	if _, err := holder.Exec(`COMMIT`); err != nil {
		t.Fatal(err)
	}
	if st, err = sqlite.Open(t.Context(), path, sqlite.Config{}); err != nil {
		t.Fatal(err)
	}
	st.Close()
}

// TestEveryWriterIsDurable reads the settings back from the connection that writes, a replaced one too (P1).
func TestEveryWriterIsDurable(t *testing.T) {
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), `odd ?#%41 name`, "keyturn.db"), sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for range 2 {
		for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1", "secure_delete": "1",
			"temp_store": "2", "application_id": "1263817265"} {
			var got string
			if err := st.DB().QueryRow(`PRAGMA ` + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("PRAGMA %s = %s (%v), want %s", pragma, got, err, want)
			}
		}
		if err := st.Durable(t.Context()); err != nil {
			t.Error(err)
		}
		st.DB().SetMaxIdleConns(0) // closes the connection; the next statement opens another
	}
	if _, err := st.DB().Exec(`PRAGMA synchronous = OFF; `); err != nil {
		t.Fatal(err)
	}
	st.DB().SetMaxIdleConns(1)
	if _, err := st.DB().Exec(`PRAGMA synchronous = NORMAL`); err != nil {
		t.Fatal(err)
	}
	if err := st.Durable(t.Context()); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "durable") {
		t.Errorf("with synchronous=NORMAL Durable says %v", err)
	}
}
