package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	driver "modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Result codes of SQLite (https://www.sqlite.org/rescode.html). The low byte is the primary one.
const (
	codeError      = 1
	codeBusy       = 5
	codeLocked     = 6
	codeReadOnly   = 8
	codeInterrupt  = 9
	codeIOErr      = 10
	codeCorrupt    = 11
	codeFull       = 13
	codeCantOpen   = 14
	codeTooBig     = 18
	codeConstraint = 19
	codeNotADB     = 26

	ioErrBlocked  = codeIOErr | 11<<8
	ioErrNoMem    = codeIOErr | 12<<8
	ioErrShmSize  = codeIOErr | 19<<8
	constraintFK  = codeConstraint | 3<<8
	constraintPK  = codeConstraint | 6<<8
	constraintUnq = codeConstraint | 8<<8
	constraintRow = codeConstraint | 10<<8
)

// byPrimary is the sort of failure of each primary code that has one.
var byPrimary = map[int]store.Problem{
	codeBusy: store.Busy, codeLocked: store.Busy, codeReadOnly: store.ReadOnly, codeIOErr: store.DiskError,
	codeCorrupt: store.Corrupt, codeNotADB: store.Corrupt, codeFull: store.Full, codeCantOpen: store.Gone,
	codeTooBig: store.TooBig, codeConstraint: store.Refused,
}

// byExtended goes before byPrimary. Growing the shared index of the log needs space, so its failure is a full disk.
var byExtended = map[int]store.Problem{
	ioErrShmSize: store.Full, ioErrNoMem: store.Gone, ioErrBlocked: store.Gone,
	constraintFK: store.Dangling, constraintPK: store.Taken, constraintUnq: store.Taken, constraintRow: store.Taken,
}

func classify(err error) store.Problem {
	var e *driver.Error
	if !errors.As(err, &e) {
		if errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) {
			return store.Gone
		}
		return store.Unclassified
	}
	if p, ok := byExtended[e.Code()]; ok {
		return p
	}
	return byPrimary[e.Code()&0xff]
}

// undone: a commit in WAL mode counts from its last frame, which is only written when all before it was. Every error but
// those of the disk is raised before that; after one of the disk the frame may be there or not.
func undone(err error) bool {
	var e *driver.Error
	if !errors.As(err, &e) {
		return errors.Is(err, sql.ErrTxDone)
	}
	switch classify(err) {
	case store.DiskError, store.Corrupt:
		return false
	}
	return true
}

func (d *database) backend() store.Backend {
	return store.Backend{
		Dialect: store.SQLite,
		Address: "sqlite:" + d.path,
		Writer:  d.writer,
		Reader:  d.reader,
		// ViewMode: a deferred BEGIN on a connection that can't write.
		ViewMode: sql.TxOptions{ReadOnly: true},
		// There is one process, so there is one shard, and whoever opened the file last owns it.
		TakeShard: `INSERT INTO audit_shards (shard, epoch, node, lease_until, sums_epoch) VALUES (0, 1, $1, $3, 1)
			ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1, node = excluded.node, lease_until = excluded.lease_until, sums_epoch = epoch + 1
			RETURNING shard, epoch`,
		Classify: classify,
		Undone:   undone,
		Durable:  d.durable,
		Scrub:    d.scrub,
		Close:    d.close,
	}
}

// durable reads back what the connections that write really do.
func (d *database) durable(ctx context.Context) error {
	var mode string
	var synchronous int
	err := d.writer.QueryRowContext(ctx, `SELECT j.journal_mode, s.synchronous FROM pragma_journal_mode j, pragma_synchronous s`).
		Scan(&mode, &synchronous)
	if err != nil {
		return openFailed(ctx, err, d.path)
	}
	if mode != "wal" || synchronous < 2 {
		return fault.Newf(api.CodeUnavailable, "the store isn't durable: journal_mode is %s and synchronous is %d, not wal and 2", mode, synchronous).
			WithNext("keep the data directory on a local disk; network file systems don't work")
	}
	return nil
}

// scrubWait is how long scrub waits for readers, in milliseconds: they hold the log, and Append waits behind scrub.
const scrubWait = 250

// scrub folds the write-ahead log into the file, where secure_delete has overwritten what was deleted, and cuts it to
// nothing.
func (d *database) scrub(ctx context.Context) (err error) {
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := setTimeout(ctx, conn, scrubWait); err != nil {
		return err
	}
	var busy, frames, moved int
	err = conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &moved)
	if err == nil && busy != 0 {
		err = errors.New("the write-ahead log is still being read")
	}
	return errors.Join(err, setTimeout(ctx, conn, d.cfg.BusyTimeout.Milliseconds()))
}

func setTimeout(ctx context.Context, conn *sql.Conn, ms int64) error {
	_, err := conn.ExecContext(ctx, fmt.Sprintf(`PRAGMA busy_timeout = %d`, ms))
	return err
}

// close closes the readers first: the last connection to go folds the log into the file and removes it.
func (d *database) close() error {
	var err error
	if d.reader != nil {
		err = d.reader.Close()
	}
	if d.writer != nil {
		err = errors.Join(err, d.writer.Close())
	}
	return err
}

// openFailed says in words what an error at opening means. The path is not secret.
func openFailed(ctx context.Context, err error, path string) error {
	if ctx.Err() != nil {
		return fault.Wrap("", context.Cause(ctx), "opening the store")
	}
	switch classify(err) {
	case store.Busy:
		return fault.Wrapf(api.CodeBusy, err, "opening the store: another process is writing to %s", path).
			WithNext("wait until it has ended, or use its server")
	case store.Corrupt:
		return fault.Wrapf(api.CodeIntegrity, err, "opening the store: %s is damaged or not a database", path).
			WithNext("restore a backup; keep the damaged file for an examination")
	case store.Full:
		return fault.Wrapf(api.CodeUnavailable, err, "opening the store: no space is left for %s", path).WithNext("free some space")
	}
	return fault.Wrapf(api.CodeUnavailable, err, "opening the store: %s can't be opened", path).
		WithNext("check that the directory exists, is writable and on a local disk")
}
