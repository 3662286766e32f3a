package postgres_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/faulttest/proxy"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store/postgres"
)

// Close comes to an end although the server swallows everything and somebody waits without an end for a statement, on the
// connection that the log's own statement is prepared on.
func TestCloseWhileTheServerIsSilent(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{TCP: true})
	p, err := proxy.New(server.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	u, err := url.Parse(server.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.Addr()
	st, err := postgres.Open(t.Context(), u.String(), postgres.Config{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := st.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Hang()
	asked, answered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(answered)
		_ = conn.Raw(func(any) error { // database/sql holds the connection's lock meanwhile, as it does for every statement
			close(asked)
			<-t.Context().Done()
			return context.Canceled
		})
	}()
	<-asked
	if err := st.Close(); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("closed with %v", err)
	}
	p.Go()
	t.Cleanup(func() { <-answered })
}
