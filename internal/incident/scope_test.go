package incident_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// A caller that lacks one right is denied as a whole, and nothing was done.
func TestEmergencyNeedsEveryRight(t *testing.T) {
	c := open(t)
	ctx := c.Context()
	in := api.EmergencyRequest{Keys: []string{"phi", "pii"}, Reason: "x"}
	for name, q := range map[string]struct {
		role  string
		scope []string
		in    api.EmergencyRequest
	}{
		"an application":    {access.RoleApplication, []string{"*"}, in},
		"an auditor":        {access.RoleAuditor, []string{"*"}, in},
		"no incidents":      {access.RoleKeyAdministrator, []string{"key/*"}, in},
		"one incident":      {access.RoleKeyAdministrator, []string{"key/*", "incident/inc-x"}, in},
		"one of two keys":   {access.RoleKeyAdministrator, []string{"key/phi", "incident/*"}, in},
		"not all":           {access.RoleKeyAdministrator, []string{"key/phi", "incident/*"}, api.EmergencyRequest{All: true, Reason: "x"}},
		"not the purpose's": {access.RoleKeyAdministrator, []string{"key/phi", "incident/*"}, api.EmergencyRequest{Purpose: "pii", Reason: "x"}},
		"a key that isn't":  {access.RoleKeyAdministrator, []string{"key/phi", "incident/*"}, api.EmergencyRequest{Keys: []string{"nokey"}, Reason: "x"}},
		"another's version": {access.RoleKeyAdministrator, []string{"key/phi", "incident/*"}, api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Compromised: []api.IncidentVersion{{Key: "pii", Version: 1}}}},
	} {
		_, err := c.as(q.role, q.scope...).Emergency(ctx, q.in)
		if keyturn.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := c.states("phi") + c.states("pii"); got != "activeactive" {
		t.Errorf("the keys are %s", got)
	}
	if n := len(c.events(keyturn.AuditQuery{Type: "permission_denied"})); n != 9 {
		t.Errorf("%d denials are recorded, want 9", n)
	}
	for name, call := range map[string]func(*keyturn.Client) error{
		"list":   func(c *keyturn.Client) error { return second(c.Incidents(ctx, keyturn.IncidentFilter{})) },
		"show":   func(c *keyturn.Client) error { return second(c.Incident(ctx, "inc-000000000000000000000000")) },
		"report": func(c *keyturn.Client) error { return second(c.IncidentReport(ctx, "inc-000000000000000000000000")) },
		"note":   func(c *keyturn.Client) error { return second(c.NoteIncident(ctx, "inc-000000000000000000000000", "x")) },
		"close": func(c *keyturn.Client) error {
			return second(c.CloseIncident(ctx, "inc-000000000000000000000000", "x"))
		},
		"open": func(c *keyturn.Client) error {
			return second(c.OpenIncident(ctx, api.OpenIncidentRequest{Type: "other", Severity: "low", Reason: "x"}))
		},
	} {
		if err := call(c.as(access.RoleApplication)); keyturn.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s by an application: %v", name, err)
		}
	}
}

// A key administrator runs the emergency and sees what is left; who could and who did is not for him.
func TestWhatAKeyAdministratorSees(t *testing.T) {
	c := open(t)
	ctx := c.Context()
	app := c.as(access.RoleApplication)
	sealed, err := app.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("x")})
	c.must(err)
	admin := c.as(access.RoleKeyAdministrator)
	e, err := admin.Emergency(ctx, api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
	c.must(err)
	c.finish(e.Incident.Job)
	if _, err := app.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext}); keyturn.CodeOf(err) != api.CodeDenied {
		t.Errorf("opening what stands under a compromised version: %v", err)
	}
	for who, q := range map[string]struct {
		c    *keyturn.Client
		sees bool
	}{"administrator": {admin, false}, "auditor": {c.as(access.RoleAuditor), true}, "owner": {c.Client, true}} {
		r, err := q.c.IncidentReport(ctx, e.Incident.ID)
		c.must(err)
		d := r.Report
		if (len(d.Uses[0].Could) > 0) != q.sees || (len(d.Uses[0].Did) > 0) != q.sees || (len(d.Withheld) == 0) != q.sees {
			t.Errorf("%s: could %v, did %v, withheld %q", who, d.Uses[0].Could, d.Uses[0].Did, d.Withheld)
		}
		if (r.Actions[0].Event != "") != q.sees || (r.Actions[0].User != "") != q.sees || len(r.Actions) < 4 {
			t.Errorf("%s: %+v", who, r.Actions)
		}
	}
}

