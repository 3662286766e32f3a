package connectortest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Exercise runs the suite. A driver that passes can be put into the server's table of drivers.
func Exercise(t *testing.T, h Harness) {
	for name, test := range map[string]func(*bench){
		"AllKinds": allKinds, "Keys": keyTypes, "CompositeKey": compositeKey, "Names": names, "Values": values,
		"SeveralColumns": severalColumns, "MovedRows": movedRows, "CountedApart": countedApart, "EmptyTable": emptyTable,
		"LargeValues": largeValues, "PagesAreBounded": pagesAreBounded, "Cursor": cursor, "StaleSwap": staleSwap, "ChangedTable": changedTable,
		"CaseOnlyChange": caseOnlyChange, "DryRun": dryRun, "Refused": refused, "Held": held, "Shapes": shapes,
		"Missing": missing, "Longest": longest, "NoSecretsInErrors": noSecretsInErrors,
	} {
		t.Run(name, func(t *testing.T) { test(h.open(t)) })
	}
}

const people = "CREATE TABLE people (id bigint PRIMARY KEY, ssn $T, scan $B)"

// fill makes people with ids from 1: odd ones have an ssn, every third a scan.
func (b *bench) fill(n int) {
	b.Helper()
	b.exec(people)
	var rows []string
	for i := 1; i <= n; i++ {
		ssn, scan := "NULL", "NULL"
		if i%2 == 1 {
			ssn = literal(ssnOf(i))
		}
		if i%3 == 0 {
			scan = b.h.BytesLiteral([]byte{0, 0xff, byte(i), byte(i >> 8)})
		}
		rows = append(rows, fmt.Sprintf("(%d, %s, %s)", i, ssn, scan))
	}
	b.exec("INSERT INTO people (id, ssn, scan) VALUES " + strings.Join(rows, ", "))
}

// upTo is a query of the numbers i from 1 to n, in words that every database knows.
func upTo(n int) string {
	return fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n", n)
}

func ssnOf(i int) string { return fmt.Sprintf("9%02d-%02d-%04d", i%100, i%90+10, i) }

func wantSSN(n int) map[string]string {
	out := map[string]string{}
	for i := 1; i <= n; i++ {
		if out[fmt.Sprint(i)] = "null:"; i%2 == 1 {
			out[fmt.Sprint(i)] = ssnOf(i)
		}
	}
	return out
}

// allKinds is the life of a column: encrypt, rotate, re-encrypt, verify, decrypt.
func allKinds(b *bench) {
	b.fill(1000)
	keys := NewKeySet(envelope.SuiteStandard)
	columns := map[string]*KeySet{"ssn": keys}

	c := b.run("people", columns, reencrypt.KindEncrypt)
	if c.Rows != 1000 || c.Changed != 500 || c.Null != 500 || c.Skipped != 500 || c.Failed != 0 {
		b.Errorf("encrypt counted %+v", c)
	}
	b.same(b.opened("people", []string{"id"}, "ssn", keys), wantSSN(1000))
	if c := b.run("people", columns, reencrypt.KindEncrypt); c.Changed != 0 || c.Rows != 1000 {
		b.Errorf("encrypting again counted %+v: nothing may be encrypted twice", c)
	}

	keys.Rotate()
	w := b.work("people", columns, reencrypt.KindReencrypt)
	w.Batch = 64
	if c := MustFinish(b, w); c.Changed != 500 || c.Opened != 500 {
		b.Errorf("re-encrypt counted %+v", c)
	}
	tally := b.tally(w)[0]
	if tally.Null != 500 || tally.Plaintext != 0 || len(tally.Versions) != 1 || tally.Versions[reencrypt.VersionOf{Key: keys.ID(), Version: 2}] != 500 {
		b.Errorf("the census after re-encryption is %+v", tally)
	}
	b.same(b.opened("people", []string{"id"}, "ssn", keys), wantSSN(1000))

	if c := b.run("people", columns, reencrypt.KindVerify); c.Opened != 500 || c.Changed != 0 {
		b.Errorf("verify counted %+v", c)
	}
	w = b.work("people", columns, reencrypt.KindVerify)
	w.Sample = 10
	if c := MustFinish(b, w); c.Opened != 50 || c.NotSampled != 450 || c.Null != 500 {
		b.Errorf("verify with a sample of 10 of 500 counted %+v", c)
	}
	if c := b.run("people", columns, reencrypt.KindDecrypt); c.Changed != 500 {
		b.Errorf("decrypt counted %+v", c)
	}
	for id, v := range b.opened("people", []string{"id"}, "ssn", keys) {
		if want := wantSSN(1000)[id]; v != want && v != "clear:"+want {
			b.Fatalf("row %s holds %q after decrypt", id, v)
		}
	}
}

