package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
)

// canary stands in every value of these tests, and in no error.
const canary = "c4n4ry"

// swapping is a table of five rows, and a batch that replaces the values of all.
type swapping struct {
	app    connectortest.Database
	work   reencrypt.Work
	batch  *reencrypt.Batch
	writer reencrypt.Writer
}

func newSwapping(t *testing.T, session reencrypt.Session, app connectortest.Database, definitions ...string) swapping {
	t.Helper()
	app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT)")
	for i := 1; i <= 5; i++ {
		app.Exec(t, fmt.Sprintf("INSERT INTO people VALUES (%d, '%s %d')", i, canary, i))
	}
	app.Exec(t, definitions...)
	db, err := sqlite.Driver{}.Open(t.Context(), reencrypt.NewDSN(app.URL), session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := swapping{app: app, batch: reencrypt.NewBatch(1, 1)}
	s.work = connectortest.Work(t, db, "people", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	p := pageOf(t, s.work, 10)
	for i := range p.Rows() {
		s.batch.Keys[0].Append(p.Keys[0].At(i))
		s.batch.Old[0].Add(p.Values[0].Values.At(i), reencrypt.Text)
		s.batch.New[0].Add([]byte(fmt.Sprintf("new %s %d", canary, i+1)), reencrypt.Text)
	}
	if s.writer, err = s.work.Target.Writer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.writer.Close() })
	return s
}

// swapped counts the rows that hold their new value.
func (s swapping) swapped(tb testing.TB) int {
	tb.Helper()
	return len(s.app.Rows(tb, "SELECT id FROM people WHERE v LIKE 'new %'"))
}

// TestRefusals: what SQLite won't have is a refusal with the name of what is in the way and none of the value, and nothing of
// the transaction stays.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		sql  string
		want string
	}{
		"check of another table": {"CREATE TABLE log (v TEXT CONSTRAINT tiny CHECK (length(v) < 3)); CREATE TRIGGER tr AFTER UPDATE ON people WHEN NEW.id = 3 BEGIN INSERT INTO log VALUES (NEW.v); END", `CHECK constraint "tiny"`},
		"raise":                  {"CREATE TRIGGER tr BEFORE UPDATE ON people WHEN NEW.id = 3 BEGIN SELECT RAISE(ABORT, 'no " + canary + "'); END", "a trigger"},
		"raise of a value":       {"CREATE TRIGGER tr BEFORE UPDATE ON people WHEN NEW.id = 3 BEGIN SELECT RAISE(FAIL, OLD.v); END", "a trigger"},
		"rollback":               {"CREATE TRIGGER tr BEFORE UPDATE ON people WHEN NEW.id = 3 BEGIN SELECT RAISE(ROLLBACK, OLD.v); END", "a trigger"},
		"not null":               {"CREATE TABLE log (v TEXT NOT NULL); CREATE TRIGGER tr AFTER UPDATE ON people WHEN NEW.id = 3 BEGIN INSERT INTO log VALUES (NULL); END", `NOT NULL constraint "log.v"`},
		"unique":                 {"CREATE TABLE log (v TEXT UNIQUE); INSERT INTO log VALUES (3); CREATE TRIGGER tr AFTER UPDATE ON people BEGIN INSERT INTO log VALUES (NEW.id); END", `UNIQUE constraint "log.v"`},
		"json":                   {"CREATE TABLE log (v TEXT); CREATE TRIGGER tr AFTER UPDATE ON people WHEN NEW.id = 3 BEGIN INSERT INTO log VALUES (json_extract(NEW.v, '$.x')); END", "an error of a trigger"},
		"strict":                 {"CREATE TABLE log (v INT) STRICT; CREATE TRIGGER tr AFTER UPDATE ON people WHEN NEW.id = 3 BEGIN INSERT INTO log VALUES (NEW.v); END", "STRICT"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwapping(t, reencrypt.Session{}, fresh(t), splitSQL(c.sql)...)
			n, err := s.writer.Swap(t.Context(), s.batch, 0, 5)
			var refusal *reencrypt.Refusal
			if n != 0 || !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, c.want) || strings.Contains(err.Error(), canary) {
				t.Fatalf("swapping: %d, %v, want a refusal by %s", n, err, c.want)
			}
			if got := s.swapped(t); got != 0 {
				t.Errorf("%d rows were written by a transaction that failed", got)
			}
			if n, err := s.writer.Swap(t.Context(), s.batch, 0, 2); n != 2 || err != nil {
				t.Errorf("the rows before it: %d, %v", n, err)
			}
		})
	}
}