// Ten thousand uses of a version are counted by user and kind; batches that may have used it count as possible.
func TestScopeOfTenThousandEvents(t *testing.T) {
	c := open(t)
	ctx := c.Context()
	ann, bob := c.as(access.RoleApplication), c.as(access.RoleApplication)
	seal := func(cl *keyturn.Client) string {
		out, err := cl.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("x"), Context: map[string]string{"incident": "inc-000000000000000000000000"}})
		c.must(err)
		return out.Ciphertext
	}
	const uses = 10_000
	var old string
	for range uses {
		old = seal(ann)
	}
	c.must(second(c.RotateKey(ctx, "phi", api.RotateKeyRequest{})))
	now := seal(bob)
	bound := map[string]string{"incident": "inc-000000000000000000000000"}
	items := []api.DecryptRequest{{Ciphertext: old, Context: bound}, {Ciphertext: now, Context: bound}} // the event names version 2, the last
	c.must(second(bob.DecryptBatch(ctx, "phi", items)))
	c.must(second(bob.Decrypt(ctx, "phi", items[0])))
	if _, err := bob.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: old}); keyturn.CodeOf(err) != api.CodeIntegrity {
		t.Fatal(err) // without its context: used nothing
	}
	i, err := c.OpenIncident(ctx, api.OpenIncidentRequest{Type: "insider", Severity: "medium", Reason: "x", Versions: []api.IncidentVersion{{Key: "phi", Version: 1}, {Key: "phi", Version: 1}}})
	c.must(err)
	c.finish(i.Job)
	d := c.show(i.ID)
	if len(d.Uses) != 1 || len(d.Uses[0].Did) != 2 {
		t.Fatalf("uses: %+v", d.Uses)
	}
	did := d.Uses[0].Did
	if u := did[0]; u.Events != uses || u.Possible != 0 || !u.First.Before(u.Last) {
		t.Errorf("ann: %+v", u)
	}
	if u := did[1]; u.Events != 1 || u.Possible != 1 || u.First.After(u.Last) {
		t.Errorf("bob: %+v", u)
	}
	var could []string
	for _, p := range d.Uses[0].Could {
		could = append(could, p.Role)
	}
	slices.Sort(could)
	if fmt.Sprint(could) != "[application application owner]" {
		t.Errorf("could: %v", could)
	}
	if c.states("phi") != "deactivated active" || d.Incident.Emergency || d.Rotated != 0 {
		t.Errorf("an incident that changes no key changed one: %s", c.states("phi"))
	}
	// Contexts that spell an incident's id don't make their events actions of it.
	r, err := c.IncidentReport(ctx, i.ID)
	c.must(err)
	for _, a := range r.Actions {
		if a.EventType == "key_use" {
			t.Errorf("an action of the incident: %+v", a)
		}
	}
	c.must(second(c.CloseIncident(ctx, i.ID, "nothing found")))
}

