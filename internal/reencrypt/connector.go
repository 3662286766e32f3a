package reencrypt

import (
	"context"
	"net"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// Driver is one kind of database. A new one is a sub-folder of this room that passes connectortest.Exercise, and a line
// in the server's table of drivers.
type Driver interface {
	// Schemes are the URL schemes that choose this driver, in lower case.
	Schemes() []string
	// Parse checks a URL without connecting and answers its printable form: no password, nothing else that is secret.
	// Errors are of code invalid with the field "db" and quote nothing of the URL.
	Parse(dsn DSN) (printable string, err error)
	// Open connects. Errors: those of Parse; unavailable when the database can't be reached; not_found when it doesn't
	// exist; denied when it refuses us.
	Open(ctx context.Context, dsn DSN, s Session) (Database, error)
}

// Session is how our connections behave towards the application's. Zero values mean the defaults.
type Session struct {
	// LockTimeout is how long a statement waits for a row or a database that the application holds. Default 200 ms: below
	// PostgreSQL's deadlock_timeout, so that in a deadlock it is us who give way, not the application.
	LockTimeout time.Duration
	// StatementTimeout ends a page that takes too long. Counting the whole table is exempt. Default 60 s.
	StatementTimeout time.Duration
	// IdleInTransaction is how long the database lets a transaction of ours wait for its next statement before it takes it
	// back, where it knows such a thing (SQLite doesn't). A process of ours that stands still in the midst of a page
	// (SIGSTOP, a frozen machine, a network that swallows everything) would hold the application's rows for as long as it
	// does. Default 5 s: a healthy one waits for milliseconds. Whole seconds on MariaDB and MySQL.
	IdleInTransaction time.Duration
	// Hurry lets the database count a table on all its cores at once, where it knows such a thing (PostgreSQL does). Else it has
	// one for it, and the application the others: on two cores, half its statements took ten times as long during a count.
	Hurry bool
	// Dial makes every connection; nil is a plain one. Its ErrOwnMachine is the driver's answer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// WithDefaults fills in the zero values.
func (s Session) WithDefaults() Session {
	if s.LockTimeout <= 0 {
		s.LockTimeout = 200 * time.Millisecond
	}
	if s.StatementTimeout <= 0 {
		s.StatementTimeout = time.Minute
	}
	if s.IdleInTransaction <= 0 {
		s.IdleInTransaction = 5 * time.Second
	}
	return s
}

// Database is an open connection to somebody's database. It is safe for concurrent use.
type Database interface {
	// Describe looks a table up: its exact name, or "schema.table", or SQL's own quoted form for names that hold dots or
	// quotes themselves. Errors: not_found with the field "table"; invalid when the name fits several tables.
	Describe(ctx context.Context, table string) (*Table, error)
	// Target prepares work on columns of a table that Describe answered and Table.Check passed. pk gives the order of rows:
	// it is one of Table.Uniques, in its order.
	Target(ctx context.Context, t *Table, pk, columns []string) (Target, error)
	// Close ends every connection. A second call does nothing.
	Close() error
}

// Target is some columns of one table. It is safe for concurrent use; the readers and writers that it makes are not.
type Target interface {
	// Census counts the values of every column in one snapshot, in no order. It is exempt from StatementTimeout and
	// waits for nobody; each may take a while too, but for no longer than CensusIdle.
	Census(ctx context.Context, each func(Group) error) error
	// Longest is the length in bytes of the longest value of a column that doesn't look like one of our ciphertexts.
	Longest(ctx context.Context, column int) (int64, error)
	// Writers is how many writers at once are of use: 1 where the database lets one in at a time.
	Writers() int
	// Reader and Writer connect. Close them before the Database.
	Reader(ctx context.Context) (Reader, error)
	Writer(ctx context.Context) (Writer, error)
	// Flush returns when everything committed so far, by anybody, would survive a power cut of the database's machine.
	Flush(ctx context.Context) error
}

// CensusIdle is IdleInTransaction for a census: who is handed a group may have to ask the store whose it is. A census holds a
// snapshot, and nobody's rows.
const CensusIdle = time.Minute

// Group is one row of a census: so many values of a column that begin alike.
type Group struct {
	Column int
	Form   Form // Null, Text, Binary or Unsupported
	// Prefix is how they begin, envelope.PrefixLen characters of text or envelope.HeaderSize bytes, if they begin as our
	// ciphertexts do (shorter where the value is). Empty for plaintext. Valid during the call.
	Prefix []byte
	Rows   int64
}

// Reader reads rows in key order. It belongs to one goroutine.
type Reader interface {
	// Start begins after the row with this key, or at the first row. Errors of code invalid say that the key isn't one of
	// this table (its key columns were changed since): start from nil.
	Start(ctx context.Context, after Key, o ReadOptions) error
	// Next fills p, which it resets, with the rows that follow. An empty page is the end of the table.
	Next(ctx context.Context, p *Page) error
	// Find fills p with the rows that have these keys and still exist, in any order.
	Find(ctx context.Context, p *Page, keys []Key) error
	Close() error
}

// ReadOptions say how much is read at a time and what needn't be transferred.
type ReadOptions struct {
	// Rows is the most rows of one page, and of one statement.
	Rows int
	// Skip holds a header per column, or is nil: values that begin with it come as Current, without their bytes. The zero
	// header skips nothing.
	Skip []envelope.Header
}

// Writer writes pages back. It belongs to one goroutine.
type Writer interface {
	// Swap writes rows from up to but not including to in one transaction, each only where every old value of the batch
	// still stands, and answers how many rows it wrote; the others were changed or deleted meanwhile and are untouched.
	//
	// An error means that no row was written, with one exception: when the connection breaks during the commit, nobody
	// knows. It matches ErrContended when somebody holds a row or the database (try fewer rows), or a *Refusal when the
	// database refused a value for good; anything else is unavailable or cancelled.
	Swap(ctx context.Context, b *Batch, from, to int) (swapped int, err error)
	Close() error
}

// ErrContended says that a row or the database was held by somebody for longer than LockTimeout.
var ErrContended = fault.New(api.CodeBusy, "waiting for rows that the application holds")

// Refusal is why a database won't have a row: a constraint, a trigger, an encoding. Reason is made of the database's own
// error code and names from its catalogue, never of values.
type Refusal struct {
	Reason string
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }
