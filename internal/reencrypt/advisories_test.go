package reencrypt_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestAdvisory_CVE_2023_0620 is about names that become SQL: tables and columns called anything at all go through the
// whole product, and nothing but their values is changed.
func TestAdvisory_CVE_2023_0620(t *testing.T) {
	onBoth(t, func(c *clinic) {
		before := c.app.Rows(c, "SELECT id, ssn FROM patients ORDER BY id")
		for i, name := range connectortest.Names {
			column, dataset := name+" v", fmt.Sprintf("odd%d", i)
			c.app.Exec(c, fmt.Sprintf("CREATE TABLE %s (%s bigint PRIMARY KEY, %s text)", reencrypt.Quoted(name), reencrypt.Quoted(name), reencrypt.Quoted(column)),
				fmt.Sprintf("INSERT INTO %s VALUES (1, 'one')", reencrypt.Quoted(name)))
			d, err := c.AddDataset(c.Context(), api.AddDatasetRequest{Name: dataset, DB: c.app.URL, Table: name, Columns: map[string]string{column: "phi"}})
			c.must(err)
			if d.Table != name || d.PK[0] != name || d.Columns[0].Column != column {
				c.Errorf("%q became %+v", name, d)
			}
			if run := c.run(func() (api.DatasetRun, error) {
				return c.EncryptDataset(c.Context(), dataset, api.DatasetRunRequest{})
			}); run.Changed != 1 {
				c.Errorf("%q: %+v", name, run)
			}
			sealed := string(c.app.Rows(c, fmt.Sprintf("SELECT %s FROM %s", reencrypt.Quoted(column), reencrypt.Quoted(name)))[0][0])
			context := map[string]string{"table": name, "column": column, "pk." + name: "1"}
			if opened, err := c.Decrypt(c.Context(), "phi", api.DecryptRequest{Ciphertext: sealed, Context: context}); err != nil || string(opened.Plaintext) != "one" {
				c.Errorf("%q: opened %q, %v", name, opened.Plaintext, err)
			}
		}
		after := c.app.Rows(c, "SELECT id, ssn FROM patients ORDER BY id")
		if fmt.Sprint(before) != fmt.Sprint(after) {
			c.Error("another table was changed")
		}
	})
}

// TestAdvisory_CVE_2026_22728 is about re-encryption that widens what a ciphertext is good for: what comes out opens under
// the context that went in, and under no other.
func TestAdvisory_CVE_2026_22728(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(func(in *api.AddDatasetRequest) {
			in.Context = map[string]string{"tenant": "north", "patient": "{pk}", "field": "patients.{column}"}
		})
		c.must(err)
		c.run(c.encrypt)
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		c.run(c.reencrypt)
		own := map[string]string{"tenant": "north", "patient": "17", "field": "patients.ssn"}
		sealed := c.value("17")
		open := func(context map[string]string) (string, uint32, error) {
			out, err := c.Decrypt(c.Context(), "phi", api.DecryptRequest{Ciphertext: sealed, Context: context})
			return string(out.Plaintext), out.Version, err
		}
		if plain, version, err := open(own); err != nil || plain != "900-00-1017" || version != 2 {
			c.Errorf("under its own context: %q, version %d, %v", plain, version, err)
		}
		for name, edit := range map[string]func(map[string]string){
			"another tenant": func(m map[string]string) { m["tenant"] = "south" }, "no tenant": func(m map[string]string) { delete(m, "tenant") },
			"another patient": func(m map[string]string) { m["patient"] = "18" }, "one more key": func(m map[string]string) { m["x"] = "" },
			"nothing": func(m map[string]string) { clear(m) },
		} {
			other := maps.Clone(own)
			edit(other)
			if _, _, err := open(other); keyturn.CodeOf(err) != api.CodeIntegrity {
				c.Errorf("under %s: %v", name, err)
			}
		}
	})
}

// TestAdvisory_CVE_2023_0690 is about rotated credentials that were stored in clear: after every kind of run, neither a
// value nor the database's password stands in any file of keyturn's, in its log, or in the application's table.
func TestAdvisory_CVE_2023_0690(t *testing.T) {
	const password = "c4n4ry-pa55word"
	onBoth(t, func(c *clinic) {
		_, err := c.add(func(in *api.AddDatasetRequest) {
			in.DB = strings.Replace(in.DB, "keyturn@", "keyturn:"+password+"@", 1) // the test's server trusts its socket
		})
		c.must(err)
		c.run(c.encrypt)
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		c.run(c.reencrypt)
		c.run(func() (api.DatasetRun, error) {
			return c.VerifyDataset(c.Context(), "patients", api.DatasetRunRequest{})
		})
		for _, row := range c.app.Rows(c, "SELECT ssn FROM patients") {
			if strings.Contains(string(row[0]), "900-00-") {
				c.Fatal("the table holds a plaintext")
			}
		}
		list, err := c.Datasets(c.Context())
		c.must(err)
		if text := fmt.Sprintf("%+v", list); strings.Contains(text, password) {
			c.Errorf("the list shows the password: %s", text)
		}
		files := 0
		c.must(filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			text, err := os.ReadFile(path)
			for _, canary := range []string{password, "900-00-1017", "900-00-1099"} {
				if strings.Contains(string(text), canary) {
					c.Errorf("%s holds %q", path, canary)
				}
			}
			return err
		}))
		if files < 3 {
			c.Errorf("looked into %d files only", files)
		}
	})
}

// TestAdvisory_CVE_2026_42186 is about things that are removed by half: with its dataset gone, a job does nothing any more,
// and a new dataset of the same name has nothing to do with it.
func TestAdvisory_CVE_2026_42186(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		run, err := c.EncryptDataset(c.Context(), "patients", api.DatasetRunRequest{Rate: 1, BatchSize: 1})
		c.must(err)
		_, err = c.CancelJob(c.Context(), run.Job)
		c.must(err)
		c.finish(run.Job)
		c.must(c.RemoveDatasetAnyway(c.Context(), "patients", "a test"))
		retry := func() api.Job {
			_, err := c.RetryJob(c.Context(), run.Job)
			c.must(err)
			return c.finish(run.Job)
		}
		if j := retry(); j.State != "failed" {
			c.Errorf("a job whose dataset is gone ended %s", j.State)
		}
		c.app.Exec(c, "CREATE TABLE others (id bigint PRIMARY KEY, ssn text)", "INSERT INTO others VALUES (1, '900-00-0001')")
		_, err = c.add(func(in *api.AddDatasetRequest) { in.Table = "others" })
		c.must(err)
		if j := retry(); j.State != "failed" {
			c.Errorf("a job whose dataset was replaced ended %s", j.State)
		}
		if got := c.census(); got.Plaintext != 1 {
			c.Errorf("the new dataset's census: %+v", got)
		}
		if err := c.RemoveDataset(c.Context(), "patients"); err != nil {
			c.Errorf("removing the new one: %v", err)
		}
	})
}

// TestCompromisedVersion: re-encryption is the way out of a compromise; it may open what nobody else may.
func TestCompromisedVersion(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		c.run(c.encrypt)
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		_, err = c.CompromiseKey(c.Context(), "phi", api.VersionStateRequest{Version: 1, Reason: "laptop stolen"})
		c.must(err)
		if run := c.run(c.reencrypt); run.Changed != 99 || run.Failed != 0 {
			c.Errorf("re-encrypted: %+v", run)
		}
		if got := c.census(); len(got.Versions) != 1 || got.Versions[0].Version != 2 {
			c.Errorf("census: %+v", got)
		}
	})
}
