package sqlite_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// pageOf reads the first rows.
func pageOf(tb testing.TB, w reencrypt.Work, rows int) *reencrypt.Page {
	tb.Helper()
	r, err := w.Target.Reader(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	p := reencrypt.NewPage(len(w.PK), len(w.Columns))
	if err := r.Start(tb.Context(), nil, reencrypt.ReadOptions{Rows: rows}); err != nil {
		tb.Fatal(err)
	}
	if err := r.Next(tb.Context(), p); err != nil {
		tb.Fatal(err)
	}
	return p
}

// dump is a column as SQLite has it: type and bytes.
func dump(tb testing.TB, app connectortest.Database, table string) string {
	tb.Helper()
	var out strings.Builder
	for _, row := range app.Rows(tb, "SELECT id, typeof(v), hex(CAST(v AS BLOB)) FROM "+table+" ORDER BY id") {
		fmt.Fprintf(&out, "%s %s %s\n", row[0], row[1], row[2])
	}
	return out.String()
}

// TestEveryTypeInEveryColumn: SQLite takes any type into any column. What is text stays text and what is a blob stays one,
// through encryption and back, to the last byte; numbers are reported and left alone.
func TestEveryTypeInEveryColumn(t *testing.T) {
	values := []string{"'plain'", "''", "x''", "'with' || char(0) || 'zero'", "char(0)", "x'00ff00'", "'ü☃表'", "CAST(x'6162' AS TEXT)", "x'6b7431'", "'007'", "NULL", "5", "2.5"}
	for _, encoding := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
		for i, column := range []string{"TEXT", "BLOB", "", "VARCHAR(3) COLLATE NOCASE", "TEXT COLLATE RTRIM", "ANY|STRICT"} {
			t.Run(encoding+" "+column, func(t *testing.T) {
				app := fresh(t, "encoding('"+encoding+"')")
				declared, strict, _ := strings.Cut(column, "|")
				app.Exec(t, fmt.Sprintf("CREATE TABLE t (id INTEGER PRIMARY KEY, v %s) %s", declared, strict))
				for j, v := range values {
					app.Exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d, %s)", j, v))
				}
				before := dump(t, app, "t")
				numbers := int64(2)
				if strings.Contains(column, "CHAR") || strings.HasPrefix(column, "TEXT") {
					numbers = 0 // numbers became text when they were put in
				}
				keys := connectortest.NewKeySet(envelope.Suite(1 + i%2))
				run := func(kind reencrypt.Kind) *connectortest.Run {
					var r connectortest.Run
					w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": keys}, kind)
					err := r.Finish(t.Context(), w)
					if kind == reencrypt.KindEncrypt && numbers > 0 {
						if fault.CodeOf(err) != api.CodeIntegrity || int64(len(r.Failed)) != numbers {
							t.Fatalf("encrypting numbers: %+v, %v", r.Failed, err)
						}
					} else if err != nil {
						t.Fatalf("%s: %v (%+v)", kind, err, r.Failed)
					}
					return &r
				}
				want := int64(len(values)) - 1 - numbers
				if c := run(reencrypt.KindEncrypt).State.Counts; c.Changed != want || c.Null != 1 {
					t.Errorf("encrypt counted %+v, want %d changed", c, want)
				}
				for _, line := range strings.Split(strings.TrimSpace(dump(t, app, "t")), "\n") {
					if strings.HasSuffix(line, " text ") || strings.HasSuffix(line, " blob ") {
						t.Errorf("a value was left empty: %s", line)
					}
				}
				keys.Rotate()
				if c := run(reencrypt.KindReencrypt).State.Counts; c.Changed != want {
					t.Errorf("re-encrypt counted %+v", c)
				}
				if c := run(reencrypt.KindDecrypt).State.Counts; c.Changed != want {
					t.Errorf("decrypt counted %+v", c)
				}
				if after := dump(t, app, "t"); after != before {
					t.Errorf("the column was\n%s\nand is now\n%s", before, after)
				}
			})
		}
	}
}

