package mariatest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/proctest"
)

// Database makes an empty database and returns its URL. It is dropped when the test ends.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := "t" + strings.ToLower(rand.Text()[:16])
	if err := s.Exec(context.Background(), s.URL(""), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("creating a database: %v", err)
	}
	tb.Cleanup(func() {
		if s.leash == nil || !s.Running() {
			return // the test left the server down: its databases go with it
		}
		if err := s.drop(context.Background(), name); err != nil {
			tb.Errorf("dropping a database: %v", err)
		}
	})
	return s.URL(name)
}

// drop ends who is still connected to a database, and removes it.
func (s *Server) drop(ctx context.Context, name string) error {
	db, err := Open(s.URL(""), map[string]string{"lock_wait_timeout": "20"})
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = ?", name)
	if err != nil {
		return err
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	rows.Close()
	for _, id := range ids {
		_, _ = db.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", id)) // it may have ended by itself
	}
	_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name)
	return err
}

// URL is the address of a database of this server, over TCP, for a user who may do everything.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "mysql", User: url.UserPassword(account, s.password), Host: s.Address(), Path: "/" + database}
	return u.String()
}

// SocketURL is the same by the unix socket.
func (s *Server) SocketURL(database string) string {
	u := url.URL{Scheme: "mysql", User: url.UserPassword(account, s.password), Path: "/" + database, RawQuery: url.Values{"socket": {s.socket()}}.Encode()}
	return u.String()
}

// Address is where the server listens.
func (s *Server) Address() string { return proctest.Loopback(s.port) }

// Open opens a database of this kind of URL with the driver that applications use, in sessions set up as session says:
// names and values of system variables.
func Open(text string, session map[string]string) (*sql.DB, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr, c.DBName, c.Params = u.User.Username(), "tcp", u.Host, strings.TrimPrefix(u.Path, "/"), session
	c.Passwd, _ = u.User.Password()
	c.MaxAllowedPacket, c.Logger = 0, &mysql.NopLogger{}
	if socket := u.Query().Get("socket"); socket != "" {
		c.Net, c.Addr = "unix", socket
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// Exec runs statements in the database of url, on a connection of its own.
func (s *Server) Exec(ctx context.Context, url string, statements ...string) error {
	db, err := Open(url, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%.200s: %w", q, err)
		}
	}
	return nil
}

// execAs runs a statement as a user who comes in by the socket.
func (s *Server) execAs(ctx context.Context, user, password, statement string) error {
	u := url.URL{Scheme: "mysql", User: url.UserPassword(user, password), Path: "/", RawQuery: url.Values{"socket": {s.socket()}}.Encode()}
	return s.Exec(ctx, u.String(), statement)
}
