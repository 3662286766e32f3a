package mysql_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/mysql"
)

var driver = mysql.Driver{}

func TestMain(m *testing.M) { mariatest.Main(m) }

// standard makes a session speak SQL as the suite of all connectors does.
var standard = map[string]string{
	"sql_mode":                 "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES'",
	"max_recursive_iterations": "10000000",
}

// fresh is a new database, spoken to by the application's own user. The connector has another one, with no right that
// encrypting a table doesn't need, except RELOAD, which has a flush of the log not wait.
func fresh(tb testing.TB) connectortest.Database {
	tb.Helper()
	return on(tb, mariatest.Start(tb))
}

func on(tb testing.TB, server *mariatest.Server) connectortest.Database {
	tb.Helper()
	address := server.Database(tb)
	db, err := mariatest.Open(address, standard)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	u := mustParse(tb, address)
	name := strings.TrimPrefix(u.Path, "/")
	d := connectortest.Database{
		URL: account(tb, server, db, name, "SELECT, UPDATE ON "+name+".*", "RELOAD ON *.*"),
		DB:  db,
		Rewrite: strings.NewReplacer("$1", "?", "$2", "?",
			"ON CONFLICT (id) DO UPDATE SET note = excluded.note", "ON DUPLICATE KEY UPDATE note = VALUES(note)").Replace,
	}
	d.Cut = func(tb testing.TB) { cut(tb, db, name) }
	return d
}

// account makes a user with some rights, and answers a URL for it.
func account(tb testing.TB, server *mariatest.Server, db *sql.DB, database string, grants ...string) string {
	tb.Helper()
	user := fmt.Sprintf("k%d%s", len(grants), database)
	statements := []string{"CREATE USER " + user + "@'%' IDENTIFIED BY 'pw-" + user + "'"}
	for _, g := range grants {
		statements = append(statements, "GRANT "+g+" TO "+user+"@'%'")
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
	tb.Cleanup(func() {
		if server.Running() {
			_ = server.Exec(context.Background(), server.URL(""), "DROP USER IF EXISTS "+user+"@'%'")
		}
	})
	return (&url.URL{Scheme: "mysql", User: url.UserPassword(user, "pw-"+user), Host: server.Address(), Path: "/" + database}).String()
}

// cut ends every connection of the connector's user.
func cut(tb testing.TB, db *sql.DB, name string) {
	tb.Helper()
	rows, err := db.Query("SELECT ID FROM information_schema.PROCESSLIST WHERE USER LIKE ?", "k_"+name)
	if err != nil {
		tb.Errorf("cutting connections: %v", err)
		return
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			tb.Error(err)
		}
		ids = append(ids, id)
	}
	rows.Close()
	for _, id := range ids {
		_, _ = db.Exec(fmt.Sprintf("KILL CONNECTION %d", id)) // it may have ended by itself
	}
}

