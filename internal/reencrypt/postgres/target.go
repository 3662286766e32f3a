package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// target is columns of one table, with every text of SQL that doesn't change from page to page.
type target struct {
	db      *database
	table   string // quoted, with its schema
	keys    []keyColumn
	columns []valueColumn
}

// keyColumn is one column of the key.
type keyColumn struct {
	quoted  string
	element string // type as SQL takes it
	oid     uint32 // of element: a binary array names it
	text    textOf // makes the text of a value; nil = the database is asked for it
}

// valueColumn is one ciphertext column.
type valueColumn struct {
	quoted string
	form   reencrypt.Form
	long   bool // may hold more than reencrypt.MaxValue
}

// Oids of the types of values, from PostgreSQL's own pg_type.dat, where they never change.
const (
	oidBytea = 17
	oidText  = 25
)

// oid is the type that values of the column travel as.
func (c valueColumn) oid() uint32 {
	if c.form == reencrypt.Binary {
		return oidBytea
	}
	return oidText
}

// Target asks the catalogue for the types below and prepares the statements.
func (d *database) Target(ctx context.Context, t *reencrypt.Table, pk, columns []string) (reencrypt.Target, error) {
	conn, err := d.connect(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	table := reencrypt.Quoted(t.Schema) + "." + reencrypt.Quoted(t.Name)
	var all []column
	oid, err := query(ctx, conn, "SELECT $1::pg_catalog.regclass::pg_catalog.oid", table)
	if err == nil {
		all, err = columnsOf(ctx, conn, oid[0][0])
	}
	if err := errors.Join(err, closeConn(conn)); err != nil {
		return nil, err
	}
	out := &target{db: d, table: table}
	for _, name := range pk {
		c, err := find(all, name)
		if err != nil {
			return nil, err
		}
		k, err := keyOf(c)
		if err != nil {
			return nil, err
		}
		out.keys = append(out.keys, k)
	}
	for _, name := range columns {
		c, err := find(all, name)
		if err != nil {
			return nil, err
		}
		out.columns = append(out.columns, valueColumn{quoted: reencrypt.Quoted(name), form: c.form(), long: !c.short()})
	}
	return out, nil
}

// short reports whether no value can be longer than reencrypt.MaxValue, a character being 4 bytes at most.
func (c column) short() bool {
	return c.typname == "varchar" && c.modifier > 4 && (c.modifier-4)*4 <= reencrypt.MaxValue
}

func find(all []column, name string) (column, error) {
	i := slices.IndexFunc(all, func(c column) bool { return c.name == name })
	if i < 0 {
		return column{}, fault.Newf(api.CodeNotFound, "preparing work on a table: column %q is gone", name)
	}
	return all[i], nil
}

func keyOf(c column) (keyColumn, error) {
	oid, err := strconv.ParseUint(c.base, 10, 32)
	if err != nil {
		return keyColumn{}, fault.Wrapf(api.CodeInternal, err, "reading the type of key column %q", c.name)
	}
	return keyColumn{quoted: reencrypt.Quoted(c.name), element: c.element, oid: uint32(oid), text: texts[c.typname]}, nil
}

// Writers is 2: the second one writes while the first one's page is on its way to the disk. A third gained nothing.
func (t *target) Writers() int { return 2 }

// pageSQL is one page: keys (and the text of those that only the database can spell), then values. Parameters, in this
// order: for each value column what a current value begins with; the marks of current and of too large values (text, then
// bytes); the cursor, if there is one.
func (t *target) pageSQL(after bool, limit int) string {
	var s strings.Builder
	s.WriteString("SELECT ")
	t.writeKeys(&s)
	for i, c := range t.columns {
		s.WriteString(", ")
		s.WriteString(t.projection(i, c))
	}
	fmt.Fprintf(&s, " FROM %s AS t", t.table)
	if after {
		left, right := make([]string, len(t.keys)), make([]string, len(t.keys))
		for i, k := range t.keys {
			left[i] = "t." + k.quoted
			right[i] = fmt.Sprintf("$%d::%s", t.firstKeyParam()+i, k.element)
		}
		fmt.Fprintf(&s, " WHERE ROW(%s) OPERATOR(pg_catalog.>) ROW(%s)", strings.Join(left, ", "), strings.Join(right, ", "))
	}
	s.WriteString(" ORDER BY ")
	for i, k := range t.keys {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString("t." + k.quoted)
	}
	fmt.Fprintf(&s, " LIMIT %d", limit)
	return s.String()
}

// findSQL is one row by its key, in the shape of pageSQL.
func (t *target) findSQL() string {
	var s strings.Builder
	s.WriteString("SELECT ")
	t.writeKeys(&s)
	for i, c := range t.columns {
		s.WriteString(", ")
		s.WriteString(t.projection(i, c))
	}
	fmt.Fprintf(&s, " FROM %s AS t WHERE ", t.table)
	for i, k := range t.keys {
		if i > 0 {
			s.WriteString(" AND ")
		}
		fmt.Fprintf(&s, "t.%s OPERATOR(pg_catalog.=) $%d::%s", k.quoted, t.firstKeyParam()+i, k.element)
	}
	return s.String()
}

func (t *target) writeKeys(s *strings.Builder) {
	for i, k := range t.keys {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString("t." + k.quoted)
	}
	for _, k := range t.keys {
		if k.text == nil {
			s.WriteString(", t." + k.quoted + "::pg_catalog.text")
		}
	}
}

// projection spares the way of values that the caller doesn't need, and the memory of those that are too large: a mark
// comes instead, a random word of this reader that no value can be.
func (t *target) projection(i int, c valueColumn) string {
	prefix, marks := i+1, len(t.columns)+1
	col := "t." + c.quoted
	if c.form == reencrypt.Binary {
		return fmt.Sprintf("CASE WHEN pg_catalog.substr(%s, 1, pg_catalog.length($%d::bytea)) OPERATOR(pg_catalog.=) $%d::bytea THEN $%d::bytea "+
			"WHEN pg_catalog.octet_length(%s) OPERATOR(pg_catalog.>) %d THEN $%d::bytea ELSE %s END",
			col, prefix, prefix, marks+2, col, reencrypt.MaxValue, marks+3, col)
	}
	large := ""
	if c.long {
		large = fmt.Sprintf("WHEN pg_catalog.octet_length(%s) OPERATOR(pg_catalog.>) %d THEN $%d::text ", col, reencrypt.MaxValue, marks+1)
	}
	return fmt.Sprintf(`CASE WHEN pg_catalog.starts_with(%s COLLATE pg_catalog."C", $%d::text) THEN $%d::text %sELSE %s::text END`, col, prefix, marks, large, col)
}

// firstKeyParam is the number of the first parameter of the cursor or key.
func (t *target) firstKeyParam() int { return len(t.columns) + 4 + 1 }

// swapSQL writes a page. The arrays are unnested in the select list, in step with one another: as functions in FROM they
// would be copied into a tuple store first, which costs a tenth of the whole statement. Several columns: one that stays as it is in a row has NULL for old and new there.
func (t *target) swapSQL() string {
	var set, from, where []string
	param := 0
	add := func(element, name string) {
		param++
		from = append(from, fmt.Sprintf("pg_catalog.unnest($%d::%s[]) AS %s", param, element, name))
	}
	for i, k := range t.keys {
		add(k.element, fmt.Sprintf("k%d", i))
		where = append(where, fmt.Sprintf("t.%s OPERATOR(pg_catalog.=) v.k%d", k.quoted, i))
	}
	for i, c := range t.columns {
		element, collate := "text", ` COLLATE pg_catalog."C"`
		if c.form == reencrypt.Binary {
			element, collate = "bytea", ""
		}
		add(element, fmt.Sprintf("o%d", i))
		add(element, fmt.Sprintf("n%d", i))
		same := fmt.Sprintf("t.%s%s OPERATOR(pg_catalog.=) v.o%d", c.quoted, collate, i)
		if len(t.columns) == 1 {
			set = append(set, fmt.Sprintf("%s = v.n%d", c.quoted, i))
			where = append(where, same)
			continue
		}
		set = append(set, fmt.Sprintf("%s = COALESCE(v.n%d, t.%s)", c.quoted, i, c.quoted))
		where = append(where, fmt.Sprintf("(v.n%d IS NULL OR %s)", i, same))
	}
	return fmt.Sprintf("UPDATE %s AS t SET %s FROM (SELECT %s) AS v WHERE %s", t.table,
		strings.Join(set, ", "), strings.Join(from, ", "), strings.Join(where, " AND "))
}
