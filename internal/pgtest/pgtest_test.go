package pgtest_test

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func query(t *testing.T, url, q string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var s string
	if err := conn.QueryRow(t.Context(), q).Scan(&s); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return s
}

func TestSharedServerIsDurableAndPrivate(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got := query(t, u, "SHOW "+setting); got != "on" {
			t.Errorf("%s = %q, want on", setting, got)
		}
	}
	if os.Getenv("KEYTURN_TEST_POSTGRES") == "" {
		if got := query(t, u, "SHOW listen_addresses"); got != "" {
			t.Errorf("listens on %q, want a socket only", got)
		}
	}
	if other := pgtest.Start(t).Database(t); other == u {
		t.Error("two calls gave the same database")
	}
}

func TestCrashKeepsWhatWasCommitted(t *testing.T) {
	s := pgtest.Own(t, pgtest.Options{TCP: true, Settings: map[string]string{"max_connections": "17"}})
	u := s.Database(t)
	if parsed, err := url.Parse(u); err != nil || !strings.HasPrefix(parsed.Host, "127.0.0.1:") {
		t.Fatalf("URL has host %q (%v), want a loopback port", parsed.Host, err)
	}
	if got := query(t, u, "SHOW max_connections"); got != "17" {
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

func TestPgbenchIsTheRealOne(t *testing.T) {
	s := pgtest.Start(t)
	u := s.Database(t)
	s.Pgbench(t, u, "-i", "-s", "1", "-q")
	if got := query(t, u, "SELECT count(*)::text FROM pgbench_accounts"); got != "100000" {
		t.Errorf("pgbench made %s accounts", got)
	}
	if out := s.Pgbench(t, u, "-t", "20", "-n"); !strings.Contains(out, "number of transactions actually processed: 20/20") {
		t.Errorf("pgbench said:\n%s", out)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_NO_POSTGRES") == "1" {
		t.Skip("needs PostgreSQL, and KEYTURN_TEST_NO_POSTGRES=1")
	}
	s, err := pgtest.New(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	dir := u.Query().Get("host")
	if len(dir) > 80 {
		t.Errorf("the socket's directory %s is too long for a socket", dir)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", dir, err)
	}
}
