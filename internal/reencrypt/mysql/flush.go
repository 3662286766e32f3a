package mysql

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// flushTimeout is how long a disk may take for what is in its queue.
const flushTimeout = time.Minute

// sqlLog: how far the redo log reaches, and how far it is on disk; in the words of MariaDB, then in those of MySQL 8.0.30.
// Anybody may ask.
const sqlLog = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_lsn_current', 'Innodb_lsn_flushed', " +
	"'Innodb_redo_log_current_lsn', 'Innodb_redo_log_flushed_to_disk_lsn')"

// Flush returns when InnoDB's redo log is on disk up to where it stands now, and with it the end of every transaction that
// was acknowledged: on a server that doesn't wait for the disk (innodb_flush_log_at_trx_commit), and on one whose binary log
// decides about the last transactions after a crash. The server gets there by itself within about a second; who has the
// right RELOAD has it hurry.
func (t *target) Flush(ctx context.Context) error {
	c, err := t.db.connect(ctx, asking)
	if err != nil {
		return err
	}
	defer c.close()
	return flush(ctx, c)
}

func flush(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	end, flushed, ok, err := redoLog(ctx, c)
	if err != nil {
		return err
	}
	if !ok {
		return flushBlindly(ctx, c)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for asked := false; flushed < end; {
		if !asked {
			asked = true
			if err := hurry(ctx, c); err != nil && fault.CodeOf(err) != api.CodeDenied {
				return err
			}
		} else {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fault.Wrap("", ctx.Err(), "waiting until the database's log is on disk")
			}
		}
		if _, flushed, _, err = redoLog(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// hurry has the server write its logs to disk. It isn't sent to replicas.
func hurry(ctx context.Context, c *conn) error {
	return c.exec(ctx, "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
}

// redoLog is the numbers of sqlLog. ok is false where the server doesn't say.
func redoLog(ctx context.Context, c *conn) (end, flushed int64, ok bool, err error) {
	rows, err := c.query(ctx, sqlLog)
	if err != nil {
		return 0, 0, false, err
	}
	for _, r := range rows {
		switch r.text(0) {
		case "Innodb_lsn_current", "Innodb_redo_log_current_lsn":
			end = r.number(1)
		default:
			flushed = r.number(1)
		}
	}
	return end, flushed, len(rows) == 2, nil
}

// flushBlindly is for a server that doesn't say how far its log is on disk: it must be one that waits for the disk.
func flushBlindly(ctx context.Context, c *conn) error {
	s, err := serverOf(ctx, c)
	switch {
	case err != nil || s.durable:
		return err
	}
	return fault.New(api.CodeWrongState, "waiting until the database's log is on disk: the server acknowledges commits before, and doesn't say when they are").
		WithNext("set innodb_flush_log_at_trx_commit to 1 and sync_binlog to 1, or upgrade to MySQL 8.0.30")
}
