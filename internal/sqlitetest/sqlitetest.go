// Package sqlitetest opens SQLite files for tests as a second program would: the store of a server that runs, or an
// application's database while keyturn works on it.
//
//	db := sqlitetest.Open(t, filepath.Join(dir, "keyturn.db"))
//	sqlitetest.Exec(t, path, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT)`)
//
// SQLite has one writer at a time, and answers SQLITE_BUSY at once to whoever hasn't said how long to wait. These connections
// wait, and their transactions take the lock when they begin: one that began by reading could not wait for it later
// (https://www.sqlite.org/lang_transaction.html).
package sqlitetest

import (
	"database/sql"
	"net/url"
	"testing"

	_ "modernc.org/sqlite"
)

// Open opens the file path, and makes it when there is none; pragmas ("journal_mode(WAL)") hold on every connection. It is
// closed with the test.
func Open(t testing.TB, path string, pragmas ...string) *sql.DB {
	t.Helper()
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"_pragma": append([]string{"busy_timeout(60000)"}, pragmas...),
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Exec runs statements one after another on one connection, which it closes.
func Exec(t testing.TB, path string, statements ...string) {
	t.Helper()
	db := Open(t, path)
	defer db.Close()
	db.SetMaxOpenConns(1) // ATTACH and PRAGMA are a connection's
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
