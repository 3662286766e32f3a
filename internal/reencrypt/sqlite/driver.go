// Package sqlite connects the room reencrypt to applications that keep their data in a SQLite file: sqlite:///path URLs,
// on modernc.org/sqlite.
//
// The file stays the application's: nothing here makes one, or changes its journal mode, its mode or its owner. Readers
// take a page with one statement and end it before they hand the page out, because an open one would hold up the writer's
// commit in rollback-journal modes and the checkpoint in WAL mode. A page is written in one transaction of its own,
//
//	BEGIN IMMEDIATE
//	UPDATE "main"."patients" AS t SET "ssn" = ? WHERE t."id" = ? AND (+t."ssn") COLLATE BINARY = ?  -- for each row
//	COMMIT
//
// and each row only where the old value still stands (promise P6). SQLite lets one writer in at a time and has no queue:
// who waits, asks again every few milliseconds. So the writer stays away for a while after each transaction, and longer
// when it sees that the application writes too (turns.go).
//
// # Values as they are
//
// Any column of SQLite takes a value of any type, whatever its table declares. So a value is what typeof says: text is
// sealed into text ("kt1."), a blob into a blob, and numbers are left alone. Guards compare type and bytes, without the
// column's collation or affinity. Text that isn't UTF-8, or doesn't come back from UTF-16 as it was, counts as neither text
// nor bytes: what it was could not be given back.
//
// # A trap that isn't one here
//
// POSIX drops all locks that a process holds on a file when it closes any descriptor of it. So nothing in this package
// opens the file except SQLite itself, which knows: the application may live in this process too.
package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Driver opens SQLite files. The zero value is ready.
type Driver struct{}

// Schemes answers sqlite.
func (Driver) Schemes() []string { return []string{"sqlite"} }

// Parse checks a URL and answers it with its path cleaned. There is nothing secret in it.
func (Driver) Parse(dsn reencrypt.DSN) (string, error) {
	path, err := parseURL(dsn)
	if err != nil {
		return "", err
	}
	return printable(path), nil
}

// Open looks whether the file is there and is a database. Errors: not_found, denied; invalid when it is something else, or a store of keyturn's;
// busy when the application holds it exclusively; unavailable for the rest.
func (Driver) Open(ctx context.Context, dsn reencrypt.DSN, s reencrypt.Session) (reencrypt.Database, error) {
	path, err := parseURL(dsn)
	if err != nil {
		return nil, err
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	d := &database{path: path, session: s.WithDefaults()}
	c, err := d.connect(ctx, asking)
	if err != nil {
		return nil, shutOut(err, path)
	}
	rows, err := c.query(ctx, "SELECT e.encoding, j.journal_mode, a.application_id, (SELECT count(*) FROM main.sqlite_schema) FROM pragma_encoding e, pragma_journal_mode j, pragma_application_id a")
	if err := errors.Join(err, c.close()); err != nil {
		return nil, shutOut(err, path)
	}
	if rows[0].text(2) == storeMark {
		return nil, fault.Newf(api.CodeInvalid, "opening the database: %s is a store of keyturn's own, and work on its tables would destroy keys", path).
			WithField("db").WithNext("name the application's database")
	}
	d.wide, d.wal = rows[0].text(0) != "UTF-8", rows[0].text(1) == "wal"
	return d, nil
}

// storeMark is the application_id of keyturn's stores ("KTR1"), wherever such a file lies and whatever links to it.
const storeMark = "1263817265"

// shutOut says more of a file that the application keeps to itself.
func shutOut(err error, path string) error {
	if !errors.Is(err, errLocked) {
		return err
	}
	return fault.Wrapf(api.CodeBusy, err, "opening the database: the application holds %s and lets nobody in", path).WithField("db").
		WithNext("wait until it has ended its transaction; it must not set PRAGMA locking_mode=EXCLUSIVE")
}

// database is what is needed to connect. It holds no connection: each reader and writer makes its own, and rare questions
// (Describe, Census, Flush) make one for themselves.
type database struct {
	path    string
	session reencrypt.Session
	wide    bool // text is stored in UTF-16
	wal     bool // when it was opened
}

// Close has nothing to close.
func (d *database) Close() error { return nil }

// persistence is for how many lock timeouts something is tried before the application is said to be in the way. What waits
// here holds no lock itself.
const persistence = 10

func (d *database) patience() time.Duration { return persistence * d.session.LockTimeout }

// checkFile says what is wrong with a path in plainer words than SQLite, without opening it.
func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Newf(api.CodeNotFound, "opening the database: there is no file %s", path).WithField("db").
			WithNext("check the path; keyturn makes no database")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrapf(api.CodeDenied, err, "opening the database: the way to %s is closed to the user that keyturn runs as", path).WithField("db")
	case err != nil:
		return fault.Wrapf(api.CodeUnavailable, err, "opening the database %s", path).WithField("db")
	case info.IsDir():
		return fault.Newf(api.CodeInvalid, "opening the database: %s is a directory", path).WithField("db").
			WithNext("name the database file in it")
	case !info.Mode().IsRegular():
		return fault.Newf(api.CodeInvalid, "opening the database: %s is not a plain file", path).WithField("db")
	}
	return nil
}
