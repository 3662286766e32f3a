package reencrypt

import (
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Table is what a database's catalogue says of a table, in words that every connector shares.
type Table struct {
	Schema string // empty where a database has none
	Name   string
	Rows   int64 // estimate; -1 = the database doesn't know

	// Refusal is why rows can't be updated in place at all (a view, a foreign table, a rewriting rule); empty when they can.
	Refusal string
	// Uniques are the sets of columns that identify a row for sure (unique, whole, without NULLs); the primary key first.
	// HasPK says that there is one.
	Uniques [][]string
	HasPK   bool
	Columns []TableColumn
	Notes   []string // what work on the table will set in motion: triggers, change capture, log volume
}

// TableColumn is one column.
type TableColumn struct {
	Name string
	Type string // the database's own name
	// Form is Text or Binary where ciphertexts can stand, Unsupported elsewhere.
	Form  Form
	Width int // characters that fit; 0 = no limit
	// Refusal is why the column can't hold ciphertexts although its type could (generated, part of a foreign key, no
	// right to update it).
	Refusal string
	// KeyRefusal is why the column can't be part of a key; empty when it can.
	KeyRefusal string
	Notes      []string // what sealing will do to it: indexes that stop being of use, checks that may refuse it
}

// Column finds a column by its exact name.
func (t *Table) Column(name string) (TableColumn, bool) {
	i := slices.IndexFunc(t.Columns, func(c TableColumn) bool { return c.Name == name })
	if i < 0 {
		return TableColumn{}, false
	}
	return t.Columns[i], true
}

// PrimaryKey is the table's own primary key, nil without one.
func (t *Table) PrimaryKey() []string {
	if !t.HasPK {
		return nil
	}
	return t.Uniques[0]
}

// KeyOrder is pk in the order of the unique set that it is made of: the order in which an index has the rows, and reading
// by any other would sort the whole table for each page. A pk that is no such set comes back as it is, for Check to refuse.
func (t *Table) KeyOrder(pk []string) []string {
	want := slices.Sorted(slices.Values(pk))
	for _, u := range t.Uniques {
		if slices.Equal(slices.Sorted(slices.Values(u)), want) {
			return u
		}
	}
	return pk
}

// Check says whether columns of t can be worked on by the key pk. Errors name the field of api.AddDatasetRequest and are
// of code not_found for columns that don't exist, invalid for everything else.
func (t *Table) Check(pk, columns []string) error {
	if t.Refusal != "" {
		return fault.Newf(api.CodeInvalid, "looking at table %q: %s", t.Name, t.Refusal).WithField("table")
	}
	if err := t.checkKey(pk); err != nil {
		return err
	}
	for _, name := range columns {
		c, ok := t.Column(name)
		switch {
		case !ok:
			return t.missing("columns", name)
		case c.Form != Text && c.Form != Binary:
			return fault.Newf(api.CodeInvalid, "looking at column %q: its type is %s; only text and binary columns can hold ciphertexts", name, c.Type).
				WithField("columns").WithNext("change the column's type to text, or to the database's binary type")
		case c.Refusal != "":
			return fault.Newf(api.CodeInvalid, "looking at column %q: %s", name, c.Refusal).WithField("columns")
		}
	}
	return nil
}

// checkKey: paging by a key that isn't unique would step over rows, and a swap by it would hit two.
func (t *Table) checkKey(pk []string) error {
	if len(pk) == 0 {
		return fault.Newf(api.CodeInvalid, "looking at table %q: it has no primary key", t.Name).WithField("pk").
			WithNext("give the table a primary key, or name the columns of a unique index without nulls with --pk")
	}
	for _, name := range pk {
		c, ok := t.Column(name)
		switch {
		case !ok:
			return t.missing("pk", name)
		case c.KeyRefusal != "":
			return fault.Newf(api.CodeInvalid, "looking at key column %q: %s", name, c.KeyRefusal).WithField("pk")
		}
	}
	if ordered := t.KeyOrder(pk); !slices.ContainsFunc(t.Uniques, func(u []string) bool { return slices.Equal(u, ordered) }) {
		return fault.Newf(api.CodeInvalid, "looking at table %q: no primary key or unique index without nulls has exactly the columns %q", t.Name, pk).
			WithField("pk").WithNext("name the columns of one, or leave the option out to use the primary key")
	}
	return nil
}

func (t *Table) missing(field, column string) error {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return fault.Newf(api.CodeNotFound, "looking for column %q: table %q has no such column", column, t.Name).
		WithField(field).WithNext(fmt.Sprintf("its columns are %q; upper and lower case differ", names))
}

// NotesFor is what somebody who is about to work on these columns should know.
func (t *Table) NotesFor(columns []string) []string {
	notes := slices.Clone(t.Notes)
	for _, name := range columns {
		if c, ok := t.Column(name); ok {
			notes = append(notes, c.Notes...)
		}
	}
	return notes
}
