package rotation_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// dataset registers and encrypts a table of 500 rows under key phi, and gives its file.
func (h *house) dataset(name string) (file string) {
	h.Helper()
	file = filepath.Join(h.TempDir(), name+".db")
	h.sql(file, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO patients SELECT i, 'number ' || i FROM n`)
	_, err := h.AddDataset(h.Context(), api.AddDatasetRequest{Name: name, DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi"}})
	h.must(err)
	run, err := h.EncryptDataset(h.Context(), name, api.DatasetRunRequest{Unthrottled: true})
	h.must(err)
	h.end(run.Job)
	return file
}

func (h *house) sql(file, text string) {
	h.Helper()
	sqlitetest.Exec(h, file, text)
}

// until waits for a job to be as want says, and for nothing more to be as want says among those of the kind.
func (h *house) until(kind string, want func(api.Job) bool) api.Job {
	h.Helper()
	for {
		list, err := h.Jobs(h.Context(), keyturn.JobFilter{})
		h.must(err)
		for _, j := range list.Jobs {
			if j.Kind != kind {
				continue
			}
			for j, err := range h.WatchJob(h.Context(), j.ID) {
				h.must(err)
				if want(j) {
					return j
				}
				if j.State == "failed" {
					h.Fatalf("%+v", j)
				}
			}
		}
	}
}

func (h *house) versions(name string) (out []uint32) {
	h.Helper()
	c, err := h.Census(h.Context(), name)
	h.must(err)
	for _, v := range c.Columns[0].Versions {
		out = append(out, v.Version)
	}
	return out
}

const clinic = "policies:\n  clinic: {purpose: phi, period: 30d, schedule: none, reencrypt: true, concurrency: 2, attempts: 1}\n"

// A dataset that is away when its key is rotated is waited for, which its job says, and keeps no other from being moved.
func TestDatasetThatIsAwayIsMovedLater(t *testing.T) {
	h := open(t, clinic)
	h.key("phi", "phi", "")
	away := h.dataset("away")
	h.dataset("there")
	h.must(os.Rename(away, away+".gone"))
	h.pass(31 * day)
	h.run(api.RotationRunRequest{})
	h.until("rotation-followup", func(j api.Job) bool { return j.State == "queued" && j.Attempts > 0 && j.Error != "" && j.Done == 1 })
	h.ends("dataset-reencrypt")
	if v := h.versions("there"); !slices.Equal(v, []uint32{2}) {
		t.Errorf("%v", v)
	}
	h.must(os.Rename(away+".gone", away))
	h.pass(10 * time.Minute)
	for _, kind := range []string{"rotation-followup", "dataset-reencrypt"} {
		for _, j := range h.ends(kind) {
			if j.State != "done" || j.Error != "" {
				t.Errorf("%+v", j)
			}
		}
	}
	if v := h.versions("away"); !slices.Equal(v, []uint32{2}) {
		t.Errorf("%v", v)
	}
}

// While a dataset is away and the key is rotated again, one job waits for it: the one that follows the newest rotation.
func TestNewestRotationWaitsForTheDataset(t *testing.T) {
	h := open(t, clinic)
	h.key("phi", "phi", "")
	away := h.dataset("away")
	h.must(os.Rename(away, away+".gone"))
	var waits [2]api.Job
	for i := range waits {
		h.pass(31 * day)
		h.run(api.RotationRunRequest{})
		waits[i] = h.until("rotation-followup", func(j api.Job) bool { return j.State == "queued" && j.Attempts > 0 })
	}
	h.pass(10 * time.Minute)
	if j := h.end(waits[0].ID); j.State != "done" {
		t.Errorf("%+v", j)
	}
	if j, err := h.Job(t.Context(), waits[1].ID); err != nil || j.State == "done" || j.State == "failed" {
		t.Errorf("%+v, %v", j, err)
	}
	h.must(os.Rename(away+".gone", away))
	h.pass(10 * time.Minute)
	h.ends("rotation-followup")
	h.ends("dataset-reencrypt")
	if v := h.versions("away"); !slices.Equal(v, []uint32{3}) {
		t.Errorf("%v", v)
	}
}

// A re-encryption whose database is gone is waited for, too.
func TestReencryptionWaitsForItsDatabase(t *testing.T) {
	h := open(t, "")
	h.key("phi", "phi", "")
	away := h.dataset("away")
	h.must(os.Rename(away, away+".gone"))
	_, err := h.Emergency(t.Context(), api.EmergencyRequest{Keys: []string{"phi"}, Reason: "laptop stolen"})
	h.must(err)
	h.ends("emergency-rotate")
	h.until("dataset-reencrypt", func(j api.Job) bool { return j.State == "queued" && j.Attempts > 0 && j.Error != "" })
	h.must(os.Rename(away+".gone", away))
	h.pass(10 * time.Minute)
	h.ends("dataset-reencrypt")
	if v := h.versions("away"); !slices.Equal(v, []uint32{2}) {
		t.Errorf("%v", v)
	}
	history, err := h.RotationHistory(t.Context(), "phi", "", 0)
	h.must(err)
	if len(history.Rotations) != 1 || history.Rotations[0].Actor != "owner" || history.Rotations[0].Incident == "" {
		t.Errorf("%+v", history)
	}
}

// A follow-up that another job keeps from a dataset says so, and pauses longer each time.
func TestFollowUpSaysWhatItWaitsFor(t *testing.T) {
	h := open(t, clinic)
	h.key("phi", "phi", "")
	h.dataset("held")
	run, err := h.DecryptDataset(t.Context(), "held", api.DatasetRunRequest{Rate: 1, BatchSize: 1})
	h.must(err)
	_, err = h.PauseJob(t.Context(), run.Job)
	h.must(err)
	h.end(run.Job)
	h.pass(31 * day)
	h.run(api.RotationRunRequest{})
	j := h.until("rotation-followup", func(j api.Job) bool { return j.State == "queued" && j.Error != "" })
	if !strings.Contains(j.Error, run.Job) || j.Attempts != 0 {
		t.Errorf("%+v", j)
	}
	_, err = h.CancelJob(t.Context(), run.Job)
	h.must(err)
	h.pass(time.Hour)
	h.ends("rotation-followup")
	for _, j := range h.ends("dataset-reencrypt") {
		if j.State != "done" {
			t.Errorf("%+v", j)
		}
	}
}

// served serves until the end of the test.
func (h *house) served() {
	ctx, stop := context.WithCancel(h.Context())
	served := make(chan error, 1)
	go func() { served <- h.s.Serve(ctx) }()
	h.Cleanup(func() { stop(); h.must(<-served) })
}

func (h *house) await(typ, action, resource string) string {
	h.Helper()
	for line, err := range h.TailAudit(h.Context(), true, keyturn.AuditQuery{Type: typ, Resource: resource}) {
		h.must(err)
		if strings.Contains(string(line), `"action":"`+action+`"`) {
			return string(line)
		}
	}
	h.Fatalf("no event %s of %s", action, resource)
	return ""
}

// What is given up is an alert at once; the health check counts it; and long afterwards the job is forgotten.
func TestWhatIsGivenUpIsAnAlert(t *testing.T) {
	h := open(t, "listen: []\n"+clinic+"jobs: {keep: 60d}\n")
	h.key("phi", "phi", "")
	h.key("soon", "", "45d")
	file := h.dataset("spoiled")
	h.sql(file, `DROP TABLE patients; CREATE TABLE patients (id TEXT, ssn TEXT)`) // no key any more
	h.served()
	h.pass(40 * day)
	line := h.await("alert", "rotation_job_failed", "key/phi")
	if !strings.Contains(line, "rotation-followup") || !strings.Contains(line, "keyturn job retry") {
		t.Error(line)
	}
	h.await("alert", "rotation_due_soon", "key/soon")
	h.pass(5 * time.Hour)
	h.await("alert", "rotation_jobs_failed", "system")
	warnings := 0
	for line, err := range h.TailAudit(t.Context(), false, keyturn.AuditQuery{Type: "alert", Resource: "key/soon"}) {
		h.must(err)
		if strings.Contains(string(line), "rotation_due_soon") {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings within a day", warnings)
	}
	failed, err := h.Jobs(t.Context(), keyturn.JobFilter{State: "failed"})
	h.must(err)
	if len(failed.Jobs) != 1 {
		t.Fatalf("%+v", failed)
	}
	h.pass(70 * day)
	for line, err := range h.TailAudit(t.Context(), true, keyturn.AuditQuery{Type: "key_rotation", Resource: "system"}) {
		h.must(err)
		if strings.Contains(string(line), `"count":`) { // of jobs that were forgotten
			break
		}
	}
	if _, err := h.Job(t.Context(), failed.Jobs[0].ID); keyturn.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a job that ended long ago: %v", err)
	}
}

// Work of every kind that is given up is an alert at once and a problem to the health check: an incident that isn't answered, for as
// long as that is so, and a dataset that isn't encrypted. What only looked is the business of who asked.
func TestWhatAnyRoomGivesUpIsAnAlert(t *testing.T) {
	h := open(t, "listen: []\n")
	h.key("phi", "phi", "")
	h.dataset("sealed")
	h.sql(filepath.Join(h.dir, "keyturn.db"), `CREATE TRIGGER spoilt AFTER INSERT ON jobs
		BEGIN UPDATE jobs SET args = CAST(replace(CAST(args AS TEXT), '"incident":"', '"incident":"x') AS BLOB) WHERE id = new.id AND kind = 'emergency-rotate';
		UPDATE jobs SET args = CAST(replace(CAST(args AS TEXT), '"compromised":true', '"compromised":true,"workers":1') AS BLOB) WHERE id = new.id AND kind LIKE 'dataset-%'; END`)
	h.served()
	for _, start := range []func(context.Context, string, api.DatasetRunRequest) (api.DatasetRun, error){h.VerifyDataset, h.EncryptDataset, h.EncryptDataset} {
		run, err := start(t.Context(), "sealed", api.DatasetRunRequest{})
		h.must(err)
		if j := h.end(run.Job); j.State != "failed" {
			t.Fatalf("%+v", j)
		}
	}
	e, err := h.Emergency(t.Context(), api.EmergencyRequest{Keys: []string{"phi"}, Reason: "laptop stolen"})
	h.must(err)
	for resource, job := range map[string]string{"incident/" + e.Incident.ID: e.Incident.Job, "dataset/sealed": "dataset-encrypt"} {
		if line := h.await("alert", "job_failed", resource); !strings.Contains(line, job) || !strings.Contains(line, "keyturn job retry") {
			t.Error(line)
		}
	}
	h.pass(3 * day)
	for line, err := range h.TailAudit(t.Context(), true, keyturn.AuditQuery{Type: "alert", Resource: "system"}) { // three days later it's the incident's job alone
		h.must(err)
		if strings.Contains(string(line), `"action":"jobs_failed"`) && strings.Contains(string(line), `"count":1`) && strings.Contains(string(line), "keyturn job show") {
			break
		}
	}
	alerts := 0
	for _, err := range h.TailAudit(t.Context(), false, keyturn.AuditQuery{Type: "alert", Resource: "dataset/sealed"}) {
		h.must(err)
		alerts++
	}
	if alerts != 1 {
		t.Errorf("%d alerts of the dataset: a verification is nobody else's business, and the same failure is said once", alerts)
	}
}
