package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// writer writes pages on a connection of its own.
type writer struct {
	*target
	conn                            *conn
	begin, commit, rollback, update *statement
	version                         *statement // a number that changes when somebody else has written
	turns                           turns

	args     []driver.NamedValue
	cols     []driver.Value
	new, old []cursor
}

// Writer connects and prepares its statements.
func (t *target) Writer(ctx context.Context) (reencrypt.Writer, error) {
	c, err := t.db.connect(ctx, writing)
	if err != nil {
		return nil, err
	}
	w := &writer{target: t, conn: c, cols: make([]driver.Value, len(t.keys))}
	for _, p := range []struct {
		into **statement
		sql  string
	}{
		{&w.begin, "BEGIN IMMEDIATE"}, {&w.commit, "COMMIT"}, {&w.rollback, "ROLLBACK"}, {&w.update, t.swapSQL()},
		{&w.version, "PRAGMA main.data_version"},
	} {
		if *p.into, err = c.prepare(ctx, p.sql); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// Close ends the connection.
func (w *writer) Close() error {
	for _, s := range []*statement{w.begin, w.commit, w.rollback, w.update, w.version} {
		s.close()
	}
	return w.conn.close()
}

// Swap writes the rows in one transaction. When the file is held, it is tried for some time: fewer rows would be of help
// where somebody holds a row, but here cutting the page up only makes many waits of one.
func (w *writer) Swap(ctx context.Context, b *reencrypt.Batch, from, to int) (swapped int, err error) {
	err = patiently(ctx, w.db.patience(), func() error {
		swapped, err = w.transact(ctx, b, from, to)
		return err
	})
	return swapped, err
}

// transact is one try. A commit that readers of a rollback journal keep out is undone: while it waits it keeps others from
// beginning to read.
func (w *writer) transact(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	if err := w.turns.wait(ctx); err != nil {
		return 0, err
	}
	if err := w.look(ctx); err != nil {
		return 0, err
	}
	if _, err := w.begin.run(nil); err != nil {
		return 0, explain(ctx, err, "beginning to write a page", w.db.path)
	}
	begin := time.Now()
	n, err := w.rows(ctx, b, from, to)
	if err == nil {
		if _, err = w.commit.run(nil); err != nil {
			err = explain(ctx, err, "writing a page", w.db.path)
		}
	}
	if err != nil {
		n = 0
		_, _ = w.rollback.run(nil) // where SQLite rolled back by itself, there is nothing left to do
	}
	w.turns.ended(begin)
	return n, err
}

// look notices whether somebody else has written since it last looked.
func (w *writer) look(ctx context.Context) error {
	rows, err := w.version.rows(ctx, nil)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // it says again what Next said
	v := make(row, 1)
	if err := rows.Next(v); err != nil {
		return explain(ctx, err, "reading", w.db.path)
	}
	w.turns.saw(v.number(0))
	return nil
}

// rows updates one row after the other.
func (w *writer) rows(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	swapped := 0
	w.new, w.old = cursors(w.new[:0], b.New, from, to), cursors(w.old[:0], b.Old, from, to)
	for i := from; i < to; i++ {
		if err := w.arguments(b, i); err != nil {
			return 0, err
		}
		n, err := w.update.run(w.args)
		if err != nil {
			return 0, w.explainSwap(ctx, err)
		}
		swapped += int(n)
	}
	return swapped, ctx.Err()
}

// arguments lays out the parameters of swapSQL for one row.
func (w *writer) arguments(b *reencrypt.Batch, i int) error {
	w.args = w.args[:0]
	w.values(w.new, i)
	for k := range w.cols {
		v, ok := keyValue(b.Keys[k].At(i))
		if !ok {
			return fault.New(api.CodeInternal, "writing a page: a key isn't one of this database")
		}
		w.cols[k] = v
	}
	w.args = w.appendMatch(w.args, w.cols)
	w.values(w.old, i)
	return nil
}

func (w *writer) values(cols []cursor, i int) {
	for c := range cols {
		w.args = append(w.args, driver.NamedValue{Ordinal: len(w.args) + 1, Value: cols[c].value(i)})
	}
}

// cursor walks through the values of one column as the driver takes them: text as strings, which are all cut from one, so
// that a page costs one allocation and not thousands.
type cursor struct {
	column *reencrypt.Column
	text   string // the rows of the page as Cells holds them
	at     int    // where in it the next value stands, behind its length
}

// cellHead is the length in front of each value in Cells.
const cellHead = 4

func cursors(dst []cursor, cols []reencrypt.Column, from, to int) []cursor {
	for i := range cols {
		dst = append(dst, cursor{column: &cols[i], text: string(cols[i].Values.Range(from, to))})
	}
	return dst
}

// value is the value of row i, to be called for each row in turn.
func (c *cursor) value(i int) driver.Value {
	raw := c.column.Values.At(i)
	begin := c.at + cellHead
	c.at = begin + len(raw)
	switch {
	case raw == nil:
		return nil
	case c.column.Forms[i] == reencrypt.Text:
		return c.text[begin:c.at]
	}
	return raw
}

// explainSwap tells a row that SQLite won't have from everything else. SQLite has the same code for a trigger that fails
// and for a table that is gone: the statement can be prepared again in the one case only.
func (w *writer) explainSwap(ctx context.Context, err error) error {
	refusal := refusalOf(err)
	if refusal == nil || ctx.Err() != nil {
		return explain(ctx, err, "writing a page", w.db.path)
	}
	if codeOf(err)&0xff == codeError {
		s, err := w.conn.prepare(ctx, w.swapSQL())
		if err != nil {
			return err
		}
		s.close()
	}
	return refusal
}