// TestTextThatIsNone: what couldn't be given back as it was is reported and not touched. In UTF-16 SQLite makes other
// characters of half a pair, and drops half a character, on the way to UTF-8.
func TestTextThatIsNone(t *testing.T) {
	for encoding, broken := range map[string][]string{
		"UTF-8":    {"x'ff'", "x'616280'", "x'eda080'"},
		"UTF-16le": {"x'00d84100'", "x'610000d8'", "x'00dc'"},
	} {
		t.Run(encoding, func(t *testing.T) {
			app := fresh(t, "encoding('"+encoding+"')")
			app.Exec(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (100, 'good')")
			for i, raw := range broken {
				app.Exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d, CAST(%s AS TEXT))", i, raw))
			}
			before := dump(t, app, "t")
			keys := connectortest.NewKeySet(envelope.SuiteStandard)
			var r connectortest.Run
			w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
			if err := r.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != len(broken) || r.State.Counts.Changed != 1 {
				t.Fatalf("encrypting: %+v, %+v, %v", r.State, r.Failed, err)
			}
			after := dump(t, app, "t")
			if beforeBroken, afterBroken := before[:strings.Index(before, "100 ")], after[:strings.Index(after, "100 ")]; beforeBroken != afterBroken {
				t.Errorf("the values were\n%s\nand are now\n%s", beforeBroken, afterBroken)
			}
		})
	}
}

// TestLooksLikeOurs: the census and the engine agree on what looks like a ciphertext, in either type, so that a run doesn't
// wait for what it will never do.
func TestLooksLikeOurs(t *testing.T) {
	app := fresh(t)
	app.Exec(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)",
		"INSERT INTO t VALUES (1, 'kt1.'), (2, x'6b74312e'), (3, 'KT' || char(1)), (4, x'4b5401'), (5, x'6b74312e4142'), (6, 'KT' || char(1) || 'AB')",
		"INSERT INTO t VALUES (10, 'kt1. said'), (11, x'6b74312e20'), (12, 'KT'), (13, x'4b54'), (14, 'kt1.AB' || char(0)), (15, x'6b74312e00')")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	var r connectortest.Run
	if err := r.Finish(t.Context(), w); err != nil || r.State.Counts.Changed != 6 || r.State.Counts.Unreadable != 6 {
		t.Fatalf("encrypting: %+v, %+v, %v", r.State, r.Failed, err)
	}
	tally, err := reencrypt.Count(t.Context(), w.Target, 1, connectortest.All)
	if err != nil || tally[0].Broken != 6 || tally[0].Plaintext != 0 || tally[0].Rows() != 12 {
		t.Errorf("the census is %+v, %v", tally, err)
	}
}

// TestKeysThatDifferInTypeOnly: 7, '7' and x'37' may all be keys of one column without a type. None may open what was sealed
// for another, so those that would be spelled alike are reported.
func TestKeysThatDifferInTypeOnly(t *testing.T) {
	app := fresh(t)
	app.Exec(t, "CREATE TABLE t (id PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (7, 'number'), ('7', 'text'), (x'37', 'blob'), (7.5, 'real'), ('seven', 'word')")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	var r connectortest.Run
	w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	if err := r.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != 3 || r.State.Counts.Changed != 2 {
		t.Fatalf("encrypting: %+v, %+v, %v", r.State, r.Failed, err)
	}
	for _, row := range app.Rows(t, "SELECT typeof(id), id, v FROM t WHERE v LIKE 'kt1.%'") {
		if got := connectortest.Open(t, "t", []string{"id"}, []string{string(row[1])}, "v", keys, row[2]); got != map[string]string{"integer": "number", "text": "word"}[string(row[0])] {
			t.Errorf("row %s %s holds %q", row[0], row[1], got)
		}
	}
}

