package connectortest

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Harness is a database under test and how to speak to it behind the connector's back, as an application would.
type Harness struct {
	Driver reencrypt.Driver
	// Fresh makes an empty database that goes away with the test.
	Fresh func(tb testing.TB) Database
	// Types of columns: characters, bytes, and types for keys with some values of each, as SQL literals.
	Text, Bytes string
	Keys        []KeyType
	// KeyText is the type of characters in a key; empty where Text may be part of one.
	KeyText string
	// CaseBlind is a type or a suffix of a column definition that compares text without regard to case, and still can
	// hold ciphertexts.
	CaseBlind string
	// BytesLiteral spells bytes as SQL.
	BytesLiteral func(b []byte) string
}

// KeyType is a type that a primary key may have.
type KeyType struct {
	Name   string
	Values []string // SQL literals, all different
	Texts  []string // what contexts say of them
}

// Database is one database, spoken to as its application does.
type Database struct {
	URL string
	DB  *sql.DB
	// Cut ends every connection of the connector, as a network would; nil where there is no network.
	Cut func(tb testing.TB)
	// Rewrite spells a statement of [Writers], with $1 for parameters in their order and ON CONFLICT, as this database takes
	// it; nil where it does by itself.
	Rewrite func(statement string) string
}

func (d Database) rewrite(statement string) string {
	if d.Rewrite == nil {
		return statement
	}
	return d.Rewrite(statement)
}

// Exec runs statements, each in a transaction of its own.
func (d Database) Exec(tb testing.TB, statements ...string) {
	tb.Helper()
	conn := d.conn(tb)
	defer conn.Close()
	for _, s := range statements {
		if _, err := conn.ExecContext(context.Background(), s); err != nil {
			tb.Fatalf("%.200s: %v", s, err)
		}
	}
}

func (d Database) conn(tb testing.TB) *sql.Conn {
	tb.Helper()
	conn, err := d.DB.Conn(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// Rows answers a query's values as the text or bytes that stand there; nil for NULL.
func (d Database) Rows(tb testing.TB, query string) (out [][][]byte) {
	tb.Helper()
	rows, err := d.DB.Query(query)
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			tb.Fatal(err)
		}
		out = append(out, asBytes(tb, values))
	}
	if rows.Err() != nil {
		tb.Fatal(rows.Err())
	}
	return out
}

// asBytes is a row as database/sql answers it, back in bytes.
func asBytes(tb testing.TB, row []any) [][]byte {
	tb.Helper()
	out := make([][]byte, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case nil:
		case []byte:
			out[i] = append([]byte{}, v...)
		case string:
			out[i] = append([]byte{}, v...)
		case int64:
			out[i] = strconv.AppendInt(nil, v, 10)
		default:
			tb.Fatalf("a value of type %T isn't expected here", v)
		}
	}
	return out
}

// Hold runs a statement in a transaction and keeps that open until release is called, which commits.
func (d Database) Hold(tb testing.TB, statement string) (release func()) {
	tb.Helper()
	tx, err := d.DB.Begin()
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := tx.Exec(statement); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := tx.Commit(); err != nil {
			tb.Error(err)
		}
	}
}

// bench is one database with the connector opened on it.
type bench struct {
	*testing.T
	h   Harness
	app Database
	db  reencrypt.Database
}