// A dataset that can't be reached is unknown, never zero; it keeps the incident open, and its re-encryption is queued all the
// same.
func TestUnreachableDataset(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		c.app.Exec(c, "ALTER TABLE patients RENAME TO elsewhere")
		e, err := c.Emergency(ctx, api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		c.must(err)
		if j := c.finish(e.Incident.Job); j.State != "done" {
			c.Fatalf("the emergency ended %s: %s", j.State, j.Error)
		}
		d := c.show(e.Incident.ID)
		set := d.Datasets[0]
		if d.Remaining != nil || set.Remaining != nil || set.Unknown == "" || set.Job == "" || len(set.Held) != 1 || set.Held[0].Rows != nil {
			c.Errorf("the incident: %+v, %+v", d.Remaining, set)
		}
		err = second(c.CloseIncident(ctx, e.Incident.ID, "done"))
		c.wants(err, api.CodeInUse, "incident")
		if !strings.Contains(fmt.Sprint(err), "nobody knows") {
			c.Errorf("refused because: %v", err)
		}
		c.app.Exec(c, "ALTER TABLE elsewhere RENAME TO patients")
		j := c.finish(set.Job)
		if j.State == "failed" {
			c.must(second(c.RetryJob(ctx, set.Job)))
			j = c.finish(set.Job)
		}
		if j.State != "done" {
			c.Fatalf("re-encryption ended %s: %s", j.State, j.Error)
		}
		c.must(second(c.CloseIncident(ctx, e.Incident.ID, "done")))
	})
}

// A dataset that is removed while values stand in it under a version of the incident keeps it open, and makes the version's retirement
// incomplete, whatever takes over its name; who may not force a destruction can't remove it at all.
func TestRemovedDatasetKeepsItOpen(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		kept := string(c.app.Rows(c, "SELECT ssn FROM patients WHERE id = 17")[0][0])
		e, _ := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		c.app.Exec(c, "UPDATE patients SET ssn = '"+kept+"' WHERE id = 17")
		admin := c.as(access.RoleKeyAdministrator)
		c.wants(admin.RemoveDataset(ctx, "patients"), api.CodeInUse, "dataset")
		if err := admin.RemoveDatasetAnyway(ctx, "patients", "x"); keyturn.CodeOf(err) != api.CodeDenied {
			c.Errorf("forced by a key administrator: %v", err)
		}
		c.wants(c.RemoveDatasetAnyway(ctx, "patients", ""), api.CodeInvalid, "reason")
		retired := func() (r api.Retirement) {
			doc, err := c.Retirement(ctx, "phi", 2)
			c.must(err)
			text, err := os.ReadFile(filepath.Join(c.dir, server.AuditKeyFile))
			c.must(err)
			key, err := audit.ParseKey(strings.TrimSpace(string(text)))
			c.must(err)
			file, err := json.Marshal(doc)
			c.must(err)
			r, err = audit.VerifyRetirement(file, key)
			c.must(err)
			return r
		}
		if r := retired(); !r.Complete || len(r.Removed) != 0 {
			c.Errorf("before: %+v", r)
		}
		c.must(c.RemoveDatasetAnyway(ctx, "patients", "dropped"))
		if d := c.show(e.Incident.ID); d.Remaining != nil || d.Datasets[0].Remaining != nil || d.Datasets[0].Unknown == "" {
			c.Errorf("left with values in it, %v remain in all: %+v", d.Remaining, d.Datasets)
		}
		if r := retired(); r.Complete || len(r.Removed) != 1 || !r.Removed[0].Left || r.Removed[0].Reason != "dropped" {
			c.Errorf("with values left: %+v", r)
		}
		c.app.Exec(c, "CREATE TABLE none (id bigint PRIMARY KEY, ssn text)")
		c.must(second(c.AddDataset(ctx, api.AddDatasetRequest{Name: "patients", DB: c.app.URL, Table: "none", Columns: map[string]string{"ssn": "phi"}})))
		err := second(c.CloseIncident(ctx, e.Incident.ID, "done"))
		c.wants(err, api.CodeInUse, "incident")
		if !strings.Contains(fmt.Sprint(err), "dataset patients, which was removed") {
			c.Errorf("refused because: %v", err)
		}
		c.must(second(c.CloseIncidentAnyway(ctx, e.Incident.ID, "the table was dropped")))
	})
}

