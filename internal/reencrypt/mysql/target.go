package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// target is columns of one table, with the parts of SQL that don't change from page to page.
type target struct {
	db      *database
	from    string // the table, with the index of its key
	table   string // the table alone
	keys    []keyColumn
	columns []valueColumn
}

// valueColumn is one ciphertext column.
type valueColumn struct {
	name    string // quoted, without the table's alias
	quoted  string
	form    reencrypt.Form
	charset string
	limit   int64 // bytes as stored; longer values aren't read
}

// Target asks the catalogue again and finds the index that has the rows in the order of the key.
func (d *database) Target(ctx context.Context, t *reencrypt.Table, pk, columns []string) (reencrypt.Target, error) {
	c, err := d.connect(ctx, asking)
	if err != nil {
		return nil, err
	}
	defer c.close()
	all, err := columnsOf(ctx, c, t.Schema, t.Name)
	if err != nil {
		return nil, err
	}
	indexes, err := indexesOf(ctx, c, t.Schema, t.Name)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(indexes, func(x index) bool { return x.identifies(all) && slices.Equal(x.columns, pk) })
	if at < 0 {
		return nil, fault.Newf(api.CodeNotFound, "preparing work on a table: no unique index of %q has the columns %q any more", t.Name, pk)
	}
	out := &target{db: d, table: quote(t.Schema) + "." + quote(t.Name) + " AS t"}
	out.from = out.table + " FORCE INDEX (" + quote(indexes[at].name) + ")"
	for _, name := range pk {
		c, err := find(all, name)
		if err != nil {
			return nil, err
		}
		out.keys = append(out.keys, keyOf(c))
	}
	for _, name := range columns {
		c, err := find(all, name)
		if err != nil {
			return nil, err
		}
		v := valueColumn{name: quote(name), quoted: "t." + quote(name), form: c.form(), charset: c.charset, limit: d.longest(1)}
		if v.form == reencrypt.Text {
			v.limit = d.longest(charsets[c.charset].grows)
		}
		out.columns = append(out.columns, v)
	}
	return out, nil
}

// longest is how many stored bytes a value may have, where each may become so many of UTF-8, so that its ciphertext as text
// is still no longer than the server takes: it answers NULL, with a warning only, where an expression would be.
func (d *database) longest(grows int64) int64 {
	const overhead = 256 // of a ciphertext, and of the packet around it
	return min(reencrypt.MaxValue, (d.packet/4*3-overhead)/grows)
}

func find(all []column, name string) (column, error) {
	i := slices.IndexFunc(all, func(c column) bool { return c.name == name })
	if i < 0 {
		return column{}, fault.Newf(api.CodeNotFound, "preparing work on a table: column %q is gone", name)
	}
	return all[i], nil
}

// Writers is 2: the second one writes while the first one's page is on its way to the disk.
func (t *target) Writers() int { return 2 }

// bytes is the column's value as the bytes that pages hold.
func (c valueColumn) bytes() string {
	if c.form == reencrypt.Binary {
		return c.quoted
	}
	return bytesOf(c.quoted, c.charset)
}

// begins is how the value begins, in characters or bytes, as bytes.
func (c valueColumn) begins(n int) string {
	left := fmt.Sprintf("LEFT(%s, %d)", c.quoted, n)
	if c.form == reencrypt.Binary {
		return left
	}
	return bytesOf(left, c.charset)
}

// header is the parameter that compares with how a current value begins.
func (c valueColumn) header(h envelope.Header) (text []byte, length int) {
	if c.form == reencrypt.Binary {
		text, _ = h.AppendBinary(nil) // never fails
		return text, envelope.HeaderSize
	}
	return []byte(h.PrefixText()), envelope.PrefixLen
}

// What stands in front of a value in an answer.
const (
	sent    = 0
	current = 1
	large   = 2
)

// projection is two columns of an answer: one of the numbers above, and the value if it is sent. With skip, the two
// parameters are how a current value begins.
func (c valueColumn) projection(skip bool) string {
	when := func(isCurrent, isLarge string) string {
		s := "CASE "
		if skip {
			_, n := c.header(envelope.Header{})
			s += fmt.Sprintf("WHEN %s = CAST(? AS BINARY) THEN %s ", c.begins(n), isCurrent)
		}
		return s + fmt.Sprintf("WHEN OCTET_LENGTH(%s) > %d THEN %s ELSE ", c.quoted, c.limit, isLarge)
	}
	return when("1", "2") + "0 END, " + when("NULL", "NULL") + c.quoted + " END"
}

