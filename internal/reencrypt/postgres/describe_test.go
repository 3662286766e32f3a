package postgres_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
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
	d.Exec(t, "CREATE EXTENSION citext", "CREATE DOMAIN ssn AS varchar(300)", "CREATE DOMAIN short_ssn AS ssn CHECK (length(VALUE) < 40)", "CREATE TYPE mood AS ENUM ('sad', 'ok')",
		`CREATE TABLE t (id mood PRIMARY KEY, a text, b varchar(64), c character(64), d bytea, e ssn, f short_ssn, g varchar, h jsonb, i citext, j integer, k text[], l xml, m "char", n name)`)
	table := describe(t, open(t, d.URL), "t")
	for name, want := range map[string]struct {
		form  reencrypt.Form
		width int
	}{
		"a": {reencrypt.Text, 0}, "b": {reencrypt.Text, 64}, "c": {reencrypt.Unsupported, 0}, "d": {reencrypt.Binary, 0}, "e": {reencrypt.Text, 300},
		"f": {reencrypt.Text, 300}, "g": {reencrypt.Text, 0}, "h": {reencrypt.Unsupported, 0}, "i": {reencrypt.Unsupported, 0}, "j": {reencrypt.Unsupported, 0},
		"k": {reencrypt.Unsupported, 0}, "l": {reencrypt.Unsupported, 0}, "m": {reencrypt.Unsupported, 0}, "n": {reencrypt.Unsupported, 0},
	} {
		if c, ok := table.Column(name); !ok || c.Form != want.form || c.Width != want.width {
			t.Errorf("column %s is %+v, want %+v", name, c, want)
		}
	}
	if c, _ := table.Column("i"); c.KeyRefusal == "" {
		t.Error("a type of an extension may be part of a key")
	}
	if err := table.Check(table.PrimaryKey(), []string{"a"}); err != nil {
		t.Errorf("an enum as key: %v", err)
	}
}

// TestDescribeUses: what looks at a column's values is a note where it only loses its use, and a refusal where it would break.
func TestDescribeUses(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE other (x text PRIMARY KEY)",
		`CREATE TABLE t (id int PRIMARY KEY, a text, b text UNIQUE, c text CONSTRAINT c_ok CHECK (length(c) < 20), d text REFERENCES other, e text, f text, g text, h text GENERATED ALWAYS AS (g || 'x') STORED, i text, EXCLUDE USING hash (i WITH =))`,
		"CREATE INDEX a_plain ON t (a)", "CREATE INDEX e_lower ON t (lower(e))", "CREATE INDEX f_partial ON t (id) WHERE f <> ''",
		"CREATE TABLE pointing (x text REFERENCES t (b))",
		"CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER watch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION noop()",
		"CREATE TRIGGER ins AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION noop()", "CREATE PUBLICATION feed FOR TABLE t")
	table := describe(t, open(t, d.URL), "t")
	for name, want := range map[string]string{"a": "a_plain", "c": "c_ok", "e": "e_lower", "f": "f_partial"} {
		if c, _ := table.Column(name); c.Refusal != "" || !strings.Contains(strings.Join(c.Notes, "\n"), want) {
			t.Errorf("column %s: refusal %q, notes %q", name, c.Refusal, c.Notes)
		}
	}
	for _, name := range []string{"b", "d", "g", "h", "i"} {
		if c, _ := table.Column(name); c.Refusal == "" {
			t.Errorf("column %s isn't refused: %+v", name, c)
		}
	}
	notes := strings.Join(table.NotesFor([]string{"a"}), "\n")
	if !strings.Contains(notes, `trigger "watch"`) || strings.Contains(notes, `"ins"`) || !strings.Contains(notes, `publication "feed"`) || !strings.Contains(notes, "a_plain") {
		t.Errorf("notes: %s", notes)
	}
}

// TestDescribeRefuses: tables whose rows can't all be seen, or can't be updated as they stand.
func TestDescribeRefuses(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE ruled (id int PRIMARY KEY, v text)", "CREATE RULE r AS ON UPDATE TO ruled DO INSTEAD NOTHING",
		"CREATE TABLE parent (id int PRIMARY KEY, v text)", "CREATE TABLE child () INHERITS (parent)",
		"CREATE TABLE secured (id int PRIMARY KEY, v text)", "ALTER TABLE secured ENABLE ROW LEVEL SECURITY", "ALTER TABLE secured FORCE ROW LEVEL SECURITY",
		"CREATE MATERIALIZED VIEW seen AS SELECT 1 AS id, ''::text AS v",
		"CREATE TABLE closed (id int PRIMARY KEY, v text, w text)", "CREATE ROLE app LOGIN", "GRANT SELECT, UPDATE ON secured, ruled TO app", "GRANT SELECT, UPDATE (w) ON closed TO app")
	t.Cleanup(func() { d.Exec(t, "DROP OWNED BY app", "DROP ROLE app") })
	owner := open(t, d.URL)
	for _, table := range []string{"ruled", "parent", "seen"} {
		if describe(t, owner, table).Refusal == "" {
			t.Errorf("%s isn't refused", table)
		}
	}
	app := open(t, strings.Replace(d.URL, "keyturn@", "app@", 1))
	if describe(t, app, "secured").Refusal == "" {
		t.Error("a table whose rows are hidden from the role isn't refused")
	}
	table := describe(t, app, "closed")
	if err := table.Check([]string{"id"}, []string{"v"}); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a column that the role may not update: %v", err)
	}
	if err := table.Check([]string{"id"}, []string{"w"}); err != nil {
		t.Errorf("a column that the role may update: %v", err)
	}
}