// One that was removed after its values were moved held nothing: the sum is known, and the incident can be closed.
func TestRemovedDatasetThatHeldNothing(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		e, _ := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		c.must(c.RemoveDatasetAnyway(ctx, "patients", "moved elsewhere"))
		d := c.show(e.Incident.ID)
		if set := d.Datasets[0]; d.Remaining == nil || *d.Remaining != 0 || !set.Removed || set.Remaining == nil || *set.Remaining != 0 || set.Unknown != "" {
			c.Errorf("%v remain: %+v", d.Remaining, set)
		}
		c.must(second(c.CloseIncident(ctx, e.Incident.ID, "done")))
	})
}

// While values stand under a compromised version, the incident stays open: also when the application wrote them back.
func TestCloseIsRefusedWhileRowsRemain(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		kept := string(c.app.Rows(c, "SELECT ssn FROM patients WHERE id = 17")[0][0])
		e, d := c.emergency(api.EmergencyRequest{All: true, Reason: "x", Compromised: []api.IncidentVersion{{Key: "phi", Version: 2}}})
		if d.Rotated != 2 || *d.Remaining != 0 || c.states("pii") != "deactivated active" {
			c.Fatalf("%+v; pii is %s", d, c.states("pii"))
		}
		c.app.Exec(c, "UPDATE patients SET ssn = '"+kept+"' WHERE id = 17")
		err := second(c.CloseIncident(ctx, e.Incident.ID, "done"))
		c.wants(err, api.CodeInUse, "incident")
		if !strings.Contains(fmt.Sprint(err), "1 values in dataset patients") {
			c.Errorf("refused because: %v", err)
		}
		if d := c.show(e.Incident.ID); *d.Remaining != 1 || *d.Datasets[0].Remaining != 1 {
			c.Errorf("remaining: %+v", d.Datasets)
		}
		run, err := c.ReencryptDataset(ctx, "patients", api.DatasetRunRequest{})
		c.must(err)
		c.finish(run.Job)
		c.must(second(c.CloseIncident(ctx, e.Incident.ID, "done")))
	})
}

// A re-encryption that is under way is raised and ends under the new version; a paused one runs on.
func TestUnfinishedReencryptionIsRaised(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		c.must(second(c.RotateKey(ctx, "phi", api.RotateKeyRequest{})))
		run, err := c.ReencryptDataset(ctx, "patients", api.DatasetRunRequest{Rate: 2, BatchSize: 1, Workers: 1})
		c.must(err)
		c.must(second(c.PauseJob(ctx, run.Job)))
		if j := c.finish(run.Job); j.State != "paused" {
			c.Fatalf("the job ended before it could be paused: %s", j.State)
		}
		_, d := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		if set := d.Datasets[0]; set.Job != run.Job || set.JobState != "done" || *set.Remaining != 0 {
			c.Errorf("%+v, the job was %s", set, run.Job)
		}
		c.tells(d, "system: dataset patients holds ", "job "+run.Job+"; it was paused, and runs on")
		census, err := c.Census(ctx, "patients")
		c.must(err)
		if v := census.Columns[0].Versions; len(v) != 1 || v[0].Version != 4 || v[0].Rows != rows {
			c.Errorf("census: %+v", v)
		}
	})
}

