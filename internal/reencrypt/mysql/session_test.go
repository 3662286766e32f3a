package mysql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/mysql"
)

// TestFlushIsDurable is the second of the traps of re-encryption: on a server that acknowledges before anything is on disk,
// what was acknowledged survives a crash after a flush, also where the connector may not have the log written at once.
func TestFlushIsDurable(t *testing.T) {
	server := mariatest.Own(t, mariatest.Options{Settings: map[string]string{"innodb-flush-log-at-trx-commit": "0", "log-bin": "binary", "sync-binlog": "0"}})
	d := on(t, server)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)",
		"INSERT INTO t SELECT i, 'v' || i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n) AS s")
	for i, url := range []string{d.URL, account(t, server, d.DB, databaseOf(t, d), "SELECT, UPDATE ON "+databaseOf(t, d)+".*")} {
		keys := connectortest.NewKeySet(envelope.SuiteStandard)
		w := connectortest.Work(t, open(t, url), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		d.Exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d, 'theirs')", 2000+i))
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
		if want := int64(1000); err != nil || tallies[0].Versions[reencrypt.VersionOf{Key: keys.ID(), Version: 1}] != want || tallies[0].Plaintext != 1 {
			t.Errorf("after the crash: %+v, %v", tallies, err)
		}
		d.Exec(t, "DELETE FROM t WHERE id >= 2000", "UPDATE t SET v = 'v' || id")
	}
}