// splitSQL cuts statements apart where a new CREATE or INSERT begins a line of its own.
func splitSQL(s string) []string {
	return strings.Split(strings.NewReplacer("; CREATE", ";;CREATE", "; INSERT INTO log VALUES (3)", ";;INSERT INTO log VALUES (3)").Replace(s), ";;")
}

// TestContended: an application that holds the file is waited for, but not for ever, and its transaction counts.
func TestContended(t *testing.T) {
	for _, journal := range []string{"WAL", "DELETE"} {
		t.Run(journal, func(t *testing.T) {
			s := newSwapping(t, reencrypt.Session{LockTimeout: time.Millisecond}, fresh(t, "journal_mode("+journal+")"))
			release := s.app.Hold(t, "UPDATE people SET v = 'theirs' WHERE id = 1")
			if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 0 || !errors.Is(err, reencrypt.ErrContended) || fault.CodeOf(err) != api.CodeBusy {
				t.Errorf("writing to a file that is held: %d, %v", n, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.writer.Swap(ctx, s.batch, 0, 5); !errors.Is(err, context.Canceled) {
				t.Errorf("waiting after the run was cancelled: %v", err)
			}
			release()
			if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 4 || err != nil {
				t.Errorf("after the application's transaction: %d, %v", n, err)
			}
			if got := string(s.app.Rows(t, "SELECT v FROM people WHERE id = 1")[0][0]); got != "theirs" {
				t.Errorf("the application's write is %q now", got)
			}
		})
	}
}

// TestReadersInTheWay: with a rollback journal somebody who reads keeps a commit out. The transaction is undone then, so that
// nobody waits for it, and it works once the reader has ended.
func TestReadersInTheWay(t *testing.T) {
	s := newSwapping(t, reencrypt.Session{LockTimeout: time.Millisecond}, fresh(t, "journal_mode(DELETE)"))
	rows, err := s.app.DB.QueryContext(t.Context(), "SELECT id FROM people")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 0 || !errors.Is(err, reencrypt.ErrContended) {
		t.Errorf("committing while somebody reads: %d, %v", n, err)
	}
	if got := s.swapped(t); got != 0 {
		t.Errorf("%d rows were written", got)
	}
	rows.Close()
	if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 5 || err != nil {
		t.Errorf("after the reader has ended: %d, %v", n, err)
	}
}

// TestTableGoesAway: a table that is dropped or renamed under a writer isn't taken for rows that are refused.
func TestTableGoesAway(t *testing.T) {
	for _, change := range []string{"DROP TABLE people", "ALTER TABLE people RENAME TO persons", "ALTER TABLE people RENAME COLUMN v TO w"} {
		s := newSwapping(t, reencrypt.Session{}, fresh(t))
		s.app.Exec(t, change)
		var refusal *reencrypt.Refusal
		if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 0 || fault.CodeOf(err) != api.CodeNotFound || errors.As(err, &refusal) {
			t.Errorf("writing after %s: %d, %v", change, n, err)
		}
		r, err := s.work.Target.Reader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 1}); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("reading after %s: %v", change, err)
		}
		r.Close()
		if _, err := reencrypt.Count(t.Context(), s.work.Target, 1, connectortest.All); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("counting after %s: %v", change, err)
		}
	}
}

// TestSchemaChangesOnTheWay: a column or an index that the application adds while a run is on its way is no reason to stop.
func TestSchemaChangesOnTheWay(t *testing.T) {
	s := newSwapping(t, reencrypt.Session{}, fresh(t))
	s.app.Exec(t, "ALTER TABLE people ADD COLUMN more TEXT DEFAULT 'x'", "CREATE INDEX by_v ON people (v)")
	if n, err := s.writer.Swap(t.Context(), s.batch, 0, 5); n != 5 || err != nil {
		t.Errorf("after the schema was changed: %d, %v", n, err)
	}
}

