package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// relation is a row of sqlRelation.
type relation struct {
	oid, schema, name, kind, persistence string
	hidden, standby, rules, children     bool
	rows                                 int64
	fsync                                string
}

func relationOf(row []string) relation {
	r := relation{
		oid: row[0], schema: row[1], name: row[2], kind: row[3], persistence: row[4],
		hidden: row[5] == "t", standby: row[6] == "t", rules: row[7] == "t", children: row[8] == "t", rows: -1, fsync: row[10],
	}
	if n, err := strconv.ParseInt(row[9], 10, 64); err == nil { // empty where there is nothing to count, as for a view
		r.rows = n
	}
	return r
}

// refusal is why no row of the relation can be updated in place, or empty.
func (r relation) refusal() string {
	switch {
	case r.kind == "v" || r.kind == "m":
		return "it is a view; name the table behind it"
	case r.kind == "f":
		return "it is a foreign table; register it at the database that holds it"
	case r.standby:
		return "the database is a read-only standby; name the primary"
	case r.rules:
		return "a rewrite rule stands on its updates, so what is written isn't what would be kept"
	case r.children:
		return "other tables inherit from it, so its key doesn't identify a row"
	case r.hidden:
		return "row-level security hides rows from the user of the database URL; use one with BYPASSRLS, or the table's owner"
	}
	return ""
}

// Describe looks the table up and collects what its catalogue says.
func (d *database) Describe(ctx context.Context, table string) (*reencrypt.Table, error) {
	conn, err := d.connect(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	t, err := describe(ctx, conn, table)
	return t, errors.Join(err, closeConn(conn))
}

func describe(ctx context.Context, conn *pgconn.PgConn, table string) (*reencrypt.Table, error) {
	r, err := lookUp(ctx, conn, table)
	if err != nil {
		return nil, err
	}
	t := &reencrypt.Table{Schema: r.schema, Name: r.name, Rows: r.rows, Refusal: r.refusal()}
	ours, err := query(ctx, conn, sqlStore, r.schema)
	if err != nil {
		return nil, err
	}
	if ours[0][0] == "t" {
		t.Refusal = "its schema holds a store of keyturn's own, and work on it would destroy keys; name a table of the application"
	}
	columns, err := columnsOf(ctx, conn, r.oid)
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		t.Columns = append(t.Columns, c.describe())
	}
	if t.Uniques, t.HasPK, err = uniquesOf(ctx, conn, r.oid); err != nil {
		return nil, err
	}
	if err := addUses(ctx, conn, r.oid, columns, t); err != nil {
		return nil, err
	}
	return t, addNotes(ctx, conn, r, t)
}

// column is a row of sqlColumns.
type column struct {
	number, name, printed           string // printed: the type as the table declares it
	base                            string // oid of the type below all domains
	element                         string // its name as SQL takes it
	typname                         string
	known, arrays                   bool // an operator of pg_catalog compares it; arrays of it exist
	modifier                        int
	notNull, generated, read, write bool
}

func columnsOf(ctx context.Context, conn *pgconn.PgConn, oid string) ([]column, error) {
	rows, err := query(ctx, conn, sqlColumns, oid)
	if err != nil {
		return nil, err
	}
	out := make([]column, len(rows))
	for i, r := range rows {
		modifier, err := strconv.Atoi(r[8])
		if err != nil {
			modifier = -1
		}
		out[i] = column{
			number: r[0], name: r[1], printed: r[2], base: r[3], element: r[4], typname: r[5], known: r[6] == "t", arrays: r[7] == "t",
			modifier: modifier, notNull: r[9] == "t", generated: r[10] == "t", read: r[11] == "t", write: r[12] == "t",
		}
	}
	return out, nil
}

// form says what can stand in the column. Blank-padded character(n) can't hold ciphertexts: it would change them.
func (c column) form() reencrypt.Form {
	switch {
	case !c.known:
		return reencrypt.Unsupported
	case c.typname == "text" || c.typname == "varchar":
		return reencrypt.Text
	case c.typname == "bytea":
		return reencrypt.Binary
	}
	return reencrypt.Unsupported
}

