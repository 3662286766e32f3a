package reencrypt_test

import (
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the application's own driver
	_ "modernc.org/sqlite"             // likewise

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
	"github.com/keyturn/keyturn/keyturntest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// clinic is an application with a table of patients, and a keyturn store with key phi beside it.
type clinic struct {
	*testing.T
	*keyturn.Client
	dir string // of the store
	app connectortest.Database
}

// ssnSQL makes patient i a fictitious number: 9xx is never given out.
const ssnSQL = "'900-00-' || (1000 + i)"

// onBoth runs a test with an application on SQLite and one on PostgreSQL.
func onBoth(t *testing.T, test func(*clinic)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "clinic.db")
		test(newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: sqlitetest.Open(t, path)}))
	})
	t.Run("postgres", func(t *testing.T) {
		address := pgtest.Start(t).Database(t)
		db, err := sql.Open("pgx", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		test(newClinic(t, connectortest.Database{URL: address, DB: db}))
	})
}

func newClinic(t *testing.T, app connectortest.Database) *clinic {
	t.Helper()
	c := &clinic{T: t, app: app}
	c.dir, c.Client = keyturntest.NewDir(t, keyturntest.WithKey("phi"))
	app.Exec(t, "CREATE TABLE patients (id bigint PRIMARY KEY, ssn text, CONSTRAINT checked CHECK (id <> 13 OR length(ssn) < 20))",
		"INSERT INTO patients SELECT i, "+ssnSQL+" FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n) AS s WHERE i <> 13")
	return c
}

// add registers the table; edit changes the request.
func (c *clinic) add(edit func(*api.AddDatasetRequest)) (api.Dataset, error) {
	in := api.AddDatasetRequest{Name: "patients", DB: c.app.URL, Table: "patients", Columns: map[string]string{"ssn": "phi"}}
	if edit != nil {
		edit(&in)
	}
	return c.AddDataset(c.Context(), in)
}

func (c *clinic) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatalf("%v (%v)", err, keyturn.CodeOf(err))
	}
}

// finish waits for a job and answers how it ended.
func (c *clinic) finish(job string) api.Job {
	c.Helper()
	var last api.Job
	for j, err := range c.WatchJob(c.Context(), job) {
		c.must(err)
		last = j
	}
	return last
}

// run starts a run and waits until it has succeeded.
func (c *clinic) run(start func() (api.DatasetRun, error)) *api.DatasetRun {
	c.Helper()
	run, err := start()
	c.must(err)
	j := c.finish(run.Job)
	if j.State != "done" {
		c.Fatalf("the job ended %s: %s", j.State, j.Error)
	}
	return j.Run
}

func (c *clinic) encrypt() (api.DatasetRun, error) {
	return c.EncryptDataset(c.Context(), "patients", api.DatasetRunRequest{})
}

func (c *clinic) reencrypt() (api.DatasetRun, error) {
	return c.ReencryptDataset(c.Context(), "patients", api.DatasetRunRequest{})
}

// census is the counts of the one column.
func (c *clinic) census() api.CensusColumn {
	c.Helper()
	out, err := c.Census(c.Context(), "patients")
	c.must(err)
	return out.Columns[0]
}

// value is what stands in a patient's row.
func (c *clinic) value(id string) string {
	c.Helper()
	return string(c.app.Rows(c, "SELECT ssn FROM patients WHERE id = "+id)[0][0])
}

