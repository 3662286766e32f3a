package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
)

// with adds parameters to a URL.
func with(t *testing.T, address string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

func wantNotDurable(t *testing.T, what string, err error, says string) {
	t.Helper()
	if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), says) || fault.NextOf(err) == "" {
		t.Errorf("%s: got %v (next: %s; %v), want it refused with %q", what, err, fault.NextOf(err), errors.Unwrap(err), says)
	}
}

// TestNotDurableIsRefused switches durability off in each of the places where it can be (P1).
func TestNotDurableIsRefused(t *testing.T) {
	s := pgtest.Own(t, pgtest.Options{})
	ctx := t.Context()
	open := func(u string) error {
		st, err := postgres.Open(ctx, u, postgres.Config{})
		if err == nil {
			st.Close()
		}
		return err
	}
	u := s.Database(t)
	database := strings.TrimPrefix(mustParse(t, u).Path, "/")
	run := func(q string) {
		t.Helper()
		if err := s.Exec(ctx, s.URL("postgres"), q); err != nil {
			t.Fatal(err)
		}
	}
	const says = "synchronous_commit is off"
	wantNotDurable(t, "in the URL", open(with(t, u, "synchronous_commit", "off")), says)
	wantNotDurable(t, "in the URL's options", open(with(t, u, "options", "-c synchronous_commit=off")), says)
	run("ALTER DATABASE " + database + " SET synchronous_commit = off")
	wantNotDurable(t, "for the database", open(u), says)
	run("ALTER DATABASE " + database + " RESET synchronous_commit")
	run("ALTER ROLE keyturn SET synchronous_commit = off")
	wantNotDurable(t, "for the role", open(u), says)
	run("ALTER ROLE keyturn RESET synchronous_commit")

	st, err := postgres.Open(ctx, u, postgres.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	reload(t, s, "synchronous_commit", "off")
	wantNotDurable(t, "for the server", open(u), says)
	var pinned string
	if err := st.DB().QueryRow("SHOW synchronous_commit").Scan(&pinned); err != nil || pinned != "on" {
		t.Errorf("after the server was reconfigured, an open session has synchronous_commit=%s (%v)", pinned, err)
	}
	if err := st.Durable(ctx); err != nil {
		t.Errorf("Durable of a store whose sessions are sound: %v", err)
	}
	reload(t, s, "synchronous_commit", "on")
	reload(t, s, "fsync", "off")
	wantNotDurable(t, "fsync=off", open(u), "fsync=off")
	wantNotDurable(t, "fsync=off while open", st.Durable(ctx), "fsync=off")
	for _, weaker := range []string{"local", "remote_write"} { // of replicas; the local disk has it
		reload(t, s, "fsync", "on")
		if err := open(with(t, u, "synchronous_commit", weaker)); err != nil {
			t.Errorf("synchronous_commit=%s: %v", weaker, err)
		}
	}
}

func mustParse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// reload changes a setting of the running server, and returns when new sessions have it.
func reload(t *testing.T, s *pgtest.Server, name, value string) {
	t.Helper()
	ctx := t.Context()
	if err := s.Exec(ctx, s.URL("postgres"), "ALTER SYSTEM SET "+name+" = "+value, "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != value; {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(ctx, "SHOW "+name).Scan(&got); err != nil {
			t.Fatal(err)
		}
		conn.Close(ctx)
	}
}

// TestAdvisory_CVE_2024_27304_CVE_2024_27289_CVE_2026_41889: the protocol that pastes values into statements is refused,
// statements are prepared on the server, and values that look like placeholders or signs stay what they are.
func TestAdvisory_CVE_2024_27304_CVE_2024_27289_CVE_2026_41889(t *testing.T) {
	u := pgtest.Start(t).Database(t)
	for _, mode := range []string{"simple_protocol", "exec"} {
		_, err := postgres.Open(t.Context(), with(t, u, "default_query_exec_mode", mode), postgres.Config{})
		if fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("default_query_exec_mode=%s: %v, want invalid", mode, err)
		}
	}
	st, err := postgres.Open(t.Context(), u, postgres.Config{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, value := range []string{"$1", "-$1", "-1", "$2 $1", "'; DROP TABLE meta; --", "--$1\n", "/*", "E'\\''"} {
		var got string
		err := st.Change(t.Context(), func(tx store.Tx) (err error) {
			if err := tx.SetMeta(t.Context(), value, value); err != nil {
				return err
			}
			got, err = tx.Meta(t.Context(), value)
			return err
		})
		if err != nil || got != value {
			t.Errorf("%q came back as %q, %v", value, got, err)
		}
	}
	var prepared int
	if err := st.DB().QueryRow(`SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%meta%' AND NOT from_sql`).Scan(&prepared); err != nil || prepared == 0 {
		t.Errorf("%d of our statements are prepared (%v)", prepared, err)
	}
}

// TestAdvisory_CVE_2024_6104_CVE_2023_46255_CVE_2026_40091 starts with addresses that are wrong in every way there is; the
// password is in none of the errors, nor in what an open store says of itself.
func TestAdvisory_CVE_2024_6104_CVE_2023_46255_CVE_2026_40091(t *testing.T) {
	s := pgtest.Own(t, pgtest.Options{TCP: true})
	u := mustParse(t, s.Database(t))
	real, _ := u.User.Password()
	right := u.String()
	bend := func(change func(*url.URL)) string { c := *u; change(&c); return c.String() }
	const canary = "c4n4ry"
	for what, address := range map[string]string{
		"wrong password":    bend(func(c *url.URL) { c.User = url.UserPassword("keyturn", canary) }),
		"unknown user":      bend(func(c *url.URL) { c.User = url.UserPassword("who", canary) }),
		"no such database":  bend(func(c *url.URL) { c.Path = "/none" }),
		"nobody listens":    bend(func(c *url.URL) { c.Host = "127.0.0.1:1" }),
		"malformed port":    strings.Replace(right, u.Host, "127.0.0.1:x"+canary, 1),
		"unknown sslmode":   with(t, right, "sslmode", canary),
		"missing cert":      with(t, right, "sslmode", "verify-full", "sslrootcert", "/none/"+canary, "sslpassword", canary),
		"malformed timeout": with(t, right, "connect_timeout", canary),
		"not a URL":         "host=127.0.0.1 password=" + canary,
		"bad schema":        with(t, right, "search_path", `"`+canary+`", public`),
	} {
		_, err := postgres.Open(t.Context(), address, postgres.Config{})
		if err == nil || fault.NextOf(err) == "" {
			t.Errorf("%s: got %v, want an error with a next step", what, err)
			continue
		}
		said := err.Error() + fault.NextOf(err) + fault.FieldOf(err) + fault.MessageOf(err)
		if strings.Contains(said, canary) || strings.Contains(said, real) {
			t.Errorf("%s: the error tells: %s", what, said)
		}
	}
	st, err := postgres.Open(context.Background(), right, postgres.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if d := st.Describe(); strings.Contains(d, real) || !strings.Contains(d, u.Host) {
		t.Errorf("Describe says %q", d)
	}
}