// Another job that has the dataset steps aside, at whatever pace it was told to work, and keeps its place: the emergency waits for
// nothing, and says in its timeline whose work it passed.
func TestBusyDatasetHoldsNobodyUp(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		run, err := c.VerifyDataset(ctx, "patients", api.DatasetRunRequest{Rate: 1, BatchSize: 1}) // for a minute and a half
		c.must(err)
		c.until(run.Job, func(j api.Job) bool { return j.Done > 0 })
		e, err := c.Emergency(ctx, api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		c.must(err)
		c.until(run.Job, func(j api.Job) bool { return j.State == "queued" && strings.Contains(j.Error, "steps aside for job ") })
		if j := c.finish(e.Incident.Job); j.State != "done" {
			c.Fatalf("the emergency ended %s: %s", j.State, j.Error)
		}
		d := c.show(e.Incident.ID)
		if j := c.finish(d.Datasets[0].Job); j.State != "done" {
			c.Fatalf("re-encryption ended %s: %s", j.State, j.Error)
		}
		if d = c.show(e.Incident.ID); *d.Remaining != 0 {
			c.Errorf("%+v", d.Datasets)
		}
		j, err := c.Job(ctx, run.Job)
		c.must(err)
		if j.State == "done" || j.State == "failed" || j.Done == 0 {
			c.Errorf("what stepped aside is %s after %d rows: %s", j.State, j.Done, j.Error)
		}
		texts := ""
		for _, entry := range d.Timeline {
			texts += entry.Text + "\n"
		}
		if want := "; job " + run.Job + " (dataset-verify), begun by " + server.Administrator + ", steps aside until that has ended"; !strings.Contains(texts, want) {
			c.Errorf("the timeline lacks %q:\n%s", want, texts)
		}
		// What it had done is in the log before it waits, since nothing of it runs any more when it is cancelled.
		j, err = c.CancelJob(ctx, run.Job)
		c.must(err)
		var told int64
		for _, line := range c.events(keyturn.AuditQuery{Type: "reencryption"}) {
			var ev struct {
				Details struct {
					Job  string `json:"job"`
					Rows int64  `json:"rows"`
				} `json:"details"`
			}
			c.must(json.Unmarshal([]byte(line), &ev))
			if ev.Details.Job == run.Job {
				told += ev.Details.Rows
			}
		}
		if j.State != "cancelled" || j.Run.Rows == 0 || told != j.Run.Rows {
			c.Errorf("%s after %d rows, of which the log has %d", j.State, j.Run.Rows, told)
		}
	})
}

// A re-encryption that was told to be slow is not, once it answers an incident.
func TestRaisedReencryptionIsNotSlow(t *testing.T) {
	onBoth(t, func(c *clinic) {
		c.must(second(c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})))
		run, err := c.ReencryptDataset(c.Context(), "patients", api.DatasetRunRequest{Rate: 1, BatchSize: 1, Workers: 1})
		c.must(err)
		c.until(run.Job, func(j api.Job) bool { return j.Done > 0 })
		_, d := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
		if set := d.Datasets[0]; set.Job != run.Job || *set.Remaining != 0 {
			c.Errorf("%+v, the job was %s", set, run.Job)
		}
		if j := c.finish(run.Job); j.Run.Seconds > 60 { // 99 rows, one a second
			c.Errorf("it worked for %.0f s", j.Run.Seconds)
		}
	})
}

