package mariatest_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/mariatest"
)

func TestMain(m *testing.M) { mariatest.Main(m) }

func query(t *testing.T, url, q string) string {
	t.Helper()
	db, err := mariatest.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var s string
	if err := db.QueryRowContext(t.Context(), q).Scan(&s); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return s
}

func TestSharedServerIsDurableAndPrivate(t *testing.T) {
	s := mariatest.Start(t)
	u := s.Database(t)
	for setting, want := range map[string]string{"innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "1", "bind_address": "127.0.0.1"} {
		if got := query(t, u, "SELECT @@"+setting); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	if got := query(t, u, "SELECT COUNT(*) FROM mysql.global_priv WHERE User NOT IN ('keyturn', 'mariadb.sys')"); got != "0" {
		t.Errorf("%s other users may come in", got)
	}
	if other := s.Database(t); other == u {
		t.Error("two calls gave the same database")
	}
	if !strings.HasPrefix(s.Address(), "127.0.0.1:") {
		t.Errorf("it listens at %s", s.Address())
	}
}

func TestCrashKeepsWhatWasCommitted(t *testing.T) {
	s := mariatest.Own(t, mariatest.Options{Settings: map[string]string{"max-connections": "17"}})
	u := s.Database(t)
	if got := query(t, u, "SELECT @@max_connections"); got != "17" {
		t.Errorf("max_connections = %s, want 17", got)
	}
	if err := s.Exec(t.Context(), u, "CREATE TABLE kept AS SELECT 'yes' AS answer"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(context.Context) error{s.Kill, s.Stop} {
		if err := end(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Running() {
			t.Error("the server is still running")
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := query(t, u, "SELECT answer FROM kept"); got != "yes" {
			t.Errorf("after a restart the table holds %q", got)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_NO_MARIADB") == "1" {
		t.Skip("needs MariaDB, and KEYTURN_TEST_NO_MARIADB=1")
	}
	s, err := mariatest.New(t.Context(), mariatest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, socket, _ := strings.Cut(s.SocketURL("mysql"), "socket=")
	socket = strings.ReplaceAll(socket, "%2F", "/")
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("no socket: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(strings.TrimSuffix(socket, "/s")); !os.IsNotExist(err) {
		t.Errorf("its directory is still there (%v)", err)
	}
}
