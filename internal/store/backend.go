package store

import (
	"context"
	"database/sql"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Backend is what a driver brings to the shared SQL: two pools, and everything in which the databases differ. New makes
// a Store of it.
type Backend struct {
	Dialect Dialect
	Address string // for Describe; without a password

	Writer *sql.DB // for Change, Append and River
	Reader *sql.DB // for View; it can't write. May be the same pool where the transaction's mode sees to that

	ChangeMode, ViewMode sql.TxOptions

	// TakeShard is the statement behind AcquireShard: $1 the node, $2 now, $3 the lease's end. It returns shard and epoch
	// of the row that it took or made, or no row when another node was faster.
	TakeShard string
	// ShareLock is appended to a SELECT of an audit shard's row so that its epoch can't move before the commit.
	ShareLock string

	// Premises is one more condition of Append's statement, that every key of $14 is at the revision of $15 beside it; empty
	// where only one process opens the database, whose own caches know of every change.
	Premises string

	// Now asks for the database's clock in microseconds since 1970; empty where the process's own clock is the only one.
	Now string
	// Announce tells $2 on the channel $1 at the commit of the transaction, and Listen hears it, in every process, until ctx
	// ends; missed says that something may not have been heard. Both are absent where one process has the database for itself.
	Announce string
	Listen   func(ctx context.Context, channel string, heard func(message string), missed func())

	// Classify tells what sort of failure an error of the database is.
	Classify func(error) Problem
	// Undone reports whether an error of a COMMIT or of a statement outside a transaction proves that nothing was
	// committed. When in doubt, false.
	Undone func(error) bool
	// Durable asks the database whether commits are safe, see Store.
	Durable func(context.Context) error
	// Scrub removes from the database's files what destroyed material left behind, as far as the database can. It is
	// called after a Change that destroyed some, and at Close. Failing is not an error: it is tried again next time.
	Scrub func(context.Context) error
	// Close closes both pools.
	Close func() error
}

// Problem is a sort of failure of a database, from the point of view of what to do about it.
type Problem int

// The sorts of failures.
const (
	Unclassified Problem = iota
	Taken                // a unique value is there already
	Dangling             // a reference points to nothing, or something still points here
	Collision            // serialization failure or deadlock: nothing happened, run it again
	Busy                 // another process holds the database
	Full                 // no space left: nothing happened, goes on when there is space
	DiskError            // the disk failed: what was written before may be lost, so no more writing until a restart
	Gone                 // the connection is lost or the server stops
	Corrupt              // the database contradicts itself
	TooBig               // a value beyond the database's limits
	Refused              // a value that the database can't represent
	ReadOnly             // the database or this transaction accepts no writes
	Forbidden            // the database's user lacks a right
)

// problems says for each sort its code, what happened in words, and the next step.
var problems = map[Problem]fault.Error{
	Unclassified: {Code: api.CodeInternal, Message: "the database refused a statement", Next: "this is a defect of keyturn: please report it"},
	Taken:        {Code: api.CodeConflict, Message: "it exists already"},
	Dangling:     {Code: api.CodeConflict, Message: "something that it refers to, or that refers to it, stands in the way"},
	Collision:    {Code: api.CodeBusy, Message: "others kept changing the same things", Next: "try again"},
	Busy:         {Code: api.CodeBusy, Message: "another process is writing to the database", Next: "try again when it has ended"},
	Full:         {Code: api.CodeUnavailable, Message: "no space is left for the database", Next: "free some space; keyturn then goes on by itself"},
	DiskError:    {Code: api.CodeUnavailable, Message: "the disk of the database reported an error", Next: "check the disk, then restart keyturn; it writes no more until then"},
	Gone:         {Code: api.CodeUnavailable, Message: "the database can't be reached", Next: "check that the database runs and is reachable"},
	Corrupt:      {Code: api.CodeIntegrity, Message: "the database is damaged", Next: "stop keyturn and restore a backup"},
	TooBig:       {Code: api.CodeTooLarge, Message: "a value is too large for the database"},
	Refused:      {Code: api.CodeInvalid, Message: "a value that the database can't hold"},
	ReadOnly:     {Code: api.CodeUnavailable, Message: "the database accepts no writes here", Next: "connect to the primary server"},
	Forbidden:    {Code: api.CodeUnavailable, Message: "the database's user lacks a right", Next: "give it the right to create and change keyturn's tables"},
}

// ProblemError is an error of a known sort. Drivers don't make any; fault injection does (see Hooked).
type ProblemError struct{ Problem Problem }

func (e *ProblemError) Error() string { return problems[e.Problem].Message }
