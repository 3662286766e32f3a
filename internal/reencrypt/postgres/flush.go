package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Flush makes the write-ahead log durable up to where it stands now. Other sessions may have committed without waiting for
// the disk (synchronous_commit=off): a transaction of ours that writes a record and commits with it on can't return before
// everything in front of that record is on disk too. An empty message is such a record and touches nothing; where the
// right to write one was taken away, the log writer gets there by itself within three wal_writer_delay.
func (t *target) Flush(ctx context.Context) error {
	conn, err := t.db.connect(ctx, flushing)
	if err != nil {
		return err
	}
	return errors.Join(flush(ctx, conn), closeConn(conn))
}

// flushTimeout is how long a disk may take for what is in its queue.
const flushTimeout = time.Minute

func flush(ctx context.Context, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	end, err := query(ctx, conn, "SELECT pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		return err
	}
	_, err = query(ctx, conn, "SELECT pg_catalog.pg_logical_emit_message(true, 'keyturn', 'flush')")
	if err != nil && fault.CodeOf(err) != api.CodeDenied {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := query(ctx, conn, "SELECT pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_catalog.pg_lsn", end[0][0])
		if err != nil {
			return err
		}
		if done[0][0] == "t" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.Wrap("", ctx.Err(), "waiting until the database's log is on disk")
		}
	}
}
