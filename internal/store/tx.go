package store

import (
	"context"
	"database/sql"
	"time"
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

	news []string // what other processes must hear of, see announce
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
