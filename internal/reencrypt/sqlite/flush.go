package sqlite

import (
	"context"
	"errors"
	"strconv"
)

// Flush makes everything durable that was committed so far. The application may have committed without waiting for the
// disk (synchronous OFF, or NORMAL in WAL mode): a transaction of ours that commits with synchronous on can't return before
// the log, or the file, is on disk with all that stands in front. Writing the file's user_version over with itself is such
// a transaction and touches no table. In WAL mode a checkpoint then folds the log into the file and syncs that too, as far
// as it gets without waiting for readers; what it leaves in the log is durable there.
func (t *target) Flush(ctx context.Context) error {
	c, err := t.db.connect(ctx, flushing)
	if err != nil {
		return err
	}
	err = patiently(ctx, t.db.session.StatementTimeout, func() error { return flush(ctx, c) })
	return errors.Join(err, c.close())
}

func flush(ctx context.Context, c *conn) (err error) {
	if err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = c.exec(context.WithoutCancel(ctx), "ROLLBACK") // an error here says again what err says
		}
	}()
	rows, err := c.query(ctx, "PRAGMA main.user_version")
	if err != nil {
		return err
	}
	if err := c.exec(ctx, "PRAGMA main.user_version = "+strconv.FormatInt(rows[0].number(0), 10)); err != nil {
		return err
	}
	if err := c.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	_, err = c.query(ctx, "PRAGMA main.wal_checkpoint(PASSIVE)")
	return err
}