// keyTypes pages through tables whose keys are of each type the database offers.
func keyTypes(b *bench) {
	for i, k := range b.h.Keys {
		b.Run(k.Name, func(t *testing.T) { b.with(t).keyType(fmt.Sprintf("t%d", i), k) })
	}
}

func (b *bench) keyType(table string, k KeyType) {
	b.exec(fmt.Sprintf("CREATE TABLE %s (k %s PRIMARY KEY NOT NULL, v $T)", table, k.Name))
	want := map[string]string{}
	for j, v := range k.Values {
		b.exec(fmt.Sprintf("INSERT INTO %s (k, v) VALUES (%s, 'secret %d')", table, v, j))
		want[k.Texts[j]] = fmt.Sprintf("secret %d", j)
	}
	keys := NewKeySet(envelope.SuiteCompact)
	w := b.work(table, map[string]*KeySet{"v": keys}, reencrypt.KindEncrypt)
	w.Batch = 2
	if c := MustFinish(b, w); int(c.Changed) != len(k.Values) {
		b.Errorf("%d of %d rows changed", c.Changed, len(k.Values))
	}
	b.same(b.byText(w, table, keys), want)
}

// byText reads a table through the connector and opens its values: text of the key -> plaintext.
func (b *bench) byText(w reencrypt.Work, table string, keys *KeySet) map[string]string {
	b.Helper()
	out := map[string]string{}
	b.eachPage(w, 3, func(p *reencrypt.Page) {
		for i := range p.Rows() {
			var names []string
			for c := range p.Names {
				names = append(names, string(p.Names[c].At(i)))
			}
			name := strings.Join(names, "|")
			if _, twice := out[name]; twice {
				b.Errorf("row %q was read twice", name)
			}
			out[name] = Open(b, table, w.PK, names, w.Columns[0].Name, keys, p.Values[0].Values.At(i))
		}
	})
	return out
}

// eachPage reads the whole table in pages of so many rows.
func (b *bench) eachPage(w reencrypt.Work, rows int, each func(*reencrypt.Page)) {
	b.Helper()
	r, err := w.Target.Reader(b.Context())
	if err != nil {
		b.Fatalf("opening a reader: %v", err)
	}
	defer r.Close()
	if err := r.Start(b.Context(), nil, reencrypt.ReadOptions{Rows: rows}); err != nil {
		b.Fatalf("starting to read: %v", err)
	}
	for p := reencrypt.NewPage(len(w.PK), len(w.Columns)); ; {
		if err := r.Next(b.Context(), p); err != nil {
			b.Fatalf("reading: %v", err)
		}
		if p.Rows() == 0 {
			return
		}
		each(p)
	}
}

func compositeKey(b *bench) {
	statements := []string{"CREATE TABLE visits (ward $K NOT NULL, no bigint NOT NULL, note $T, PRIMARY KEY (ward, no))"}
	want := map[string]string{}
	for i := range 300 {
		ward, no := []string{"", "a", "a|b", "ä ☃", "x'"}[i%5], i/5-20
		statements = append(statements, fmt.Sprintf("INSERT INTO visits VALUES (%s, %d, 'note %d')", literal(ward), no, i))
		want[fmt.Sprintf("%s|%d", ward, no)] = fmt.Sprintf("note %d", i)
	}
	b.exec(statements...)
	keys := NewKeySet(envelope.SuiteStandard)
	w := b.work("visits", map[string]*KeySet{"note": keys}, reencrypt.KindEncrypt)
	w.Batch = 7
	if c := MustFinish(b, w); c.Changed != 300 {
		b.Errorf("%d of 300 rows changed", c.Changed)
	}
	b.same(b.opened("visits", []string{"ward", "no"}, "note", keys), want)
}

