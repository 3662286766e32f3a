package sqlite_test

import (
	"encoding/hex"
	"net/url"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the application's own driver

	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// fresh is a new database file, as its application has it open. Its name needs quoting wherever it goes.
func fresh(tb testing.TB, pragmas ...string) connectortest.Database {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "its 100% #1? app.db")
	d := at(tb, path, pragmas...)
	d.Exec(tb, "CREATE TABLE seed (x)", "DROP TABLE seed")
	return d
}

// at is the file of that path, made if there is none.
func at(tb testing.TB, path string, pragmas ...string) connectortest.Database {
	tb.Helper()
	return connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: sqlitetest.Open(tb, path, pragmas...)}
}

// pathOf is the file of a database.
func pathOf(tb testing.TB, d connectortest.Database) string {
	tb.Helper()
	u, err := url.Parse(d.URL)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Path
}

// open opens the connector.
func open(tb testing.TB, url string) reencrypt.Database {
	tb.Helper()
	db, err := sqlite.Driver{}.Open(tb.Context(), reencrypt.NewDSN(url), reencrypt.Session{})
	if err != nil {
		tb.Fatalf("opening the database: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("closing the database: %v", err)
		}
	})
	return db
}

// harness is a file that was set up with these pragmas.
func harness(pragmas ...string) connectortest.Harness {
	return connectortest.Harness{
		Driver: sqlite.Driver{},
		Fresh:  func(tb testing.TB) connectortest.Database { return fresh(tb, pragmas...) },
		Text:   "TEXT", Bytes: "BLOB",
		CaseBlind:    "TEXT COLLATE NOCASE",
		BytesLiteral: func(b []byte) string { return "x'" + hex.EncodeToString(b) + "'" },
		Keys:         keyTypes,
	}
}

// TestExercise runs the suite of all connectors in the ways a file may be set up: where readers and the writer shut each
// other out (the rollback journals) and where they don't (WAL), and with text stored in UTF-16.
func TestExercise(t *testing.T) {
	for name, pragmas := range map[string][]string{
		"wal": {"journal_mode(WAL)", "synchronous(NORMAL)"}, "delete": {"journal_mode(DELETE)"}, "truncate": {"journal_mode(TRUNCATE)"},
		"utf16": {"encoding('UTF-16le')", "journal_mode(WAL)"},
	} {
		t.Run(name, func(t *testing.T) { connectortest.Exercise(t, harness(pragmas...)) })
	}
}

var keyTypes = []connectortest.KeyType{
	{Name: "INTEGER", Values: []string{"-9223372036854775808", "-1", "0", "9223372036854775807"}, Texts: []string{"-9223372036854775808", "-1", "0", "9223372036854775807"}},
	{Name: "bigint", Values: []string{"1", "2.5", "'three'", "-7"}, Texts: []string{"1", "2.5", "three", "-7"}},
	{Name: "real", Values: []string{"1", "2.5", "1e300", "-0.1"}, Texts: []string{"1", "2.5", "1e+300", "-0.1"}},
	{Name: "TEXT", Values: []string{"''", "'a'", "'A'", "'☃'", "'it''s'", "5"}, Texts: []string{"", "a", "A", "☃", "it's", "5"}},
	{Name: "TEXT COLLATE NOCASE", Values: []string{"'a'", "'B'", "'C'"}, Texts: []string{"a", "B", "C"}},
	{Name: "BLOB", Values: []string{"x''", "x'00'", "x'ff00'"}, Texts: []string{"", "00", "ff00"}},
	{Name: "", Values: []string{"1", "'one'", "'01'"}, Texts: []string{"1", "one", "01"}},
	{Name: "DATETIME", Values: []string{"'2026-01-15 10:30:45'", "'1999-12-31'"}, Texts: []string{"2026-01-15 10:30:45", "1999-12-31"}},
}
