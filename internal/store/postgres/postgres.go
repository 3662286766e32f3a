// Package postgres keeps a keyturn store in PostgreSQL 15 or later (pgx through database/sql): for servers, and for many
// nodes on one database.
//
//	st, err := postgres.Open(ctx, "postgres://keyturn:…@db.example/keyturn?sslmode=verify-full", postgres.Config{})
//
// # Durability
//
// Open refuses a server with fsync=off and sessions with synchronous_commit=off, wherever it was set: for the server, the
// database, the role, or in the URL. Every later connection is checked the same way and keeps the value that it was
// checked with, whatever is reconfigured afterwards. Durable asks again.
//
// # Where things are
//
// The tables live in a schema of their own, keyturn, or in the one that search_path in the URL names. A role that owns the
// database, or the schema, needs no further right.
//
// # Protocol
//
// Statements go by the extended protocol, their arguments apart from their text; the simple protocol, which pastes them
// into it, is refused in the URL. Prepared statements live as long as their connection, so a pooler between keyturn and
// the database must pool sessions, not transactions or statements.
//
// # Transactions
//
// Change runs SERIALIZABLE, so that what holds on SQLite holds here; one that disturbed another is run again. Sequential
// scans are discouraged in our sessions: they make transactions collide that touch different rows of a small table.
//
// A process that is stopped in the midst of a transaction (SIGSTOP, a frozen machine, a network that swallows everything)
// doesn't commit and doesn't hang up: its locks would stand for as long as it does. So the server ends a session that
// leaves a transaction idle for Config.IdleInTransaction; when the process goes on it finds that it did nothing.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config tunes a store. The zero value is right for every use that has no reason to differ.
type Config struct {
	// MaxConns is the most connections of this process; 0 = 16. Those over it wait their turn.
	MaxConns int
	// ConnectTimeout is how long to wait for a connection; 0 = 10 s. connect_timeout in the URL wins.
	ConnectTimeout time.Duration
	// IdleInTransaction is how long the server lets one of our transactions wait for its next statement before it takes it
	// back and ends the session; 0 = 20 s, twice what a call to a master key's provider may take, which some transactions
	// wait for, and less than a client's 30 s. idle_in_transaction_session_timeout in the URL wins.
	IdleInTransaction time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxConns <= 0 {
		c.MaxConns = 16
	}
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.IdleInTransaction <= 0 {
		c.IdleInTransaction = 20 * time.Second
	}
	return c
}

// Open opens the store in the database of url, and makes its tables when there are none. Errors: invalid (the URL),
// unavailable (not reachable, not durable, too old, a right is missing).
func Open(ctx context.Context, url string, cfg Config) (store.Store, error) {
	d, err := parse(url, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx); err != nil {
		return nil, err
	}
	d.pool = d.open(d.cfg.MaxConns)
	st, err := store.New(ctx, d.backend())
	if err != nil {
		return nil, errors.Join(err, d.pool.Close())
	}
	return st, nil
}

// database is a pool and where it leads.
type database struct {
	cfg    Config
	dsn    store.DSN
	conn   *pgx.ConnConfig
	schema string
	pool   *sql.DB
}

// defaultSchema is where the tables live unless the URL says otherwise.
const defaultSchema = "keyturn"

// schemaForm keeps a schema's name out of the reach of quoting rules.
var schemaForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// parse reads the URL. pgx's own error may quote it, so it isn't passed on.
func parse(url string, cfg Config) (*database, error) {
	dsn, err := store.ParseDSN(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ParseConfig(dsn.Reveal())
	if err != nil {
		return nil, badURL("a parameter is unknown or malformed")
	}
	if m := conn.DefaultQueryExecMode; m == pgx.QueryExecModeSimpleProtocol || m == pgx.QueryExecModeExec {
		return nil, badURL("default_query_exec_mode must stay with prepared statements")
	}
	d := &database{cfg: cfg, dsn: dsn, conn: conn, schema: conn.RuntimeParams["search_path"]}
	if d.schema == "" {
		d.schema = defaultSchema
	}
	if !schemaForm.MatchString(d.schema) {
		return nil, badURL("search_path must name one schema in lower-case letters, digits and _")
	}
	conn.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = cfg.ConnectTimeout
	}
	set := func(name, value string) {
		if conn.RuntimeParams[name] == "" {
			conn.RuntimeParams[name] = value
		}
	}
	set("search_path", d.schema)
	set("application_name", "keyturn")
	set("idle_in_transaction_session_timeout", strconv.FormatInt(max(1, cfg.IdleInTransaction.Milliseconds()), 10))
	set("enable_seqscan", "off")
	set("jit", "off") // a plan without an index costs 1e10 then, for which the server would compile 100 ms long
	return d, nil
}

func badURL(why string) error {
	return fault.New(api.CodeInvalid, "reading the store's URL: "+why).WithField("store").
		WithNext("write it like postgres://user@host/database?sslmode=verify-full")
}

// open makes a pool. Nothing is connected yet.
func (d *database) open(size int) *sql.DB {
	db := sql.OpenDB(patient{stdlib.GetConnector(*d.conn, stdlib.OptionAfterConnect(checkSession))})
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// patient goes on connecting for a while when the caller who asked for the connection has gone: the pool keeps it for the
// next one. Otherwise clients with little patience keep a busy server busy with connections that nobody ever uses.
type patient struct{ driver.Connector }

// patience is how long.
const patience = 2 * time.Second

// Connect implements driver.Connector.
func (p patient) Connect(ctx context.Context) (driver.Conn, error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(patience, cancel) })()
	return p.Connector.Connect(own)
}

// migrationLock is goose's lock between nodes that start together: "ktr1" in a key space of our own.
const migrationLock = 0x6b747231

// migrate makes the schema and brings the tables up to date. Of several nodes one does it, the others wait.
func (d *database) migrate(ctx context.Context) (err error) {
	db := d.open(2)
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = fault.Wrap(api.CodeUnavailable, cerr, "bringing the store's tables up to date")
		}
	}()
	if err := d.makeSchema(ctx, db); err != nil {
		return openFailed(ctx, err, d.dsn)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 300)) // each second, for 5 minutes
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "bringing the store's tables up to date")
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading the built-in migrations")
	}
	return store.Migrate(ctx, db, store.Migrations{
		Dialect: goose.DialectPostgres,
		Files:   files,
		Explain: func(ctx context.Context, err error) error { return openFailed(ctx, err, d.dsn) },
		Locker:  locker,
		River:   store.RiverTables(func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riverdatabasesql.New(db) }),
	})
}

// makeSchema makes the schema unless it is there: asking first needs no right to create one. Two nodes may both find
// nothing; the second then finds the name taken, which is as good.
func (d *database) makeSchema(ctx context.Context, db *sql.DB) error {
	var there bool
	err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)`, d.schema).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{d.schema}.Sanitize())
	if state := sqlState(err); slices.Contains([]string{stateUnique, stateDuplicateSchema}, state) {
		return nil
	}
	return err
}