// TestKeyThatIsSpelledAnew: a row is bound to its key as it is spelled. Where the index takes two spellings for the same, a
// row that changed from one to the other since it was read is another row.
func TestKeyThatIsSpelledAnew(t *testing.T) {
	for _, c := range []struct{ column, before, after string }{
		{"TEXT COLLATE NOCASE", "'abc'", "'ABC'"},
		{"TEXT COLLATE RTRIM", "'abc'", "'abc  '"},
		{"", "1", "1.0"},
		{"", "'1'", "1"},
		{"BLOB", "x'31'", "'1'"},
	} {
		t.Run(c.column+" "+c.after, func(t *testing.T) {
			app := fresh(t)
			app.Exec(t, "CREATE TABLE t (id "+c.column+" PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES ("+c.before+", 'value')")
			w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
			p := pageOf(t, w, 1)
			b := reencrypt.NewBatch(1, 1)
			b.Keys[0].Append(p.Keys[0].At(0))
			b.Old[0].Add([]byte("value"), reencrypt.Text)
			b.New[0].Add([]byte("sealed"), reencrypt.Text)
			writer, err := w.Target.Writer(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			app.Exec(t, "UPDATE t SET id = "+c.after)
			if n, err := writer.Swap(t.Context(), b, 0, 1); n != 0 || err != nil {
				t.Errorf("a row whose key was spelled anew: %d swapped, %v", n, err)
			}
			app.Exec(t, "UPDATE t SET id = "+c.before)
			if n, err := writer.Swap(t.Context(), b, 0, 1); n != 1 || err != nil {
				t.Errorf("the row as it was: %d swapped, %v", n, err)
			}
		})
	}
}

// TestNullInKey: SQLite lets NULL into primary keys. A table that has some is refused; rows that get there later are not
// touched, and a census counts them.
func TestNullInKey(t *testing.T) {
	app := fresh(t)
	app.Exec(t, "CREATE TABLE t (a TEXT, b INT, v TEXT, PRIMARY KEY (a, b))", "INSERT INTO t VALUES ('x', 1, 'one'), ('x', 2, 'two')")
	db := open(t, app.URL)
	w := connectortest.Work(t, db, "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	app.Exec(t, "INSERT INTO t VALUES ('x', NULL, 'three'), ('y', NULL, 'four'), (NULL, 1, 'five')")
	if p := pageOf(t, w, 100); p.Rows() != 2 {
		t.Errorf("read %d rows, want those 2 whose key is whole", p.Rows())
	}
	if tally, err := reencrypt.Count(t.Context(), w.Target, 1, connectortest.All); err != nil || tally[0].Plaintext != 5 {
		t.Errorf("the census is %+v, %v", tally, err)
	}
	table, err := db.Describe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Check(table.PrimaryKey(), []string{"v"}); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "pk" {
		t.Errorf("a key with NULL in it: %v", err)
	}
}

// TestSkip: values under the current version aren't transferred, whether they are text or a blob.
func TestSkip(t *testing.T) {
	app := fresh(t)
	app.Exec(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'text'), (2, x'00'), (3, NULL)")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	w := connectortest.Work(t, open(t, app.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)
	connectortest.MustFinish(t, w)
	app.Exec(t, "INSERT INTO t VALUES (4, 'more'), (5, 7)")
	r, err := w.Target.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := reencrypt.NewPage(1, 1)
	read := func(skip []envelope.Header, want ...reencrypt.Form) {
		t.Helper()
		if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 10, Skip: skip}); err != nil {
			t.Fatal(err)
		}
		if err := r.Next(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got := p.Values[0].Forms; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the forms are %v, want %v", got, want)
		}
	}
	read(nil, reencrypt.Text, reencrypt.Binary, reencrypt.Null, reencrypt.Text, reencrypt.Text)
	read([]envelope.Header{{}}, reencrypt.Text, reencrypt.Binary, reencrypt.Null, reencrypt.Text, reencrypt.Text)
	read([]envelope.Header{keys.Current().Header()}, reencrypt.Current, reencrypt.Current, reencrypt.Null, reencrypt.Text, reencrypt.Text)
	keys.Rotate()
	read([]envelope.Header{keys.Current().Header()}, reencrypt.Text, reencrypt.Binary, reencrypt.Null, reencrypt.Text, reencrypt.Text)
}