// names: whatever a catalogue may hold goes through whole, and nothing of it is ever taken for SQL (CVE-2023-0620).
func names(b *bench) {
	for i, name := range Names {
		b.exec(fmt.Sprintf("CREATE TABLE %s (%s bigint PRIMARY KEY, %s $T)", reencrypt.Quoted(name), reencrypt.Quoted(name), reencrypt.Quoted(name+" v")),
			fmt.Sprintf("INSERT INTO %s VALUES (1, 'one'), (2, 'two')", reencrypt.Quoted(name)))
		keys := NewKeySet(envelope.SuiteStandard)
		if c := b.run(name, map[string]*KeySet{name + " v": keys}, reencrypt.KindEncrypt); c.Changed != 2 {
			b.Errorf("name %d, %q: %d of 2 rows changed", i, name, c.Changed)
		}
		b.same(b.opened(name, []string{name}, name+" v", keys), map[string]string{"1": "one", "2": "two"})
		if _, err := b.db.Describe(b.Context(), reencrypt.Quoted(name)); err != nil {
			b.Errorf("the quoted form of %q: %v", name, err)
		}
	}
}

// Names are identifiers that have broken somebody's quoting.
var Names = []string{
	`x"; drop table people; --`, "Mixed Case", "select", "ünïcode ☃ 表", "a.b", `quo"te`, "it's", "$1", "{pk}", "tab\tand\nline", "%s", "a`b", "[c]", "?1", ":x",
}

