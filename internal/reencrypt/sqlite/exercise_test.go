package sqlite_test

import (
	"context"
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

// app is a database file spoken to through database/sql, as an application would.
type app struct {
	path string
	db   *sql.DB
}

func fresh(tb testing.TB, pragmas ...string) *app {
	tb.Helper()
	a := &app{path: filepath.Join(tb.TempDir(), "app ?#%.db")}
	query := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	u := url.URL{Scheme: "file", OmitHost: true, Path: a.path, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	a.db = db
	a.Exec(tb, "CREATE TABLE seed (x)", "DROP TABLE seed")
	return a
}

func (a *app) URL() string { return (&url.URL{Scheme: "sqlite", Path: a.path}).String() }

func (a *app) Exec(tb testing.TB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := a.db.Exec(s); err != nil {
			tb.Fatalf("%.200s: %v", s, err)
		}
	}
}

func (a *app) Rows(tb testing.TB, query string) (out [][][]byte) {
	tb.Helper()
	rows, err := a.db.Query(query)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			tb.Fatal(err)
		}
		out = append(out, connectortest.AsBytes(tb, values))
	}
	if rows.Err() != nil {
		tb.Fatal(rows.Err())
	}
	return out
}

func (a *app) Hold(tb testing.TB, statement string) func() {
	tb.Helper()
	tx, err := a.db.BeginTx(context.Background(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := tx.Exec(statement); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := tx.Commit(); err != nil {
			tb.Error(err)
		}
	}
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
