package sqlite_test

import (
	sqldriver "database/sql/driver"
	"slices"
	"strings"
	"testing"

	driver "modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

func describe(tb testing.TB, db reencrypt.Database, table string) *reencrypt.Table {
	tb.Helper()
	t, err := db.Describe(tb.Context(), table)
	if err != nil {
		tb.Fatalf("describing %q: %v", table, err)
	}
	return t
}

// TestShapes: each sort of table that SQLite has, and what it is good for.
func TestShapes(t *testing.T) {
	app := fresh(t)
	app.Exec(t,
		"CREATE TABLE plain (id INTEGER PRIMARY KEY, v TEXT)",
		"CREATE TABLE lean (a TEXT, b INT, v TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID",
		"CREATE TABLE stern (id INTEGER PRIMARY KEY, v TEXT, b BLOB, n INT, x ANY) STRICT",
		"CREATE TABLE descending (id INTEGER PRIMARY KEY DESC, v TEXT)",
		"CREATE TABLE rowid_only (a TEXT, v TEXT)",
		"CREATE TABLE uniques (a TEXT NOT NULL UNIQUE, b TEXT UNIQUE, c TEXT NOT NULL, v TEXT)",
		"CREATE UNIQUE INDEX some ON uniques (c) WHERE v IS NOT NULL", "CREATE UNIQUE INDEX lowered ON uniques (lower(c))",
		"CREATE TABLE generated (id INTEGER PRIMARY KEY, v TEXT, w TEXT, g TEXT AS (upper(v)) VIRTUAL, h TEXT GENERATED ALWAYS AS (substr(\"V\", 1)) STORED, k TEXT AS (w))",
		"CREATE TABLE numbers (id INTEGER PRIMARY KEY, i INT, r REAL, n NUMERIC(5,2), s STRING, d DATETIME, x ANY, c VARCHAR(20), p \"POINT CHAR\", q FLOATING)",
		"CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE, v TEXT)", "CREATE TABLE child (id TEXT PRIMARY KEY, up TEXT REFERENCES Parent (Code), v TEXT)",
		"CREATE TABLE grandchild (id INTEGER PRIMARY KEY, up TEXT REFERENCES child, v TEXT)",
		"CREATE VIEW seen AS SELECT * FROM plain", "CREATE VIRTUAL TABLE words USING fts5(v)",
		"CREATE TABLE nulls (id TEXT PRIMARY KEY, v TEXT)", "INSERT INTO nulls VALUES (NULL, 'x')",
		"CREATE TABLE nullable (id TEXT PRIMARY KEY, v TEXT)", "INSERT INTO nullable VALUES ('a', 'x')",
	)
	db := open(t, app.URL)
	for _, c := range []struct {
		table   string
		pk      []string // nil = the primary key
		columns []string
		code    api.Code
		field   string
	}{
		{"plain", nil, []string{"v"}, "", ""},
		{"main.plain", nil, []string{"v"}, "", ""},
		{`"MAIN"."plain"`, nil, []string{"v"}, "", ""},
		{"lean", []string{"b", "a"}, []string{"v"}, "", ""},
		{"lean", []string{"a", "b"}, []string{"v"}, "", ""},
		{"lean", []string{"a"}, []string{"v"}, api.CodeInvalid, "pk"},
		{"stern", nil, []string{"v", "b", "x"}, "", ""},
		{"stern", nil, []string{"n"}, api.CodeInvalid, "columns"},
		{"descending", nil, []string{"v"}, "", ""},
		{"rowid_only", nil, []string{"v"}, api.CodeInvalid, "pk"},
		{"rowid_only", []string{"rowid"}, []string{"v"}, api.CodeNotFound, "pk"},
		{"uniques", []string{"a"}, []string{"v"}, "", ""},
		{"uniques", []string{"b"}, []string{"v"}, api.CodeInvalid, "pk"},
		{"uniques", []string{"c"}, []string{"v"}, api.CodeInvalid, "pk"},
		{"generated", nil, []string{"v"}, api.CodeInvalid, "columns"},
		{"generated", nil, []string{"w"}, api.CodeInvalid, "columns"},
		{"generated", nil, []string{"g"}, api.CodeInvalid, "columns"},
		{"generated", nil, []string{"h"}, api.CodeInvalid, "columns"},
		{"numbers", nil, []string{"c", "p"}, api.CodeInvalid, "columns"}, // POINT is an INT to SQLite
		{"numbers", nil, []string{"c"}, "", ""},
		{"numbers", nil, []string{"s"}, api.CodeInvalid, "columns"},
		{"numbers", nil, []string{"d"}, api.CodeInvalid, "columns"},
		{"numbers", nil, []string{"x"}, api.CodeInvalid, "columns"},
		{"parent", nil, []string{"v"}, "", ""},
		{"parent", nil, []string{"code"}, api.CodeInvalid, "columns"},
		{"child", nil, []string{"v"}, "", ""},
		{"child", nil, []string{"up"}, api.CodeInvalid, "columns"},
		{"child", nil, []string{"id"}, api.CodeInvalid, "columns"},
		{"grandchild", nil, []string{"v"}, "", ""},
		{"seen", []string{"id"}, []string{"v"}, api.CodeInvalid, "table"},
		{"words", []string{"v"}, []string{"v"}, api.CodeInvalid, "table"},
		{"words_content", nil, []string{"c0"}, api.CodeInvalid, "table"},
		{"nulls", nil, []string{"v"}, api.CodeInvalid, "pk"},
		{"nullable", nil, []string{"v"}, "", ""},
	} {
		table := describe(t, db, c.table)
		pk := c.pk
		if pk == nil {
			pk = table.PrimaryKey()
		}
		if err := table.Check(pk, c.columns); fault.CodeOf(err) != c.code || fault.FieldOf(err) != c.field {
			t.Errorf("%s by %v, columns %v: code %q, field %q: %v", c.table, pk, c.columns, fault.CodeOf(err), fault.FieldOf(err), err)
		}
	}
	for name, next := range map[string]string{"Plain": `"plain"`, "temp.plain": "", "sqlite_sequence": "", "x": "", "MAIN.PLAIN": `"plain"`} {
		_, err := db.Describe(t.Context(), name)
		if fault.CodeOf(err) != api.CodeNotFound || !strings.Contains(fault.NextOf(err), next) {
			t.Errorf("describing %q: %v (%s)", name, err, fault.NextOf(err))
		}
	}
}

// TestForms: which of the two forms fits a column, by its declared type.
func TestForms(t *testing.T) {
	app := fresh(t)
	app.Exec(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB, c, d VARCHAR(11), e CLOB, f longblob, g \"BLOB CHAR\")")
	for name, want := range map[string]reencrypt.Form{"id": reencrypt.Unsupported, "a": reencrypt.Text, "b": reencrypt.Binary, "c": reencrypt.Text,
		"d": reencrypt.Text, "e": reencrypt.Text, "f": reencrypt.Binary, "g": reencrypt.Text} {
		c, ok := describe(t, open(t, app.URL), "t").Column(name)
		if !ok || c.Form != want || c.Width != 0 {
			t.Errorf("column %s is %+v, want form %d", name, c, want)
		}
	}
}

// TestNotes: what a table has beside its columns is said before anything is written.
func TestNotes(t *testing.T) {
	app := fresh(t, "journal_mode(WAL)")
	app.Exec(t, "CREATE TABLE log (what TEXT)",
		`CREATE TABLE people (id INTEGER PRIMARY KEY, ssn VARCHAR(11) /* CHECK (name) */ CONSTRAINT "short one" CHECK (length(ssn) < 500), name TEXT, note TEXT, -- , x CHECK (note)
			CHECK (name <> 'ssn, note)'))`,
		"CREATE INDEX by_name ON people (name)", "CREATE UNIQUE INDEX one_note ON people (note)", "CREATE INDEX lowered ON people (lower(ssn)) WHERE id > 7",
		"CREATE TRIGGER any_update AFTER UPDATE ON people BEGIN INSERT INTO log VALUES ('any'); END",
		"CREATE TRIGGER name_update BEFORE UPDATE OF id, \"name\" ON people BEGIN INSERT INTO log VALUES (NEW.ssn); END",
		"CREATE TRIGGER at_insert AFTER INSERT ON people BEGIN UPDATE people SET note = '' WHERE 0; END")
	table := describe(t, open(t, app.URL), "people")
	for _, c := range []struct {
		column    string
		has, lack []string
	}{
		{"ssn", []string{`check constraint "short one"`, `index "lowered"`, "width of VARCHAR(11)", `trigger "any_update"`, "write-ahead log"}, []string{"by_name", "one_note", "name_update", "at_insert", `constraint ""`}},
		{"name", []string{`check constraint ""`, `index "by_name"`, `trigger "name_update"`, `trigger "any_update"`}, []string{"short one", "lowered", "one_note", "width"}},
		{"note", []string{`unique index "one_note"`}, []string{"check", "by_name", "lowered", "name_update"}},
	} {
		notes := strings.Join(table.NotesFor([]string{c.column}), "\n")
		for _, want := range c.has {
			if !strings.Contains(notes, want) {
				t.Errorf("the notes on %s don't mention %s:\n%s", c.column, want, notes)
			}
		}
		for _, not := range c.lack {
			if strings.Contains(notes, not) {
				t.Errorf("the notes on %s mention %s:\n%s", c.column, not, notes)
			}
		}
	}
	rollback := describe(t, open(t, func() string {
		a := fresh(t)
		a.Exec(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
		return a.URL
	}()), "t")
	if !slices.ContainsFunc(rollback.Notes, func(n string) bool { return strings.Contains(n, "rollback journal") }) {
		t.Errorf("the notes on a file without a write-ahead log are %q", rollback.Notes)
	}
}

// TestWhatOnlyTheApplicationHas: a function or collation of the application's own that an update would need is missing here,
// and that is said before anything is written; columns that don't need it can be worked on.
func TestWhatOnlyTheApplicationHas(t *testing.T) {
	if err := driver.RegisterCollationUtf8("backwards", func(a, b string) int { return strings.Compare(b, a) }); err != nil {
		t.Fatal(err)
	}
	if err := driver.RegisterDeterministicScalarFunction("twice", 1, twice); err != nil {
		t.Fatal(err)
	}
	app := fresh(t)
	app.Exec(t,
		"CREATE TABLE odd (id INTEGER PRIMARY KEY, v TEXT COLLATE backwards, w TEXT)", "CREATE INDEX by_v ON odd (v)",
		"CREATE TABLE oddkey (id TEXT COLLATE backwards PRIMARY KEY, v TEXT)",
		"CREATE TABLE checked (id INTEGER PRIMARY KEY, v TEXT CHECK (twice(v) <> ''), w TEXT)",
		"CREATE TABLE triggered (id INTEGER PRIMARY KEY, v TEXT, w TEXT)",
		"CREATE TRIGGER tr AFTER UPDATE OF v ON triggered BEGIN UPDATE odd SET w = twice(NEW.v); END")
	db := open(t, app.URL)
	for _, c := range []struct {
		table, column string
		field         string
	}{
		{"odd", "v", "columns"}, {"odd", "w", ""}, {"oddkey", "v", "pk"}, {"checked", "v", "columns"}, {"checked", "w", ""}, {"triggered", "v", "columns"}, {"triggered", "w", ""},
	} {
		table := describe(t, db, c.table)
		if err := table.Check(table.PrimaryKey(), []string{c.column}); fault.FieldOf(err) != c.field {
			t.Errorf("%s.%s: %v, want field %q", c.table, c.column, err, c.field)
		}
	}
	app.Exec(t, "INSERT INTO odd VALUES (1, 'b', 'plain'), (2, 'a', 'text')")
	columns := map[string]*connectortest.KeySet{"w": connectortest.NewKeySet(envelope.SuiteStandard)}
	if c := connectortest.MustFinish(t, connectortest.Work(t, db, "odd", columns, reencrypt.KindEncrypt)); c.Changed != 2 {
		t.Errorf("encrypting beside a column with the application's collation: %+v", c)
	}
}

// TestAdvisory_CVE_2023_0620: names from a catalogue or a user are never SQL: a table, a key and a column that are named like
// an attack go through registration, census, encryption and back, and nothing else of the file changes (row 19;
// connectortest's Names has more of them).
func TestAdvisory_CVE_2023_0620(t *testing.T) {
	for _, name := range []string{`x"; drop table people; --`, "x'); DROP TABLE people; --", "`people`", "main", "\"", "[a]", "t", "?1", ";", " ", "rowid"} {
		app := fresh(t)
		q := reencrypt.Quoted
		app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO people VALUES (1, 'untouched')",
			"CREATE TABLE "+q(name)+" ("+q(name+"k")+" TEXT NOT NULL, "+q(name)+" TEXT, "+q(name+"b")+" BLOB, PRIMARY KEY ("+q(name+"k")+"))",
			"CREATE INDEX "+q(name+"i")+" ON "+q(name)+" ("+q(name)+")",
			"CREATE TRIGGER "+q(name+"t")+" AFTER UPDATE OF "+q(name)+" ON "+q(name)+" BEGIN SELECT 1; END",
			"INSERT INTO "+q(name)+" VALUES ('a', 'one', x'00'), ('b', 'two', NULL)")
		keys := connectortest.NewKeySet(envelope.SuiteStandard)
		db := open(t, app.URL)
		columns := map[string]*connectortest.KeySet{name: keys, name + "b": keys}
		before := app.Rows(t, "SELECT group_concat(quote(sql), ';') FROM sqlite_schema")
		for _, kind := range []reencrypt.Kind{reencrypt.KindEncrypt, reencrypt.KindReencrypt, reencrypt.KindVerify, reencrypt.KindDecrypt} {
			keys.Rotate()
			if c := connectortest.MustFinish(t, connectortest.Work(t, db, q(name), columns, kind)); kind != reencrypt.KindVerify && c.Changed != 2 {
				t.Errorf("table %q, %s: %+v", name, kind, c)
			}
		}
		if got := app.Rows(t, "SELECT "+q(name)+", hex("+q(name+"b")+") FROM "+q(name)+" WHERE "+q(name+"k")+" = 'a'")[0]; string(got[0]) != "one" || string(got[1]) != "00" {
			t.Errorf("table %q holds %q in the end", name, got)
		}
		after := app.Rows(t, "SELECT group_concat(quote(sql), ';') FROM sqlite_schema")
		if string(after[0][0]) != string(before[0][0]) || string(app.Rows(t, "SELECT v FROM people")[0][0]) != "untouched" {
			t.Errorf("table %q: something else was touched", name)
		}
	}
}

func twice(_ *driver.FunctionContext, args []sqldriver.Value) (sqldriver.Value, error) {
	s, _ := args[0].(string)
	return s + s, nil
}
