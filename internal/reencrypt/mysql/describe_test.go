package mysql_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// describe looks a table up, which must succeed.
func describe(t *testing.T, db reencrypt.Database, table string) *reencrypt.Table {
	t.Helper()
	out, err := db.Describe(t.Context(), table)
	if err != nil {
		t.Fatalf("describing %s: %v", table, err)
	}
	return out
}

func TestDescribeColumns(t *testing.T) {
	d := fresh(t)
	d.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, a varchar(64), b char(64), c text, d tinytext, e mediumtext, f longtext, g varbinary(300), h blob, i binary(64), j json, k int,
		l varchar(20) CHARACTER SET latin1, m text CHARACTER SET utf16, n varchar(20) CHARACTER SET sjis, o varchar(20) CHARACTER SET ucs2, p text CHARACTER SET utf8mb3, q enum('a','b'), r double, s uuid)`)
	table := describe(t, open(t, d.URL), "t")
	for name, want := range map[string]struct {
		form    reencrypt.Form
		width   int
		refused bool
	}{
		"a": {reencrypt.Text, 64, false}, "b": {reencrypt.Unsupported, 0, false}, "c": {reencrypt.Text, 65535, false}, "d": {reencrypt.Text, 255, false},
		"e": {reencrypt.Text, 16777215, false}, "f": {reencrypt.Text, 0, false}, "g": {reencrypt.Binary, 300, false}, "h": {reencrypt.Binary, 65535, false},
		"i": {reencrypt.Unsupported, 0, false}, "j": {reencrypt.Text, 0, true}, "k": {reencrypt.Unsupported, 0, false}, "l": {reencrypt.Text, 20, false},
		"m": {reencrypt.Text, 32767, false}, "n": {reencrypt.Text, 20, true}, "o": {reencrypt.Text, 20, true}, "p": {reencrypt.Text, 65535, false},
		"q": {reencrypt.Unsupported, 0, false}, "s": {reencrypt.Unsupported, 0, false},
	} {
		if c, ok := table.Column(name); !ok || c.Form != want.form || c.Width != want.width || (c.Refusal != "") != want.refused {
			t.Errorf("column %s is %+v, want %+v", name, c, want)
		}
	}
	for _, name := range []string{"q", "r", "n", "c"} {
		if c, _ := table.Column(name); c.KeyRefusal == "" {
			t.Errorf("column %s of type %s may be part of a key", name, c.Type)
		}
	}
}

// TestDescribeUses: what looks at a column's values is a note where it only loses its use, and a refusal where it would break.
func TestDescribeUses(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE other (x varchar(99) PRIMARY KEY)",
		`CREATE TABLE t (id int PRIMARY KEY, a varchar(99), b varchar(99) UNIQUE, c text, d varchar(99) REFERENCES other (x), g varchar(99),
			h varchar(99) GENERATED ALWAYS AS (g || 'x') STORED, seen timestamp DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, UNIQUE (seen, id), UNIQUE p (a(5)), CONSTRAINT c_ok CHECK (length(c) < 20))`,
		"CREATE INDEX a_plain ON t (a)", "CREATE TABLE pointing (x varchar(99) REFERENCES t (b))",
		"CREATE TRIGGER watch BEFORE UPDATE ON t FOR EACH ROW SET @watched = 1", "CREATE TRIGGER ins AFTER INSERT ON t FOR EACH ROW SET @watched = 1",
		"GRANT TRIGGER ON "+databaseOf(t, d)+".* TO "+userOf(t, d)+"@'%'")
	table := describe(t, open(t, d.URL), "t")
	for name, want := range map[string]string{"a": "a_plain", "c": "c_ok"} {
		if c, _ := table.Column(name); c.Refusal != "" || !strings.Contains(strings.Join(c.Notes, "\n"), want) {
			t.Errorf("column %s: refusal %q, notes %q", name, c.Refusal, c.Notes)
		}
	}
	for _, name := range []string{"b", "d", "g", "h"} {
		if c, _ := table.Column(name); c.Refusal == "" {
			t.Errorf("column %s isn't refused: %+v", name, c)
		}
	}
	notes := strings.Join(table.NotesFor([]string{"a"}), "\n")
	if !strings.Contains(notes, `trigger "watch"`) || strings.Contains(notes, `"ins"`) || !strings.Contains(notes, `"seen" becomes the current time`) {
		t.Errorf("notes: %s", notes)
	}
	if err := table.Check([]string{"seen", "id"}, []string{"a"}); fault.FieldOf(err) != "pk" {
		t.Errorf("a key that changes with every update: %v", err)
	}
	if err := table.Check([]string{"a"}, []string{"c"}); fault.FieldOf(err) != "pk" {
		t.Errorf("a key of which only the first characters are unique: %v", err)
	}
}

// TestDescribeRefuses: tables that can't be written as they should be.
func TestDescribeRefuses(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE mine (id int PRIMARY KEY, v text) ENGINE=MyISAM", "CREATE TABLE aria (id int PRIMARY KEY, v text) ENGINE=Aria",
		"CREATE TABLE versioned (id int PRIMARY KEY, v text) WITH SYSTEM VERSIONING", "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE VIEW seen AS SELECT * FROM t",
		"CREATE SEQUENCE numbers")
	db := open(t, d.URL)
	for _, table := range []string{"mine", "aria", "versioned", "seen", "numbers"} {
		if r := describe(t, db, table).Refusal; r == "" {
			t.Errorf("%s isn't refused", table)
		}
	}
	reader := open(t, account(t, mariatest.Start(t), d.DB, databaseOf(t, d), "SELECT ON "+databaseOf(t, d)+".t"))
	if err := describe(t, reader, "t").Check([]string{"id"}, []string{"v"}); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "columns" {
		t.Errorf("a column that the user may not update: %v", err)
	}
}

// TestServersThatWontDo: settings of the whole server that stand against work on any of its tables, or are worth a note.
func TestServersThatWontDo(t *testing.T) {
	server := mariatest.Own(t, mariatest.Options{Settings: map[string]string{"log-bin": "binary", "binlog-format": "STATEMENT", "sync-binlog": "0", "max-allowed-packet": "1M"}})
	d := on(t, server)
	d.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	table := describe(t, open(t, d.URL), "t")
	notes := strings.Join(table.Notes, "\n")
	if !strings.Contains(table.Refusal, "binlog_format") || !strings.Contains(notes, "binary log") || !strings.Contains(notes, "power cut") || !strings.Contains(notes, "max_allowed_packet") {
		t.Errorf("refusal %q, notes %s", table.Refusal, notes)
	}
	d.Exec(t, "SET GLOBAL binlog_format = MIXED")
	if r := describe(t, open(t, d.URL), "t").Refusal; r != "" {
		t.Errorf("with a mixed log: %s", r)
	}
	d.Exec(t, "SET GLOBAL read_only = ON")
	if r := describe(t, open(t, d.URL), "t").Refusal; !strings.Contains(r, "read-only") {
		t.Errorf("read-only: %q", r)
	}
	d.Exec(t, "SET GLOBAL read_only = OFF")

	// What is longer than the server takes is reported, and never mistaken for NULL.
	d.Exec(t, "CREATE TABLE large (id int PRIMARY KEY, v longtext)", "INSERT INTO large VALUES (1, REPEAT('x', 500000)), (2, REPEAT('x', 800000)), (3, REPEAT('x', 1000000))")
	var r connectortest.Run
	err := r.Finish(t.Context(), connectortest.Work(t, open(t, d.URL), "large", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt))
	if fault.CodeOf(err) != api.CodeIntegrity || r.State.Counts.Changed != 1 || r.State.Counts.Null != 0 || len(r.Failed) != 2 {
		t.Errorf("values near max_allowed_packet: %+v, %+v, %v", r.State.Counts, r.Failed, err)
	}
}

// TestDescribeNames: a table is found as it stands, in another database of the server, quoted, and never by guessing.
func TestDescribeNames(t *testing.T) {
	d := fresh(t)
	name := databaseOf(t, d)
	d.Exec(t, `CREATE TABLE "s.t" (id int PRIMARY KEY, v text)`, `CREATE TABLE "Mixed" (id int PRIMARY KEY, v text)`)
	db := open(t, d.URL)
	for text, want := range map[string]string{`"s.t"`: "s.t", "s.t": "s.t", "Mixed": "Mixed", name + ".Mixed": "Mixed", `"` + name + `"."Mixed"`: "Mixed"} {
		if table := describe(t, db, text); table.Schema != name || table.Name != want {
			t.Errorf("%s is %s.%s", text, table.Schema, table.Name)
		}
	}
	if _, err := db.Describe(t.Context(), "mixed"); fault.CodeOf(err) != api.CodeNotFound || !strings.Contains(fault.NextOf(err), "Mixed") {
		t.Errorf("a name in the wrong case: %v, %s", err, fault.NextOf(err))
	}
}

// TestPartitions: a partitioned table is one table, read in the order of its key across partitions.
func TestPartitions(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY HASH (id) PARTITIONS 4",
		"INSERT INTO t SELECT i, DATE_ADD('2026-01-01', INTERVAL i % 60 DAY), 'v' || i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n) AS s")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	w.Batch = 33
	if c := connectortest.MustFinish(t, w); c.Changed != 500 {
		t.Errorf("counted %+v", c)
	}
}

func databaseOf(t *testing.T, d connectortest.Database) string {
	t.Helper()
	return strings.TrimPrefix(mustParse(t, d.URL).Path, "/")
}

func userOf(t *testing.T, d connectortest.Database) string {
	t.Helper()
	return mustParse(t, d.URL).User.Username()
}
