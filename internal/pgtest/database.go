package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/proctest"
)

// Database makes an empty database and returns its URL. It is dropped, with whoever is still connected, when the test
// ends.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := "t" + strings.ToLower(rand.Text()[:16])
	if err := s.Exec(context.Background(), s.URL("postgres"), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("creating a database: %v", err)
	}
	tb.Cleanup(func() {
		if s.external == "" && (s.leash == nil || !s.Running()) {
			return // the test left the server down: its databases go with it
		}
		if err := s.Exec(context.Background(), s.URL("postgres"), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("dropping a database: %v", err)
		}
	})
	return s.URL(name)
}

// URL is the address of a database of this server, for a superuser.
func (s *Server) URL(database string) string {
	if s.external != "" {
		u, err := url.Parse(s.external)
		if err != nil {
			return s.external
		}
		u.Path = "/" + database
		return u.String()
	}
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	if s.tcp {
		u.User, u.Host = url.UserPassword(superuser, s.password), proctest.Loopback(s.port)
		u.RawQuery = "sslmode=disable"
		return u.String()
	}
	u.RawQuery = url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}.Encode()
	return u.String()
}

// Running reports whether the server's main process left a file that names it, which it removes when it stops.
func (s *Server) Running() bool {
	_, err := os.Stat(filepath.Join(s.data(), "postmaster.pid"))
	return err == nil
}

// Exec runs statements in the database of url, on a connection of its own.
func (s *Server) Exec(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// Restore runs a dump of statements in the database of url.
func (s *Server) Restore(ctx context.Context, url, dump string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, dump).ReadAll()
	return err
}

// Text asks the database of url for one value, as text.
func (s *Server) Text(ctx context.Context, url, query string) (text string, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	return text, conn.QueryRow(ctx, query).Scan(&text)
}

// Pgbench runs the real pgbench on the database of url and returns what it printed: Pgbench(t, url, "-i", "-s", "10")
// makes its tables, Pgbench(t, url, "-T", "5", "-c", "4") runs its load.
func (s *Server) Pgbench(tb testing.TB, url string, args ...string) string {
	tb.Helper()
	cmd, err := s.PgbenchCommand(tb.Context(), url, args...)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("pgbench %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// PgbenchCommand is the pgbench of Pgbench, not started yet, for a load beside the test.
func (s *Server) PgbenchCommand(ctx context.Context, url string, args ...string) (*exec.Cmd, error) {
	program, err := s.program("pgbench")
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(int(c.Port)), "PGUSER="+c.User,
		"PGPASSWORD="+c.Password, "PGDATABASE="+c.Database) // not on the command line: others can read that
	return cmd, nil
}

// program is the path of a program that came with the server, or, for a server elsewhere, of an installed one.
func (s *Server) program(name string) (string, error) {
	bin := s.bin
	if bin == "" {
		var err error
		if bin, err = findBinaries(); err != nil {
			return "", err
		}
	}
	return filepath.Join(bin, name), nil
}
