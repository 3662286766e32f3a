package mysql

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Rows of one statement; what is missing at the end of a page is filled up with keys that are NULL and find nothing. A
// longer list to write isn't faster, because each row goes through it.
const (
	lockRows = 128
	swapRows = 32
)

// writer writes pages on a connection of its own.
type writer struct {
	*target
	conn       *conn
	lock, swap *statement
	patience   bool // the server has no limit for idle transactions, so the one for idle sessions does its work

	locked  *reencrypt.Page // keys of the rows that a statement took
	take    []int           // rows of the batch that are ours until the commit
	args    []driver.NamedValue
	scratch []byte
}

// Writer connects.
func (t *target) Writer(ctx context.Context) (reencrypt.Writer, error) {
	c, err := t.db.connect(ctx, writing)
	if err != nil {
		return nil, err
	}
	w := &writer{target: t, conn: c, patience: !t.db.mariadb, locked: reencrypt.NewPage(len(t.keys), 0)}
	if w.lock, err = c.prepare(ctx, t.lockSQL(lockRows)); err == nil {
		w.swap, err = c.prepare(ctx, t.swapSQL(swapRows))
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return w, nil
}

// Close ends the connection.
func (w *writer) Close() error {
	w.conn.close()
	return nil
}

// Swap takes what nobody holds and writes what still stands, in one transaction.
func (w *writer) Swap(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	n, err := w.transaction(ctx, b, from, to)
	if err != nil {
		// The session is of use only when this succeeds; where the connection broke, the server takes everything back by itself.
		_ = w.conn.exec(ctx, "ROLLBACK")
		n = 0
	}
	_ = w.waitUpTo(ctx, betweenPages) // a connection that broke meanwhile is found by the next page
	return n, err
}

func (w *writer) transaction(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	if err := w.begin(ctx, b, from, to); err != nil {
		return 0, err
	}
	total := 0
	for at := 0; at < len(w.take); at += swapRows {
		if err := w.bindSwap(b, w.take[at:min(at+swapRows, len(w.take))]); err != nil {
			return 0, err
		}
		n, err := w.swap.run(ctx, w.args)
		if err != nil {
			return 0, explainSwap(ctx, err)
		}
		total += int(n)
	}
	if err := w.conn.exec(ctx, "COMMIT"); err != nil {
		return 0, err
	}
	return total, nil
}

// begin starts the transaction and takes rows.
func (w *writer) begin(ctx context.Context, b *reencrypt.Batch, from, to int) error {
	if err := w.waitUpTo(ctx, w.db.session.IdleInTransaction); err != nil {
		return err
	}
	if err := w.conn.exec(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	w.take = w.take[:0]
	for ; from < to; from += lockRows {
		if err := w.lockUpTo(ctx, b, from, min(from+lockRows, to)); err != nil {
			return err
		}
	}
	return nil
}

// waitUpTo sets how long the server waits for our next statement, where it has one limit for sessions and transactions.
func (w *writer) waitUpTo(ctx context.Context, d time.Duration) error {
	if !w.patience {
		return nil
	}
	return w.conn.exec(ctx, fmt.Sprintf("SET SESSION wait_timeout = %d", wholeSeconds(d)))
}

// lockUpTo takes the rows of one statement and remembers which.
func (w *writer) lockUpTo(ctx context.Context, b *reencrypt.Batch, from, to int) error {
	w.args = w.args[:0]
	for i := from; i < from+lockRows; i++ {
		if err := w.bindKey(b, i, i < to); err != nil {
			return err
		}
	}
	w.locked.Reset()
	rows, err := w.lock.rows(ctx, w.args)
	if err == nil {
		err = each(rows, w.remember)
	}
	if err != nil {
		return explainSwap(ctx, err)
	}
	if w.locked.Rows() == to-from {
		for i := from; i < to; i++ {
			w.take = append(w.take, i)
		}
		return nil
	}
	ours := make(map[string]bool, w.locked.Rows())
	for i := range w.locked.Rows() {
		ours[string(w.locked.Key(i))] = true
	}
	for i := from; i < to; i++ {
		var key []byte
		for c := range b.Keys {
			key = append(key, b.Keys[c].Range(i, i+1)...)
		}
		if ours[string(key)] {
			w.take = append(w.take, i)
		}
	}
	return nil
}

func (w *writer) remember(r row) error {
	for i, k := range w.keys {
		var ok bool
		if w.scratch, ok = k.add(w.locked, i, r[i], w.scratch); !ok {
			return fault.New(api.CodeInternal, "taking rows: a key value isn't of its column's type")
		}
	}
	return nil
}

// bindKey appends the key of row i as parameters, or a NULL for each of its columns.
func (w *writer) bindKey(b *reencrypt.Batch, i int, there bool) error {
	for c, k := range w.keys {
		if !there {
			w.args = named(w.args, nil)
			continue
		}
		v, ok := k.value(b.Keys[c].At(i))
		if !ok {
			return errCursor
		}
		w.args = named(w.args, v)
	}
	return nil
}

// bindSwap lays out the parameters of swapSQL for these rows of the batch: for each column the keys and new values; the
// keys; for each key column of text its values once more; for each column the keys and old values.
func (w *writer) bindSwap(b *reencrypt.Batch, rows []int) error {
	w.args = w.args[:0]
	each := func(bind func(i int, there bool) error) error {
		for at := range swapRows {
			if err := bind(rows[min(at, len(rows)-1)], at < len(rows)); err != nil {
				return err
			}
		}
		return nil
	}
	values := func(of []reencrypt.Column) error {
		for c := range w.columns {
			err := each(func(i int, there bool) error {
				if err := w.bindKey(b, i, there); err != nil {
					return err
				}
				w.bindValue(&of[c].Values, i, there)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := values(b.New); err != nil {
		return err
	}
	if err := each(func(i int, there bool) error { return w.bindKey(b, i, there) }); err != nil {
		return err
	}
	for c, k := range w.keys {
		if k.kind != kindText {
			continue
		}
		_ = each(func(i int, there bool) error { w.bindValue(&b.Keys[c], i, there); return nil }) // it never fails
	}
	return values(b.Old)
}

func (w *writer) bindValue(c *reencrypt.Cells, i int, there bool) {
	if !there || c.IsNull(i) {
		w.args = named(w.args, nil)
		return
	}
	w.args = named(w.args, c.At(i))
}