// TestLifeOfADataset is the main job, with what an application would do beside it: it opens what keyturn sealed.
func TestLifeOfADataset(t *testing.T) {
	onBoth(t, func(c *clinic) {
		d, err := c.add(nil)
		c.must(err)
		if len(d.PK) != 1 || d.PK[0] != "id" || len(d.Notes) == 0 || d.Columns[0].Type == "" {
			c.Errorf("added: %+v", d)
		}
		if run := c.run(c.encrypt); run.Changed != 99 || run.Failed != 0 {
			c.Errorf("encrypted: %+v", run)
		}
		err = c.RemoveDataset(c.Context(), "patients")
		if keyturn.CodeOf(err) != api.CodeInUse || !strings.Contains(fmt.Sprint(err), "99 values are left in it, under phi:1") {
			c.Errorf("removing it with values in it: %v", err)
		}
		context := map[string]string{"table": "patients", "column": "ssn", "pk.id": "17"}
		opened, err := c.Decrypt(c.Context(), "phi", api.DecryptRequest{Ciphertext: c.value("17"), Context: context})
		if err != nil || string(opened.Plaintext) != "900-00-1017" {
			c.Errorf("patient 17 opened: %q, %v", opened.Plaintext, err)
		}
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)

		_, err = c.DestroyKey(c.Context(), "phi", api.VersionStateRequest{Version: 1})
		if keyturn.CodeOf(err) != api.CodeInUse || !strings.Contains(err.Error(), "99") || !strings.Contains(err.Error(), "patients") {
			c.Errorf("destroying a version that 99 values stand under: %v", err)
		}
		if run := c.run(c.reencrypt); run.Changed != 99 {
			c.Errorf("re-encrypted: %+v", run)
		}
		got := c.census()
		if len(got.Versions) != 1 || got.Versions[0] != (api.CensusVersion{Key: "phi", Version: 2, State: "active", Rows: 99}) || got.Plaintext+got.Unreadable+got.Null != 0 {
			c.Errorf("census: %+v", got)
		}
		c.run(func() (api.DatasetRun, error) {
			return c.VerifyDataset(c.Context(), "patients", api.DatasetRunRequest{})
		})
		_, err = c.DestroyKey(c.Context(), "phi", api.VersionStateRequest{Version: 1})
		if keyturn.CodeOf(err) != api.CodeInUse {
			c.Errorf("destroying a version that was opened within the hour: %v", err)
		}
		if run := c.run(func() (api.DatasetRun, error) {
			return c.DecryptDataset(c.Context(), "patients", api.DatasetRunRequest{})
		}); run.Changed != 99 || c.value("17") != "900-00-1017" {
			c.Errorf("decrypted: %+v, patient 17 has %q", run, c.value("17"))
		}
		c.must(c.RemoveDataset(c.Context(), "patients"))
		if _, err := c.Dataset(c.Context(), "patients"); keyturn.CodeOf(err) != api.CodeNotFound {
			c.Errorf("a dataset that was removed: %v", err)
		}
	})
}

// TestRetryOfAJob: what failed is on the job's list, by row and with a reason; a retry takes it up, and the list is empty.
func TestRetryOfAJob(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.app.Exec(c, "INSERT INTO patients VALUES (13, '900-00-1013')")
		_, err := c.add(nil)
		c.must(err)
		run, err := c.encrypt()
		c.must(err)
		j := c.finish(run.Job)
		if j.State != "failed" || j.Error == "" || j.Run.Changed != 99 || j.Run.Failed != 1 {
			c.Fatalf("with a row that the database refuses: %+v, %+v", j, j.Run)
		}
		list, err := c.JobFailures(c.Context(), run.Job, 0, 0)
		c.must(err)
		if list.Total != 1 || list.Failures[0].Item != "13" || list.Failures[0].Column != "ssn" || strings.Contains(list.Failures[0].Reason, "900-") {
			c.Errorf("the list of failures: %+v", list)
		}
		_, err = c.RetryJob(c.Context(), run.Job)
		c.must(err)
		if j := c.finish(run.Job); j.State != "failed" {
			c.Errorf("a retry with the cause unmended ended %s", j.State)
		}
		c.app.Exec(c, "UPDATE patients SET id = 14000 WHERE id = 13")
		_, err = c.RetryJob(c.Context(), run.Job)
		c.must(err)
		if j := c.finish(run.Job); j.State != "done" {
			c.Errorf("a retry with the cause mended ended %s: %s", j.State, j.Error)
		}
		if list, err := c.JobFailures(c.Context(), run.Job, 0, 0); err != nil || list.Total != 0 {
			c.Errorf("the list of failures after that: %+v, %v", list, err)
		}
		if got := c.census(); got.Plaintext != 0 || got.Versions[0].Rows != 100 {
			c.Errorf("census: %+v", got)
		}
	})
}

