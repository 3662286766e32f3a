package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net/url"
	"strconv"
	"time"

	"modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// role is what a connection is for.
type role int

const (
	asking   role = iota // questions to the catalogue and of the whole table
	reading              // pages in key order
	writing              // swaps
	flushing             // a write that touches no table
)

// pragmas are what our connections differ in from a plain one. None of them is kept in the file.
//
//   - synchronous EXTRA: a commit is an fsync, of the directory too where a rollback journal is deleted in it, so that what
//     was acknowledged stays written.
//   - trusted_schema off: the file is somebody else's, and its triggers and views run in our process.
//   - temp_store memory: what SQLite puts aside while it reads and writes pages may be plaintext, and stays out of temporary
//     files.
//   - secure_delete: what a value leaves free is overwritten with zeros. Copies that SQLite makes when it moves neighbours to
//     make room are not; VACUUM gets rid of those, and the notes on a table say so.
//   - foreign_keys and everything else that says what a statement means stay as SQLite has them.
func (d *database) pragmas(r role) url.Values {
	q := url.Values{"mode": {"rw"}, "_busy_timeout": {milliseconds(d.session.LockTimeout)}, "_error_rc": {"1"}}
	q.Add("_pragma", "synchronous(EXTRA)")
	q.Add("_pragma", "trusted_schema(0)")
	q.Add("_pragma", "cell_size_check(1)")
	q.Add("_pragma", "temp_store(MEMORY)")
	switch r {
	case asking, reading:
		q.Add("_pragma", "query_only(1)")
	case writing:
		q.Add("_pragma", "secure_delete(1)")
		q.Add("_pragma", "cache_size(-8192)") // KiB
	}
	return q
}

// conn is one connection. It belongs to one goroutine.
//
// It is the driver's own and not one of database/sql: a page is thousands of small statements, and database/sql would
// look for a connection, start a goroutine and copy its arguments for each.
type conn struct {
	raw driver.Conn
	*database
}

// connect opens a connection for one role. mode=rw never makes a file; where only reading is allowed, SQLite reads.
// Errors: busy when the application shuts everybody out.
func (d *database) connect(ctx context.Context, r role) (*conn, error) {
	name := url.URL{Scheme: "file", Path: d.path, RawQuery: d.pragmas(r).Encode()}
	var c *conn
	err := patiently(ctx, d.patience(), func() error {
		raw, err := new(sqlite.Driver).Open(name.String())
		if err != nil {
			return explain(ctx, err, "opening the database", d.path)
		}
		c = &conn{raw, d}
		return nil
	})
	return c, err
}

func (c *conn) close() error {
	if err := c.raw.Close(); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "closing a connection to the database")
	}
	return nil
}

// statement is one prepared statement.
type statement struct {
	raw  driver.Stmt
	conn *conn
}

func (c *conn) prepare(ctx context.Context, sql string) (*statement, error) {
	var s *statement
	err := patiently(ctx, c.patience(), func() error {
		raw, err := c.raw.Prepare(sql)
		if err != nil {
			return explain(ctx, err, "preparing a statement", c.path)
		}
		s = &statement{raw: raw, conn: c}
		return nil
	})
	return s, err
}

func (s *statement) close() {
	if s != nil {
		_ = s.raw.Close() // it says again what went wrong when it ran last
	}
}

// run executes a statement that answers no rows, and answers how many it changed. Nothing interrupts it: each is short.
func (s *statement) run(args []driver.NamedValue) (int64, error) {
	result, err := s.raw.(driver.StmtExecContext).ExecContext(context.Background(), args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// rows begins to read. ctx counts until the first row is there, which is when sorting and counting are over.
func (s *statement) rows(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.raw.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, explain(ctx, err, "reading", s.conn.path)
	}
	return rows, nil
}

// rowsWithin is rows for a statement that should be short.
func (s *statement) rowsWithin(ctx context.Context, limit time.Duration, args []driver.NamedValue) (driver.Rows, error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rows, err := s.rows(short, args)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		return nil, fault.Newf(api.CodeUnavailable, "reading: a page took longer than %v", limit).WithNext("read fewer rows at a time, with --batch")
	}
	return rows, err
}

// row is one row as the driver answers it: nil, int64, float64, string or []byte.
type row []driver.Value

func (r row) text(i int) string {
	switch v := r[i].(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

func (r row) number(i int) int64 {
	n, _ := r[i].(int64)
	return n
}

// query runs one statement and collects its rows.
func (c *conn) query(ctx context.Context, sql string, args ...driver.Value) (out []row, err error) {
	err = patiently(ctx, c.patience(), func() error {
		out = nil
		return c.each(ctx, sql, func(r row) error { out = append(out, append(row(nil), r...)); return nil }, args...)
	})
	return out, err
}

// each runs one statement and calls fn for each of its rows.
func (c *conn) each(ctx context.Context, sql string, fn func(row) error, args ...driver.Value) error {
	s, err := c.prepare(ctx, sql)
	if err != nil {
		return err
	}
	defer s.close()
	rows, err := s.rows(ctx, named(nil, args...))
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // it says again what Next said
	dest := make(row, len(rows.Columns()))
	for n := 1; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil { // the driver only watches it until the first row
			return fault.Wrap("", ctx.Err(), "reading")
		}
		switch err := rows.Next(dest); {
		case err == io.EOF:
			return nil
		case err != nil:
			return explain(ctx, err, "reading", c.path)
		}
		if err := fn(dest); err != nil {
			return err
		}
	}
}

// exec runs one statement for its effect.
func (c *conn) exec(ctx context.Context, sql string) error {
	return c.each(ctx, sql, func(row) error { return nil })
}

// named numbers arguments, in the memory of dst.
func named(dst []driver.NamedValue, args ...driver.Value) []driver.NamedValue {
	dst = dst[:0]
	for _, a := range args {
		dst = append(dst, driver.NamedValue{Ordinal: len(dst) + 1, Value: a})
	}
	return dst
}

// patiently repeats what the application's locks kept from happening, for about so long. SQLite itself waits LockTimeout
// each time, but not in every case, so there is a pause too.
func patiently(ctx context.Context, limit time.Duration, fn func() error) error {
	for begin := time.Now(); ; {
		err := fn()
		if !errors.Is(err, errLocked) || ctx.Err() != nil || time.Since(begin) > limit {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fault.Wrap("", ctx.Err(), "waiting for the database")
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
