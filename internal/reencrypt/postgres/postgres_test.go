package postgres_test

import (
	"database/sql"
	"encoding/hex"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the application's own driver

	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fresh is a new database, spoken to by pgx's driver for database/sql.
func fresh(tb testing.TB) connectortest.Database {
	tb.Helper()
	server := pgtest.Start(tb)
	url := server.Database(tb)
	db, err := sql.Open("pgx", url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	d := connectortest.Database{URL: url, DB: db, Cut: func(tb testing.TB) {
		tb.Helper()
		_, err := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyturn' AND datname = current_database()")
		if err != nil {
			tb.Errorf("cutting connections: %v", err)
		}
	}}
	d.Exec(tb, "CREATE COLLATION caseblind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	return d
}

func open(tb testing.TB, url string) reencrypt.Database {
	tb.Helper()
	return openAs(tb, url, reencrypt.Session{})
}

// patient is for a run that goes on for long and must succeed: a machine that stands still for some seconds in the midst of a page
// takes no transaction back. A job would take up such a page again.
var patient = reencrypt.Session{IdleInTransaction: time.Minute}

func openAs(tb testing.TB, url string, session reencrypt.Session) reencrypt.Database {
	tb.Helper()
	db, err := postgres.Driver{}.Open(tb.Context(), reencrypt.NewDSN(url), session)
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

func TestExercise(t *testing.T) { connectortest.Exercise(t, harness()) }

func harness() connectortest.Harness {
	return connectortest.Harness{
		Driver: postgres.Driver{},
		Fresh:  fresh,
		Text:   "text", Bytes: "bytea",
		CaseBlind:    "text COLLATE caseblind",
		BytesLiteral: func(b []byte) string { return `'\x` + hex.EncodeToString(b) + `'` },
		Keys: []connectortest.KeyType{
			{Name: "smallint", Values: []string{"-32768", "0", "7", "32767"}, Texts: []string{"-32768", "0", "7", "32767"}},
			{Name: "integer", Values: []string{"-1", "0", "2147483647"}, Texts: []string{"-1", "0", "2147483647"}},
			{Name: "bigint", Values: []string{"-9223372036854775808", "1", "9223372036854775807"}, Texts: []string{"-9223372036854775808", "1", "9223372036854775807"}},
			{Name: "text", Values: []string{"''", "'a'", "'A'", "'☃'", "'it''s'"}, Texts: []string{"", "a", "A", "☃", "it's"}},
			{Name: "text COLLATE caseblind", Values: []string{"'a'", "'b'", "'C'"}, Texts: []string{"a", "b", "C"}},
			{Name: "varchar(20)", Values: []string{"''", "'x'", "'y z'"}, Texts: []string{"", "x", "y z"}},
			{Name: "character(3)", Values: []string{"'a'", "'abc'"}, Texts: []string{"a  ", "abc"}},
			{Name: "uuid", Values: []string{"'00000000-0000-0000-0000-000000000000'", "'123E4567-e89b-12d3-a456-426614174000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"},
				Texts: []string{"00000000-0000-0000-0000-000000000000", "123e4567-e89b-12d3-a456-426614174000", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
			{Name: "bytea", Values: []string{`'\x'`, `'\x00'`, `'\xff00'`}, Texts: []string{"", "00", "ff00"}},
			{Name: "numeric", Values: []string{"-1.5", "0", "12345678901234567890.10"}, Texts: []string{"-1.5", "0", "12345678901234567890.10"}},
			{Name: "timestamptz", Values: []string{"'2026-01-15 10:30:45.123456+02'", "'1999-12-31 23:59:59Z'"},
				Texts: []string{"2026-01-15 08:30:45.123456+00", "1999-12-31 23:59:59+00"}},
			{Name: "date", Values: []string{"'2026-01-15'", "'0044-03-15 BC'"}, Texts: []string{"2026-01-15", "0044-03-15 BC"}},
			{Name: "boolean", Values: []string{"true", "false"}, Texts: []string{"true", "false"}},
			{Name: "inet", Values: []string{"'10.0.0.1'", "'::1'"}, Texts: []string{"10.0.0.1/32", "::1/128"}},
		},
	}
}
