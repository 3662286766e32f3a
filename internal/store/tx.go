package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

// txn implements Tx. It belongs to the goroutine of the function that it was given to.
//
// Statements don't run under the caller's context but under ctx, which outlives it: a statement that is cut off costs
// PostgreSQL the connection and SQLite a goroutine to watch each one, a COMMIT that is cut off has no outcome, and
// database/sql once handed the rows of a cancelled query to the next one (CVE-2025-47907). A caller who went away is
// noticed between two statements and between two rows, and a statement that hangs is cut off after a grace.
type txn struct {
	d    *Database
	conn *sql.Conn
	tx   *sql.Tx

	ctx     context.Context
	cancel  context.CancelFunc
	settled chan struct{} // closed when it is too late for a cut-off: the commit was asked for, or the end has come
	unwatch func() bool   // stops watching the caller's context

	broken    error // the first failed statement: nothing more is done, and nothing committed
	collided  bool  // broken by a Collision
	destroyed bool  // some version's material was destroyed in it
	done      bool  // committed, or its outcome is unknown
}

// grace is how long a statement may go on after its caller went away.
const grace = 2 * time.Second

func (d *Database) begin(ctx context.Context, pool *sql.DB, mode sql.TxOptions) (*txn, error) {
	const doing = "beginning a transaction"
	if err := d.ask(OpBegin); err != nil {
		return nil, d.failed(ctx, err, doing)
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, d.failed(ctx, err, doing)
	}
	t := &txn{d: d, conn: conn, settled: make(chan struct{})}
	t.ctx, t.cancel = context.WithoutCancel(ctx), func() {}
	if d.b.Dialect != SQLite {
		t.ctx, t.cancel = context.WithCancel(t.ctx)
	}
	t.unwatch = context.AfterFunc(ctx, t.cutOff)
	if t.tx, err = conn.BeginTx(t.ctx, &mode); err != nil {
		err = d.failed(ctx, err, doing)
		t.end()
		return nil, err
	}
	return t, nil
}

// cutOff runs in a goroutine of its own from the moment when the caller's context ends.
func (t *txn) cutOff() {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		t.cancel()
	case <-t.settled:
	}
}

// settle is called once, by commit or by end.
func (t *txn) settle() {
	t.unwatch()
	close(t.settled)
}

// end rolls back what wasn't committed and gives the connection back. Its errors say nothing new: a transaction that
// can't even be rolled back is rolled back by the database when it loses the connection.
func (t *txn) end() {
	if !t.done {
		t.settle()
	}
	limit := time.AfterFunc(commitTimeout, t.cancel)
	if t.tx != nil && !t.done {
		_ = t.tx.Rollback()
	}
	_ = t.conn.Close()
	limit.Stop()
	t.cancel()
}

// commit asks for the commit, which nothing but its own limit cuts off.
func (t *txn) commit(ctx context.Context) error {
	const doing = "committing"
	if err := ctx.Err(); err != nil {
		return t.d.failed(ctx, err, doing) // end rolls back
	}
	if err := t.d.ask(OpCommit); err != nil {
		return t.commitFailed(ctx, err)
	}
	t.settle()
	limit := time.AfterFunc(commitTimeout, t.cancel)
	defer limit.Stop()
	err := t.tx.Commit()
	t.done = true
	if err == nil {
		err = t.d.ask(OpCommitted)
	}
	if err != nil {
		return t.commitFailed(context.WithoutCancel(ctx), err)
	}
	return nil
}

func (t *txn) commitFailed(ctx context.Context, err error) error {
	undone := t.d.undone(err)
	switch {
	case undone && t.d.b.classify(err) == Collision:
		return errCollision
	case undone:
		return t.d.failed(ctx, err, "committing")
	}
	return unknown(t.d.failed(ctx, err, "committing"))
}

// SQL implements Tx.
func (t *txn) SQL() *sql.Tx { return t.tx }

// ready is asked before each statement: it checks the arguments, that nothing failed before and that the caller is still
// there.
func (t *txn) ready(ctx context.Context, doing string, args []any) error {
	if t.broken != nil {
		return t.broken
	}
	if err := ctx.Err(); err != nil {
		return t.fail(ctx, err, doing)
	}
	if err := bind(args); err != nil {
		return fault.Wrap("", err, doing)
	}
	if err := t.d.ask(OpStatement); err != nil {
		return t.fail(ctx, err, doing)
	}
	return nil
}

// fail breaks the transaction: PostgreSQL accepts no further statement after an error, so SQLite doesn't either.
func (t *txn) fail(ctx context.Context, err error, doing string) error {
	t.collided = t.collided || t.d.b.classify(err) == Collision
	t.broken = t.d.failed(ctx, err, doing)
	return t.broken
}

// exec runs a statement and returns how many rows it changed.
func (t *txn) exec(ctx context.Context, doing, query string, args ...any) (int64, error) {
	if err := t.ready(ctx, doing, args); err != nil {
		return 0, err
	}
	result, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, t.fail(ctx, err, doing)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, t.fail(ctx, err, doing)
	}
	return n, nil
}

// mustChange runs a statement that has to change exactly one row, and returns otherwise when it changes none.
func (t *txn) mustChange(ctx context.Context, otherwise error, doing, query string, args ...any) error {
	n, err := t.exec(ctx, doing, query, args...)
	if err == nil && n == 0 {
		return otherwise
	}
	return err
}

// one reads at most one row into dest, and returns otherwise when there is none.
func (t *txn) one(ctx context.Context, otherwise error, doing string, dest []any, query string, args ...any) error {
	if err := t.ready(ctx, doing, args); err != nil {
		return err
	}
	err := t.tx.QueryRowContext(t.ctx, query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return otherwise
	}
	if err != nil {
		return t.fail(ctx, err, doing)
	}
	return nil
}

// each calls scan for every row. An error of scan ends the walk and comes back as it is.
func (t *txn) each(ctx context.Context, doing string, scan func(*sql.Rows) error, query string, args ...any) error {
	if err := t.ready(ctx, doing, args); err != nil {
		return err
	}
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return t.fail(ctx, err, doing)
	}
	defer rows.Close()
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return t.fail(ctx, err, doing)
		}
		if err := scan(rows); err != nil {
			return err
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return t.fail(ctx, err, doing)
	}
	return nil
}

// scanner is what a row of one and a row of many have in common.
type scanner interface{ Scan(dest ...any) error }

// all reads every row with read.
func all[T any](ctx context.Context, t *txn, doing string, read func(scanner) (T, error), query string, args ...any) ([]T, error) {
	var out []T
	err := t.each(ctx, doing, func(rows *sql.Rows) error {
		v, err := read(rows)
		if err != nil {
			return t.fail(ctx, err, doing)
		}
		out = append(out, v)
		return nil
	}, query, args...)
	return out, err
}

// single reads one row with read, and returns otherwise when there is none.
func single[T any](ctx context.Context, t *txn, otherwise error, doing string, read func(scanner) (T, error), query string, args ...any) (T, error) {
	out, err := all(ctx, t, doing, read, query, args...)
	if err == nil && len(out) == 0 {
		err = otherwise
	}
	if err != nil {
		var none T
		return none, err
	}
	return out[0], nil
}
