// Package pgtest gives tests a real PostgreSQL: a throw-away cluster made from the installed binaries, never the
// machine's own.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		url := pgtest.Start(t).Database(t) // an empty database of its own, dropped when the test ends
//		…
//	}
//
// One cluster serves the whole test process: one initdb, about a second. Tests that stop or kill the server take one of
// their own with [Own]. A cluster lives in a short temporary directory of mode 0700, listens on a unix socket in it (and
// on a loopback port if [Options] ask), and runs as this user, or as postgres or nobody when this user is root, whom
// PostgreSQL refuses. A small shell holds the other end of a pipe of this process: when the process ends, in whatever
// way, the shell stops the server and removes the directory. So nothing is left behind by a panic or a kill -9 either.
//
// Environment:
//
//	KEYTURN_TEST_POSTGRES     URL of a server where Start makes its databases instead (its user needs CREATEDB)
//	KEYTURN_TEST_NO_POSTGRES  1 skips the tests that need PostgreSQL, by name; without it, missing binaries fail them
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Options choose what a cluster is like. The zero value is a server on a unix socket with PostgreSQL's own defaults,
// fsync and synchronous_commit included.
type Options struct {
	// TCP also listens on a free port of 127.0.0.1, with a random password that the URLs then carry.
	TCP bool
	// Settings go into postgresql.conf, as in {"max_connections": "20"}.
	Settings map[string]string
}

// shared is the cluster of this process, made by the first Start.
var shared struct {
	sync.Mutex // guards the fields below
	server     *Server
	err        error
}

// errMissing is returned by New when no PostgreSQL is installed.
var errMissing = errors.New("no PostgreSQL server binaries found (looked for pg_ctl in PATH and /usr/lib/postgresql/*/bin): " +
	"install them (Debian: apt-get install postgresql), name a server in KEYTURN_TEST_POSTGRES, " +
	"or set KEYTURN_TEST_NO_POSTGRES=1 to skip these tests")

// Main runs the tests and then stops the shared cluster. It doesn't return. A test binary without it leaves the
// stopping to the shell described above, which happens just after the process ended. What else the process leaves is removed
// by after.
func Main(m *testing.M, after ...func() error) {
	code := m.Run()
	for _, f := range after {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = max(code, 1)
		}
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Start returns the cluster of this test process, and makes it at the first call. It must not be stopped or killed:
// other tests use it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	skipIfTold(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		if url := os.Getenv("KEYTURN_TEST_POSTGRES"); url != "" {
			shared.server = &Server{external: url}
		} else {
			shared.server, shared.err = New(context.Background(), Options{})
		}
	}
	if shared.err != nil {
		tb.Fatalf("starting PostgreSQL: %v", shared.err)
	}
	return shared.server
}

// Own makes a cluster for this test alone, which it may stop, kill and restart; it is removed when the test ends.
func Own(tb testing.TB, o Options) *Server {
	tb.Helper()
	skipIfTold(tb)
	s, err := New(context.Background(), o)
	if err != nil {
		tb.Fatalf("starting PostgreSQL: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("stopping PostgreSQL: %v", err)
		}
	})
	return s
}

func skipIfTold(tb testing.TB) {
	tb.Helper()
	if os.Getenv("KEYTURN_TEST_NO_POSTGRES") == "1" {
		tb.Skip("needs PostgreSQL, and KEYTURN_TEST_NO_POSTGRES=1")
	}
}
