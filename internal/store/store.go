// Package store keeps everything that keyturn must not forget: keys, principals, the audit log, jobs, datasets and
// incidents, in one database and therefore under one transaction. It holds the contract ([Store], [Tx]) and the SQL, which is the same
// for both databases; what differs lives in the drivers:
//
//	st, err := sqlite.Open(ctx, "/var/lib/keyturn/keyturn.db", sqlite.Config{})
//	st, err := postgres.Open(ctx, "postgres://keyturn@db/keyturn", postgres.Config{})
//
//	err = st.View(ctx, func(tx store.Tx) error { k, err = tx.KeyByName(ctx, "phi"); return err })
//	err = st.Change(ctx, func(tx store.Tx) error { return tx.UpdateKey(ctx, k) })
//
// # What a transaction is
//
// View sees one snapshot and can't write. Change is serializable: its effect is that of running alone. SQLite gets that
// by letting one writer in at a time; PostgreSQL by refusing one of two transactions that would disturb each other, which
// Change then runs again. So the function given to Change MAY RUN MORE THAN ONCE: it starts from what it reads in this
// transaction, and sets variables outside of it only by plain assignment. It never waits for a network, and inside it
// only tx is used: the store itself would wait for a connection that this very transaction holds.
//
// # What a return means
//
// nil: it is on disk (synchronous=FULL) or committed (synchronous_commit on); both are checked when the store is opened
// and again by Durable. An error: nothing happened, with one exception, [ErrCommitUnknown]: the connection or the disk
// failed between asking for the commit and its answer. Whoever gets it reads back what he wanted to write (the gate looks
// for its segment's nonce) before he says anything to anybody.
//
// # Errors
//
// Every error is a fault: not_found, conflict (taken, or changed by somebody else), invalid and too_large (a value that
// the database can't hold; both databases refuse the same ones), busy, unavailable, limit, integrity, cancelled. Texts of
// the databases, which quote values, are never part of the message.
package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
)

// ErrCommitUnknown says that a transaction or an Append was sent to the database and no answer came: it may or may not
// have happened. Its code is unavailable.
var ErrCommitUnknown = fault.New(api.CodeUnavailable, "the database didn't say whether it committed").
	WithNext("read back what was to be written before trying again")

// Dialect says which SQL a store speaks.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Tx is one transaction over all rooms of the floor below. It is valid until the function that received it returns, and
// belongs to that function's goroutine.
type Tx interface {
	keys.Tx
	access.Tx
	audit.Tx
	jobs.Tx
	datasets.Tx
	incidents.Tx

	// SQL is the transaction itself: for River, which enqueues in it. In a View it refuses to write.
	SQL() *sql.Tx
	// Meta reads a small setting of the store; not_found when it was never written.
	Meta(ctx context.Context, key string) (string, error)
	// SetMeta writes it.
	SetMeta(ctx context.Context, key, value string) error
	// RowSums lists the sums of rows by bucket, RowSum is one of them (not_found before it is first put), and PutRowSum
	// writes it. Package kms says what they are for.
	RowSums(ctx context.Context) ([]RowSum, error)
	RowSum(ctx context.Context, bucket int) (RowSum, error)
	PutRowSum(ctx context.Context, s RowSum) error
	// EachSignedRow walks all rows that carry a MAC, but for settings, in no order, with whatever stands in the columns.
	EachSignedRow(ctx context.Context, fn func(SignedRow) error) error
	// SumsKept says whether every process that holds a shard of the audit log at now, the store's time, is of a release
	// that keeps the sums.
	SumsKept(ctx context.Context, now time.Time) (bool, error)
	// Now is the time that all processes of the store agree on, however their own clocks differ: the database server's where
	// several may share it, and own, the caller's, where there is one process. What one process writes and another compares
	// with its time (a lease, a next attempt, a due time) is taken from here.
	Now(ctx context.Context, own time.Time) (time.Time, error)
}

// Store is an open database. It is safe for concurrent use.
type Store interface {
	// View runs fn on a snapshot that can't be written to. It returns fn's error as it is.
	View(ctx context.Context, fn func(Tx) error) error
	// Change runs fn in a serializable transaction and commits it unless fn returns an error or panics. fn may run more
	// than once, see the package comment. An error of fn comes back as it is. When a commit was asked for and not
	// answered, the error matches ErrCommitUnknown.
	Change(ctx context.Context, fn func(Tx) error) error
	// Append writes one audit segment in a transaction of its own: the hot path, one statement, one commit. The segment
	// isn't kept. Once begun it isn't interrupted by ctx, so that its outcome is known wherever it can be. Errors:
	// audit.ErrFenced, also when one of the segment's premises doesn't hold at that moment; ErrCommitUnknown, and those of the database.
	Append(ctx context.Context, s *audit.Segment) error

	// Listen calls heard, in one goroutine, for every change of keys, key-encryption keys, principals and tokens that any process commits, this one
	// too, until ctx ends. It returns at once where no other process can change the store. Hearing comes after the commit, so
	// it makes memories fresh soon; what must be exact rests on audit.Premise.
	Listen(ctx context.Context, heard func(News))
	// ID is the store's own random name, 32 lower-case hexadecimal digits, given when its tables were made. What is
	// wrapped for one store doesn't open in another.
	ID() string
	// Dialect says which SQL DB and Tx.SQL speak.
	Dialect() Dialect
	// DB is the pool that writes: for River and the runner only.
	DB() *sql.DB
	// Durable asks the database whether a commit still means that the data is safe, and whether the store has met an
	// error of the disk since it was opened: nil or a fault that says what to change. Doctor calls it.
	Durable(ctx context.Context) error
	// Describe is the database's address, without any password.
	Describe() string
	// Close waits for what runs and closes the database; unavailable: a server that doesn't answer was left to itself after
	// a few seconds. A second call does nothing.
	Close() error
}
