package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/reencrypt"
)

// addNotes says what stands against sealing each column, and what moving rows of this table will set in motion.
func (d *database) addNotes(ctx context.Context, c *conn, r relation, s server, columns []column, indexes []index, t *reencrypt.Table) error {
	t.Notes = append(t.Notes, "every row that is moved goes through the redo log, and its old version stays in the undo log until it is purged: have disk to spare")
	if s.logs {
		t.Notes = append(t.Notes, "the server keeps a binary log: every row that is moved is in it twice, as it was (plaintext, after an encrypt) and as it is, "+
			"and goes to replicas and change capture; purge it when it is no longer needed")
	}
	if !s.durable {
		t.Notes = append(t.Notes, "the server acknowledges commits before they are on disk (innodb_flush_log_at_trx_commit, sync_binlog): "+
			"a power cut takes the last ones back, the application's too; keyturn waits for the disk before it counts")
	}
	if limit := d.longest(1); limit < reencrypt.MaxValue {
		t.Notes = append(t.Notes, fmt.Sprintf("the server's max_allowed_packet is %d: values longer than about %d bytes can't be worked on", d.packet, limit))
	}
	addDefinitions(columns, t)
	addIndexes(indexes, t)
	for _, add := range []func(context.Context, *conn, relation, *reencrypt.Table) error{addForeignKeys, d.addChecks, addTriggers} {
		if err := add(ctx, c, r, t); err != nil {
			return err
		}
	}
	return nil
}

func note(c *reencrypt.TableColumn, format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf("column %q: ", c.Name)+fmt.Sprintf(format, args...))
}

// mentions reports whether an expression of the catalogue, which quotes every name, is about a column. Names differ in case
// there: columns don't.
func mentions(expression, column string) bool {
	return strings.Contains(strings.ToLower(expression), strings.ToLower(quote(column)))
}

// addDefinitions is what columns say of one another.
func addDefinitions(columns []column, t *reencrypt.Table) {
	for _, other := range columns {
		if strings.Contains(other.extra, "on update") {
			t.Notes = append(t.Notes, fmt.Sprintf("column %q becomes the current time in every row that is moved (ON UPDATE)", other.name))
		}
		for i := range t.Columns {
			if c := &t.Columns[i]; other.generation != "" && other.name != c.Name && mentions(other.generation, c.Name) {
				c.Refusal = fmt.Sprintf("column %q is generated from it and would be made from ciphertext", other.name)
			}
		}
	}
}

func addIndexes(indexes []index, t *reencrypt.Table) {
	for _, x := range indexes {
		for i := range t.Columns {
			switch c := &t.Columns[i]; {
			case !slices.Contains(x.columns, c.Name):
			case x.unique:
				note(c, "unique index %q won't find equal values any more, because every ciphertext differs", x.name)
			default:
				note(c, "index %q is of no use on ciphertexts", x.name)
			}
		}
	}
}

// addForeignKeys refuses columns whose values are looked up elsewhere, on either side.
func addForeignKeys(ctx context.Context, c *conn, r relation, t *reencrypt.Table) error {
	rows, err := c.query(ctx, sqlForeignKeys, r.schema, r.name, r.schema, r.name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		for i := range t.Columns {
			if c := &t.Columns[i]; strings.EqualFold(c.Name, row.text(1)) {
				c.Refusal = fmt.Sprintf("it is part of foreign key %q: its values are looked up elsewhere", row.text(0))
			}
		}
	}
	return nil
}

// addChecks names the constraints that must let ciphertexts pass. MariaDB's JSON columns are text with such a one, which
// never does.
func (d *database) addChecks(ctx context.Context, c *conn, r relation, t *reencrypt.Table) error {
	sql := sqlChecks
	if d.mariadb {
		sql = sqlMariaChecks
	}
	rows, err := c.query(ctx, sql, r.schema, r.name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		for i := range t.Columns {
			switch c := &t.Columns[i]; {
			case !mentions(row.text(1), c.Name):
			case strings.EqualFold(row.text(1), "json_valid("+quote(c.Name)+")"):
				c.Refusal = "it is a JSON column, and ciphertexts aren't JSON; change its type to LONGTEXT"
			default:
				note(c, "check constraint %q must let ciphertexts pass", row.text(0))
			}
		}
	}
	return nil
}

// addTriggers names the triggers that will run, as far as the user may see them.
func addTriggers(ctx context.Context, c *conn, r relation, t *reencrypt.Table) error {
	rows, err := c.query(ctx, sqlTriggers, r.schema, r.name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		t.Notes = append(t.Notes, fmt.Sprintf("trigger %q runs for every row that is moved", row.text(0)))
	}
	return nil
}
