package sqlite_test

import (
	"database/sql"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the application's own driver

	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
)

// fresh is a new database file, spoken to through database/sql.
func fresh(tb testing.TB, pragmas ...string) connectortest.Database {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "app ?#%.db")
	query := url.Values{"_pragma": append([]string{"busy_timeout(30000)"}, pragmas...), "_txlock": {"immediate"}}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	d := connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: db}
	d.Exec(tb, "CREATE TABLE seed (x)", "DROP TABLE seed")
	return d
}

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

func TestExercise(t *testing.T) {
	for name, pragmas := range map[string][]string{"journal": {"journal_mode(DELETE)"}, "wal": {"journal_mode(WAL)", "synchronous(NORMAL)"}} {
		t.Run(name, func(t *testing.T) {
			connectortest.Exercise(t, connectortest.Harness{
				Driver: sqlite.Driver{},
				Fresh:  func(tb testing.TB) connectortest.Database { return fresh(tb, pragmas...) },
				Text:   "TEXT", Bytes: "BLOB",
				CaseBlind:    "TEXT COLLATE NOCASE",
				BytesLiteral: func(b []byte) string { return "x'" + hex.EncodeToString(b) + "'" },
				Keys: []connectortest.KeyType{
					{Name: "INTEGER", Values: []string{"-9223372036854775808", "-1", "0", "9223372036854775807"}, Texts: []string{"-9223372036854775808", "-1", "0", "9223372036854775807"}},
					{Name: "bigint", Values: []string{"-5", "0", "5"}, Texts: []string{"-5", "0", "5"}},
					{Name: "TEXT", Values: []string{"''", "'a'", "'A'", "'☃'", "'it''s'", "'5'"}, Texts: []string{"", "a", "A", "☃", "it's", "5"}},
					{Name: "TEXT COLLATE NOCASE", Values: []string{"'a'", "'b'", "'C'"}, Texts: []string{"a", "b", "C"}},
					{Name: "BLOB", Values: []string{"x''", "x'00'", "x'ff00'"}, Texts: []string{"", "00", "ff00"}},
					{Name: "", Values: []string{"1", "'one'", "x'abcd'"}, Texts: []string{"1", "one", "abcd"}},
					{Name: "DATETIME", Values: []string{"'2026-01-15 10:30:45'", "'1999-12-31'"}, Texts: []string{"2026-01-15 10:30:45", "1999-12-31"}},
				},
			})
		})
	}
}
