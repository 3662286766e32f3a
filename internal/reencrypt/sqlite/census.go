package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// oursSQL is whether a text or a blob begins as our ciphertexts do: "kt1.", or 'K' 'T' and the number of the format.
func (c valueColumn) oursSQL(form reencrypt.Form) string {
	if form == reencrypt.Binary {
		return fmt.Sprintf("substr(%s, 1, 3) = x'4b5401'", c.quoted)
	}
	return fmt.Sprintf("substr(%s, 1, 4) COLLATE BINARY = 'kt1.'", c.quoted)
}

// groupSQL is how values begin: in their own type, empty for what isn't ours, so that a column full of plaintexts is one
// group and none of them is put aside; a mark for what is neither text nor blob.
func (t *target) groupSQL(c valueColumn) string {
	return fmt.Sprintf("CASE %s WHEN 'text' THEN CASE WHEN %s THEN substr(%s, 1, %d) ELSE '' END "+
		"WHEN 'blob' THEN CASE WHEN %s THEN substr(%s, 1, %d) ELSE x'' END WHEN 'null' THEN NULL ELSE %d END",
		t.kindSQL(c), c.oursSQL(reencrypt.Text), c.quoted, envelope.PrefixLen,
		c.oursSQL(reencrypt.Binary), c.quoted, envelope.HeaderSize, markUnsupported)
}

// whole runs fn on a connection whose questions look at the whole table, in one snapshot.
func (t *target) whole(ctx context.Context, fn func(*conn) error) error {
	c, err := t.db.connect(ctx, asking)
	if err != nil {
		return err
	}
	err = func() error {
		if err := c.exec(ctx, "BEGIN"); err != nil {
			return err
		}
		// The snapshot is taken by the first question. It is a small one, because it may have to be repeated until the
		// application lets us in; from then on nobody keeps us from reading.
		if _, err := c.query(ctx, "SELECT 1 FROM main.sqlite_schema LIMIT 1"); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		return c.exec(ctx, "COMMIT")
	}()
	return errors.Join(err, c.close())
}

// Census counts by one GROUP BY per column.
func (t *target) Census(ctx context.Context, each func(reencrypt.Group) error) error {
	return t.whole(ctx, func(c *conn) error {
		for i, col := range t.columns {
			sql := fmt.Sprintf("SELECT %s AS p, count(*) FROM %s AS t GROUP BY p COLLATE BINARY", t.groupSQL(col), t.table)
			if err := c.each(ctx, sql, func(r row) error { return each(groupOf(i, r)) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// groupOf reads a row of the census.
func groupOf(i int, r row) reencrypt.Group {
	g := reencrypt.Group{Column: i, Rows: r.number(1)}
	switch p := r[0].(type) {
	case string:
		g.Form, g.Prefix = reencrypt.Text, []byte(p)
	case []byte:
		g.Form, g.Prefix = reencrypt.Binary, p
	case int64:
		g.Form = reencrypt.Unsupported
	}
	return g
}

// Longest asks for the longest plaintext of a column. SQLite counts the bytes as they are stored, so where that is UTF-16
// text has to come here to be measured.
func (t *target) Longest(ctx context.Context, column int) (longest int64, err error) {
	col := t.columns[column]
	length := fmt.Sprintf("COALESCE(max(octet_length(%s)), 0)", col.quoted)
	if t.db.wide {
		length = fmt.Sprintf("CASE typeof(%[1]s) WHEN 'text' THEN %[1]s ELSE octet_length(%[1]s) END", col.quoted)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s AS t WHERE CASE typeof(%s) WHEN 'text' THEN NOT (%s) WHEN 'blob' THEN NOT (%s) ELSE 0 END",
		length, t.table, col.quoted, col.oursSQL(reencrypt.Text), col.oursSQL(reencrypt.Binary))
	err = t.whole(ctx, func(c *conn) error {
		return c.each(ctx, sql, func(r row) error {
			n := r.number(0)
			if s, ok := r[0].(string); ok {
				n = int64(len(s))
			}
			longest = max(longest, n)
			return nil
		})
	})
	return longest, err
}
