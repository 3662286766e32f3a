// Package postgres connects the room reencrypt to PostgreSQL, 15 and up: postgres:// and postgresql:// URLs.
//
// It speaks the extended protocol of pgconn with values in binary form: a key column arrives as the type's own bytes,
// is kept as such in pages and cursors, and goes back as an element of an array of the same type, so any type that can
// stand in a primary key works without a decoder here. Every name from a catalogue or a user is quoted, every operator
// and function is named with its schema, so that nothing in a database's search_path can put itself in between.
//
// A page is written by one statement, a transaction of its own:
//
//	UPDATE "public"."patients" AS t SET "ssn" = v.n0
//	FROM (SELECT unnest($1::bigint[]) AS k0, unnest($2::text[]) AS o0, unnest($3::text[]) AS n0) AS v
//	WHERE t."id" = v.k0 AND t."ssn" COLLATE "C" = v.o0
//
// It is prepared on the writer's connection and planned once, so a pooler between keyturn and the server must pool sessions, not
// transactions (which the settings of our sessions need anyway).
//
// Under READ COMMITTED an update of the application that commits while ours waits for the row makes the condition be
// looked at again with the new value: it fails and the row is left alone (promise P6).
package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Driver opens PostgreSQL databases. The zero value is ready.
type Driver struct{}

// Schemes answers postgres and postgresql.
func (Driver) Schemes() []string { return []string{"postgres", "postgresql"} }

// Parse checks a URL and answers it without its password.
func (Driver) Parse(dsn reencrypt.DSN) (string, error) {
	a, err := parseURL(dsn)
	if err != nil {
		return "", err
	}
	return a.printable, nil
}

// Open connects once, to see that the database answers.
func (Driver) Open(ctx context.Context, dsn reencrypt.DSN, s reencrypt.Session) (reencrypt.Database, error) {
	a, err := parseURL(dsn)
	if err != nil {
		return nil, err
	}
	config, err := pgconn.ParseConfig(a.conn)
	if err != nil {
		return nil, errURL("its parts can't be used to connect") // the cause quotes the URL
	}
	// What the URL says counts, and not what stands in the server's own PG… variables or password files: whoever may
	// register a dataset could otherwise have the server's own credentials sent to a host of his choice.
	config.User, config.Password = a.user, a.password
	if s.Dial != nil {
		config.DialFunc = s.Dial
	}
	config.RuntimeParams = map[string]string{"application_name": "keyturn", "client_encoding": "UTF8"}

	d := &database{config: config, session: s.WithDefaults()}
	conn, err := d.connect(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	return d, closeConn(conn)
}

// database is the settings to connect with. It holds no connection: each reader and writer makes its own, and rare
// questions (Describe, Census, Flush) make one for themselves.
type database struct {
	config  *pgconn.Config
	session reencrypt.Session
}

// Close has nothing to close.
func (d *database) Close() error { return nil }

// errURL never quotes the URL: it may hold a password in any of its parts.
func errURL(why string) error {
	return fault.New(api.CodeInvalid, "reading the database URL: "+why).WithField("db").
		WithNext("write postgres://USER:PASSWORD@HOST:PORT/DATABASE, special characters of the password percent-encoded")
}
