package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/mysql"
)

// page reads the first rows of a table, of one key and one text column, as a batch that puts "new" in front of each value.
func page(t *testing.T, w reencrypt.Work) *reencrypt.Batch {
	t.Helper()
	r, err := w.Target.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := reencrypt.NewPage(len(w.PK), 1)
	if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	b := reencrypt.NewBatch(len(w.PK), 1)
	for i := range p.Rows() {
		for c := range p.Keys {
			b.Keys[c].Append(p.Keys[c].At(i))
			b.Names[c].Append(p.Names[c].At(i))
		}
		v := p.Values[0].Values.At(i)
		b.Old[0].Add(v, p.Values[0].Forms[i])
		b.New[0].Add(append([]byte("new "), v...), p.Values[0].Forms[i])
	}
	return b
}

// swap writes a batch on a connection of its own.
func swap(t *testing.T, w reencrypt.Work, b *reencrypt.Batch) (int, error) {
	t.Helper()
	writer, err := w.Target.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	return writer.Swap(t.Context(), b, 0, b.Rows())
}

// TestAStoppedWriterHoldsNobodyUp: a process that stands still in the midst of a page (SIGSTOP, a frozen machine) holds the
// application's rows only until the server takes its transaction back; when it goes on it writes nothing.
func TestAStoppedWriterHoldsNobodyUp(t *testing.T) {
	for name, asOnMySQL := range map[string]bool{"mariadb": false, "as on mysql": true} {
		t.Run(name, func(t *testing.T) {
			d := fresh(t)
			d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(300))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
			db, err := mysql.Driver{}.Open(t.Context(), reencrypt.NewDSN(d.URL), reencrypt.Session{IdleInTransaction: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			w := connectortest.Work(t, db, "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
			b := page(t, w)
			writer, err := w.Target.Writer(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if n, err := writer.Swap(t.Context(), b, 0, 1); err != nil || n != 1 {
				t.Fatalf("%d rows written, %v", n, err)
			}
			d.Exec(t, "UPDATE t SET v = 'a' WHERE id = 1")
			if err := mysql.Begin(t.Context(), writer, b, asOnMySQL); err != nil {
				t.Fatal(err)
			}
			d.Exec(t, "SET SESSION innodb_lock_wait_timeout = 60", "UPDATE t SET v = 'theirs' WHERE id = 1")
			if n, err := writer.Swap(t.Context(), b, 0, b.Rows()); n != 0 || fault.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("the writer that went on: %d rows, %v", n, err)
			}
			if n, err := swap(t, w, b); err != nil || n != 1 {
				t.Errorf("a new writer: %d rows, %v; want the one that the application left", n, err)
			}
			if got := string(d.Rows(t, "SELECT GROUP_CONCAT(v ORDER BY id) FROM t")[0][0]); got != "theirs,new b" {
				t.Errorf("the table holds %s", got)
			}
		})
	}
}

// TestEqualMeansToTheByte: what a collation takes for equal (upper and lower case, accents, blanks at the end) is another
// value all the same, and so is another key.
func TestEqualMeansToTheByte(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (k varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v varchar(300) COLLATE utf8mb4_unicode_ci)",
		"INSERT INTO t VALUES ('case', 'abc'), ('blank', 'abc'), ('accent', 'abc'), ('key', 'abc'), ('keyblank', 'abc'), ('same', 'abc ')")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	b := page(t, w)
	d.Exec(t, "UPDATE t SET v = 'ABC' WHERE k = 'case'", "UPDATE t SET v = 'abc ' WHERE k = 'blank'", "UPDATE t SET v = 'äbc' WHERE k = 'accent'",
		"UPDATE t SET k = 'KEY' WHERE k = 'key'", "UPDATE t SET k = 'keyblank ' WHERE k = 'keyblank'")
	if n, err := swap(t, w, b); err != nil || n != 1 {
		t.Errorf("%d rows written, %v", n, err)
	}
	if got := string(d.Rows(t, "SELECT GROUP_CONCAT(k || '=' || v ORDER BY k SEPARATOR ';') FROM t")[0][0]); got != "accent=äbc;blank=abc ;case=ABC;KEY=abc;keyblank =abc;same=new abc " {
		t.Errorf("the table holds %s", got)
	}
}

// TestCharacterSets: every character set that isn't refused brings its values there and back, and a value that a column
// can't hold is refused and not replaced.
func TestCharacterSets(t *testing.T) {
	d := fresh(t)
	all := make([]byte, 0, 255)
	for i := 1; i < 256; i++ {
		all = append(all, byte(i))
	}
	d.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, "latin1" text CHARACTER SET latin1, "ascii" text CHARACTER SET ascii, "utf8mb3" text CHARACTER SET utf8mb3, "utf8mb4" text,
		"utf16" text CHARACTER SET utf16, "utf16le" text CHARACTER SET utf16le, "utf32" text CHARACTER SET utf32)`,
		fmt.Sprintf("INSERT INTO t VALUES (1, x'%x', 'ascii ~', 'ü☃表', '😀☃\n', '😀☃ ', '😀☃', '😀☃')", all), "CREATE TABLE before_ AS SELECT * FROM t")
	keys, columns := connectortest.NewKeySet(envelope.SuiteStandard), map[string]*connectortest.KeySet{}
	names := []string{"latin1", "ascii", "utf8mb3", "utf8mb4", "utf16", "utf16le", "utf32"}
	for _, name := range names {
		columns[name] = keys
	}
	db := open(t, d.URL)
	connectortest.MustFinish(t, connectortest.Work(t, db, "t", columns, reencrypt.KindEncrypt))
	for i, name := range names {
		got := d.Rows(t, `SELECT `+reencrypt.Quoted(name)+` FROM t`)[0][0]
		want := d.Rows(t, `SELECT `+reencrypt.Quoted(name)+` FROM before_`)[0][0]
		if plain := connectortest.Open(t, "t", []string{"id"}, []string{"1"}, name, keys, got); plain != string(want) {
			t.Errorf("column %d, %s holds %q, want %q", i, name, plain, want)
		}
	}
	keys.Rotate()
	connectortest.MustFinish(t, connectortest.Work(t, db, "t", columns, reencrypt.KindReencrypt))
	connectortest.MustFinish(t, connectortest.Work(t, db, "t", columns, reencrypt.KindDecrypt))
	var same []string
	for _, name := range names {
		same = append(same, fmt.Sprintf("CAST(t.%[1]s AS BINARY) = CAST(b.%[1]s AS BINARY)", reencrypt.Quoted(name)))
	}
	if got := string(d.Rows(t, "SELECT "+strings.Join(same, " AND ")+" FROM t, before_ b")[0][0]); got != "1" {
		t.Error("after decrypting, the bytes differ from what stood there")
	}

	// A plaintext that came from elsewhere, in a column that lacks its characters.
	d.Exec(t, "CREATE TABLE u (id int PRIMARY KEY, v text)", "INSERT INTO u VALUES (1, 'plain'), (2, '☃')")
	connectortest.MustFinish(t, connectortest.Work(t, db, "u", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindEncrypt))
	d.Exec(t, "ALTER TABLE u MODIFY v text CHARACTER SET latin1")
	var r connectortest.Run
	err := r.Finish(t.Context(), connectortest.Work(t, db, "u", map[string]*connectortest.KeySet{"v": keys}, reencrypt.KindDecrypt))
	if err == nil || len(r.Failed) != 1 || r.Failed[0].Item != "2" || !strings.Contains(r.Failed[0].Reason, "character set") || r.State.Counts.Changed != 1 {
		t.Errorf("decrypting a snowman into latin1: %v, %+v", err, r.Failed)
	}
	if n := string(d.Rows(t, "SELECT COUNT(*) FROM u WHERE v LIKE 'kt1.%'")[0][0]); n != "1" {
		t.Errorf("%s ciphertexts are left", n)
	}
}

// TestWeGiveWay: InnoDB ends the smaller of two transactions in a deadlock, which would be the application's. So ours never
// waits for what somebody holds while it holds rows itself, here for a row that a trigger needs.
func TestWeGiveWay(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE stats (id int PRIMARY KEY, n bigint)", "INSERT INTO stats VALUES (1, 0)", "CREATE TABLE t (id int PRIMARY KEY, v text)",
		"INSERT INTO t SELECT i, 'v' || i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n) AS s",
		"CREATE TRIGGER counted AFTER UPDATE ON t FOR EACH ROW UPDATE stats SET n = n + 1")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	b := page(t, w)
	tx, err := d.DB.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it was committed when all went well
	if _, err := tx.Exec("UPDATE stats SET n = n + 1000"); err != nil {
		t.Fatal(err)
	}
	if n, err := swap(t, w, b); n != 0 || !strings.Contains(fmt.Sprint(err), reencrypt.ErrContended.Error()) {
		t.Errorf("writing what a trigger is kept from: %d, %v", n, err)
	}
	if _, err := tx.Exec("UPDATE t SET v = 'theirs' WHERE id = 250"); err != nil {
		t.Errorf("the application was in our way: %v", err)
	}
	if n, err := swap(t, w, b); n != 0 || err == nil {
		t.Errorf("and again: %d, %v", n, err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if n, err := swap(t, w, b); err != nil || n != 499 {
		t.Errorf("when it is over, %d of 500 rows are written: %v", n, err)
	}
	if got := string(d.Rows(t, "SELECT n FROM stats")[0][0]); got != "1500" { // 499 of ours, 1 and 1000 of theirs
		t.Errorf("the trigger counted %s", got)
	}
}

// TestHeldRowsAreSteppedOver: the rest of a page that holds rows of the application's is written at once.
func TestHeldRowsAreSteppedOver(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (a int, b varchar(20), v text, PRIMARY KEY (a, b))",
		"INSERT INTO t SELECT i DIV 10, 'k' || i, 'v' || i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i FROM n) AS s")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	b := page(t, w)
	release := d.Hold(t, "UPDATE t SET v = 'theirs' WHERE a = 0 AND b = 'k1' OR a = 7 AND b = 'k77' OR a = 30 AND b = 'k300'")
	n, err := swap(t, w, b)
	release()
	if err != nil || n != 297 {
		t.Errorf("%d of 297 rows written, %v", n, err)
	}
	if got := string(d.Rows(t, "SELECT COUNT(*) FROM t WHERE v LIKE 'new v%'")[0][0]); got != "297" {
		t.Errorf("%s rows are new", got)
	}
}

// TestPlans: a page is read as a range of the key's index, without sorting; rows are locked and written by it.
func TestPlans(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (a bigint, b varchar(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci, c datetime(3), v text, other int, PRIMARY KEY (a, b, c), KEY (other))",
		"INSERT INTO t SELECT i DIV 100, CONCAT('k', i DIV 10), TIMESTAMP'2026-01-01 00:00:00' + INTERVAL i SECOND, 'v' || i, i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n) AS s",
		"ANALYZE TABLE t")
	w := connectortest.Work(t, open(t, d.URL), "t", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	key := func(i int) []any { return []any{i / 100, fmt.Sprintf("k%d", i/10), "2026-01-01 00:00:01.000"} }
	page, lock, swap, lockN, swapN := mysql.Statements(w.Target)
	k := key(2500)
	explain(t, d, page, k[0], k[0], k[1], k[0], k[1], k[2])
	var locked, news, keys, texts, olds []any
	for i := range lockN {
		locked = append(locked, key(i*10)...)
	}
	for i := range swapN {
		news, olds = append(append(news, key(i*10)...), "new"), append(append(olds, key(i*10)...), "old")
		keys, texts = append(keys, key(i*10)...), append(texts, fmt.Sprintf("k%d", i))
	}
	explain(t, d, lock, locked...)
	_, swap, _ = strings.Cut(swap, " FOR ")
	explain(t, d, swap, slices.Concat(news, keys, texts, olds)...)
}

// explain fails unless a statement goes by the primary key, without sorting.
func explain(t *testing.T, d connectortest.Database, statement string, args ...any) {
	t.Helper()
	rows, err := d.DB.QueryContext(context.Background(), "EXPLAIN "+statement, args...)
	if err != nil {
		t.Fatalf("%.200s: %v", statement, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; rows.Next(); n++ {
		values, into, got := make([]sql.NullString, len(columns)), make([]any, len(columns)), map[string]string{}
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, c := range columns {
			got[c] = values[i].String
		}
		if got["type"] != "range" || got["key"] != "PRIMARY" || strings.Contains(got["Extra"], "filesort") || strings.Contains(got["Extra"], "temporary") {
			t.Errorf("%.100s: %v", statement, got)
		}
	}
	if rows.Err() != nil || n != 1 {
		t.Errorf("%.100s: %d rows, %v", statement, n, rows.Err())
	}
}
