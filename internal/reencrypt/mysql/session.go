package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// role is what a connection is for.
type role int

const (
	asking  role = iota // questions to the catalogue and of the whole table
	reading             // pages in key order
	writing             // swaps
)

// settings are what our sessions differ in from a plain one, whatever the server's configuration says.
//
//   - Strict: a value that doesn't fit is an error and never cut or changed. Dates that aren't dates are left alone: they
//     are the application's, and may stand in keys.
//   - lock_wait_timeout is about whole tables: somebody who changes one waits for our statements, and others behind him.
//   - net_…_timeout and wait_timeout: a page may wait for its turn while the run is throttled. In the midst of a transaction
//     nobody waits (Session.IdleInTransaction): MariaDB knows the difference, for MySQL see patience.
//   - eq_range_index_dive_limit: rows are found by their key; the planner needn't look how many there will be.
func (d *database) settings(r role) []string {
	seconds := wholeSeconds(d.session.LockTimeout)
	s := []string{
		"SET NAMES utf8mb4 COLLATE utf8mb4_bin",
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', " +
			"time_zone = '+00:00', autocommit = 1, completion_type = 0, sql_safe_updates = 0, sql_big_selects = 1, sql_select_limit = DEFAULT, " +
			"net_read_timeout = 600, net_write_timeout = 600, eq_range_index_dive_limit = 1, " +
			fmt.Sprintf("wait_timeout = %d, innodb_lock_wait_timeout = %d, lock_wait_timeout = %d", wholeSeconds(betweenPages), seconds, seconds),
	}
	if r != writing {
		s = append(s, "SET SESSION TRANSACTION READ ONLY")
	}
	limit, idle := d.session.StatementTimeout, d.session.IdleInTransaction
	if r == asking {
		limit, idle = 0, reencrypt.CensusIdle
	}
	if d.mariadb {
		return append(s, fmt.Sprintf("SET SESSION max_statement_time = %.3f, idle_transaction_timeout = %d", limit.Seconds(), wholeSeconds(idle)))
	}
	return append(s, fmt.Sprintf("SET SESSION max_execution_time = %d", limit.Milliseconds()))
}

// betweenPages is how long a connection may wait for the next page.
const betweenPages = 8 * time.Hour

// wholeSeconds is a limit as servers know it: nothing shorter.
func wholeSeconds(d time.Duration) int64 { return max(1, int64(d.Seconds())) }

// conn is one connection. It belongs to one goroutine. It is the library's own and not one of database/sql: rows are taken
// off the wire as they are wanted, and arguments aren't copied.
type conn struct {
	raw driver.Conn
}

// dial connects and sets nothing up.
func (d *database) dial(ctx context.Context) (*conn, error) {
	connector, err := mysql.NewConnector(d.config.Clone())
	if err != nil {
		return nil, errURL("its parts can't be used to connect") // the cause may quote them
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, connecting(ctx, err)
	}
	return &conn{raw}, nil
}

