package store

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// Append implements Store. It goes through database/sql's prepared statement and not through the driver's own
// connection: the pool's queue is what keeps it apart from Change and River, and next to the commit its cost isn't
// measurable (docs/decisions/0006). The statement runs under a context that can't be cancelled: SQLite would watch
// it with a goroutine, and PostgreSQL would leave us not knowing what happened.
func (d *Database) Append(ctx context.Context, s *audit.Segment) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap("", context.Cause(ctx), "writing the audit log")
	}
	if err := d.healthy(); err != nil {
		return err
	}
	args, err := appendArgs(s)
	if err != nil {
		return err
	}
	if err := d.ask(OpAppend); err != nil {
		return d.failed(ctx, err, "writing the audit log")
	}
	run, cancel := d.appendContext()
	defer cancel()
	result, err := d.append.ExecContext(run, d.withPremises(args, s.Premises)...)
	if err == nil {
		err = d.ask(OpCommitted)
	}
	if err != nil {
		return d.appendFailed(run, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return audit.ErrFenced
	}
	return nil
}

// withPremises are the arguments of the statement, with what the segment's events rest on where that is a condition.
func (d *Database) withPremises(args [13]any, premises []audit.Premise) []any {
	if d.b.Premises == "" {
		return args[:]
	}
	ids, revisions := make([][]byte, len(premises)), make([]int64, len(premises))
	for i := range premises {
		ids[i], revisions[i] = premises[i].Key[:], premises[i].Revision
	}
	return append(args[:], ids, revisions)
}

// Fallen implements audit.Tx.
func (t *txn) Fallen(ctx context.Context, premises []audit.Premise) (fallen []audit.Premise, err error) {
	for _, p := range premises {
		var now int64
		err := t.one(ctx, errNoKey, "looking whether a key was changed", []any{&now}, `SELECT revision FROM keys WHERE id = $1`, p.Key[:])
		if err != nil && err != errNoKey {
			return nil, err
		}
		if err == errNoKey || now != p.Revision {
			fallen = append(fallen, p)
		}
	}
	return fallen, nil
}

// errNoKey never leaves this file.
var errNoKey = errors.New("no key")

// appendContext is background for SQLite, which always answers, and has a limit for a server.
func (d *Database) appendContext() (context.Context, context.CancelFunc) {
	if d.b.Dialect == SQLite {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), commitTimeout)
}

func (d *Database) appendFailed(ctx context.Context, err error) error {
	switch {
	case d.b.classify(err) == Taken: // another writer's segment stands at this place
		return audit.ErrFenced
	case !d.undone(err):
		return unknown(d.failed(ctx, err, "writing the audit log"))
	}
	return d.failed(ctx, err, "writing the audit log")
}
