package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Describe looks the table up and collects what its catalogue says.
func (d *database) Describe(ctx context.Context, table string) (*reencrypt.Table, error) {
	c, err := d.connect(ctx, asking)
	if err != nil {
		return nil, err
	}
	t, err := d.describe(ctx, c, table)
	return t, errors.Join(err, c.close())
}

func (d *database) describe(ctx context.Context, c *conn, text string) (*reencrypt.Table, error) {
	name, err := lookUp(ctx, c, text)
	if err != nil {
		return nil, err
	}
	r, err := relationOf(ctx, c, name)
	if err != nil {
		return nil, err
	}
	t := &reencrypt.Table{Name: r.name, Rows: -1, Refusal: r.refusal()}
	for _, col := range r.columns {
		t.Columns = append(t.Columns, col.describe(r.strict))
	}
	if t.Refusal != "" {
		return t, nil
	}
	if err := addUniques(ctx, c, r, t); err != nil {
		return nil, err
	}
	return t, d.addNotes(ctx, c, r, t)
}

// lookUp finds the one table that text names. Only the file itself counts: nothing is attached to our connections.
func lookUp(ctx context.Context, c *conn, text string) (string, error) {
	var found []string
	for _, n := range reencrypt.TableNames(text) {
		if n.Schema != "" && !strings.EqualFold(n.Schema, "main") || strings.IndexByte(n.Table, 0) >= 0 {
			continue
		}
		rows, err := c.query(ctx, sqlRelation, n.Table)
		if err != nil {
			return "", err
		}
		for _, r := range rows {
			found = append(found, r.text(0))
		}
	}
	switch found = slices.Compact(found); len(found) {
	case 0:
		near, err := c.query(ctx, sqlNearNames, text)
		if err != nil {
			return "", err
		}
		return "", errNoTable(text, near)
	case 1:
		return found[0], nil
	}
	return "", fault.Newf(api.CodeInvalid, "looking for table %q: the name fits several", text).WithField("table").
		WithNext(`write it quoted, "main"."table" or "table"`)
}

func errNoTable(text string, near []row) error {
	err := fault.Newf(api.CodeNotFound, "looking for table %q: the database has none", text).WithField("table")
	if len(near) > 0 {
		return err.WithNext(fmt.Sprintf("is it %q? Names are taken exactly, upper and lower case differ", near[0].text(0)))
	}
	return err.WithNext("check the name, and whether this is the application's file")
}

// relation is what the catalogue says of one table.
type relation struct {
	name, kind string // kind: table, view, virtual, shadow
	without    bool   // WITHOUT ROWID
	strict     bool
	sql        string
	columns    []column
	indexes    []index
	rowid      string // the column that is another name of the rowid, if there is one
}

// column is a row of sqlColumns.
type column struct {
	name, declared string
	notNull        bool
	generated      bool
	key            int64 // place in the primary key, from 1; 0 = not part of it
}

// index is one index with its key columns.
type index struct {
	name    string
	unique  bool
	origin  string // c = CREATE INDEX, u = UNIQUE, pk = PRIMARY KEY
	partial bool
	sql     string // empty for one that stands for a constraint
	columns []indexColumn
}

// indexColumn is one key column of an index. name is empty for an expression.
type indexColumn struct{ name, collation string }

// relationOf reads the catalogue's rows of a table.
func relationOf(ctx context.Context, c *conn, name string) (*relation, error) {
	rows, err := c.query(ctx, sqlRelation, name)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fault.Newf(api.CodeNotFound, "looking for table %q: it is gone", name).WithField("table")
	}
	r := &relation{name: rows[0].text(0), kind: rows[0].text(1), without: rows[0].number(2) != 0, strict: rows[0].number(3) != 0, sql: rows[0].text(4)}
	if rows, err = c.query(ctx, sqlColumns, name); err != nil {
		return nil, err
	}
	for _, row := range rows {
		r.columns = append(r.columns, column{
			name: row.text(0), declared: row.text(1), notNull: row.number(2) != 0, key: row.number(3), generated: row.number(4) > 1,
		})
	}
	if rows, err = c.query(ctx, sqlIndexes, name); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if n := len(r.indexes); n == 0 || r.indexes[n-1].name != row.text(0) {
			r.indexes = append(r.indexes, index{name: row.text(0), unique: row.number(1) != 0, origin: row.text(2), partial: row.number(3) != 0, sql: row.text(6)})
		}
		x := &r.indexes[len(r.indexes)-1]
		x.columns = append(x.columns, indexColumn{name: row.text(4), collation: row.text(5)})
	}
	r.findRowid()
	return r, nil
}

// findRowid finds INTEGER PRIMARY KEY: the only primary key without an index, except in a table WITHOUT ROWID.
func (r *relation) findRowid() {
	var key []string
	for _, c := range r.columns {
		if c.key > 0 {
			key = append(key, c.name)
		}
	}
	indexed := slices.ContainsFunc(r.indexes, func(x index) bool { return x.origin == "pk" })
	if len(key) == 1 && !r.without && !indexed {
		r.rowid = key[0]
	}
}

func (r *relation) alias(name string) bool { return r.rowid == name }

// refusal is why no row can be updated in place, or empty.
func (r *relation) refusal() string {
	switch {
	case r.kind == "view":
		return "it is a view; name the table behind it"
	case r.kind == "virtual":
		return "it is a virtual table, whose module decides what is kept; name the table behind it"
	case r.kind == "shadow":
		return "it is a part of a virtual table"
	}
	return ""
}

// affinity reads a declared type as SQLite does (https://www.sqlite.org/datatype3.html, section 3.1): the first of these
// words that it contains decides.
func (c column) affinity(strict bool) affinity {
	t := strings.ToUpper(c.declared)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(t, w) })
	}
	switch {
	case t == "" || strict && t == "ANY":
		return affinityNone
	case has("INT"):
		return affinityNumber
	case has("CHAR", "CLOB", "TEXT"):
		return affinityText
	case has("BLOB"):
		return affinityBlob
	}
	return affinityNumber
}

func (c column) describe(strict bool) reencrypt.TableColumn {
	out := reencrypt.TableColumn{Name: c.name, Type: c.declared}
	switch c.affinity(strict) {
	case affinityNone, affinityText:
		out.Form = reencrypt.Text
	case affinityBlob:
		out.Form = reencrypt.Binary
	default:
		out.Form = reencrypt.Unsupported
	}
	if c.declared == "" {
		out.Type = "any (none is declared)"
	}
	if c.generated {
		out.Refusal = "it is generated from other columns; register those"
	}
	return out
}