// selectSQL asks for rows, for where and what follows to be put behind it.
func (t *target) selectSQL(skip []bool) string {
	var parts []string
	for _, k := range t.keys {
		parts = append(parts, k.selected())
	}
	for i, c := range t.columns {
		parts = append(parts, c.projection(skip[i]))
	}
	return "SELECT " + strings.Join(parts, ", ") + " FROM " + t.from
}

// after is the rows behind one: k0 > ? OR k0 = ? AND k1 > ? …, which the planner takes for a range of the index, as it
// doesn't take a comparison of rows. Its parameters are those of afterArgs.
func (t *target) after() string {
	var or []string
	for i := range t.keys {
		var and []string
		for _, k := range t.keys[:i] {
			and = append(and, k.equal())
		}
		and = append(and, t.keys[i].quoted+" > "+t.keys[i].parameter())
		or = append(or, "("+strings.Join(and, " AND ")+")")
	}
	return "(" + strings.Join(or, " OR ") + ")"
}

func (t *target) order(limit int) string {
	names := make([]string, len(t.keys))
	for i, k := range t.keys {
		names[i] = k.quoted
	}
	return fmt.Sprintf(" ORDER BY %s LIMIT %d", strings.Join(names, ", "), limit)
}

// row finds one row by its key. Its parameters: the key columns.
func (t *target) row() string {
	and := make([]string, len(t.keys))
	for i, k := range t.keys {
		and[i] = k.equal()
	}
	return "(" + strings.Join(and, " AND ") + ")"
}

// lockSQL takes up to n rows, as far as nobody holds them, and answers their keys. Its parameters: the keys.
func (t *target) lockSQL(n int) string {
	names := make([]string, len(t.keys))
	for i, k := range t.keys {
		names[i] = k.selected()
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM " + t.from + " WHERE " + t.rows(n) + " FOR UPDATE SKIP LOCKED"
}

// rows finds up to n rows by their keys. A list is looked up faster than conditions are, but only the planner of MySQL
// knows how to use one of keys with several columns.
func (t *target) rows(n int) string {
	if len(t.keys) == 1 {
		return t.keys[0].quoted + " IN " + list(t.keys[0].parameter(), n)
	}
	return "(" + t.row() + strings.Repeat(" OR "+t.row(), n-1) + ")"
}

func list(item string, n int) string { return "(" + item + strings.Repeat(", "+item, n-1) + ")" }

// swapSQL writes up to n rows: its parameters are those that [writer.bindSwap] lays out. With several columns, one that
// stays as it is in a row has NULL for old and new there. Everything in between is UTF-8, so that what the column's own
// character set lacks is refused where it is stored, and not replaced where it is converted.
func (t *target) swapSQL(n int) string {
	var set, where []string
	for _, c := range t.columns {
		value, stays := "?", "CONVERT("+c.quoted+" USING utf8mb4)"
		switch {
		case c.form == reencrypt.Binary:
			value, stays = "CAST(? AS BINARY)", c.quoted
		case c.charset == "utf8mb4":
			stays = c.quoted
		}
		if len(t.columns) > 1 {
			value = "COALESCE(" + value + ", " + stays + ")"
		}
		set = append(set, c.quoted+" = "+t.perRow(value, stays, n))
	}
	where = append(where, t.rows(n))
	for _, k := range t.keys {
		if k.kind == kindText {
			where = append(where, bytesOf(k.quoted, k.charset)+" IN "+list("CAST(? AS BINARY)", n))
		}
	}
	for _, c := range t.columns {
		old := t.perRow("CAST(? AS BINARY)", "NULL", n)
		if len(t.columns) == 1 {
			where = append(where, c.bytes()+" = "+old)
			continue
		}
		where = append(where, c.bytes()+" <=> COALESCE("+old+", "+c.bytes()+")")
	}
	now := ""
	if t.db.mariadb { // the session's own limit can't be 0: MariaDB then fails where it should step over a row
		now = "SET STATEMENT innodb_lock_wait_timeout = 0 FOR "
	}
	return now + "UPDATE " + t.from + " SET " + strings.Join(set, ", ") + " WHERE " + strings.Join(where, " AND ")
}

// perRow is a value for each of n rows, and one for none of them. Its parameters: for each row the key and the value.
func (t *target) perRow(value, otherwise string, n int) string {
	when := " WHEN " + t.row() + " THEN " + value
	of := ""
	if len(t.keys) == 1 {
		of, when = " "+t.keys[0].quoted, " WHEN "+t.keys[0].parameter()+" THEN "+value
	}
	return "CASE" + of + strings.Repeat(when, n) + " ELSE " + otherwise + " END"
}