func values(b *bench) {
	b.fill(1)
	all := []string{"", " ", "'", `\`, "\\x00", "null", "ünïcode ☃ 表", "kt", "kt1", strings.Repeat("long ", 200000), "\n"}
	want := map[string]string{"1": ssnOf(1)}
	for i, v := range all {
		b.exec(fmt.Sprintf("INSERT INTO people (id, ssn, scan) VALUES (%d, %s, %s)", i+10, literal(v), b.h.BytesLiteral([]byte(v))))
		want[fmt.Sprint(i+10)] = v
	}
	keys := NewKeySet(envelope.SuiteStandard)
	columns := map[string]*KeySet{"ssn": keys, "scan": keys}
	b.run("people", columns, reencrypt.KindEncrypt)
	b.same(b.opened("people", []string{"id"}, "ssn", keys), want)
	want["1"] = "null:"
	b.same(b.opened("people", []string{"id"}, "scan", keys), want)
	b.run("people", columns, reencrypt.KindDecrypt)
	for id, v := range b.opened("people", []string{"id"}, "scan", keys) {
		if v != want[id] && v != "clear:"+want[id] {
			b.Errorf("row %s holds %.60q after decrypt", id, v)
		}
	}
}

// severalColumns: one pass moves them all, each under its own key, and a value that stays doesn't hold back its neighbour.
func severalColumns(b *bench) {
	b.fill(300)
	ssn, scan := NewKeySet(envelope.SuiteStandard), NewKeySet(envelope.SuiteCompact)
	columns := map[string]*KeySet{"ssn": ssn, "scan": scan}
	if c := b.run("people", columns, reencrypt.KindEncrypt); c.Changed != 200 || c.Rows != 300 { // odd ids, and even multiples of 3
		b.Errorf("encrypt counted %+v", c)
	}
	scan.Rotate()
	if c := b.run("people", columns, reencrypt.KindReencrypt); c.Changed != 100 {
		b.Errorf("re-encrypting one of two columns counted %+v", c)
	}
	b.same(b.opened("people", []string{"id"}, "ssn", ssn), wantSSN(300))
	for id, v := range b.opened("people", []string{"id"}, "scan", scan) {
		if v == "closed:" || strings.HasPrefix(v, "clear:") {
			b.Errorf("row %s: scan is %q", id, v)
		}
	}
}

// movedRows: a ciphertext that was copied to another row, or another column, doesn't open there.
func movedRows(b *bench) {
	b.exec("CREATE TABLE people (id bigint PRIMARY KEY, a $T, b $T)", "INSERT INTO people VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2'), (3, 'a3', 'b3')")
	keys := NewKeySet(envelope.SuiteStandard)
	columns := map[string]*KeySet{"a": keys, "b": keys}
	b.run("people", columns, reencrypt.KindEncrypt)
	b.exec("UPDATE people SET a = (SELECT a FROM people WHERE id = 1) WHERE id = 2", "UPDATE people SET b = a WHERE id = 3")
	var r Run
	err := r.Finish(b.Context(), b.work("people", columns, reencrypt.KindVerify))
	if fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != 2 || r.State.Counts.Opened != 4 {
		b.Fatalf("verify found %+v, %v", r.Failed, err)
	}
	if c := r.State.Counts; c.Opened+c.Failed+c.Null+c.Plaintext+c.NotSampled != 6 {
		b.Errorf("verify counted %+v of 6 values", c)
	}
	if f := r.Failed[0]; f.Item != "2" || f.Column != "a" {
		b.Errorf("the first failure is %+v", f)
	}
	keys.Rotate()
	r = Run{}
	err = r.Finish(b.Context(), b.work("people", columns, reencrypt.KindReencrypt))
	if fault.CodeOf(err) != api.CodeIntegrity || r.State.Counts.Changed != 3 || r.State.Left != 2 {
		b.Errorf("re-encrypting moved rows: %+v, %v", r.State, err)
	}
	if got := b.opened("people", []string{"id"}, "a", keys); got["1"] != "a1" || got["2"] != "closed:" || got["3"] != "a3" {
		b.Errorf("after re-encryption the rows are %v", got)
	}
}

// countedApart: null, plaintext, foreign and broken values are told apart and never touched by mistake.
func countedApart(b *bench) {
	b.fill(9) // ssn: 5 plaintexts, 4 null
	keys, other := NewKeySet(envelope.SuiteStandard), NewKeySet(envelope.SuiteStandard)
	sealed, err := other.Current().Seal(nil, []byte("theirs"), nil)
	if err != nil {
		b.Fatal(err)
	}
	foreign := string(envelope.AppendText(nil, sealed))
	broken := map[string]string{"101": foreign, "102": foreign[:80], "103": "kt1.", "104": "kt1." + strings.Repeat("A", 200)}
	for id, v := range broken {
		b.exec(fmt.Sprintf("INSERT INTO people (id, ssn) VALUES (%s, %s)", id, literal(v)))
	}
	b.exec("INSERT INTO people (id, ssn) VALUES (105, 'kt1. mentioned'), (106, 'kt1')")
	columns := map[string]*KeySet{"ssn": keys}
	before := b.app.Rows(b, "SELECT ssn FROM people WHERE id BETWEEN 101 AND 104 ORDER BY id")

	for _, kind := range []reencrypt.Kind{reencrypt.KindReencrypt, reencrypt.KindEncrypt} {
		var r Run
		if err := r.Finish(b.Context(), b.work("people", columns, kind)); err != nil {
			b.Fatalf("%s: %v", kind, err)
		}
		c := r.State.Counts
		if c.Unreadable != 4 || c.Null != 4 || c.Plaintext != 7 || len(r.Failed) != 4 {
			b.Errorf("%s counted %+v with %d failures", kind, c, len(r.Failed))
		}
		if want := map[reencrypt.Kind]int64{reencrypt.KindEncrypt: 7}[kind]; c.Changed != want {
			b.Errorf("%s changed %d rows, want %d", kind, c.Changed, want)
		}
	}
	tally := b.tally(b.work("people", columns, reencrypt.KindReencrypt))[0]
	// The one cut to 80 characters still has its whole header, of a key that isn't ours.
	if tally.Null != 4 || tally.Plaintext != 0 || tally.Broken != 2 || tally.Versions[reencrypt.VersionOf{Key: other.ID(), Version: 1}] != 2 || tally.Rows() != 15 {
		b.Errorf("the census is %+v", tally)
	}
	after := b.app.Rows(b, "SELECT ssn FROM people WHERE id BETWEEN 101 AND 104 ORDER BY id")
	for i := range before {
		if !bytes.Equal(before[i][0], after[i][0]) {
			b.Errorf("row %d was touched", 101+i)
		}
	}
}

func emptyTable(b *bench) {
	b.exec(people)
	columns := map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}
	for _, kind := range reencrypt.Kinds() {
		if c := b.run("people", columns, kind); c != (reencrypt.Counts{}) {
			b.Errorf("%s of an empty table counted %+v", kind, c)
		}
	}
}

// largeValues: one that is too large to be held in memory safely is reported, not read.
func largeValues(b *bench) {
	b.fill(3)
	b.exec(fmt.Sprintf("INSERT INTO people (id, ssn) VALUES (50, %s)", literal(strings.Repeat("x", reencrypt.MaxValue+1))))
	keys := NewKeySet(envelope.SuiteStandard)
	var r Run
	err := r.Finish(b.Context(), b.work("people", map[string]*KeySet{"ssn": keys}, reencrypt.KindEncrypt))
	if fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != 1 || r.Failed[0].Item != "50" || r.State.Counts.Changed != 2 {
		b.Errorf("encrypting beside a value that is too large: %+v, %+v, %v", r.State, r.Failed, err)
	}
}

// pagesAreBounded: many large values come in many small pages.
func pagesAreBounded(b *bench) {
	const n, size = 40, 300 << 10
	statements := []string{people}
	for i := range n {
		statements = append(statements, fmt.Sprintf("INSERT INTO people (id, ssn) VALUES (%d, %s)", i, literal(strings.Repeat(string(rune('a'+i%26)), size))))
	}
	b.exec(statements...)
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	rows := 0
	b.eachPage(w, 1000, func(p *reencrypt.Page) {
		rows += p.Rows()
		if p.Size() > reencrypt.PageBytes+size+64 {
			b.Errorf("a page of %d bytes", p.Size())
		}
	})
	if rows != n {
		b.Errorf("read %d of %d rows", rows, n)
	}
	if c := MustFinish(b, w); c.Changed != n {
		b.Errorf("encrypt counted %+v", c)
	}
}

// cursor: reading goes on behind a key, in a new connection too, and refuses keys that aren't of this table.
func cursor(b *bench) {
	b.fill(100)
	w := b.work("people", map[string]*KeySet{"ssn": NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
	var at reencrypt.Key
	b.eachPage(w, 30, func(p *reencrypt.Page) {
		if at == nil {
			at = p.Key(29)
		}
	})
	r, err := w.Target.Reader(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	if err := r.Start(b.Context(), at, reencrypt.ReadOptions{Rows: 1000}); err != nil {
		b.Fatalf("going on behind a key: %v", err)
	}
	p := reencrypt.NewPage(1, 1)
	if err := r.Next(b.Context(), p); err != nil || p.Rows() != 70 || string(p.Names[0].At(0)) != "31" {
		b.Errorf("behind row 30 there are %d rows, %v", p.Rows(), err)
	}
	for _, bad := range []reencrypt.Key{{}, {1}, {0, 0, 0, 1, 'x'}, append(bytes.Clone(at), at...), {0xff, 0xff, 0xff, 0xff}} {
		if err := r.Start(b.Context(), bad, reencrypt.ReadOptions{Rows: 1}); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "cursor" {
			b.Errorf("the key %x is accepted: %v", []byte(bad), err)
		}
	}
	if err := r.Find(b.Context(), p, []reencrypt.Key{at}); err != nil || p.Rows() != 1 || string(p.Names[0].At(0)) != "30" {
		b.Errorf("finding row 30: %d rows, %v", p.Rows(), err)
	}
	b.exec("DELETE FROM people WHERE id = 30")
	if err := r.Find(b.Context(), p, []reencrypt.Key{at}); err != nil || p.Rows() != 0 {
		b.Errorf("finding a deleted row: %d rows, %v", p.Rows(), err)
	}
}

// batchOf makes a batch that seals rows of a page, one value per row, without a run around it.
func (b *bench) batchOf(w reencrypt.Work, p *reencrypt.Page) *reencrypt.Batch {
	b.Helper()
	out := reencrypt.NewBatch(len(w.PK), 1)
	for i := range p.Rows() {
		v := p.Values[0].Values.At(i)
		if v == nil {
			continue
		}
		for c := range p.Keys {
			out.Keys[c].Append(p.Keys[c].At(i))
			out.Names[c].Append(p.Names[c].At(i))
		}
		out.Old[0].Add(v, p.Values[0].Forms[i])
		out.New[0].Add(append([]byte("new "), v...), p.Values[0].Forms[i])
	}
	return out
}
