package reencrypt_test

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// A version on the list of destroyed ones, which an older store has alive, neither seals nor opens values of a dataset.
func TestBuriedVersionsStayDead(t *testing.T) {
	ctx, dir, path := t.Context(), filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "clinic.db")
	app := connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: sqlitetest.Open(t, path)}
	app.Exec(t, "CREATE TABLE patients (id bigint PRIMARY KEY, ssn text)", "INSERT INTO patients VALUES (1, 'one'), (2, 'two')")
	if _, err := server.Init(ctx, dir, server.InitOptions{Embedded: true}); err != nil {
		t.Fatal(err)
	}
	open := func() (*clinic, func()) {
		t.Helper()
		srv, err := server.Open(ctx, dir, server.Options{Embedded: true, Command: "a test"})
		if err != nil {
			t.Fatal(err)
		}
		return &clinic{T: t, Client: keyturn.NewClient(srv.InProcess()), app: app}, func() { _ = srv.Close(context.Background()) }
	}
	c, stop := open()
	k, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: "phi", Purpose: "phi"})
	c.must(err)
	_, err = c.AddDataset(ctx, api.AddDatasetRequest{Name: "patients", DB: app.URL, Table: "patients", Columns: map[string]string{"ssn": "phi"}})
	c.must(err)
	c.run(c.encrypt)
	stop()

	id, err := envelope.ParseKeyID(k.ID)
	c.must(err)
	line, err := json.Marshal(kms.Tombstone{KeyID: id, Key: "phi", Version: 1, At: time.Now()})
	c.must(err)
	c.must(os.WriteFile(filepath.Join(dir, server.TombstoneFile), append(line, '\n'), 0o600))
	c, stop = open()
	defer stop()
	app.Exec(t, "INSERT INTO patients VALUES (3, 'three')")
	if _, err := c.encrypt(); keyturn.CodeOf(err) != api.CodeWrongState {
		t.Errorf("sealing under it: %v", err)
	}
	for what, start := range map[string]func() (api.DatasetRun, error){
		"verifying": func() (api.DatasetRun, error) { return c.VerifyDataset(ctx, "patients", api.DatasetRunRequest{}) },
		"decrypting": func() (api.DatasetRun, error) {
			return c.DecryptDataset(ctx, "patients", api.DatasetRunRequest{})
		},
	} {
		run, err := start()
		c.must(err)
		if j := c.finish(run.Job); j.State == "done" || j.Run == nil || j.Run.Changed != 0 {
			t.Errorf("%s ended %s: %+v", what, j.State, j.Run)
		}
	}
	for _, row := range app.Rows(t, "SELECT ssn FROM patients WHERE id < 3") {
		if !strings.HasPrefix(string(row[0]), "kt1.") {
			t.Error("a value was decrypted")
		}
	}
}
