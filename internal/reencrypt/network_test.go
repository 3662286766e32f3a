package reencrypt_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
)

// TestNobodyReachesTheServersOwnMachine: a URL that comes over the network doesn't get a connection from the server to itself,
// under whatever name. Whoever is on the machine names what he likes, and so does who runs the server, in a variable.
func TestNobodyReachesTheServersOwnMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var came atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	var urls []string
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1.2.3"} {
		for _, form := range []string{"postgres://app@%s:%d/clinic?sslmode=disable", "mysql://app@%s:%d/clinic?tls=disable"} {
			urls = append(urls, fmt.Sprintf(form, host, port))
		}
	}
	dir := filepath.Join(t.TempDir(), "store")
	if _, err := server.Init(t.Context(), dir, server.InitOptions{Embedded: true, Environ: []string{}}); err != nil {
		t.Fatal(err)
	}
	srv, err := server.Open(t.Context(), dir, server.Options{Embedded: true, Environ: []string{"KEYTURN_DATASET_OWN=" + urls[0]}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close(context.Background()) //nolint:errcheck // of no interest here
	owner := keyturn.NewClient(srv.InProcess())
	if _, err := owner.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	p, err := owner.CreatePrincipal(t.Context(), api.CreatePrincipalRequest{Name: "far", Role: "owner", Scope: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	far := keyturn.NewClient(srv.InProcess(), keyturn.WithToken(p.Token))
	add := func(c *keyturn.Client, db, env string) error {
		_, err := c.AddDataset(t.Context(), api.AddDatasetRequest{Name: "patients", DB: db, DBEnv: env, Table: "t", Columns: map[string]string{"v": "phi"}})
		return err
	}
	for _, u := range append(urls, "postgres://app@169.254.169.254:80/x", "mysql://app@169.254.169.254:80/x", "postgres://app@%2Ftmp/x") {
		if err := add(far, u, ""); keyturn.CodeOf(err) != api.CodeInvalid || fieldOf(err) != "db" {
			t.Errorf("%s over the network: %v", u, err)
		}
	}
	if came.Load() != 0 {
		t.Errorf("%d connections came", came.Load())
	}
	for name, err := range map[string]error{"postgres, here": add(owner, urls[0], ""), "mysql, here": add(owner, urls[1], ""), "a variable": add(far, "", "KEYTURN_DATASET_OWN")} {
		if keyturn.CodeOf(err) != api.CodeUnavailable { // it isn't a database
			t.Errorf("%s: %v", name, err)
		}
	}
	if came.Load() < 3 {
		t.Errorf("%d connections came", came.Load())
	}
}