// TestOneRunAtATime: a command that is given again goes on with the unfinished job; another kind has to wait; the dataset
// can't be removed from under it.
func TestOneRunAtATime(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		slow := api.DatasetRunRequest{Rate: 1, BatchSize: 1}
		first, err := c.EncryptDataset(c.Context(), "patients", slow)
		c.must(err)
		if again, err := c.EncryptDataset(c.Context(), "patients", slow); err != nil || again.Job != first.Job {
			c.Errorf("the same command again: %+v, %v", again, err)
		}
		if _, err := c.reencrypt(); keyturn.CodeOf(err) != api.CodeConflict {
			c.Errorf("another kind at the same time: %v", err)
		}
		if err := c.RemoveDataset(c.Context(), "patients"); keyturn.CodeOf(err) != api.CodeInUse {
			c.Errorf("removing it meanwhile: %v", err)
		}
		_, err = c.PauseJob(c.Context(), first.Job)
		c.must(err)
		if j := c.finish(first.Job); j.State != "paused" {
			c.Errorf("paused, it is %s", j.State)
		}
		_, err = c.ResumeJob(c.Context(), first.Job)
		c.must(err)
		_, err = c.CancelJob(c.Context(), first.Job)
		c.must(err)
		if j := c.finish(first.Job); j.State != "cancelled" {
			c.Errorf("cancelled, it is %s", j.State)
		}
		if run := c.run(c.encrypt); run.Changed == 0 {
			c.Errorf("a new run: %+v", run)
		}
		if got := c.census(); got.Plaintext != 0 || got.Versions[0].Rows != 99 {
			c.Errorf("census: %+v", got)
		}
	})
}

// TestAddRefuses: what can't be right is said when the dataset is added, before anything is written anywhere.
func TestAddRefuses(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.app.Exec(c, "CREATE TABLE loose (a text)", "CREATE TABLE two (a bigint, b bigint, v text, w text, PRIMARY KEY (a, b))")
		c.Setenv("KEYTURN_DATASET_UNKNOWN", "oracle://u@h/d")
		before := c.value("1")
		for name, edit := range map[string]struct {
			edit  func(*api.AddDatasetRequest)
			code  api.Code
			field string
		}{
			"no such table":       {func(in *api.AddDatasetRequest) { in.Table = "nope" }, api.CodeNotFound, "table"},
			"no such column":      {func(in *api.AddDatasetRequest) { in.Columns = map[string]string{"nope": "phi"} }, api.CodeNotFound, "columns"},
			"no such key":         {func(in *api.AddDatasetRequest) { in.Columns = map[string]string{"ssn": "nope"} }, api.CodeNotFound, ""},
			"no such key column":  {func(in *api.AddDatasetRequest) { in.PK = []string{"nope"} }, api.CodeNotFound, "pk"},
			"no primary key":      {func(in *api.AddDatasetRequest) { in.Table, in.Columns = "loose", map[string]string{"a": "phi"} }, api.CodeInvalid, "pk"},
			"column of the key":   {func(in *api.AddDatasetRequest) { in.Columns = map[string]string{"id": "phi"} }, api.CodeInvalid, "columns"},
			"no column":           {func(in *api.AddDatasetRequest) { in.Columns = nil }, api.CodeInvalid, "columns"},
			"template":            {func(in *api.AddDatasetRequest) { in.Context = map[string]string{"x": "{nope}"} }, api.CodeInvalid, "context"},
			"rows not told apart": {func(in *api.AddDatasetRequest) { in.Context = map[string]string{"x": "{column}"} }, api.CodeInvalid, "context"},
			"two databases":       {func(in *api.AddDatasetRequest) { in.DBEnv = "X" }, api.CodeInvalid, "db"},
			"no database":         {func(in *api.AddDatasetRequest) { in.DB = "" }, api.CodeInvalid, "db"},
			"variable not set":    {func(in *api.AddDatasetRequest) { in.DB, in.DBEnv = "", "KEYTURN_TEST_NOT_SET" }, api.CodeInvalid, "dbEnv"},
			"by a variable":       {func(in *api.AddDatasetRequest) { in.DB, in.DBEnv = "", "KEYTURN_DATASET_UNKNOWN" }, api.CodeInvalid, "dbEnv"},
			"unknown database":    {func(in *api.AddDatasetRequest) { in.DB = "oracle://u@h/d" }, api.CodeInvalid, "db"},
			"name":                {func(in *api.AddDatasetRequest) { in.Name = "../x" }, api.CodeInvalid, "name"},
		} {
			_, err := c.add(edit.edit)
			if keyturn.CodeOf(err) != edit.code || edit.field != "" && fieldOf(err) != edit.field {
				c.Errorf("%s: code %q, field %q: %v", name, keyturn.CodeOf(err), fieldOf(err), err)
			}
		}
		if _, err := c.add(func(in *api.AddDatasetRequest) {
			in.Name, in.Table, in.PK, in.Columns = "two", "two", []string{"b", "a"}, map[string]string{"v": "phi", "w": "phi"}
		}); err != nil {
			c.Errorf("a composite key: %v", err)
		} else if d, err := c.Dataset(c.Context(), "two"); err != nil || d.PK[0] != "a" || d.Context["pk.b"] != "{pk.b}" {
			c.Errorf("its record: %+v, %v", d, err)
		}
		if _, err := c.add(func(in *api.AddDatasetRequest) {
			in.Name, in.Unbound, in.Context = "unbound", true, map[string]string{"table": "{table}"}
		}); err != nil {
			c.Errorf("rows not told apart, as wanted: %v", err)
		}
		if _, err := c.add(nil); err != nil {
			c.Errorf("after all that: %v", err)
		}
		if _, err := c.add(nil); keyturn.CodeOf(err) != api.CodeConflict {
			c.Errorf("the same name again: %v", err)
		}
		if c.value("1") != before {
			c.Error("adding a dataset wrote to it")
		}
	})
}

