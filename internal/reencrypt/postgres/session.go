package postgres

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// role is what a connection is for.
type role int

const (
	readOnly  role = iota // questions to the catalogue and of the whole table; the planner is left alone
	pageRead              // pages in key order
	pageWrite             // swaps
	flushing              // a write that touches no table
)

// binaryFormat is the code of values in a type's own bytes (Bind message of the protocol).
const binaryFormat = 1

// settings are what our sessions differ in from a plain one, in the words of PostgreSQL's configuration.
//
//   - row_security off: a policy that would hide rows from us becomes an error instead of a census that is too small.
//   - synchronous_commit: off would let acknowledged pages come back old after a crash; anything else stays as configured.
//   - The planner is told what it can't know: pages are small, found by key, and never worth a walk through the table.
//   - One statement takes one core, unless the session is in a hurry.
//   - Texts of keys of rarer types go into contexts: they must not depend on how the role is set up.
//   - No search_path: the application's triggers run in our session and may need theirs.
func (d *database) settings(r role) [][2]string {
	s := [][2]string{
		{"lock_timeout", milliseconds(d.session.LockTimeout)},
		{"statement_timeout", milliseconds(d.session.StatementTimeout)},
		{"idle_in_transaction_session_timeout", milliseconds(d.session.IdleInTransaction)},
		{"default_transaction_isolation", "read committed"},
		{"row_security", "off"},
		{"jit", "off"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"bytea_output", "hex"},
		{"extra_float_digits", "1"},
	}
	if !d.session.Hurry {
		s = append(s, [2]string{"max_parallel_workers_per_gather", "0"})
	}
	switch r {
	case readOnly:
		return append(s, [2]string{"default_transaction_read_only", "on"})
	case pageRead:
		return append(s, [2]string{"default_transaction_read_only", "on"}, [2]string{"enable_seqscan", "off"},
			[2]string{"enable_bitmapscan", "off"}, [2]string{"enable_sort", "off"})
	case pageWrite:
		s = append(s, [2]string{"enable_seqscan", "off"}, [2]string{"enable_hashjoin", "off"}, [2]string{"enable_mergejoin", "off"})
	}
	return append(s, [2]string{"default_transaction_read_only", "off"})
}

// connect opens a session for one role.
func (d *database) connect(ctx context.Context, r role) (*pgconn.PgConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, d.config.Copy())
	if err != nil {
		return nil, connecting(ctx, err)
	}
	sql := "SELECT pg_catalog.set_config('synchronous_commit', CASE WHEN pg_catalog.current_setting('synchronous_commit') " +
		"OPERATOR(pg_catalog.=) 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, false)"
	var args []string
	for _, kv := range d.settings(r) {
		args = append(args, kv[0], kv[1])
		sql += ", pg_catalog.set_config($" + strconv.Itoa(len(args)-1) + ", $" + strconv.Itoa(len(args)) + ", false)"
	}
	if _, err := query(ctx, conn, sql, args...); err != nil {
		return nil, errors.Join(err, closeConn(conn))
	}
	return conn, nil
}

// connecting explains why there is no session, without the driver's text: it may quote parts of the URL.
func connecting(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	errors.As(err, &pg)
	switch {
	case ctx.Err() != nil:
		return fault.Wrap("", ctx.Err(), "connecting to the database")
	case errors.Is(err, reencrypt.ErrOwnMachine):
		return reencrypt.ErrOwnMachine
	case pg == nil:
		return fault.Wrap(api.CodeUnavailable, err, "connecting to the database").
			WithNext("check that it runs, and that host, port and sslmode of its URL are right")
	case pg.Code == "3D000":
		return fault.Wrap(api.CodeNotFound, err, "connecting to the database: it doesn't exist on that server").WithField("db").WithNext("correct its name in the URL, or make it")
	case class(pg.Code) == "28":
		return fault.Wrap(api.CodeDenied, err, "connecting to the database: it refuses the user or the password").WithField("db").
			WithNext("check user and password in the dataset's URL, and that pg_hba.conf lets this user in from this host")
	}
	return fault.Wrapf(api.CodeUnavailable, err, "connecting to the database: it answers SQLSTATE %s", pg.Code).WithField("db").
		WithNext("see what the SQLSTATE means in the server's documentation, and what its log says")
}

// query runs one statement with text parameters and answers its rows as text; NULL is empty.
func query(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([][]string, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	result := conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, explain(ctx, result.Err, "asking the database")
	}
	rows := make([][]string, len(result.Rows))
	for i, row := range result.Rows {
		for _, v := range row {
			rows[i] = append(rows[i], string(v))
		}
	}
	return rows, nil
}

// closeConn says goodbye, briefly: the server notices a closed socket as well.
func closeConn(conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "closing a connection to the database")
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
