package postgres_test

import (
	"context"
	"encoding/hex"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// app is a database spoken to through pgx, as an application would.
type app struct {
	server *pgtest.Server
	url    string
}

func fresh(tb testing.TB) *app {
	tb.Helper()
	s := pgtest.Start(tb)
	a := &app{s, s.Database(tb)}
	a.Exec(tb, "CREATE COLLATION caseblind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	return a
}

func (a *app) URL() string { return a.url }

func (a *app) Exec(tb testing.TB, statements ...string) {
	tb.Helper()
	if err := a.server.Exec(context.Background(), a.url, statements...); err != nil {
		tb.Fatal(err)
	}
}

func (a *app) connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(context.Background(), a.url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (a *app) Rows(tb testing.TB, query string) (out [][][]byte) {
	tb.Helper()
	conn := a.connect(tb)
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), query)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
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
	tx, err := a.connect(tb).Begin(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), statement); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := tx.Commit(context.Background()); err != nil {
			tb.Error(err)
		}
	}
}

func open(tb testing.TB, url string) reencrypt.Database {
	tb.Helper()
	db, err := postgres.Driver{}.Open(tb.Context(), reencrypt.NewDSN(url), reencrypt.Session{})
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
	connectortest.Exercise(t, connectortest.Harness{
		Driver: postgres.Driver{},
		Fresh:  func(tb testing.TB) connectortest.Database { return fresh(tb) },
		Text:   "text", Narrow: "varchar(64)", Bytes: "bytea",
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
	})
}