func fieldOf(err error) string {
	if e, ok := err.(*keyturn.Error); ok {
		return e.Field
	}
	return ""
}

// TestNarrowColumn: a column without room for the ciphertexts is refused with the width that is needed, when the dataset is
// added and again when it is encrypted, because values grow.
func TestNarrowColumn(t *testing.T) {
	address := pgtest.Start(t).Database(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := newClinic(t, connectortest.Database{URL: address, DB: db})
	const needed = 4 + (116+11)*4/3 + 1 // "kt1." and base64 of a ciphertext of 11 bytes
	c.app.Exec(c, fmt.Sprintf("ALTER TABLE patients ALTER ssn TYPE varchar(%d)", needed-1))
	if _, err := c.add(nil); keyturn.CodeOf(err) != api.CodeInvalid || fieldOf(err) != "columns" || !strings.Contains(err.Error(), fmt.Sprint(needed)) {
		t.Errorf("one character too narrow: %v", err)
	}
	c.app.Exec(c, fmt.Sprintf("ALTER TABLE patients ALTER ssn TYPE varchar(%d)", needed))
	_, err = c.add(nil)
	c.must(err)
	c.app.Exec(c, "UPDATE patients SET ssn = ssn || '-longer' WHERE id = 5")
	if _, err := c.encrypt(); keyturn.CodeOf(err) != api.CodeInvalid {
		t.Errorf("with a value that has grown: %v", err)
	}
	if got := c.census(); got.Plaintext != 99 {
		t.Errorf("something was written: %+v", got)
	}
	c.app.Exec(c, "UPDATE patients SET ssn = 'short' WHERE id = 5")
	if run := c.run(c.encrypt); run.Changed != 99 {
		t.Errorf("encrypted: %+v", run)
	}
}

// A request that finds its work under way is told when that goes on with other settings than it names, and only then.
func TestAJobKeepsItsSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clinic.db")
	c := newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: sqlitetest.Open(t, path)})
	_, err := c.add(nil)
	c.must(err)
	first := api.DatasetRunRequest{Rate: 1, BatchSize: 1, Unthrottled: true}
	run, err := c.EncryptDataset(c.Context(), "patients", first)
	c.must(err)
	if run.Keeps != nil {
		t.Errorf("a job of its own: %+v", run.Keeps)
	}
	_, err = c.PauseJob(c.Context(), run.Job)
	c.must(err)
	for _, q := range []struct {
		in    api.DatasetRunRequest
		other bool
	}{
		{first, false},
		{api.DatasetRunRequest{}, false},
		{api.DatasetRunRequest{Workers: 2}, false}, // that is the default
		{api.DatasetRunRequest{Workers: 3}, true},
		{api.DatasetRunRequest{BatchSize: 2}, true},
		{api.DatasetRunRequest{Rate: 2, BatchSize: 1}, true},
		{api.DatasetRunRequest{Unthrottled: true}, true},
	} {
		again, err := c.EncryptDataset(c.Context(), "patients", q.in)
		c.must(err)
		if again.Job != run.Job || (again.Keeps != nil) != q.other {
			t.Errorf("%+v: job %s keeps %+v", q.in, again.Job, again.Keeps)
		}
		if k := again.Keeps; k != nil && *k != (api.DatasetSettings{Workers: 2, BatchSize: 1, Rate: 1, Sample: 1}) {
			t.Errorf("%+v: %+v", q.in, *k)
		}
	}
}
