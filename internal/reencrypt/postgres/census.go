package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// groupSQL is how values of a column begin, NULL for NULL and empty for what isn't ours, so that a column full of
// plaintexts is one group and none of them travels.
func (c valueColumn) groupSQL() string {
	col := "t." + c.quoted
	if c.form == reencrypt.Binary {
		return fmt.Sprintf(`CASE WHEN %s IS NULL THEN NULL WHEN %s THEN pg_catalog.substr(%s, 1, CASE WHEN %s THEN 37 ELSE 24 END) ELSE '\x'::bytea END`, col, c.oursSQL(), col, c.envelopeSQL())
	}
	return fmt.Sprintf(`CASE WHEN %s IS NULL THEN NULL WHEN %s THEN pg_catalog.left(%s, CASE WHEN %s THEN 37 ELSE 36 END) ELSE '' END COLLATE pg_catalog."C"`, col, c.oursSQL(), col, c.envelopeSQL())
}

// oursSQL is whether a value begins as our ciphertexts do: "kt1.", the "kte1." of the SDK's Envelope, or 'K' 'T' and the
// number of the format. In bytes the texts count too: they were put there as they were.
func (c valueColumn) oursSQL() string {
	if c.form == reencrypt.Binary {
		return fmt.Sprintf(`(pg_catalog.substr(t.%[1]s, 1, 3) OPERATOR(pg_catalog.=) '\x4b5401'::bytea OR pg_catalog.substr(t.%[1]s, 1, 4) OPERATOR(pg_catalog.=) '\x6b74312e'::bytea OR %[2]s)`,
			c.quoted, c.envelopeSQL())
	}
	return fmt.Sprintf(`(pg_catalog.starts_with(t.%s COLLATE pg_catalog."C", 'kt1.') OR %s)`, c.quoted, c.envelopeSQL())
}

// envelopeSQL is whether a value begins as what the SDK's Envelope seals.
func (c valueColumn) envelopeSQL() string {
	if c.form == reencrypt.Binary {
		return fmt.Sprintf(`pg_catalog.substr(t.%s, 1, 5) OPERATOR(pg_catalog.=) '\x6b7465312e'::bytea`, c.quoted)
	}
	return fmt.Sprintf(`pg_catalog.starts_with(t.%s COLLATE pg_catalog."C", 'kte1.')`, c.quoted)
}

// whole runs fn on a connection whose questions look at the whole table: one snapshot for all of them, and no time limit
// but that of ctx.
func (t *target) whole(ctx context.Context, fn func(*pgconn.PgConn) error) error {
	conn, err := t.db.connect(ctx, readOnly)
	if err != nil {
		return err
	}
	err = func() error {
		for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = " + milliseconds(reencrypt.CensusIdle)} {
			if _, err := query(ctx, conn, sql); err != nil {
				return err
			}
		}
		if err := fn(conn); err != nil {
			return err
		}
		_, err := query(ctx, conn, "COMMIT")
		return err
	}()
	return errors.Join(err, closeConn(conn))
}

// Census counts by one GROUP BY per column.
func (t *target) Census(ctx context.Context, each func(reencrypt.Group) error) error {
	return t.whole(ctx, func(conn *pgconn.PgConn) error {
		for i, c := range t.columns {
			sql := fmt.Sprintf("SELECT g.p, pg_catalog.count(*) FROM (SELECT %s AS p FROM %s AS t) AS g GROUP BY g.p", c.groupSQL(), t.table)
			rows := conn.ExecParams(ctx, sql, nil, nil, nil, []int16{binaryFormat, 0})
			var eachErr error
			for eachErr == nil && rows.NextRow() {
				var g reencrypt.Group
				if g, eachErr = groupOf(i, c.form, rows.Values()); eachErr == nil {
					eachErr = each(g)
				}
			}
			if _, err := rows.Close(); err != nil {
				return explain(ctx, err, "counting the table")
			}
			if eachErr != nil {
				return eachErr
			}
		}
		return nil
	})
}

func groupOf(i int, form reencrypt.Form, row [][]byte) (reencrypt.Group, error) {
	n, err := strconv.ParseInt(string(row[1]), 10, 64)
	if err != nil {
		return reencrypt.Group{}, fault.Wrap(api.CodeInternal, err, "reading a count")
	}
	if row[0] == nil {
		form = reencrypt.Null
	}
	return reencrypt.Group{Column: i, Form: form, Prefix: row[0], Rows: n}, nil
}

// Longest asks for the longest plaintext of a column, in bytes.
func (t *target) Longest(ctx context.Context, column int) (longest int64, err error) {
	c := t.columns[column]
	sql := fmt.Sprintf("SELECT COALESCE(pg_catalog.max(pg_catalog.octet_length(t.%s)), 0) FROM %s AS t WHERE NOT %s", c.quoted, t.table, c.oursSQL())
	err = t.whole(ctx, func(conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, sql)
		if err != nil {
			return err
		}
		if longest, err = strconv.ParseInt(rows[0][0], 10, 64); err != nil {
			return fault.Wrap(api.CodeInternal, err, "reading a length")
		}
		return nil
	})
	return longest, err
}
