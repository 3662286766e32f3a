// Package mariatest gives tests a real MariaDB: a throw-away server made from the installed binaries, never the
// machine's own, which needn't run.
//
//	func TestMain(m *testing.M) { mariatest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		url := mariatest.Start(t).Database(t) // an empty database of its own, dropped when the test ends
//		…
//	}
//
// One server serves the whole test process: its data directory is made once, which takes a few seconds. Tests that stop
// or kill the server take one of their own with [Own]. A server lives in a short temporary directory of mode 0700, listens
// on a unix socket in it and on a port of 127.0.0.1, where only a user with a random password may come in, and runs
// as this user, or as mysql or nobody when this user is root. A small shell holds the other end of a pipe of this process:
// when the process ends, in whatever way, the shell kills the server and removes the directory.
//
// Environment:
//
//	KEYTURN_TEST_NO_MARIADB  1 skips the tests that need MariaDB, by name; without it, missing binaries fail them
package mariatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Options choose what a server is like. The zero value has MariaDB's own defaults: every commit is on disk before it is
// acknowledged, and there is no binary log.
type Options struct {
	// Settings are the server's, as in {"innodb_flush_log_at_trx_commit": "0"}; an empty value is a flag without one.
	Settings map[string]string
}

// shared is the server of this process, made by the first Start.
var shared struct {
	sync.Mutex // guards the fields below
	server     *Server
	err        error
}

// errMissing is returned by New when no MariaDB is installed.
var errMissing = errors.New("no MariaDB server binaries found (looked for mariadbd and mariadb-install-db in PATH and /usr/sbin): " +
	"install them (Debian: apt-get install mariadb-server), or set KEYTURN_TEST_NO_MARIADB=1 to skip these tests")

// Main runs the tests and then stops the shared server. It doesn't return.
func Main(m *testing.M) {
	code := m.Run()
	if err := StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "mariatest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// StopShared stops the shared server, if there is one: for a TestMain that has more to do than Main.
func StopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	return shared.server.Close()
}

// Start returns the server of this test process, and makes it at the first call. It must not be stopped or killed: other
// tests use it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	skipIfTold(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = New(context.Background(), Options{})
	}
	if shared.err != nil {
		tb.Fatalf("starting MariaDB: %v", shared.err)
	}
	return shared.server
}

// Own makes a server for this test alone, which it may stop, kill and restart; it is removed when the test ends.
func Own(tb testing.TB, o Options) *Server {
	tb.Helper()
	skipIfTold(tb)
	s, err := New(context.Background(), o)
	if err != nil {
		tb.Fatalf("starting MariaDB: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("stopping MariaDB: %v", err)
		}
	})
	return s
}

func skipIfTold(tb testing.TB) {
	tb.Helper()
	if os.Getenv("KEYTURN_TEST_NO_MARIADB") == "1" {
		tb.Skip("needs MariaDB, and KEYTURN_TEST_NO_MARIADB=1")
	}
}
