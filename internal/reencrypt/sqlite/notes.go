package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// addNotes says what stands against sealing each column, and what moving rows will set in motion.
func (d *database) addNotes(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	if d.wal {
		t.Notes = append(t.Notes, "every page that is moved goes through the write-ahead log beside the file: have disk to spare")
	} else {
		t.Notes = append(t.Notes, "the file has a rollback journal: who reads and who writes shut each other out for a moment, for every page that is moved and for the time that counting the table takes; with PRAGMA journal_mode=WAL they don't")
	}
	t.Notes = append(t.Notes, "plaintext is overwritten where it stood, but copies may be left in the unused space of the file, and in the write-ahead log: run VACUUM after encrypting")
	addDefinitions(r, t)
	addIndexes(r, t)
	if err := addForeignKeys(ctx, c, r, t); err != nil {
		return err
	}
	if err := addTriggers(ctx, c, r, t); err != nil {
		return err
	}
	return addTrials(ctx, c, r, t)
}

// each calls fn for every column that text could be about.
func each(t *reencrypt.Table, fn func(c *reencrypt.TableColumn)) {
	for i := range t.Columns {
		fn(&t.Columns[i])
	}
}

func note(c *reencrypt.TableColumn, format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf("column %q: ", c.Name)+fmt.Sprintf(format, args...))
}

// addDefinitions reads the text of CREATE TABLE: generated columns, checks, and widths, which SQLite doesn't look at.
func addDefinitions(r *relation, t *reencrypt.Table) {
	for _, def := range definitions(r.sql) {
		if len(def) == 0 {
			continue
		}
		generated := slices.ContainsFunc(r.columns, func(c column) bool { return c.generated && strings.EqualFold(c.name, def[0].text) })
		each(t, func(c *reencrypt.TableColumn) {
			if generated && mentions(def[1:], c.Name) && !strings.EqualFold(c.Name, def[0].text) {
				c.Refusal = fmt.Sprintf("column %q is generated from it and would be made from ciphertext", def[0].text)
			}
			for _, check := range checks(def) {
				if mentions(check.expr, c.Name) {
					note(c, "check constraint %q must let ciphertexts pass", check.name)
				}
			}
		})
	}
	each(t, func(c *reencrypt.TableColumn) {
		if c.Form == reencrypt.Text && strings.Contains(c.Type, "(") {
			note(c, "SQLite doesn't enforce the width of %s, but the application may", c.Type)
		}
	})
}

// addIndexes names the indexes that look at a column, by name or in an expression.
func addIndexes(r *relation, t *reencrypt.Table) {
	for _, x := range r.indexes {
		words := tokens(x.sql)
		each(t, func(c *reencrypt.TableColumn) {
			named := slices.ContainsFunc(x.columns, func(k indexColumn) bool { return k.name == c.Name })
			switch {
			case !named && !((x.expressions() || x.partial) && mentions(words, c.Name)):
			case named && x.unique:
				note(c, "unique index %q won't find equal values any more, because every ciphertext differs", x.name)
			default:
				note(c, "index %q is of no use on ciphertexts", x.name)
			}
		})
	}
}

// expressions reports whether a part of the index is not a plain column.
func (x index) expressions() bool {
	return slices.ContainsFunc(x.columns, func(c indexColumn) bool { return c.name == "" })
}

// addForeignKeys refuses columns whose values are looked up elsewhere, on either side.
func addForeignKeys(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	rows, err := c.query(ctx, sqlForeignKeys, r.name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		other, column := row.text(0), row.text(1)
		each(t, func(c *reencrypt.TableColumn) {
			inKey := column == "" && slices.Contains(t.PrimaryKey(), c.Name) // a reference without columns is to the key
			if inKey || column != "" && strings.EqualFold(column, c.Name) {
				c.Refusal = fmt.Sprintf("it is part of a foreign key between this table and %q: its values are looked up there", other)
			}
		})
	}
	return nil
}

// addTriggers names the triggers that will run.
func addTriggers(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	rows, err := c.query(ctx, sqlTriggers, r.name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		columns, ok := updateTrigger(row.text(1))
		switch {
		case !ok:
		case len(columns) == 0:
			t.Notes = append(t.Notes, fmt.Sprintf("trigger %q runs for every row that is moved", row.text(0)))
		default:
			each(t, func(c *reencrypt.TableColumn) {
				if mentions(columns, c.Name) {
					note(c, "trigger %q runs for every row that is moved", row.text(0))
				}
			})
		}
	}
	return nil
}

// addTrials has SQLite prepare an update of each column that is left, and run none: a trigger, a check or an index may call
// a function or a collation that only the application has, and only SQLite knows what belongs together.
func addTrials(ctx context.Context, c *conn, r *relation, t *reencrypt.Table) error {
	for i := range t.Columns {
		col := &t.Columns[i]
		if col.Refusal != "" || col.Form == reencrypt.Unsupported {
			continue
		}
		s, err := c.prepare(ctx, fmt.Sprintf("UPDATE main.%s AS t SET %s = t.%s", reencrypt.Quoted(r.name), reencrypt.Quoted(col.Name), reencrypt.Quoted(col.Name)))
		switch {
		case err == nil:
			s.close()
		case codeOf(err)&0xff == codeError:
			col.Refusal = "SQLite can't update it here: a trigger, a check or an index needs a function, a collation or a table that is missing without the application"
		default:
			return err
		}
	}
	return nil
}
