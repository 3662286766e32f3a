// Package sqlite keeps a keyturn store in one SQLite file (modernc.org/sqlite, no cgo): the default, for one process at
// a time.
//
//	st, err := sqlite.Open(ctx, "/var/lib/keyturn/keyturn.db", sqlite.Config{})
//
// # Durability
//
// The file is in WAL mode with synchronous=FULL: a commit is an fsync of the write-ahead log. With NORMAL, acknowledged
// commits were lost in 35 of 40 simulated power cuts; with FULL in none. Open sets it, reads it back and refuses anything
// less, and so does every connection that is opened later.
//
// After the disk reported an error the store writes no more until it is opened again: after a failed fsync the kernel may
// forget pages that were never written, and the next fsync succeeds without them.
//
// # Connections
//
// One connection writes (Change, Append and River share it, the pool's queue is the lock), a few read. Readers see the
// last commit and never wait for the writer. The writing pool begins transactions IMMEDIATE, so that none finds out
// halfway that another process holds the lock.
//
// # Files
//
// The directory is 0700 and the files are 0600 whatever the umask; looser modes are tightened where the files are ours
// and refused where they aren't (package file.go). Deleted content is overwritten (secure_delete), and after a key
// version was destroyed the write-ahead log is folded into the file and cut to nothing, so that the wrapped material is
// in neither.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	driver "modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config tunes a store. The zero value is right for every use that has no reason to differ.
type Config struct {
	// Readers is the most connections that read at the same time; 0 = 4. Each takes about 2 MiB.
	Readers int
	// BusyTimeout is how long to wait for another process that holds the file; 0 = 5 s.
	BusyTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Readers <= 0 {
		c.Readers = 4
	}
	if c.BusyTimeout <= 0 {
		c.BusyTimeout = 5 * time.Second
	}
	return c
}

// Open opens the store in the file path, and makes it with its directory when there is none. Errors: unavailable,
// integrity (not a database, or another program's), busy (another process holds it), denied (files that aren't ours).
func Open(ctx context.Context, path string, cfg Config) (store.Store, error) {
	cfg = cfg.withDefaults()
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "finding the store's directory")
	}
	if err := secureFiles(path); err != nil {
		return nil, err
	}
	d := &database{cfg: cfg, path: path}
	if err := d.migrate(ctx); err != nil {
		return nil, err
	}
	if d.writer, err = d.pool(writing, 1); err != nil {
		return nil, err
	}
	if d.reader, err = d.pool(reading, cfg.Readers); err != nil {
		return nil, errors.Join(err, d.close())
	}
	st, err := store.New(ctx, d.backend())
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return st, nil
}

// database is the two pools over one file.
type database struct {
	cfg            Config
	path           string
	writer, reader *sql.DB
}

// The pragmas of the two sorts of connections. temp_store: what is sorted stays out of temporary files (promise P3).
var (
	common  = []string{"temp_store(MEMORY)", "cell_size_check(1)", "trusted_schema(0)", "foreign_keys(1)"}
	writing = append([]string{"journal_mode(WAL)", "synchronous(FULL)", "secure_delete(1)", "journal_size_limit(67108864)"}, common...)
	reading = append([]string{"query_only(1)"}, common...)
)

// pool makes a pool whose connections all get the pragmas; those that only read can't write. Nothing is opened yet.
func (d *database) pool(pragmas []string, size int) (*sql.DB, error) {
	if pragmas[0] == reading[0] {
		return d.connections(pragmas, size, url.Values{"mode": {"ro"}})
	}
	return d.connections(pragmas, size, url.Values{"mode": {"rw"}, "_txlock": {"immediate"}})
}

// connections makes a pool with settings of its connections.
func (d *database) connections(pragmas []string, size int, settings url.Values) (*sql.DB, error) {
	q := url.Values{"_pragma": pragmas, "_defensive": {"1"}, "_dqs": {"0"}, "_error_rc": {"1"}}
	q.Add("_pragma", "busy_timeout("+strconv.FormatInt(d.cfg.BusyTimeout.Milliseconds(), 10)+")")
	maps.Copy(q, settings)
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(d.path), RawQuery: q.Encode()}
	connector, err := driver.NewConnector(strings.Replace(u.String(), "file://", "file:", 1))
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "opening the store")
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// migrate brings the tables up to date through a pool of its own: goose holds one connection while River uses another.
func (d *database) migrate(ctx context.Context) (err error) {
	if err := d.mustBeOurs(ctx); err != nil {
		return err
	}
	db, err := d.pool(writing, 2)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = fault.Wrap(api.CodeUnavailable, cerr, "bringing the store's tables up to date")
		}
	}()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading the built-in migrations")
	}
	return store.Migrate(ctx, db, store.Migrations{
		Dialect: goose.DialectSQLite3,
		Files:   files,
		Explain: func(ctx context.Context, err error) error { return openFailed(ctx, err, d.path) },
		River:   store.RiverTables(func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riversqlite.New(db) }),
	})
}

// applicationID is "KTR1", set by the first migration.
const applicationID = 0x4b545231

// mustBeOurs refuses a database with tables that another program made. It is the first statement that reads the file, so
// a file that is no database at all shows here; it goes through a connection that can't write, since a writing one would
// turn a foreign file to WAL mode before it could be asked.
func (d *database) mustBeOurs(ctx context.Context) error {
	tables, id, err := d.look(ctx, "ro")
	if classify(err) == store.ReadOnly {
		// A kill amid the very first transaction, before WAL mode, leaves a rollback journal. Reading has to wait until that
		// is played back, which every SQLite that may write does; query_only still keeps statements from changing anything.
		tables, id, err = d.look(ctx, "rw")
	}
	if err != nil {
		return openFailed(ctx, err, d.path)
	}
	if tables > 0 && id != applicationID {
		return fault.New(api.CodeIntegrity, "opening the store: the file is a SQLite database of another program").
			WithNext("choose another data directory")
	}
	return nil
}

// look counts the tables and reads whose they are.
func (d *database) look(ctx context.Context, mode string) (tables, id int64, err error) {
	db, err := d.connections(reading, 1, url.Values{"mode": {mode}})
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name <> 'migrations'), application_id FROM pragma_application_id`).
		Scan(&tables, &id)
	return tables, id, err
}