func (h Harness) open(t *testing.T) *bench {
	t.Helper()
	app := h.Fresh(t)
	db, err := h.Driver.Open(t.Context(), reencrypt.NewDSN(app.URL), reencrypt.Session{})
	if err != nil {
		t.Fatalf("opening the database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return &bench{T: t, h: h, app: app, db: db}
}

// with is the same database in a subtest.
func (b *bench) with(t *testing.T) *bench { return &bench{T: t, h: b.h, app: b.app, db: b.db} }

// exec runs statements as the application; $T, $B and $K stand for the types of text, of bytes and of text in a key.
func (b *bench) exec(statements ...string) {
	b.Helper()
	types := strings.NewReplacer("$T", b.h.Text, "$B", b.h.Bytes, "$K", cmp.Or(b.h.KeyText, b.h.Text))
	for i, s := range statements {
		statements[i] = types.Replace(s)
	}
	b.app.Exec(b, statements...)
}

// work is a run over columns of a table.
func (b *bench) work(table string, columns map[string]*KeySet, kind reencrypt.Kind) reencrypt.Work {
	b.Helper()
	return Work(b, b.db, table, columns, kind)
}

// run finishes a run and answers its counts.
func (b *bench) run(table string, columns map[string]*KeySet, kind reencrypt.Kind) reencrypt.Counts {
	b.Helper()
	return MustFinish(b, b.work(table, columns, kind))
}

// literal is text as SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// opened reads a column back as the application would and opens each value under its row's context: pk text -> plaintext.
// NULL and what isn't a ciphertext come as they are, in front of a "null:" or "clear:".
func (b *bench) opened(table string, pk []string, column string, keys *KeySet) map[string]string {
	b.Helper()
	quoted := make([]string, len(pk))
	for i, name := range pk {
		quoted[i] = reencrypt.Quoted(name)
	}
	out := map[string]string{}
	query := fmt.Sprintf("SELECT %s, %s FROM %s", strings.Join(quoted, ", "), reencrypt.Quoted(column), reencrypt.Quoted(table))
	for _, row := range b.app.Rows(b, query) {
		names := make([]string, len(pk))
		for i := range pk {
			names[i] = string(row[i])
		}
		out[strings.Join(names, "|")] = Open(b, table, pk, names, column, keys, row[len(pk)])
	}
	return out
}

// Open opens one value as it stands in its row, under the default context. What isn't a ciphertext comes back with
// "clear:" in front of it, NULL as "null:".
func Open(tb testing.TB, table string, pk, names []string, column string, keys *KeySet, value []byte) string {
	tb.Helper()
	if value == nil {
		return "null:"
	}
	if !envelope.LooksLikeCiphertext(value) {
		return "clear:" + string(value)
	}
	m := map[string]string{"table": table, "column": column}
	for i, name := range pk {
		m["pk."+name] = names[i]
	}
	ctx, err := envelope.NewContext(m)
	if err != nil {
		tb.Fatalf("the context of row %q: %v", names, err)
	}
	blob := value
	if strings.HasPrefix(string(value), "kt1.") {
		if blob, err = envelope.AppendDecodedText(nil, value); err != nil {
			tb.Fatalf("row %q: %v", names, err)
		}
	}
	info, err := envelope.Inspect(blob)
	if err != nil {
		tb.Fatalf("row %q: %v", names, err)
	}
	key, err := keys.Opener(tb.Context(), info.Version)
	if err != nil {
		tb.Fatalf("row %q: %v", names, err)
	}
	plain, err := key.Open(nil, blob, ctx)
	if err != nil {
		return "closed:"
	}
	return string(plain)
}

// All tells every version apart that a header can name.
func All(context.Context, reencrypt.VersionOf) (bool, error) { return true, nil }

// tally counts a table as a census does.
func (b *bench) tally(w reencrypt.Work) []reencrypt.Tally {
	b.Helper()
	t, err := reencrypt.Count(b.Context(), w.Target, len(w.Columns), All)
	if err != nil {
		b.Fatalf("counting: %v", err)
	}
	return t
}

// same compares what was opened with what should be there.
func (b *bench) same(got, want map[string]string) {
	b.Helper()
	keys := make([]string, 0, len(got)+len(want))
	for k := range got {
		keys = append(keys, k)
	}
	for k := range want {
		if _, ok := got[k]; !ok {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		if g, ok := got[k]; !ok || g != want[k] {
			b.Errorf("row %q holds %.60q, want %.60q", k, g, want[k])
		}
	}
}
