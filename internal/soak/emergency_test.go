package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// emergencies is how many keys an emergency of these tests rotates, phi among them.
const emergencies = 6

// ward is a store with some keys, and a table under phi.
func ward(t *testing.T, k *Keyturn) *application {
	t.Helper()
	for i := 1; i < emergencies; i++ {
		k.OK(nil, "key", "create", fmt.Sprintf("k%d", i))
	}
	path := filepath.Join(t.TempDir(), "app.db")
	app := newApplication(t, path)
	k.OK(nil, "dataset", "add", "patients", "--db", "sqlite://"+path, "--table", "patients", "--column", "ssn=phi",
		"--context", "table={table}", "--context", "patient={pk.id}")
	k.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	return app
}

// active is the active version of phi.
func active(k *Keyturn) (n uint32) {
	var key api.Key
	k.JSON(&key, "key", "show", "phi")
	for _, v := range key.Versions {
		if v.State == "active" {
			n = v.Version
		}
	}
	return n
}

// goOn takes up what a killed emergency left, as a person would: it watches the jobs that haven't ended, and if the incident
// was never opened, begins anew. It answers the incident.
func goOn(t *testing.T, k *Keyturn, before int, emergency []string) api.IncidentDetail {
	t.Helper()
	var list api.IncidentList
	k.JSON(&list, "incident", "list")
	if len(list.Incidents) == before {
		k.OK(nil, emergency...)
		k.JSON(&list, "incident", "list")
	}
	if len(list.Incidents) != before+1 {
		t.Fatalf("%d incidents, want %d", len(list.Incidents), before+1)
	}
	k.OK(nil, "job", "watch", list.Incidents[0].Job)
	var d api.IncidentDetail
	k.JSON(&d, "incident", "show", list.Incidents[0].ID)
	for _, set := range d.Datasets {
		k.OK(nil, "job", "watch", set.Job)
	}
	k.JSON(&d, "incident", "show", list.Incidents[0].ID)
	return d
}

// assertAnswered checks that an emergency ended as if nothing had happened: every key rotated once, the version marked,
// the rows moved, each step recorded once, and the incident can be closed.
func assertAnswered(t *testing.T, k *Keyturn, d api.IncidentDetail, compromised uint32) {
	t.Helper()
	if d.JobState != "done" || d.Rotated != emergencies || len(d.KeyProgress) != emergencies || d.Remaining == nil || *d.Remaining != 0 {
		t.Fatalf("the incident: job %s, %d rotated, remaining %v", d.JobState, d.Rotated, d.Remaining)
	}
	for _, p := range d.KeyProgress {
		if p.Active != p.From+1 {
			t.Fatalf("key %s was at version %d and is at %d: not rotated once", p.Key, p.From, p.Active)
		}
		if p.Key == "phi" && (len(p.Versions) != 1 || p.Versions[0].Version != compromised || p.Versions[0].State != "compromised") {
			t.Fatalf("phi: %+v", p)
		}
	}
	if len(d.Datasets) != 1 || d.Datasets[0].Held[0].Rows == nil || len(d.Uses) != 1 {
		t.Fatalf("scope: %+v, %+v", d.Datasets, d.Uses)
	}
	for _, text := range []string{"alert raised", "keys have a new version", "re-encryption is queued", "could use it"} {
		found := 0
		for _, e := range d.Timeline {
			if strings.Contains(e.Text, text) {
				found++
			}
		}
		if found != 1 {
			t.Fatalf("%d entries say %q: %+v", found, text, d.Timeline)
		}
	}
	file := filepath.Join(t.TempDir(), d.Incident.ID+".json")
	k.OK(nil, "incident", "report", d.Incident.ID, "--format", "json", "--out", file)
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(report), `"action": "rotated"`); n != emergencies {
		t.Fatalf("%d rotations in the report, want %d", n, emergencies)
	}
	k.OK(nil, "incident", "close", d.Incident.ID, "--reason", "campaign")
	assertOnlyActive(t, k)
	assertStore(t, k)
}

// TestCampaignKillEmergency kills `key rotate --all --emergency` at random moments, and goes on by watching its jobs: P5.
func TestCampaignKillEmergency(t *testing.T) {
	rng, seed := Seed(t)
	budget := NewBudget(t, 6)
	k := New(t)
	app := ward(t, k)
	kills, incidents := 0, 0
	for i := 0; budget.More(i); i++ {
		compromised := active(k)
		emergency := []string{"key", "rotate", "--all", "--emergency", "--reason", "campaign", "--compromised", fmt.Sprintf("phi:%d", compromised)}
		_, killed, _ := k.KillAfter(time.Duration(rng.Int64N(int64(600*time.Millisecond))), nil, emergency...)
		kills += count(killed)
		for range rng.IntN(3) { // and whatever takes it up is killed, too
			var list api.JobList
			k.JSON(&list, "job", "list")
			for _, j := range list.Jobs {
				if j.Kind == "emergency-rotate" && j.State != "done" {
					_, killed, _ := k.KillAfter(time.Duration(rng.Int64N(int64(300*time.Millisecond))), nil, "job", "watch", j.ID)
					kills += count(killed)
				}
			}
		}
		assertAnswered(t, k, goOn(t, k, incidents, emergency), compromised)
		incidents++
	}
	app.check(k)
	Report("kill-emergency", seed, "%d kills over %d incidents of %d keys and %d rows: every key rotated once, 0 rows on a compromised version, all closed", kills, incidents, emergencies, patients)
}

// TestEmergencyAtFailpoints ends the process at every place of an emergency where a crash could leave something half done.
func TestEmergencyAtFailpoints(t *testing.T) {
	path := Failing(t)
	for room, points := range map[string][]string{ // each in a store of its own, beside one another
		"incident":  {"inside-open:1", "after-open:1", "after-step:1", "after-step:2", "after-step:3", "after-step:4"},
		"kms":       {"inside-emergency:1", "inside-emergency:4", "after-emergency:1", "after-emergency:6"},
		"runner":    {"after-claim:1", "before-settle:1", "inside-settle:1", "after-settle:1"},
		"reencrypt": {"before-save:1"},
	} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			k := New(t)
			app := ward(t, k)
			for n, point := range points {
				compromised := active(k)
				emergency := []string{"key", "rotate", "--all", "--emergency", "--reason", "at " + strings.ReplaceAll(point, ":", " hit "), "--compromised", fmt.Sprintf("phi:%d", compromised)}
				k.path, k.Env = path, []string{"KEYTURN_FAIL=" + room + "/" + point}
				_, stderr, exit := k.Run(nil, emergency...)
				k.path, k.Env = Binary(t), nil
				if exit != 137 {
					t.Fatalf("%s/%s wasn't met: exit %d\n%s", room, point, exit, stderr)
				}
				assertAnswered(t, k, goOn(t, k, n, emergency), compromised)
			}
			app.check(k)
		})
	}
}