func mustParse(tb testing.TB, text string) *url.URL {
	tb.Helper()
	u, err := url.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return u
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
	db, err := mysql.Driver{}.Open(tb.Context(), reencrypt.NewDSN(url), session)
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

func TestTorture(t *testing.T) { connectortest.Torture(t, harness(), 5000) }

func harness() connectortest.Harness {
	return connectortest.Harness{
		Driver: mysql.Driver{},
		Fresh:  fresh,
		Text:   "LONGTEXT", Bytes: "LONGBLOB", KeyText: "VARCHAR(100)",
		CaseBlind:    "LONGTEXT COLLATE utf8mb4_general_ci",
		BytesLiteral: func(b []byte) string { return "x'" + hex.EncodeToString(b) + "'" },
		Keys: []connectortest.KeyType{
			{Name: "TINYINT", Values: []string{"-128", "0", "127"}, Texts: []string{"-128", "0", "127"}},
			{Name: "SMALLINT UNSIGNED ZEROFILL", Values: []string{"0", "7", "65535"}, Texts: []string{"0", "7", "65535"}},
			{Name: "MEDIUMINT", Values: []string{"-8388608", "8388607"}, Texts: []string{"-8388608", "8388607"}},
			{Name: "INTEGER", Values: []string{"-1", "0", "2147483647"}, Texts: []string{"-1", "0", "2147483647"}},
			{Name: "BIGINT", Values: []string{"-9223372036854775808", "1", "9223372036854775807"}, Texts: []string{"-9223372036854775808", "1", "9223372036854775807"}},
			{Name: "BIGINT UNSIGNED", Values: []string{"0", "9223372036854775807", "9223372036854775808", "18446744073709551615"},
				Texts: []string{"0", "9223372036854775807", "9223372036854775808", "18446744073709551615"}},
			{Name: "DECIMAL(30,2)", Values: []string{"-1.5", "0", "12345678901234567890.10"}, Texts: []string{"-1.50", "0.00", "12345678901234567890.10"}},
			{Name: "VARCHAR(20)", Values: []string{"''", "'a'", "'B'", "'c d'", "'☃'", "'😀'", "'it''s'"}, Texts: []string{"", "a", "B", "c d", "☃", "😀", "it's"}},
			{Name: "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", Values: []string{"'A'", "'a'", "'Ä'", "'ä'"}, Texts: []string{"A", "a", "Ä", "ä"}},
			{Name: "VARCHAR(20) COLLATE utf8mb4_nopad_bin", Values: []string{"'a'", "'a '", "'a  '"}, Texts: []string{"a", "a ", "a  "}},
			{Name: "VARCHAR(20) COLLATE utf8mb4_unicode_ci", Values: []string{"'a'", "'b '", "'C'"}, Texts: []string{"a", "b ", "C"}},
			{Name: "VARCHAR(20) CHARACTER SET latin1", Values: []string{"'a'", "'é'", "'Z'", "'€'"}, Texts: []string{"a", "é", "Z", "€"}},
			{Name: "VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin", Values: []string{"'a'", "'A'"}, Texts: []string{"a", "A"}},
			{Name: "VARCHAR(20) CHARACTER SET utf16", Values: []string{"'a'", "'😀'", "'ö'"}, Texts: []string{"a", "😀", "ö"}},
			{Name: "CHAR(5)", Values: []string{"'a'", "'abc  '", "'abcde'"}, Texts: []string{"a", "abc", "abcde"}},
			{Name: "BINARY(4)", Values: []string{"x'00'", "x'61'", "x'ffffffff'"}, Texts: []string{"00000000", "61000000", "ffffffff"}},
			{Name: "BINARY(16)", Values: []string{"x'00000000000000000000000000000001'", "x'ff000000000000000000000000000000'"},
				Texts: []string{"00000000000000000000000000000001", "ff000000000000000000000000000000"}},
			{Name: "VARBINARY(20)", Values: []string{"x''", "x'00'", "x'0000'", "x'ff00'", "x'20'"}, Texts: []string{"", "00", "0000", "ff00", "20"}},
			{Name: "UUID", Values: []string{"'00000000-0000-0000-0000-000000000000'", "'123E4567-e89b-12d3-a456-426614174000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"},
				Texts: []string{"00000000-0000-0000-0000-000000000000", "123e4567-e89b-12d3-a456-426614174000", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
			{Name: "INET6", Values: []string{"'::1'", "'2001:db8::ff00:42:8329'"}, Texts: []string{"::1", "2001:db8::ff00:42:8329"}},
			{Name: "DATE", Values: []string{"'0000-00-00'", "'1999-12-31'", "'2026-01-15'"}, Texts: []string{"0000-00-00", "1999-12-31", "2026-01-15"}},
			{Name: "DATETIME(6)", Values: []string{"'0000-00-00'", "'2026-01-15 10:30:45.123456'", "'2026-01-15 10:30:45.1'"},
				Texts: []string{"0000-00-00 00:00:00.000000", "2026-01-15 10:30:45.123456", "2026-01-15 10:30:45.100000"}},
			{Name: "DATETIME", Values: []string{"'2026-01-15 10:30:45'", "'1999-12-31'"}, Texts: []string{"2026-01-15 10:30:45", "1999-12-31 00:00:00"}},
			{Name: "TIMESTAMP(3)", Values: []string{"FROM_UNIXTIME(1)", "FROM_UNIXTIME(1768473045.123)"}, Texts: []string{"1970-01-01 00:00:01.000", "2026-01-15 10:30:45.123"}},
			{Name: "TIME(2)", Values: []string{"'-838:59:59'", "'-00:00:01.5'", "'10:30:45.12'"}, Texts: []string{"-838:59:59.00", "-00:00:01.50", "10:30:45.12"}},
			{Name: "YEAR", Values: []string{"0", "1999", "2026"}, Texts: []string{"0", "1999", "2026"}},
		},
	}
}