// TestDamagedFile: what can't be helped by another try says what to do.
func TestDamagedFile(t *testing.T) {
	app := fresh(t, "journal_mode(DELETE)")
	app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO people SELECT i, '"+canary+"' || hex(zeroblob(50)) FROM n")
	w := connectortest.Work(t, open(t, app.URL), "people", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	app.DB.Close()
	file, err := os.OpenFile(pathOf(t, app), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for page := int64(2); page < info.Size()/4096; page++ {
		if _, err := file.WriteAt([]byte(strings.Repeat("\xa5", 200)), page*4096); err != nil {
			t.Fatal(err)
		}
	}
	r, err := w.Target.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Start(t.Context(), nil, reencrypt.ReadOptions{Rows: 5000}); err != nil {
		t.Fatal(err)
	}
	err = r.Next(t.Context(), reencrypt.NewPage(1, 1))
	if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "integrity_check") || strings.Contains(err.Error(), canary) {
		t.Errorf("reading a damaged file: %v (%s)", err, fault.NextOf(err))
	}
}

// TestPlaintextIsOverwritten: pages that only held plaintext are zeros afterwards. What SQLite copied from page to page
// while it made room is gone after the VACUUM that the notes speak of.
func TestPlaintextIsOverwritten(t *testing.T) {
	app := fresh(t, "journal_mode(DELETE)", "secure_delete(0)")
	long := strings.Repeat(canary+" ", 5000)
	app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO people SELECT i, '"+canary+" ' || i FROM n",
		"INSERT INTO people VALUES (9999, '"+long+"')")
	connectortest.MustFinish(t, connectortest.Work(t, open(t, app.URL), "people", map[string]*connectortest.KeySet{"v": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt))
	count := func(part string) int {
		content, err := os.ReadFile(pathOf(t, app))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(content), part)
	}
	if n := count(long[:200]); n != 0 {
		t.Errorf("%d pieces of a long value are in the file after encryption", n)
	}
	app.Exec(t, "VACUUM")
	if n := count(canary); n != 0 {
		t.Errorf("%d pieces of plaintext are in the file after VACUUM", n)
	}
}

// TestFlush: it gets through beside somebody who reads, leaves the header as it was, and waits for one who writes.
func TestFlush(t *testing.T) {
	for _, synchronous := range []string{"OFF", "NORMAL"} {
		app := fresh(t, "journal_mode(WAL)", "synchronous("+synchronous+")", "wal_autocheckpoint(0)")
		s := newSwapping(t, reencrypt.Session{}, app)
		app.Exec(t, "PRAGMA user_version = -77")
		rows, err := app.DB.QueryContext(t.Context(), "SELECT id FROM people")
		if err != nil || !rows.Next() {
			t.Fatal(err)
		}
		app.Exec(t, "UPDATE people SET v = 'theirs' WHERE id = 1") // behind the reader's back: not to be folded in while it reads
		if err := s.work.Target.Flush(t.Context()); err != nil {
			t.Errorf("flushing beside a reader: %v", err)
		}
		rows.Close()
		release := app.Hold(t, "UPDATE people SET v = 'theirs' WHERE id = 2")
		done := make(chan error)
		go func() { done <- s.work.Target.Flush(t.Context()) }()
		release()
		if err := <-done; err != nil {
			t.Errorf("flushing after a writer: %v", err)
		}
		if got := app.Rows(t, "PRAGMA user_version")[0][0]; string(got) != "-77" {
			t.Errorf("user_version is %s", got)
		}
		// Everything is in the file itself: the log holds nothing that isn't.
		if got := app.Rows(t, "PRAGMA wal_checkpoint(PASSIVE)")[0]; string(got[1]) != string(got[2]) {
			t.Errorf("of %s pages in the log, %s are in the file", got[1], got[2])
		}
	}
}
