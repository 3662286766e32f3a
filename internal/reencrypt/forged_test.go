package reencrypt_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// Whoever can write to keyturn's database has nothing decrypted by a job of his own, and hides nothing from a census by
// another table, key or context in a dataset's record.
func TestForgedRowsDoNothing(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "clinic.db")
	db := sqlitetest.Open(t, path)
	c := newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: db})
	c.app.Exec(t, "CREATE TABLE empty (id bigint PRIMARY KEY, ssn text)")
	_, err := c.add(nil)
	c.must(err)
	run := c.run(c.encrypt)
	store := sqlitetest.Open(t, filepath.Join(c.dir, "keyturn.db"))
	write := func(statement string, args ...any) {
		t.Helper()
		if _, err := store.ExecContext(ctx, statement, args...); err != nil {
			t.Fatal(err)
		}
	}

	const forged = "0000000000000000forgedjob"
	for what, change := range map[string]string{
		"a job of another kind": "UPDATE jobs SET kind = 'dataset-decrypt' WHERE id = ?",
		"other arguments":       `UPDATE jobs SET kind = 'dataset-decrypt', args = CAST(replace(CAST(args AS TEXT), '"compromised":true', '"compromised":true,"workers":1') AS BLOB) WHERE id = ?`,
		"no MAC":                `UPDATE jobs SET kind = 'dataset-decrypt', args = CAST(json_remove(CAST(args AS TEXT), '$.mac') AS BLOB) WHERE id = ?`,
	} {
		id := forged[:24]
		write("INSERT INTO jobs SELECT ?, kind, subject, unique_key, args, actor, 1, 'paused', 'run', NULL, NULL, 0, 0, '', 0, '', 0, 0, created, 0, 0, 0, tries FROM jobs WHERE id = ?", id, run.Job)
		write(change, id)
		if _, err := c.ResumeJob(ctx, id); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if j := c.finish(id); j.State != "failed" || !strings.Contains(j.Error, "not written by keyturn") {
			t.Errorf("%s: it ended %s: %s", what, j.State, j.Error)
		}
		write("DELETE FROM jobs WHERE id = ?", id)
	}
	for _, row := range c.app.Rows(t, "SELECT ssn FROM patients WHERE id <> 13") {
		if !strings.HasPrefix(string(row[0]), "kt1.") {
			t.Fatal("a value was decrypted")
		}
	}

	for _, change := range []string{
		"relation = 'empty'", "columns = replace(columns, 'phi', 'pii')", `columns = replace(columns, '"type"', '"foreign":true,"type"')`, `context = '{"a":"{pk}"}'`, "unbound = 1", "address = 'sqlite:///elsewhere'", "dsn_env = 'KEYTURN_DATASET_X'",
	} {
		write("CREATE TEMP TABLE kept AS SELECT * FROM datasets")
		write("UPDATE datasets SET " + change)
		if _, err := c.Census(ctx, "patients"); keyturn.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", change, err)
		}
		write("DELETE FROM datasets")
		write("INSERT INTO datasets SELECT * FROM kept")
		write("DROP TABLE kept")
	}
	_, err = c.Census(ctx, "patients")
	c.must(err)
}
