package store

import (
	"context"
	"time"
)

// Now implements Tx.
func (t *txn) Now(ctx context.Context, own time.Time) (time.Time, error) {
	if t.d.b.Now == "" {
		return own, nil
	}
	var at int64
	if err := t.one(ctx, nil, "asking the database for the time", []any{&at}, t.d.b.Now); err != nil {
		return time.Time{}, err
	}
	return instant(at), nil
}