// TestDescribeNames: a table is found as it stands, by schema, in SQL's quoted form, and never by guessing.
func TestDescribeNames(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE SCHEMA s", `CREATE TABLE s.t (id int PRIMARY KEY, v text)`, `CREATE TABLE "s.t" (id int PRIMARY KEY, v text)`, `CREATE TABLE "Mixed" (id int PRIMARY KEY, v text)`,
		"CREATE SCHEMA hidden", "CREATE TABLE hidden.deep (id int PRIMARY KEY, v text)", `CREATE SCHEMA "a.b"`, `CREATE TABLE "a.b"."c.d" (id int PRIMARY KEY, v text)`)
	db := open(t, d.URL)
	for text, want := range map[string][2]string{
		`"s"."t"`: {"s", "t"}, `"s.t"`: {"public", "s.t"}, "hidden.deep": {"hidden", "deep"}, "Mixed": {"public", "Mixed"},
		"public.Mixed": {"public", "Mixed"}, "a.b.c.d": {"a.b", "c.d"}, `"a.b"."c.d"`: {"a.b", "c.d"},
	} {
		if table := describe(t, db, text); table.Schema != want[0] || table.Name != want[1] {
			t.Errorf("%s is %s.%s", text, table.Schema, table.Name)
		}
	}
	if _, err := db.Describe(t.Context(), "s.t"); fault.CodeOf(err) != api.CodeInvalid || fault.NextOf(err) == "" {
		t.Errorf("a name that fits two tables: %v", err)
	}
	if _, err := db.Describe(t.Context(), "mixed"); fault.CodeOf(err) != api.CodeNotFound || !strings.Contains(fault.NextOf(err), "Mixed") {
		t.Errorf("a name in the wrong case: %v, %s", err, fault.NextOf(err))
	}
	if _, err := db.Describe(t.Context(), "deep"); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a table outside of the search path: %v", err)
	}
}

// TestPartitions: a partitioned table is one table, read in the order of its key across partitions.
func TestPartitions(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
		"CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')", "CREATE TABLE t2 PARTITION OF t DEFAULT",
		"INSERT INTO t SELECT i, '2026-01-01'::date + i % 60, 'v' || i FROM generate_series(1, 500) i", "ANALYZE t")
	db := open(t, d.URL)
	if table := describe(t, db, "t"); table.Rows != 500 {
		t.Errorf("about %d rows", table.Rows)
	}
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	w := connectortest.Work(t, db, "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	w.Batch = 33
	if c := connectortest.MustFinish(t, w); c.Changed != 500 {
		t.Errorf("counted %+v", c)
	}
}

// TestHijackedOperators: nothing that a database puts into its search path comes in between our statements and
// PostgreSQL's own operators and functions.
func TestHijackedOperators(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE SCHEMA evil", "CREATE FUNCTION evil.yes(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.yes)", "CREATE OPERATOR evil.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.yes)",
		"CREATE FUNCTION evil.starts_with(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'", "CREATE FUNCTION evil.length(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE TABLE t (id bigint PRIMARY KEY, v text)", "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 100) i",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET search_path = evil, pg_catalog, public'; END $$")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	w.Batch = 10
	if c := connectortest.MustFinish(t, w); c.Changed != 100 || c.Rows != 100 {
		t.Errorf("counted %+v", c)
	}
}

// TestTriggersFindTheirTables: the application's triggers run in our session, with the search path they are used to.
func TestTriggersFindTheirTables(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE log (id bigint)", "CREATE TABLE t (id bigint PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
		"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END'",
		"CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	connectortest.MustFinish(t, connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt))
	var ids []string
	for _, row := range d.Rows(t, "SELECT id FROM log ORDER BY id") {
		ids = append(ids, string(row[0]))
	}
	if !slices.Equal(ids, []string{"1", "2"}) {
		t.Errorf("the trigger ran for %v", ids)
	}
}
