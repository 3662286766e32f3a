package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// oursSQL is whether a text or a blob may look like one of our ciphertexts (envelope.LooksLikeCiphertext, which is asked
// about what comes back): "kt1.", the "kte1." of the SDK's Envelope, or 'K' 'T' and the number of the format. Each can stand
// as the other type.
func (c valueColumn) oursSQL(form reencrypt.Form) string {
	if form == reencrypt.Binary {
		return fmt.Sprintf("(substr(%[1]s, 1, 3) = x'4b5401' OR substr(%[1]s, 1, 4) = x'6b74312e' OR substr(%[1]s, 1, 5) = x'6b7465312e')", c.quoted)
	}
	return fmt.Sprintf("(substr(%[1]s, 1, 4) COLLATE BINARY = 'kt1.' OR substr(%[1]s, 1, 5) COLLATE BINARY = 'kte1.' OR substr(%[1]s, 1, 3) COLLATE BINARY = char(75, 84, 1))", c.quoted)
}

// groupSQL is how values begin: in their own type, empty for what isn't ours, so that a column full of plaintexts is one
// group and none of them travels; a mark for what is neither text nor blob.
func (t *target) groupSQL(c valueColumn) string {
	blob := fmt.Sprintf("substr(%[1]s, 1, CASE WHEN substr(%[1]s, 1, 1) = x'4b' THEN %[2]d WHEN substr(%[1]s, 3, 1) = x'65' THEN %[3]d + 1 ELSE %[3]d END)", c.quoted, envelope.HeaderSize, envelope.PrefixLen)
	text := fmt.Sprintf("substr(%[1]s, 1, CASE WHEN substr(%[1]s, 1, 5) COLLATE BINARY = 'kte1.' THEN %[2]d + 1 ELSE %[2]d END)", c.quoted, envelope.PrefixLen)
	return fmt.Sprintf("CASE %s WHEN 'text' THEN CASE WHEN %s THEN %s ELSE '' END "+
		"WHEN 'blob' THEN CASE WHEN %s THEN %s ELSE x'' END WHEN 'null' THEN NULL ELSE %d END",
		t.kindSQL(c), c.oursSQL(reencrypt.Text), text, c.oursSQL(reencrypt.Binary), blob, markUnsupported)
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

// Census walks through each column and adds up. A GROUP BY would sort all of its values, in a temporary file if there are
// many, to find the few beginnings that there are.
func (t *target) Census(ctx context.Context, each func(reencrypt.Group) error) error {
	return t.whole(ctx, func(c *conn) error {
		for i, col := range t.columns {
			sums := sums{column: i, each: each}
			sql := fmt.Sprintf("SELECT %s FROM %s AS t", t.groupSQL(col), t.table)
			if err := c.each(ctx, sql, sums.add); err != nil {
				return err
			}
			if err := sums.flush(); err != nil {
				return err
			}
		}
		return nil
	})
}

// sums counts the beginnings of one column's values.
type sums struct {
	column int
	each   func(reencrypt.Group) error
	other  [reencrypt.Unsupported + 1]int64 // by form, of those that begin like nothing of ours
	text   map[string]int64
	blob   map[string]int64
}

// maxSums is how many different beginnings are held in memory. A table full of forged ones has as many as it has rows; they
// are handed over in parts.
const maxSums = 10000

// add counts one row of groupSQL.
func (s *sums) add(r row) error {
	switch p := r[0].(type) {
	case nil:
		s.other[reencrypt.Null]++
	case string:
		if p == "" {
			s.other[reencrypt.Text]++
			return nil
		}
		return s.count(&s.text, p)
	case []byte:
		if len(p) == 0 {
			s.other[reencrypt.Binary]++
			return nil
		}
		return s.count(&s.blob, string(p))
	default:
		s.other[reencrypt.Unsupported]++
	}
	return nil
}

func (s *sums) count(m *map[string]int64, prefix string) error {
	if *m == nil {
		*m = map[string]int64{}
	}
	if (*m)[prefix]++; len(s.text)+len(s.blob) > maxSums {
		return s.flush()
	}
	return nil
}

// flush hands over what was counted and begins anew.
func (s *sums) flush() error {
	for form, n := range s.other {
		if err := s.group(reencrypt.Form(form), "", n); err != nil {
			return err
		}
	}
	for prefix, n := range s.text {
		if err := s.group(reencrypt.Text, prefix, n); err != nil {
			return err
		}
	}
	for prefix, n := range s.blob {
		if err := s.group(reencrypt.Binary, prefix, n); err != nil {
			return err
		}
	}
	*s = sums{column: s.column, each: s.each}
	return nil
}

func (s *sums) group(form reencrypt.Form, prefix string, rows int64) error {
	if rows == 0 {
		return nil
	}
	return s.each(reencrypt.Group{Column: s.column, Form: form, Prefix: []byte(prefix), Rows: rows})
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
