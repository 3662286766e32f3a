package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/postgres"
)

// TestFlushIsDurable is the second of SPEED.md's traps: on a server that acknowledges before anything is on disk, what we
// wrote survives a crash by our own sessions' setting, and what the application wrote survives it after a flush.
func TestFlushIsDurable(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "0"}})
	url := server.Database(t)
	app, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"CREATE TABLE t (id bigint PRIMARY KEY, v text)", "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i"} {
		if _, err := app.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	w := connectortest.Work(t, open(t, url), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	connectortest.MustFinish(t, w)
	if _, err := app.Exec(t.Context(), "INSERT INTO t VALUES (2000, 'theirs')"); err != nil {
		t.Fatal(err)
	}
	if err := w.Target.Flush(t.Context()); err != nil {
		t.Fatalf("flushing: %v", err)
	}
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	tallies, err := reencrypt.Count(t.Context(), w.Target, 1, connectortest.All)
	if err != nil || tallies[0].Versions[reencrypt.VersionOf{Key: keys.ID(), Version: 1}] != 1000 || tallies[0].Plaintext != 1 {
		t.Errorf("after the crash: %+v, %v", tallies, err)
	}
}

// TestSessions: what our connections look like to the people who run the database.
func TestSessions(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')",
		"CREATE TABLE seen (name text, setting text)",
		`CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen SELECT name, setting FROM pg_settings; RETURN NEW; END'`,
		"CREATE TRIGGER see AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION see()",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_isolation = serializable'; END $$")
	connectortest.MustFinish(t, connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt))
	got := map[string]string{}
	for _, row := range d.Rows(t, "SELECT name, setting FROM seen") {
		got[string(row[0])] = string(row[1])
	}
	for name, want := range map[string]string{
		"synchronous_commit": "on", "application_name": "keyturn", "lock_timeout": "200", "statement_timeout": "60000",
		"idle_in_transaction_session_timeout": "5000",
		"max_parallel_workers_per_gather":     "0",
		"row_security":                        "off", "transaction_isolation": "read committed", "client_encoding": "UTF8",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// TestPagesArePlannedOnce: after the first five, no page is planned with its values in it (decided by the server, by its estimate).
func TestPagesArePlannedOnce(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)", "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 400) i",
		"CREATE TABLE plans (statement text, with_values bigint, without bigint)",
		`CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO plans SELECT name, custom_plans, generic_plans FROM pg_prepared_statements; RETURN NULL; END'`,
		"CREATE TRIGGER see AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION see()")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	w.Batch = 10
	connectortest.MustFinish(t, w)
	row := d.Rows(t, "SELECT (max(with_values) <= 5 AND sum(without) >= 30)::text, max(with_values)::text, sum(without)::text FROM (SELECT max(with_values) AS with_values, max(without) AS without FROM plans GROUP BY statement) AS s")[0]
	if string(row[0]) != "true" { // 40 pages by two writers
		t.Errorf("pages planned with their values: %s of a writer; without: %s", row[1], row[2])
	}
}

// TestAdvisory_CVE_2024_6104 is about connection URLs in logs: nothing prints a password, however the URL is broken, and
// what is printed on purpose has none.
func TestAdvisory_CVE_2024_6104(t *testing.T) {
	const password = "c4n4ry-pa55"
	dsn := reencrypt.NewDSN("postgres://app:" + password + "@db.example.com:5433/clinic?sslmode=verify-full")
	printable, err := postgres.Driver{}.Parse(dsn)
	if err != nil || printable != "postgres://app@db.example.com:5433/clinic?sslmode=verify-full" {
		t.Errorf("printable form: %q, %v", printable, err)
	}
	_, err = postgres.Driver{}.Open(t.Context(), reencrypt.NewDSN("postgres://app:"+password+"@127.0.0.1:1/clinic"), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeUnavailable || strings.Contains(fmt.Sprintf("%v %+v %s %s", err, dsn, fault.MessageOf(err), fault.NextOf(err)), password) {
		t.Errorf("a server that isn't there: %v", err)
	}
	server := pgtest.Own(t, pgtest.Options{TCP: true})
	wrong := strings.Replace(server.URL("postgres"), "keyturn:", "keyturn:"+password, 1)
	_, err = postgres.Driver{}.Open(t.Context(), reencrypt.NewDSN(wrong), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeDenied || fault.FieldOf(err) != "db" || fault.NextOf(err) == "" || strings.Contains(fmt.Sprint(err)+fault.NextOf(err), password) {
		t.Errorf("a wrong password: %v", err)
	}
	_, err = postgres.Driver{}.Open(t.Context(), reencrypt.NewDSN(server.URL("nowhere")), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a database that isn't there: %v", err)
	}
}

// TestURLs: what a URL may say. What names a file of the server's host, or changes the session, may not come through the API.
func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://u@h/d":                                    "postgres://u@h/d",
		"postgresql://u:p@h:1/d":                              "postgres://u@h:1/d",
		"postgres://u@[::1]:5432/d":                           "postgres://u@[::1]:5432/d",
		"postgres://u%40x:p%2F@h/d%20e":                       "postgres://u%40x@h/d%20e",
		"postgres://u@/d?host=%2Frun%2Fpostgresql":            "postgres://u@/d?host=%2Frun%2Fpostgresql",
		"postgres://u@h/d?sslmode=disable&port=1":             "postgres://u@h/d?port=1&sslmode=disable",
		"postgres://u@h/d?sslrootcert=/etc/passwd":            "",
		"postgres://u@h/d?passfile=/etc/passwd":               "",
		"postgres://u@h/d?service=x":                          "",
		"postgres://u@h/d?options=-csynchronous_commit%3Doff": "",
		"postgres://u@h/d?sslmode=disable&sslmode=prefer":     "",
		"postgres://u@h/d?host=/tmp":                          "",
		"postgres://u@/d?host=tmp":                            "",
		"postgres://u@/d?host=/a/../b":                        "",
		"postgres://u@h/d?port=x":                             "",
		"postgres://u@h/d#x":                                  "",
		"postgres://u@h/d/e":                                  "",
		"postgres://u@h/":                                     "",
		"postgres://h/d":                                      "",
		"postgres://u@/d":                                     "",
		"mysql://u@h/d":                                       "",
		"host=h user=u dbname=d":                              "",
		"":                                                    "",
	} {
		got, err := postgres.Driver{}.Parse(reencrypt.NewDSN(url))
		if got != want || (want == "") != (fault.CodeOf(err) == api.CodeInvalid) {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
}

// TestEnvironmentDoesNotCount: the server's own PG… variables hold credentials that are nobody else's.
func TestEnvironmentDoesNotCount(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{TCP: true})
	url := server.URL("postgres")
	good, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSWORD", good.Password)
	t.Setenv("PGOPTIONS", "-c synchronous_commit=off")
	_, err = postgres.Driver{}.Open(context.Background(), reencrypt.NewDSN(strings.Replace(url, ":"+good.Password+"@", "@", 1)), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("without a password in the URL: %v", err)
	}
}
