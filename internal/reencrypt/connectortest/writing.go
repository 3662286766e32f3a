package connectortest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// readToWrite reads a table of at most 100 rows, makes a batch of it, and connects the writer that is to write it back.
func (b *bench) readToWrite(w reencrypt.Work) (reencrypt.Writer, *reencrypt.Batch) {
	b.Helper()
	writer, err := w.Target.Writer(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { writer.Close() })
	var batch *reencrypt.Batch
	b.eachPage(w, 100, func(p *reencrypt.Page) { batch = b.batchOf(w, p) })
	return writer, batch
}

// staleSwap is promise P6: what the application wrote since the page was read stays.
func staleSwap(b *bench) {
	b.fill(9)
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	writer, batch := b.readToWrite(w)
	b.exec("UPDATE people SET ssn = 'theirs' WHERE id = 3", "DELETE FROM people WHERE id = 5", "UPDATE people SET ssn = NULL WHERE id = 7")
	if n, err := writer.Swap(b.Context(), batch, 0, batch.Rows()); err != nil || n != 2 {
		b.Errorf("a page with three stale rows of five: %d swapped, %v", n, err)
	}
	if n, err := writer.Swap(b.Context(), batch, 0, batch.Rows()); err != nil || n != 0 {
		b.Errorf("the same page again: %d swapped, %v", n, err)
	}
	got := map[string]string{}
	for _, row := range b.app.Rows(b, "SELECT id, ssn FROM people WHERE ssn IS NOT NULL") {
		got[string(row[0])] = string(row[1])
	}
	b.same(got, map[string]string{"1": "new " + ssnOf(1), "3": "theirs", "9": "new " + ssnOf(9)})
}

// changedTable: a writer that has written goes on after the table got another column, and says so when its own is gone.
func changedTable(b *bench) {
	b.fill(9)
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	writer, batch := b.readToWrite(w)
	swap := func(row int) (int, error) { return writer.Swap(b.Context(), batch, row, row+1) }
	if n, err := swap(0); err != nil || n != 1 {
		b.Fatalf("%d swapped, %v", n, err)
	}
	b.exec("ALTER TABLE people ADD COLUMN later int")
	if n, err := swap(1); err != nil || n != 1 {
		b.Errorf("after the table got a column: %d swapped, %v", n, err)
	}
	b.exec("ALTER TABLE people RENAME COLUMN ssn TO other")
	if n, err := swap(2); fault.CodeOf(err) != api.CodeNotFound || n != 0 {
		b.Errorf("after the column was renamed: %d swapped, %v (%s)", n, err, fault.CodeOf(err))
	}
}

// caseOnlyChange: "equal" means to the byte, whatever the column thinks.
func caseOnlyChange(b *bench) {
	b.exec("CREATE TABLE people (id bigint PRIMARY KEY, ssn "+b.h.CaseBlind+")", "INSERT INTO people VALUES (1, 'abc'), (2, 'abc')")
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	writer, batch := b.readToWrite(w)
	b.exec("UPDATE people SET ssn = 'ABC' WHERE id = 1")
	if n, err := writer.Swap(b.Context(), batch, 0, 2); err != nil || n != 1 {
		b.Errorf("a row that changed in case only: %d swapped, %v", n, err)
	}
	if c := MustFinish(b, w); c.Changed != 2 {
		b.Errorf("encrypt counted %+v", c)
	}
}

func dryRun(b *bench) {
	b.fill(100)
	before := b.app.Rows(b, "SELECT ssn FROM people ORDER BY id")
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	w.DryRun = true
	if c := MustFinish(b, w); c.Changed != 50 || c.Rows != 100 {
		b.Errorf("a dry run counted %+v", c)
	}
	for i, row := range b.app.Rows(b, "SELECT ssn FROM people ORDER BY id") {
		if !bytes.Equal(row[0], before[i][0]) {
			b.Fatalf("a dry run wrote row %d", i+1)
		}
	}
}

// refused: a row that the database won't have goes to the dead-letter list with a reason that quotes no value; when it
// won't have any, the run says so at once.
func refused(b *bench) {
	b.exec("CREATE TABLE people (id bigint PRIMARY KEY, ssn $T, CONSTRAINT short CHECK (id < 500 OR length(ssn) < 20))",
		"INSERT INTO people SELECT i, 'canary-4711' FROM ("+upTo(300)+") AS s", "INSERT INTO people VALUES (500, 'canary-4711')")
	columns := map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}
	var r Run
	err := r.Finish(b.Context(), b.work("people", columns, reencrypt.KindEncrypt))
	if fault.CodeOf(err) != api.CodeIntegrity || r.State.Counts.Changed != 300 || len(r.Failed) != 1 {
		b.Fatalf("encrypting with one row refused: %+v, %+v, %v", r.State, r.Failed, err)
	}
	if f := r.Failed[0]; f.Item != "500" || f.Column != "ssn" || strings.Contains(f.Reason, "canary") || !strings.Contains(f.Reason, "refused") {
		b.Errorf("the failure is %+v", f)
	}
	b.exec("CREATE TABLE people2 (id bigint PRIMARY KEY, ssn $T CHECK (length(ssn) < 20))",
		"INSERT INTO people2 SELECT i, 'canary-4711' FROM ("+upTo(300)+") AS s")
	r = Run{}
	err = r.Finish(b.Context(), b.work("people2", columns, reencrypt.KindEncrypt))
	if fault.CodeOf(err) != api.CodeInvalid || strings.Contains(fmt.Sprint(err), "canary") {
		b.Errorf("encrypting what no row can take: %v", err)
	}
}

// held: rows that the application holds are waited for briefly, the rest of their page is written, and they are done as
// soon as they are free. Where the whole database is held, everything waits.
func held(b *bench) {
	b.fill(200)
	keys := NewKeySet(envelope.SuiteStandard)
	w := b.work("people", map[string]*KeySet{"ssn": keys}, reencrypt.KindEncrypt)
	release := b.app.Hold(b, "UPDATE people SET ssn = 'theirs' WHERE id = 77")
	done := make(chan error, 1)
	var r Run
	go func() { done <- r.Finish(b.Context(), w) }()
	if w.Target.Writers() > 1 {
		b.waitFor(func() bool { // all but the one row
			t, err := reencrypt.Count(b.Context(), w.Target, 1, All)
			return err == nil && t[0].Plaintext == 1
		})
	}
	release()
	if err := <-done; err != nil {
		b.Fatalf("encrypting around a held row: %v", err)
	}
	want := wantSSN(200)
	want["77"] = "theirs"
	b.same(b.opened("people", []string{"id"}, "ssn", keys), want)
}

func (b *bench) waitFor(done func() bool) {
	b.Helper()
	for !done() {
		if b.Context().Err() != nil {
			b.Fatal("waited in vain")
		}
	}
}