// A job that waits for a person is passed, too. While the re-encryption is unfinished, nothing else begins on the dataset, and what
// was begun before is still to be had.
func TestPausedJobIsPassed(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		run, err := c.ReencryptDataset(ctx, "patients", api.DatasetRunRequest{DryRun: true, Rate: 5, BatchSize: 1})
		c.must(err)
		c.must(second(c.PauseJob(ctx, run.Job)))
		if j := c.finish(run.Job); j.State != "paused" {
			c.Fatalf("the job ended before it could be paused: %s", j.State)
		}
		in := api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"}
		plan, err := c.PlanEmergency(ctx, in)
		c.must(err)
		if p := plan.Datasets[0]; !p.Moves || !strings.Contains(p.Problem, run.Job) {
			c.Errorf("planned: %+v", p)
		}
		c.app.Exec(c, "ALTER TABLE patients RENAME TO elsewhere") // so that the re-encryption waits
		e, err := c.Emergency(ctx, in)
		c.must(err)
		if j := c.finish(e.Incident.Job); j.State != "done" {
			c.Fatalf("the emergency ended %s: %s", j.State, j.Error)
		}
		moving := c.show(e.Incident.ID).Datasets[0].Job
		c.must(second(c.CancelJob(ctx, moving)))
		c.finish(moving)
		c.must(second(c.CancelJob(ctx, moving))) // changes nothing
		c.must(second(c.RetryJob(ctx, moving)))
		c.must(second(c.PauseJob(ctx, moving)))
		c.finish(moving)
		c.app.Exec(c, "ALTER TABLE elsewhere RENAME TO patients")
		_, err = c.VerifyDataset(ctx, "patients", api.DatasetRunRequest{})
		c.wants(err, api.CodeConflict, "dataset")
		if !strings.Contains(fmt.Sprint(err), moving) {
			c.Errorf("refused because: %v", err)
		}
		for _, dry := range []bool{true, false} {
			again, err := c.ReencryptDataset(ctx, "patients", api.DatasetRunRequest{DryRun: dry})
			c.must(err)
			if want := map[bool]string{true: run.Job, false: moving}[dry]; again.Job != want {
				c.Errorf("dry run %t: job %s, want %s", dry, again.Job, want)
			}
		}
		c.must(second(c.ResumeJob(ctx, moving)))
		if j := c.finish(moving); j.State != "done" {
			c.Fatalf("re-encryption ended %s: %s", j.State, j.Error)
		}
		// What a person did to the incident's job is in its timeline, once; what was done to others isn't.
		d := c.show(e.Incident.ID)
		for _, verb := range []string{"cancelled", "retried", "paused", "resumed"} {
			c.tells(d, server.Administrator+": job "+moving+" (dataset-reencrypt, dataset/patients) was "+verb)
		}
		c.must(second(c.ResumeJob(ctx, run.Job)))
		c.must(second(c.CancelJob(ctx, run.Job)))
		c.must(second(c.CloseIncident(ctx, e.Incident.ID, "done")))
	})
}

// tells fails unless exactly one entry of the timeline, as "BY: TEXT", holds all of the texts.
func (c *clinic) tells(d api.IncidentDetail, texts ...string) {
	c.Helper()
	var timeline []string
	found := 0
	for _, e := range d.Timeline {
		entry := e.By + ": " + e.Text
		timeline = append(timeline, entry)
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(entry, text) }) {
			found++
		}
	}
	if found != 1 {
		c.Errorf("%d entries tell %q:\n%s", found, texts, strings.Join(timeline, "\n"))
	}
}

// until watches a job until it is as want says.
func (c *clinic) until(job string, want func(api.Job) bool) (last api.Job) {
	c.Helper()
	for j, err := range c.WatchJob(c.Context(), job) {
		c.must(err)
		if last = j; want(j) {
			return j
		}
	}
	c.Fatalf("the job ended %s", last.State)
	return last
}

// Whoever had a dataset decrypted may have used every version of its key, and is named; so are those who may.
func TestWorkOnDatasetsIsUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clinic.db")
	db := sqlitetest.Open(t, path)
	c := newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: db})
	run, err := c.DecryptDataset(t.Context(), "patients", api.DatasetRunRequest{})
	c.must(err)
	c.finish(run.Job)
	i, err := c.OpenIncident(t.Context(), api.OpenIncidentRequest{Type: "insider", Severity: "high", Reason: "x", Versions: []api.IncidentVersion{{Key: "phi", Version: 1}, {Key: "phi", Version: 2}, {Key: "pii", Version: 1}}})
	c.must(err)
	c.finish(i.Job)
	for _, u := range c.show(i.ID).Uses {
		did := slices.ContainsFunc(u.Did, func(who api.IncidentUser) bool { return who.User == server.Administrator && who.Possible > 0 })
		may := slices.ContainsFunc(u.Could, func(p api.IncidentPrincipal) bool { return slices.Contains(p.Actions, string(access.DatasetDecrypt)) })
		if of := u.Key == "phi"; did != of || may != of {
			t.Errorf("%s version %d: did %v, could %v", u.Key, u.Version, u.Did, u.Could)
		}
	}
}

