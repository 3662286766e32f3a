package postgres

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// SQLSTATEs (PostgreSQL documentation, appendix A) and their classes, the first two characters.
const (
	stateUnique          = "23505"
	stateForeignKey      = "23503"
	stateReadOnly        = "25006"
	stateIdle            = "25P03" // idle_in_transaction_session_timeout
	stateSerialization   = "40001"
	stateDeadlock        = "40P01"
	stateDuplicateSchema = "42P06"
	stateNoRight         = "42501"
	stateProgramLimit    = "54000"
	stateDiskFull        = "53100"
	stateTooManyConns    = "53300"
	stateIOError         = "58030"
	stateBadPassword     = "28P01"
	stateBadAuth         = "28000"
	stateNoDatabase      = "3D000"
)

var byState = map[string]store.Problem{
	stateUnique: store.Taken, stateForeignKey: store.Dangling, stateReadOnly: store.ReadOnly,
	stateSerialization: store.Collision, stateDeadlock: store.Collision, stateNoRight: store.Forbidden,
	stateProgramLimit: store.TooBig, stateDiskFull: store.Full, stateIdle: store.Gone,
}

// A disk error of the server is the server's to remember (it stops by itself on a failed fsync), so it is Gone here.
var byClass = map[string]store.Problem{
	"08": store.Gone, "57": store.Gone, "58": store.Gone, "53": store.Gone, "28": store.Gone, "3D": store.Gone,
	"22": store.Refused, "23": store.Refused, "54": store.TooBig, "XX": store.Corrupt,
}

// sqlState is the SQLSTATE of an error that the server reported, empty for every other.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func classify(err error) store.Problem {
	state := sqlState(err)
	if state == "" {
		// Whatever the server didn't say comes from the way there, or from a transaction that a lost connection ended.
		return store.Gone
	}
	if p, ok := byState[state]; ok {
		return p
	}
	return byClass[state[:2]]
}

// undone: an ERROR in answer to a COMMIT or a statement means that the server rolled back, as does the end of a session
// that left its transaction idle; after any other FATAL or a lost connection it may have committed, unless nothing was
// ever sent.
func undone(err error) bool {
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e):
		return e.Code == stateIdle || e.SeverityUnlocalized == "ERROR" && !strings.HasPrefix(e.Code, "08")
	case errors.Is(err, pgx.ErrTxCommitRollback), errors.Is(err, sql.ErrTxDone):
		return true
	}
	return pgconn.SafeToRetry(err)
}

func (d *database) backend() store.Backend {
	return store.Backend{
		Dialect:    store.Postgres,
		Address:    d.dsn.String(),
		Writer:     d.pool,
		Reader:     d.pool,
		ChangeMode: sql.TxOptions{Isolation: sql.LevelSerializable},
		ViewMode:   sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
		// A free shard is locked and taken; other nodes skip it. When none is free the next number is tried, and whoever
		// comes second for it finds it leased and gets no row.
		TakeShard: `WITH free AS (SELECT shard FROM audit_shards WHERE lease_until <= $2 ORDER BY shard LIMIT 1 FOR UPDATE SKIP LOCKED)
			INSERT INTO audit_shards AS s (shard, epoch, node, lease_until, sums_epoch)
			SELECT COALESCE((SELECT shard FROM free), (SELECT COALESCE(MAX(shard) + 1, 0) FROM audit_shards)), 1, $1, $3, 1
			ON CONFLICT (shard) DO UPDATE SET epoch = s.epoch + 1, node = excluded.node, lease_until = excluded.lease_until, sums_epoch = s.epoch + 1
			WHERE s.lease_until <= $2
			RETURNING shard, epoch`,
		ShareLock: ` FOR SHARE OF s`,
		// A subquery for each key and not a join, whose plan might read all keys.
		Premises: ` AND NOT EXISTS (SELECT 1 FROM unnest($14::bytea[], $15::bigint[]) AS p (id, revision)
			WHERE p.revision IS DISTINCT FROM (SELECT k.revision FROM keys k WHERE k.id = p.id))`,
		Now:      `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)`,
		Announce: `SELECT pg_notify($1, $2)`,
		Listen:   d.listen,
		Classify: classify,
		Undone:   undone,
		Durable:  func(ctx context.Context) error { return d.durable(ctx) },
		Scrub:    d.scrub,
		Close:    func() error { return d.pool.Close() },
	}
}

// settings are what durability hangs on, and the version as a number such as 150017.
const settings = `SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('server_version_num')::int`

// minVersion is PostgreSQL 15.
const minVersion = 150000

// checkSession refuses a connection on which a commit could be lost, and pins synchronous_commit for its life.
func checkSession(ctx context.Context, conn *pgx.Conn) error {
	var fsync, synchronous string
	var version int
	if err := conn.QueryRow(ctx, settings).Scan(&fsync, &synchronous, &version); err != nil {
		return err
	}
	if err := checkSettings(fsync, synchronous, version); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', $1, false)`, synchronous)
	return err
}

func checkSettings(fsync, synchronous string, version int) error {
	const refused = "the store isn't durable: "
	switch {
	case fsync == "off":
		return fault.New(api.CodeUnavailable, refused+"the PostgreSQL server runs with fsync=off").
			WithNext("set fsync=on in postgresql.conf; with it off a power cut destroys the database")
	case synchronous == "off":
		return fault.New(api.CodeUnavailable, refused+"synchronous_commit is off for this session").
			WithNext("set it to on for the server, the database and the role, and take it out of the URL: " +
				"with it off a crash loses keys that were already used")
	case version < minVersion:
		return fault.New(api.CodeUnavailable, "the PostgreSQL server is older than version 15").WithNext("upgrade it")
	}
	return nil
}

// durable asks a connection of the pool again: fsync can be changed while the server runs.
func (d *database) durable(ctx context.Context) error {
	var fsync, synchronous string
	var version int
	if err := d.pool.QueryRowContext(ctx, settings).Scan(&fsync, &synchronous, &version); err != nil {
		return openFailed(ctx, err, d.dsn)
	}
	return checkSettings(fsync, synchronous, version)
}

// scrub lets the server reuse, and soon overwrite, the dead rows that held destroyed material; a table that is being
// vacuumed already is left to that. The write-ahead log and the backups made from it are the administrator's.
func (d *database) scrub(ctx context.Context) error {
	_, err := d.pool.ExecContext(ctx, `VACUUM (SKIP_LOCKED) key_versions, kek_wrappings, datasets`)
	return err
}

// openFailed says in words what an error at opening means; neither the words nor the address hold a password.
func openFailed(ctx context.Context, err error, dsn store.DSN) error {
	var ours *fault.Error
	if errors.As(err, &ours) {
		return ours
	}
	if ctx.Err() != nil {
		return fault.Wrap("", context.Cause(ctx), "opening the store")
	}
	why, next := "it can't be reached", "check the address, and that the server runs and accepts connections from here"
	switch sqlState(err) {
	case stateBadPassword, stateBadAuth:
		why, next = "it refused the user or its password", "check the user and password in the URL, and pg_hba.conf"
	case stateNoDatabase:
		why, next = "there is no such database", "create it, owned by the user in the URL"
	case stateNoRight:
		why, next = "the user may not create its schema", "make it the owner of the database: ALTER DATABASE … OWNER TO …"
	case stateTooManyConns:
		why, next = "it has no connection left", "raise max_connections, or lower what others use"
	case stateReadOnly:
		why, next = "it accepts no writes", "connect to the primary server, not to a standby"
	}
	return fault.Wrapf(api.CodeUnavailable, err, "opening the store %s: %s", dsn, why).WithNext(next)
}
