package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the application's own database

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// house is a data directory with rows under key phi, and a way to open it in this process, on a clock of its own.
type house struct {
	*testing.T
	dir, app string
}

func (e *house) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// opened opens the directory as one that is killed afterwards: what is unfinished stays so.
func (e *house) opened(ago time.Duration, do func(c *keyturn.Client)) {
	e.Helper()
	clock := func() time.Time { return time.Now().Add(-ago) }
	s, err := server.Open(e.Context(), e.dir, server.Options{Embedded: true, Environ: []string{}, Clock: clock})
	e.must(err)
	defer func() { e.must(s.Close(context.Background())) }()
	do(keyturn.NewClient(s.InProcess()))
}

func (e *house) end(c *keyturn.Client, id string) (last api.Job) {
	e.Helper()
	for j, err := range c.WatchJob(e.Context(), id) {
		e.must(err)
		last = j
	}
	return last
}

// keyturn runs a command line on the directory.
func (e *house) keyturn(args ...string) (stdout string) {
	e.Helper()
	e.Setenv("KEYTURN_DIR", e.dir)
	e.Setenv("KEYTURN_SERVER", "")
	var out, errs bytes.Buffer
	if status := newApp(nil, &out, &errs).run(context.Background(), args); status != 0 {
		e.Fatalf("%v: status %d\n%s%s", args, status, out.String(), errs.String())
	}
	return out.String()
}

func newHouse(t *testing.T, ago time.Duration, yaml, rows string) *house {
	base, err := os.MkdirTemp("", "kt") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	e := &house{T: t, dir: filepath.Join(base, "d"), app: filepath.Join(base, "app.db")}
	_, err = server.Init(t.Context(), e.dir, server.InitOptions{Embedded: true, Environ: []string{}, Clock: func() time.Time { return time.Now().Add(-ago) }})
	e.must(err)
	f, err := os.OpenFile(filepath.Join(e.dir, server.ConfigFile), os.O_APPEND|os.O_WRONLY, 0)
	e.must(err)
	_, err = f.WriteString(yaml)
	e.must(err)
	e.must(f.Close())
	sqlitetest.Exec(t, e.app, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < `+rows+`) INSERT INTO patients SELECT i, 'number ' || i FROM n`)
	e.opened(ago, func(c *keyturn.Client) {
		_, err := c.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi", Purpose: "phi"})
		e.must(err)
		_, err = c.AddDataset(t.Context(), api.AddDatasetRequest{Name: "patients", DB: "sqlite://" + e.app, Table: "patients", Columns: map[string]string{"ssn": "phi"}})
		e.must(err)
		run, err := c.EncryptDataset(t.Context(), "patients", api.DatasetRunRequest{Unthrottled: true})
		e.must(err)
		e.end(c, run.Job)
	})
	return e
}

// An emergency that was killed on an embedded store goes on with its own job's id, to the last row.
func TestWatchingAnEmergencyGoesOnWithItsRows(t *testing.T) {
	e := newHouse(t, 0, "", "40000")
	var job string
	e.opened(0, func(c *keyturn.Client) {
		begun, err := c.Emergency(t.Context(), api.EmergencyRequest{Keys: []string{"phi"}, Reason: "laptop stolen"})
		e.must(err)
		job = begun.Incident.Job
		e.end(c, job)
		d, err := c.Incident(t.Context(), begun.Incident.ID)
		e.must(err)
		if s := d.Datasets[0].JobState; s == "done" {
			t.Fatal("the re-encryption was done too soon for this test")
		}
	})
	e.keyturn("job", "watch", job)
	if out := e.keyturn("dataset", "census", "patients", "--json"); !strings.Contains(out, `"versions":[{"key":"phi","version":2,"state":"active","rows":40000}]`) {
		t.Error(out)
	}
}

// Without a server `rotation run` does all that a policy says; nothing is left in the queue for nobody.
func TestRotationRunWithoutAServerDoesWhatFollows(t *testing.T) {
	e := newHouse(t, 60*24*time.Hour, "policies:\n  clinic: {purpose: phi, period: 30d, schedule: none, reencrypt: true}\n", "20000")
	if out := e.keyturn("rotation", "run", "--dry-run"); !strings.Contains(out, "OVERDUE") || !strings.Contains(out, "1 key would be rotated.") {
		t.Error(out)
	}
	out := e.keyturn("rotation", "run")
	if !regexp.MustCompile(`phi +phi +1 +2 +rotated\n`).MatchString(out) || !strings.Contains(out, "Rotated: 1 of 1 key. Job ") || strings.Contains(out, "OVERDUE") {
		t.Error(out)
	}
	for _, state := range []string{"queued", "running"} {
		if out := e.keyturn("job", "list", "--state", state); !strings.Contains(out, "No such jobs") {
			t.Error(out)
		}
	}
	if out := e.keyturn("dataset", "census", "patients", "--json"); !strings.Contains(out, `"versions":[{"key":"phi","version":2,"state":"active","rows":20000}]`) {
		t.Error(out)
	}
}