// connect opens a session for one role.
func (d *database) connect(ctx context.Context, r role) (*conn, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	for _, sql := range d.settings(r) {
		if err := c.exec(ctx, sql); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// ask finds out what the server is, and refuses one that can't step over rows that others hold.
func (d *database) ask(ctx context.Context, c *conn) error {
	rows, err := c.query(ctx, "SELECT VERSION(), @@max_allowed_packet")
	if err != nil {
		return err
	}
	version := rows[0].text(0)
	d.packet = rows[0].number(1)
	d.mariadb = strings.Contains(strings.ToLower(version), "mariadb")
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, aerr := strconv.Atoi(major)
	b, berr := strconv.Atoi(minor)
	if aerr != nil || berr != nil || d.mariadb && (a < 10 || a == 10 && b < 6) || !d.mariadb && a < 8 {
		return fault.New(api.CodeInvalid, "connecting to the database: it is older than MariaDB 10.6 and MySQL 8.0").WithField("db").
			WithNext("upgrade the server: keyturn needs one that can step over rows which the application holds (SKIP LOCKED)")
	}
	return nil
}

// connecting explains why there is no session, without the server's text.
func connecting(ctx context.Context, err error) error {
	var my *mysql.MySQLError
	errors.As(err, &my)
	switch {
	case ctx.Err() != nil:
		return fault.Wrap("", ctx.Err(), "connecting to the database")
	case errors.Is(err, reencrypt.ErrOwnMachine):
		return reencrypt.ErrOwnMachine
	case my == nil:
		return fault.Wrap(api.CodeUnavailable, err, "connecting to the database").
			WithNext("check that it runs, that host, port and tls of its URL are right, and that its certificate is one of an authority that this process trusts (SSL_CERT_FILE)")
	case my.Number == 1049:
		return fault.New(api.CodeNotFound, "connecting to the database: it doesn't exist on that server").WithField("db").WithNext("correct its name in the URL, or make it")
	case my.Number == 1044 || my.Number == 1045 || my.Number == 1698 || my.Number == 1130 || my.Number == 1862 || my.Number == 4151 || my.Number == 3118:
		return fault.Newf(api.CodeDenied, "connecting to the database: it refuses the user, the password or the host (error %d)", my.Number).WithField("db").
			WithNext("check user and password in the dataset's URL, and that this user may connect from this host and use the database: SHOW GRANTS FOR user")
	}
	return fault.Newf(api.CodeUnavailable, "connecting to the database: it answers error %d", my.Number).WithField("db").
		WithNext("see what the error means in the server's documentation, and what its log says")
}

// close says goodbye.
func (c *conn) close() { _ = c.raw.Close() } // the server notices a closed socket as well

// exec runs one statement without parameters for its effect.
func (c *conn) exec(ctx context.Context, sql string) error {
	if _, err := c.raw.(driver.ExecerContext).ExecContext(ctx, sql, nil); err != nil {
		return explain(ctx, err, "setting up a session")
	}
	return nil
}

// statement is one prepared statement.
type statement struct {
	raw driver.Stmt
}

func (c *conn) prepare(ctx context.Context, sql string) (*statement, error) {
	raw, err := c.raw.(driver.ConnPrepareContext).PrepareContext(ctx, sql)
	if err != nil {
		return nil, explain(ctx, err, "preparing a statement")
	}
	return &statement{raw}, nil
}

func (s *statement) close() {
	if s != nil {
		_ = s.raw.Close()
	}
}

// rows begins to read.
func (s *statement) rows(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.raw.(driver.StmtQueryContext).QueryContext(ctx, args)
}

// run executes a statement that answers no rows, and answers how many it found.
func (s *statement) run(ctx context.Context, args []driver.NamedValue) (int64, error) {
	result, err := s.raw.(driver.StmtExecContext).ExecContext(ctx, args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row is one row as the library answers it: nil, int64, float64, string or []byte.
type row []driver.Value

func (r row) null(i int) bool { return r[i] == nil }

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
	if n, ok := r[i].(int64); ok {
		return n
	}
	n, err := strconv.ParseInt(r.text(i), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// query prepares and runs one statement and collects its rows.
func (c *conn) query(ctx context.Context, sql string, args ...driver.Value) (out []row, err error) {
	s, err := c.prepare(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer s.close()
	rows, err := s.rows(ctx, named(nil, args...))
	if err != nil {
		return nil, explain(ctx, err, "asking the database")
	}
	err = each(rows, func(r row) error {
		kept := make(row, len(r))
		for i, v := range r {
			if b, ok := v.([]byte); ok {
				v = string(b) // the bytes are the connection's buffer
			}
			kept[i] = v
		}
		out = append(out, kept)
		return nil
	})
	if err != nil {
		return nil, explain(ctx, err, "asking the database")
	}
	return out, nil
}

// each calls fn for every row, and closes rows. An error is the database's, as it stands, or that of fn.
func each(rows driver.Rows, fn func(row) error) error {
	dest := make(row, len(rows.Columns()))
	for {
		err := rows.Next(dest)
		if err == nil {
			err = fn(dest)
		}
		if err == io.EOF {
			return rows.Close()
		}
		if err != nil {
			_ = rows.Close()
			return err
		}
	}
}

// named numbers arguments, in the memory of dst.
func named(dst []driver.NamedValue, args ...driver.Value) []driver.NamedValue {
	for _, a := range args {
		dst = append(dst, driver.NamedValue{Ordinal: len(dst) + 1, Value: a})
	}
	return dst
}