// TestSessions: what our connections look like to a trigger of the application's, on a server that is set up otherwise.
func TestSessions(t *testing.T) {
	server := mariatest.Own(t, mariatest.Options{Settings: map[string]string{"sql-mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT", "transaction-isolation": "SERIALIZABLE",
		"default-time-zone": "+05:00", "character-set-server": "latin1", "skip-character-set-client-handshake": "", "sql-safe-updates": "1", "completion-type": "RELEASE", "autocommit": "0", "max-join-size": "10"}})
	d := on(t, server)
	d.Exec(t, "SET GLOBAL log_bin_trust_function_creators = 1", "CREATE TABLE t (id bigint PRIMARY KEY, v text CHARACTER SET utf8mb4)", "INSERT INTO t VALUES (1, CONVERT(x'e29883' USING utf8mb4)), (2, 'b'), (3, 'c')", "COMMIT AND NO CHAIN NO RELEASE",
		"CREATE TABLE seen (name varchar(99), setting varchar(999))",
		"CREATE TRIGGER see AFTER UPDATE ON t FOR EACH ROW INSERT INTO seen VALUES ('time_zone', @@time_zone), ('isolation', @@tx_isolation)")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	connectortest.MustFinish(t, connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt))
	if got := connectortest.Open(t, "t", []string{"id"}, []string{"1"}, "v", keys, d.Rows(t, "SELECT CAST(v AS BINARY) FROM t WHERE id = 1")[0][0]); got != "☃" {
		t.Errorf("a text went through as %q", got)
	}
	got := map[string]string{}
	for _, row := range d.Rows(t, "SELECT name, setting FROM seen") {
		got[string(row[0])] = string(row[1])
	}
	for name, want := range map[string]string{"time_zone": "+00:00", "isolation": "READ-COMMITTED"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// TestAdvisory_CVE_2024_6104 is about connection URLs in logs: nothing prints a password, however the URL is broken, and
// what is printed on purpose has none.
func TestAdvisory_CVE_2024_6104(t *testing.T) {
	const password = "c4n4ry-pa55"
	dsn := reencrypt.NewDSN("mysql://app:" + password + "@db.example.com:3307/clinic?tls=verify-full")
	printable, err := mysql.Driver{}.Parse(dsn)
	if err != nil || printable != "mysql://app@db.example.com:3307/clinic?tls=verify-full" {
		t.Errorf("printable form: %q, %v", printable, err)
	}
	for _, url := range []string{
		"mysql://u:" + password + "@[::1/db", "mysql://u:" + password + "@h:port/db", "mysql://u:%zz" + password + "@h/db", "mysql://u@h/db?password=" + password,
		"mysql://u@h/db?tls=" + password, "mysql://:" + password + "@h/db", "mysql://u:" + password + "@/db", "mariadb:" + password, "mysql://u:" + password + "#@h/db",
	} {
		if printable, err := (mysql.Driver{}).Parse(reencrypt.NewDSN(url)); err == nil || strings.Contains(printable+fmt.Sprint(err)+fault.NextOf(err), password) {
			t.Errorf("parsing quotes the password: %q, %v", printable, err)
		}
	}
	_, err = mysql.Driver{}.Open(t.Context(), reencrypt.NewDSN("mysql://app:"+password+"@127.0.0.1:1/clinic"), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeUnavailable || strings.Contains(fmt.Sprintf("%v %+v %s %s", err, dsn, fault.MessageOf(err), fault.NextOf(err)), password) {
		t.Errorf("a server that isn't there: %v", err)
	}
	d := fresh(t)
	u := mustParse(t, d.URL)
	wrong := strings.Replace(d.URL, ":pw-", ":"+password, 1)
	_, err = mysql.Driver{}.Open(t.Context(), reencrypt.NewDSN(wrong), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeDenied || fault.FieldOf(err) != "db" || fault.NextOf(err) == "" || strings.Contains(fmt.Sprint(err)+fault.NextOf(err), password) {
		t.Errorf("a wrong password: %v", err)
	}
	_, err = mysql.Driver{}.Open(t.Context(), reencrypt.NewDSN(mariatest.Start(t).URL("nowhere")), reencrypt.Session{})
	if fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a database that isn't there: %v", err)
	}
	// A server without TLS is never spoken to in clear when the URL wants it encrypted.
	u.RawQuery = "tls=verify-full"
	if _, err = (mysql.Driver{}).Open(t.Context(), reencrypt.NewDSN(u.String()), reencrypt.Session{}); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a server without TLS: %v", err)
	}
}

// TestURLs: what a URL may say. What names a file of the server's host, or changes the session, may not come through the API.
func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"mysql://u@h/d":                           "mysql://u@h/d",
		"mariadb://u:p@h:1/d":                     "mariadb://u@h:1/d",
		"mysql://u@[::1]:3306/d":                  "mysql://u@[::1]:3306/d",
		"mysql://u%40x:p%2F@h/d%20e":              "mysql://u%40x@h/d%20e",
		"mysql://u@/d?socket=%2Frun%2Fmysqld%2Fs": "mysql://u@/d?socket=%2Frun%2Fmysqld%2Fs",
		"mysql://u@h/d?tls=disable":               "mysql://u@h/d?tls=disable",
		"mysql://u@h/d?connect_timeout=3":         "mysql://u@h/d?connect_timeout=3",
		"mysql://u@h/d?tls=skip-verify":           "",
		"mysql://u@h/d?tls=preferred":             "",
		"mysql://u@h/d?tls=":                      "",
		"mysql://u@/d?socket=/s&tls=verify-full":  "",
		"mysql://u@h/d?allowAllFiles=true":        "",
		"mysql://u@h/d?allowCleartextPasswords=1": "",
		"mysql://u@h/d?interpolateParams=true":    "",
		"mysql://u@h/d?multiStatements=true":      "",
		"mysql://u@h/d?sql_mode=''":               "",
		"mysql://u@h/d?tls=disable&tls=disable":   "",
		"mysql://u@h/d?socket=/tmp/s":             "",
		"mysql://u@/d?socket=s":                   "",
		"mysql://u@/d?socket=/a/../b":             "",
		"mysql://u@h/d?connect_timeout=0":         "",
		"mysql://u@h/d?connect_timeout=x":         "",
		"mysql://u@h/d#x":                         "",
		"mysql://u@h/d/e":                         "",
		"mysql://u@h/":                            "",
		"mysql://h/d":                             "",
		"mysql://u@/d":                            "",
		"postgres://u@h/d":                        "",
		"u:p@tcp(h:3306)/d":                       "",
		"":                                        "",
	} {
		got, err := mysql.Driver{}.Parse(reencrypt.NewDSN(url))
		if got != want || (want == "") != (fault.CodeOf(err) == api.CodeInvalid) {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
}

// TestSocket: the server's unix socket does as well.
func TestSocket(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)")
	socket := mustParse(t, mariatest.Start(t).SocketURL(databaseOf(t, d)))
	socket.User = mustParse(t, d.URL).User
	describe(t, open(t, socket.String()), "t")
}
