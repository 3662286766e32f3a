package mysql

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// SQL's hexadecimal literals are bytes, whatever the session's character set: "kt1.", the "kte1." of the SDK's Envelope,
// and 'K' 'T' with the number of the format.
const (
	textMagic     = "x'6b74312e'"
	envelopeMagic = "x'6b7465312e'"
	binaryMagic   = "x'4b5401'"
)

// ours is whether a value begins as our ciphertexts do. In bytes the texts count too: they were put there as they were.
func (c valueColumn) ours() string {
	s := fmt.Sprintf("(%s = %s OR %s", c.begins(4), textMagic, c.envelope())
	if c.form == reencrypt.Binary {
		s += fmt.Sprintf(" OR %s = %s", c.begins(3), binaryMagic)
	}
	return s + ")"
}

// envelope is whether a value begins as what the SDK's Envelope seals.
func (c valueColumn) envelope() string { return c.begins(5) + " = " + envelopeMagic }

// group is how values of a column begin, NULL for NULL and empty for what isn't ours, so that a column full of plaintexts
// is one group and none of them travels.
func (c valueColumn) group() string {
	_, n := c.header(envelope.Header{})
	return fmt.Sprintf("CASE WHEN %s IS NULL THEN NULL WHEN %s THEN %s WHEN %s THEN %s ELSE x'' END",
		c.quoted, c.envelope(), c.begins(envelope.PrefixLen+1), c.ours(), c.begins(n))
}

// Census counts by one GROUP BY per column, all of them in one snapshot.
func (t *target) Census(ctx context.Context, fn func(reencrypt.Group) error) error {
	c, err := t.db.connect(ctx, asking)
	if err != nil {
		return err
	}
	defer c.close()
	for _, sql := range []string{"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"} {
		if err := c.exec(ctx, sql); err != nil {
			return err
		}
	}
	for i, col := range t.columns {
		s, err := c.prepare(ctx, fmt.Sprintf("SELECT g.p, COUNT(*) FROM (SELECT %s AS p FROM %s) AS g GROUP BY g.p", col.group(), t.table))
		if err != nil {
			return err
		}
		rows, err := s.rows(ctx, nil)
		if err == nil {
			err = each(rows, func(r row) error {
				prefix, ok := r[0].([]byte)
				g := reencrypt.Group{Column: i, Form: col.form, Prefix: prefix, Rows: r.number(1)}
				if !ok {
					g.Form = reencrypt.Null
				}
				return fn(g)
			})
		}
		s.close()
		if err != nil {
			return explain(ctx, err, "counting the table")
		}
	}
	return nil
}

// Longest asks for the longest plaintext of a column, in bytes.
func (t *target) Longest(ctx context.Context, column int) (int64, error) {
	c, err := t.db.connect(ctx, asking)
	if err != nil {
		return 0, err
	}
	defer c.close()
	col := t.columns[column]
	rows, err := c.query(ctx, fmt.Sprintf("SELECT COALESCE(MAX(OCTET_LENGTH(%s)), 0) FROM %s WHERE NOT %s", col.bytes(), t.table, col.ours()))
	if err != nil {
		return 0, err
	}
	return rows[0].number(0), nil
}
