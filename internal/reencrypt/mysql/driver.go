// Package mysql connects the room reencrypt to MariaDB, 10.6 and up, and MySQL, 8.0 and up: mysql:// and mariadb:// URLs.
//
// Every value travels as a parameter of a prepared statement, every name from a catalogue or a user goes through [quote].
// Key columns are kept in pages and cursors as text (integers in decimal, times in UTC), binary ones as their bytes, and
// come back cast to their column's own type, character set and collation, so that the database compares them as its
// index does. Values are compared as bytes, after conversion to UTF-8: to a collation, 'abc', 'ABC' and 'abc ' may be
// equal.
//
// # How a page is written
//
// InnoDB looks for deadlocks at once and then ends the transaction that changed less: the application's, not one with a
// page of rows. So ours never wait while they hold something. A page is one transaction:
//
//	SELECT t.`id` FROM `clinic`.`patients` AS t … WHERE t.`id` IN (?, …) FOR UPDATE SKIP LOCKED
//	UPDATE `clinic`.`patients` AS t … SET t.`ssn` = CASE t.`id` WHEN ? THEN ? … ELSE t.`ssn` END
//	WHERE t.`id` IN (?, …) AND CAST(t.`ssn` AS BINARY) = CASE t.`id` WHEN ? THEN CAST(? AS BINARY) … END
//
// The first statement takes the rows that nobody holds and steps over the others, which a later pass meets again. The
// second writes those whose value is still the one that was read (promise P6). Where a trigger or a unique index makes it
// need more than these rows, it waits as little as the server lets it: not at all on MariaDB, a second on MySQL.
package mysql

import (
	"context"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Driver opens MariaDB and MySQL databases. The zero value is ready.
type Driver struct{}

// Schemes answers mysql and mariadb.
func (Driver) Schemes() []string { return []string{"mysql", "mariadb"} }

// Parse checks a URL and answers it without its password.
func (Driver) Parse(dsn reencrypt.DSN) (string, error) {
	a, err := parseURL(dsn)
	if err != nil {
		return "", err
	}
	return a.printable, nil
}

// Open connects once, to see that the database answers and what it is.
func (Driver) Open(ctx context.Context, dsn reencrypt.DSN, s reencrypt.Session) (reencrypt.Database, error) {
	a, err := parseURL(dsn)
	if err != nil {
		return nil, err
	}
	config := a.config()
	config.DialFunc = s.Dial
	d := &database{config: config, name: a.database, session: s.WithDefaults()}
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := d.ask(ctx, c); err != nil {
		return nil, err
	}
	return d, nil
}

// database is the settings to connect with, and what the server is. It holds no connection: each reader and writer makes
// its own, and rare questions (Describe, Census, Flush) make one for themselves.
type database struct {
	config  *mysql.Config
	name    string // of the database that the URL names
	session reencrypt.Session
	mariadb bool
	packet  int64 // max_allowed_packet, in bytes: no value in a statement or an answer is longer
}

// Close has nothing to close.
func (d *database) Close() error { return nil }

// errURL never quotes the URL: it may hold a password in any of its parts.
func errURL(why string) error {
	return fault.New(api.CodeInvalid, "reading the database URL: "+why).WithField("db").
		WithNext("write mysql://USER:PASSWORD@HOST:PORT/DATABASE, special characters of the password percent-encoded")
}