// Nobody closes an incident by making what it is about unreadable, or by writing that its job is done.
func TestCloseFailsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clinic.db")
	app := sqlitetest.Open(t, path)
	c := newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: app})
	db := sqlitetest.Open(t, filepath.Join(c.dir, "keyturn.db"))
	write := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}

	kept := string(c.app.Rows(c, "SELECT ssn FROM patients WHERE id = 17")[0][0])
	e, _ := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"})
	c.app.Exec(t, "UPDATE patients SET ssn = '"+kept+"' WHERE id = 17")
	var mac string
	if err := db.QueryRowContext(t.Context(), "SELECT mac FROM keys WHERE name = 'phi'").Scan(&mac); err != nil {
		t.Fatal(err)
	}
	write("UPDATE keys SET mac = 'another' WHERE name = 'phi'")
	c.wants(second(c.CloseIncident(t.Context(), e.Incident.ID, "done")), api.CodeInUse, "incident")
	if d := c.show(e.Incident.ID); d.Remaining != nil || d.Datasets[0].Remaining != nil || d.KeyProgress[0].Problem == "" {
		t.Errorf("%+v", d)
	}
	write("UPDATE keys SET mac = ? WHERE name = 'phi'", mac)
	if d := c.show(e.Incident.ID); d.Remaining == nil || *d.Remaining != 1 {
		t.Errorf("%+v", d)
	}

	write("CREATE TRIGGER idle AFTER INSERT ON jobs WHEN new.kind = 'emergency-rotate' BEGIN UPDATE jobs SET state = 'done' WHERE id = new.id; END")
	idle, err := c.Emergency(t.Context(), api.EmergencyRequest{Keys: []string{"pii"}, Reason: "x"})
	c.must(err)
	if d := c.show(idle.Incident.ID); d.JobState != "done" || d.Rotated != 0 {
		t.Fatalf("%+v", d)
	}
	c.wants(second(c.CloseIncident(t.Context(), idle.Incident.ID, "done")), api.CodeInUse, "incident")
}

// The retirements of a key's versions verify, and say of those that an emergency marked, and of no other, that they are
// compromised.
func TestRetirementsAfterAnEmergency(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clinic.db")
	db := sqlitetest.Open(t, path)
	c := newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: db})
	run, err := c.ReencryptDataset(t.Context(), "patients", api.DatasetRunRequest{}) // before version 2 is followed: no moving away from it
	c.must(err)
	c.finish(run.Job)
	e, _ := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Compromised: []api.IncidentVersion{{Key: "phi", Version: 1}, {Key: "phi", Version: 2}}})
	text, err := os.ReadFile(filepath.Join(c.dir, server.AuditKeyFile))
	c.must(err)
	key, err := audit.ParseKey(strings.TrimSpace(string(text)))
	c.must(err)
	for version, compromised := range map[uint32]bool{1: true, 2: true, 3: false} {
		doc, err := c.Retirement(t.Context(), "phi", version)
		c.must(err)
		file, err := json.Marshal(doc)
		c.must(err)
		r, err := audit.VerifyRetirement(file, key)
		if err != nil || (r.Compromised != nil) != compromised || compromised != (r.State == "compromised") {
			t.Errorf("version %d of an emergency (%s): %v; %s", version, e.Incident.ID, err, doc.Statement)
		}
		if version == 2 && (len(r.Datasets) != 1 || r.Datasets[0].RowsMoved != rows || r.Datasets[0].ZeroSince == nil) {
			t.Errorf("version 2: %s", doc.Statement)
		}
	}
}
