package sqlite

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// target is columns of one table. Every column in its SQL stands behind the table's alias t: a bare "name" that is no column
// (any more) would be taken for a string.
type target struct {
	db      *database
	table   string // quoted, with its schema
	keys    []keyColumn
	columns []valueColumn
}

// keyColumn is one column of the key.
type keyColumn struct {
	quoted   string // with the alias
	collate  string // what orders the index that the key comes from
	affinity affinity
	nullable bool
	exact    bool // = finds the value of the same type and bytes only
}

// valueColumn is one ciphertext column.
type valueColumn struct {
	bare   string // quoted, for SET
	quoted string // with the alias
}

// Marks that stand for values which aren't transferred. They can't be mistaken: numbers never are.
const (
	markUnsupported = 0
	markCurrent     = 1
	markTooLarge    = 2
)

// Target asks the catalogue again for what Table doesn't hold.
func (d *database) Target(ctx context.Context, t *reencrypt.Table, pk, columns []string) (reencrypt.Target, error) {
	c, err := d.connect(ctx, asking)
	if err != nil {
		return nil, err
	}
	r, err := relationOf(ctx, c, t.Name)
	if err := errors.Join(err, c.close()); err != nil {
		return nil, err
	}
	out := &target{db: d, table: "main." + reencrypt.Quoted(r.name)}
	for _, name := range pk {
		col, err := r.find(name)
		if err != nil {
			return nil, err
		}
		collate := r.collationOf(pk, name)
		out.keys = append(out.keys, keyColumn{
			quoted: "t." + reencrypt.Quoted(name), collate: collate, affinity: col.affinity(r.strict), nullable: !col.notNull && !r.alias(name),
			exact: collate == byBytes && (col.affinity(r.strict) == affinityText || col.affinity(r.strict) == affinityNumber),
		})
	}
	for _, name := range columns {
		if _, err := r.find(name); err != nil {
			return nil, err
		}
		out.columns = append(out.columns, valueColumn{bare: reencrypt.Quoted(name), quoted: "t." + reencrypt.Quoted(name)})
	}
	return out, nil
}

func (r *relation) find(name string) (column, error) {
	i := slices.IndexFunc(r.columns, func(c column) bool { return c.name == name })
	if i < 0 {
		return column{}, fault.Newf(api.CodeNotFound, "preparing work on a table: column %q is gone", name)
	}
	return r.columns[i], nil
}

// Writers is 1: SQLite lets one in at a time.
func (t *target) Writers() int { return 1 }

// byBytes is the collation that compares bytes.
const byBytes = "BINARY"

// kindSQL is the type of a value, as typeof names it. Text that UTF-16 can't give back as it is stored (half a pair, half
// a character) is none: trim without anything to trim takes it through UTF-8.
func (t *target) kindSQL(c valueColumn) string {
	if !t.db.wide {
		return fmt.Sprintf("typeof(%s)", c.quoted)
	}
	return fmt.Sprintf("CASE WHEN typeof(%[1]s) = 'text' AND trim(%[1]s, '') COLLATE BINARY <> %[1]s THEN 'broken' ELSE typeof(%[1]s) END", c.quoted)
}

// projection spares the way of values that the caller doesn't need, and the memory of those that are too large.
func (t *target) projection(c valueColumn, skip envelope.Header) string {
	text, blob := "", ""
	if skip.Version != 0 {
		raw, _ := skip.AppendBinary(nil) // never fails
		text = fmt.Sprintf("WHEN substr(%s, 1, %d) COLLATE BINARY = '%s' THEN %d ", c.quoted, envelope.PrefixLen, skip.PrefixText(), markCurrent)
		blob = fmt.Sprintf("WHEN substr(%s, 1, %d) = x'%s' THEN %d ", c.quoted, envelope.HeaderSize, hex.EncodeToString(raw), markCurrent)
	}
	large := fmt.Sprintf("WHEN octet_length(%s) > %d THEN %d", c.quoted, reencrypt.MaxValue, markTooLarge)
	return fmt.Sprintf("CASE %s WHEN 'text' THEN CASE %s%s ELSE %s END WHEN 'blob' THEN CASE %s%s ELSE %s END WHEN 'null' THEN NULL ELSE %d END",
		t.kindSQL(c), text, large, c.quoted, blob, large, c.quoted, markUnsupported)
}

// selectSQL is keys and values of some rows. The + in front of a key keeps the driver from looking at the declared type:
// it would make times of texts in a column that is declared DATE.
func (t *target) selectSQL(skip []envelope.Header) string {
	var parts []string
	for _, k := range t.keys {
		parts = append(parts, "+"+k.quoted)
	}
	for i, c := range t.columns {
		var h envelope.Header
		if i < len(skip) {
			h = skip[i]
		}
		parts = append(parts, t.projection(c, h))
	}
	return "SELECT " + strings.Join(parts, ", ") + " FROM " + t.table + " AS t"
}

// pageSQL is one page. Parameters: the cursor's columns, if there is one; then the number of rows. Rows with NULL in their
// key have no place in it: nothing finds them again.
func (t *target) pageSQL(after bool, skip []envelope.Header) string {
	var order, where, marks []string
	for _, k := range t.keys {
		order = append(order, k.quoted+" COLLATE "+reencrypt.Quoted(k.collate))
		marks = append(marks, "?")
	}
	if after {
		where = append(where, "("+strings.Join(order, ", ")+") > ("+strings.Join(marks, ", ")+")")
	}
	for _, k := range t.keys {
		if k.nullable {
			where = append(where, k.quoted+" IS NOT NULL")
		}
	}
	sql := t.selectSQL(skip)
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql + " ORDER BY " + strings.Join(order, ", ") + " LIMIT ?"
}

// findSQL is one row by its key, in the shape of pageSQL. Parameters: those of matchSQL.
func (t *target) findSQL(skip []envelope.Header) string {
	return t.selectSQL(skip) + " WHERE " + t.matchSQL()
}

// matchSQL is a row by its key, exactly: where the index takes two spellings for the same (NOCASE), or 1 and 1.0, the row
// may have changed from one into the other, and its ciphertexts are bound to how it is spelled. Parameters: the key's
// columns, each as often as keyColumn.params says.
func (t *target) matchSQL() string {
	var where []string
	for _, k := range t.keys {
		where = append(where, k.quoted+" COLLATE "+reencrypt.Quoted(k.collate)+" = ?")
		if !k.exact {
			where = append(where, "(+"+k.quoted+") COLLATE BINARY = ?", "typeof("+k.quoted+") = typeof(?)")
		}
	}
	return strings.Join(where, " AND ")
}

// params is how often the column's value is a parameter of matchSQL.
func (k keyColumn) params() int {
	if k.exact {
		return 1
	}
	return 3
}

// swapSQL writes one row. Parameters: the new values, the key as in matchSQL, the old values. With several columns, NULL
// for both values leaves a column as it is.
func (t *target) swapSQL() string {
	var set, same []string
	for _, c := range t.columns {
		if len(t.columns) == 1 {
			set = append(set, c.bare+" = ?")
			same = append(same, "(+"+c.quoted+") COLLATE BINARY = ?")
			continue
		}
		set = append(set, fmt.Sprintf("%s = COALESCE(?, %s)", c.bare, c.quoted))
		same = append(same, fmt.Sprintf("(+%s) COLLATE BINARY IS COALESCE(?, %s)", c.quoted, c.quoted))
	}
	return "UPDATE " + t.table + " AS t SET " + strings.Join(set, ", ") + " WHERE " + t.matchSQL() + " AND " + strings.Join(same, " AND ")
}