func (c column) describe() reencrypt.TableColumn {
	out := reencrypt.TableColumn{Name: c.name, Type: c.printed, Form: c.form()}
	if c.typname == "varchar" && c.modifier > 4 {
		out.Width = c.modifier - 4 // the modifier counts a length word that is long gone
	}
	switch {
	case c.generated:
		out.Refusal = "it is generated from other columns; register those"
	case !c.read || !c.write:
		out.Refusal = "the user of the database URL needs SELECT and UPDATE on it"
	}
	switch {
	case !c.known || !c.arrays:
		out.KeyRefusal = "its type " + c.printed + " comes from an extension; only PostgreSQL's own types can be part of a key"
	case !c.read:
		out.KeyRefusal = "the user of the database URL needs SELECT on it"
	}
	return out
}

// uniquesOf groups the rows of sqlUniques by index and leaves out those with a column that may be NULL.
func uniquesOf(ctx context.Context, conn *pgconn.PgConn, oid string) (uniques [][]string, hasPK bool, err error) {
	rows, err := query(ctx, conn, sqlUniques, oid)
	if err != nil {
		return nil, false, err
	}
	for i := 0; i < len(rows); {
		index, primary, whole := rows[i][0], rows[i][1] == "t", true
		var names []string
		for ; i < len(rows) && rows[i][0] == index; i++ {
			names = append(names, rows[i][2])
			whole = whole && rows[i][3] == "t"
		}
		if whole {
			uniques = append(uniques, names)
			hasPK = hasPK || primary
		}
	}
	return uniques, hasPK, nil
}

// addUses writes to each column what looks at its values.
func addUses(ctx context.Context, conn *pgconn.PgConn, oid string, columns []column, t *reencrypt.Table) error {
	rows, err := query(ctx, conn, sqlColumnUses, oid)
	if err != nil {
		return err
	}
	for _, r := range rows {
		for i := range t.Columns {
			if c := &t.Columns[i]; columns[i].number == r[2] {
				addUse(c, r[0], r[1])
			}
		}
	}
	return nil
}

func addUse(c *reencrypt.TableColumn, what, name string) {
	note := func(format string, args ...any) { c.Notes = append(c.Notes, fmt.Sprintf(format, args...)) }
	switch what {
	case "foreign key":
		c.Refusal = fmt.Sprintf("it is part of foreign key %q: its values are looked up elsewhere", name)
	case "exclusion":
		c.Refusal = fmt.Sprintf("exclusion constraint %q compares its values", name)
	case "generated column":
		c.Refusal = fmt.Sprintf("column %q is generated from it and would be made from ciphertext", name)
	case "unique index":
		note("column %q: unique index %q won't find equal values any more, because every ciphertext differs", c.Name, name)
	case "index":
		note("column %q: index %q is of no use on ciphertexts, and limits a value to about 2,700 bytes", c.Name, name)
	case "check":
		note("column %q: check constraint %q must let ciphertexts pass", c.Name, name)
	}
}

// addNotes says what moving rows of this table will set in motion.
func addNotes(ctx context.Context, conn *pgconn.PgConn, r relation, t *reencrypt.Table) error {
	t.Notes = append(t.Notes, "every row that is moved leaves a dead version behind and writes about 640 bytes of write-ahead log: "+
		"have disk to spare, and let autovacuum follow")
	if r.persistence == "u" {
		t.Notes = append(t.Notes, "the table is unlogged: the database empties it after a crash")
	}
	if r.fsync == "off" {
		t.Notes = append(t.Notes, "the server runs with fsync=off: nothing that is written there survives a power cut for sure")
	}
	rows, err := query(ctx, conn, sqlFollowers, r.oid)
	if err != nil {
		return err
	}
	for _, f := range rows {
		if f[0] == "trigger" {
			t.Notes = append(t.Notes, fmt.Sprintf("trigger %q runs for every row that is moved", f[1]))
			continue
		}
		t.Notes = append(t.Notes, fmt.Sprintf("publication %q sends every row that is moved to its subscribers", f[1]))
	}
	return nil
}
