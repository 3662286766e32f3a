package mysql_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestAdvisory_CVE_2023_0620 is about names that become SQL: whatever a table or a column is called goes through one
// quoting function, in backticks, in every statement of a run.
func TestAdvisory_CVE_2023_0620(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE narrow (id bigint PRIMARY KEY)")
	quoted := func(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
	for _, name := range []string{"x`; drop table narrow; --", "`", "``", "a`.`b", "\\`", "a\\", "it's", `say "so"`, "-- ", "/*!50000 x", "?", "tab\tand\nline", "表"} {
		name = strings.TrimRight(name, " ") // MySQL itself refuses blanks at the end
		value := name + "v"
		d.Exec(t, fmt.Sprintf("CREATE TABLE %s (%s bigint, %s varchar(20), %s text, %s text, PRIMARY KEY (%s, %s))", quoted(name), quoted(name), quoted(name+"2"), quoted(value), quoted(value+"2"), quoted(name), quoted(name+"2")),
			fmt.Sprintf("INSERT INTO %s VALUES (1, 'a', 'one', 'eins'), (2, 'b', 'two', NULL)", quoted(name)))
		keys := connectortest.NewKeySet(envelope.SuiteStandard)
		columns := map[string]*connectortest.KeySet{value: keys, value + "2": keys}
		db := open(t, d.URL)
		if c := connectortest.MustFinish(t, connectortest.Work(t, db, reencrypt.Quoted(name), columns, reencrypt.KindEncrypt)); c.Changed != 2 {
			t.Errorf("%q: %d of 2 rows changed", name, c.Changed)
		}
		connectortest.MustFinish(t, connectortest.Work(t, db, reencrypt.Quoted(name), columns, reencrypt.KindDecrypt))
		if got := string(d.Rows(t, fmt.Sprintf("SELECT GROUP_CONCAT(%s ORDER BY 1) FROM %s", quoted(value), quoted(name)))[0][0]); got != "one,two" {
			t.Errorf("%q holds %s", name, got)
		}
	}
	d.Exec(t, "INSERT INTO narrow VALUES (1)")
}

// TestAdvisory_CVE_2026_33503 is about forged page tokens that become SQL: a cursor is a row's key and never text of a
// statement, so any bytes at all are a key of the table's types or are refused.
func TestAdvisory_CVE_2026_33503(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (a varchar(20), b bigint, c uuid, e datetime(6), f varbinary(20), v text, PRIMARY KEY (a, b, c, e, f))",
		"INSERT INTO t SELECT 'a' || i, i, uuid(), TIMESTAMP'2026-01-01 00:00:00' + INTERVAL i SECOND, 'f', 'v' FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n) AS s")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	r, err := w.Target.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	page := reencrypt.NewPage(5, 1)
	if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 10}); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(t.Context(), page); err != nil {
		t.Fatal(err)
	}
	good := page.Key(9)
	random := rand.New(rand.NewPCG(1, 1))
	accepted, refused := 0, 0
	for range 300 {
		key := append(reencrypt.Key(nil), good...)
		for range 1 + random.IntN(3) {
			key[random.IntN(len(key))] = "\x00\x01'\";-\xff)`"[random.IntN(9)]
		}
		if random.IntN(4) == 0 {
			key = append(key, "'; DROP TABLE t; --"...)
		}
		err := r.Start(t.Context(), key, reencrypt.ReadOptions{Rows: 10})
		switch {
		case err == nil:
			accepted++
			if err := r.Next(t.Context(), page); err != nil {
				t.Fatalf("key %q: %v", key, err)
			}
			if err := r.Find(t.Context(), page, []reencrypt.Key{key}); err != nil || page.Rows() > 1 {
				t.Fatalf("key %q: %d rows, %v", key, page.Rows(), err)
			}
		case fault.CodeOf(err) == api.CodeInvalid && fault.FieldOf(err) == "cursor":
			refused++
		default:
			t.Fatalf("key %q: %v", key, err)
		}
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: the test tests one side only", accepted, refused)
	}
	if n := string(d.Rows(t, "SELECT count(*) FROM t")[0][0]); n != "50" {
		t.Errorf("%s rows are left", n)
	}
}

// TestAdvisory_CVE_2024_27304 is about messages whose length overflows, and placeholders that are mistaken for text: pages
// are bounded long before, no value is ever pasted into a statement, and no server may ask for a file or a password in clear.
func TestAdvisory_CVE_2024_27304(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"InterpolateParams", "MultiStatements", "AllowAllFiles", "AllowCleartext", "AllowOldPasswords", "AllowFallbackToPlaintext", "RegisterLocalFile", "FormatDSN", "ParseDSN"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s says %s", name, bad)
			}
		}
	}
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v longtext)",
		fmt.Sprintf("INSERT INTO t SELECT i, repeat('x', %d) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n) AS s", reencrypt.MaxValue-10),
		"INSERT INTO t VALUES (100, '''; DROP TABLE t; --'), (101, '?'), (102, '\\'), (103, '-1'), (104, 'nul\x00byte')")
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	if c := connectortest.MustFinish(t, connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt)); c.Changed != 8 {
		t.Errorf("counted %+v", c)
	}
	if got := connectortest.Open(t, "t", []string{"id"}, []string{"104"}, "v", keys, d.Rows(t, "SELECT v FROM t WHERE id = 104")[0][0]); got != "nul\x00byte" {
		t.Errorf("a zero byte went through as %q", got)
	}
}
