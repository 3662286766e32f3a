package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/keyturn/keyturn/internal/fault"
)

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
