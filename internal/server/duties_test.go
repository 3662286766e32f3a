package server

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/sqlitetest"
	"github.com/keyturn/keyturn/internal/store"
)

// with makes a principal that has more actions than its role, and gives its token.
func (c caller) with(t testing.TB, name, role string, allow ...access.Action) string {
	t.Helper()
	var p api.Principal
	in := api.CreatePrincipalRequest{Name: name, Role: role, Scope: []string{"*"}}
	for _, a := range allow {
		in.Allow = append(in.Allow, string(a))
	}
	c.must(t, "POST", "/v1/principals", in, &p)
	return p.Token
}

// Who runs keys doesn't get to use them through a table of his own: registering one takes the right to use its keys, and
// so does everything that puts values back in clear, whether it is asked for as a run or as the retry of somebody's job.
func TestRunningKeysIsNotUsingThem(t *testing.T) {
	s, admin := populated(t)
	file := filepath.Join(t.TempDir(), "own.db")
	sqlitetest.Exec(t, file, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)`)
	s.opts.Environ = append(environOr(s.opts.Environ), "KEYTURN_DATASET_OWN=sqlite://"+file)
	officer, trusted, decryptor := inside(s), inside(s), inside(s)
	officer.token = admin.principal(t, "officer", "key-administrator")
	trusted.token = admin.with(t, "trusted", "key-administrator", access.KeyEncrypt, access.KeyDecrypt)
	decryptor.token = admin.with(t, "decryptor", "key-administrator", access.DatasetDecrypt)

	own := api.AddDatasetRequest{Name: "own", DBEnv: "KEYTURN_DATASET_OWN", Table: "t", Columns: map[string]string{"v": "phi"}}
	status, answer := officer.call(t, "POST", "/v1/datasets", own)
	if status != 403 || !bytes.Contains(answer, []byte("--allow key.encrypt")) {
		t.Errorf("registering: %d %s", status, answer)
	}
	trusted.must(t, "POST", "/v1/datasets", own, nil)
	officer.must(t, "POST", "/v1/datasets/own/encrypt", api.DatasetRunRequest{DryRun: true}, nil)

	// The job of the owner's decryption, which the owner cancelled.
	for _, c := range []caller{officer, decryptor} {
		if status, answer := c.call(t, "POST", "/v1/datasets/patients/decrypt", nil); status != 403 {
			t.Errorf("decrypting: %d %s", status, answer)
		}
	}
	id := cancelled(t, s, "dataset-decrypt", "patients")
	for _, verb := range []string{"retry", "resume"} {
		for name, c := range map[string]caller{"officer": officer, "trusted": trusted, "decryptor": decryptor} {
			if status, answer := c.call(t, "POST", "/v1/jobs/"+id+"/"+verb, nil); status != 403 {
				t.Errorf("%s by %s: %d %s", verb, name, status, answer)
			}
		}
	}
	var shown api.Job
	if admin.must(t, "GET", "/v1/jobs/"+id, nil, &shown); shown.State != string(jobs.Cancelled) {
		t.Errorf("the job is %s", shown.State)
	}
	admin.must(t, "POST", "/v1/jobs/"+id+"/retry", nil, nil)
}

// Who brings candidate keys and an expectation learns from the counts what stands in the rows: he must be allowed to open
// and to seal under the columns' keys. His keys are nowhere in what is answered.
func TestImportingIsUsingKeys(t *testing.T) {
	s, admin := populated(t)
	officer, trusted := inside(s), inside(s)
	officer.token = admin.principal(t, "officer", "key-administrator")
	trusted.token = admin.with(t, "trusted", "key-administrator", access.KeyEncrypt, access.KeyDecrypt)
	half := inside(s)
	half.token = admin.with(t, "half", "key-administrator", access.KeyEncrypt)
	in := func() api.DatasetRunRequest {
		return api.DatasetRunRequest{DryRun: true, From: &api.DatasetSource{Format: "pgcrypto", Keys: [][]byte{[]byte("CANARY-pass-90c4")}}}
	}
	for name, c := range map[string]caller{"officer": officer, "half": half} {
		if status, answer := c.call(t, "POST", "/v1/datasets/patients/encrypt", in()); status != 403 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	status, answer := trusted.call(t, "POST", "/v1/datasets/patients/encrypt", in())
	if status >= 300 || bytes.Contains(answer, []byte("CANARY")) || !bytes.Contains(answer, []byte(`"from":"pgcrypto"`)) {
		t.Errorf("trusted: %d %s", status, answer)
	}
	var run api.DatasetRun
	if err := json.Unmarshal(answer, &run); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]caller{"officer": officer, "half": half} {
		if status, answer := c.call(t, "POST", "/v1/jobs/"+run.Job+"/resume", nil); status != 403 {
			t.Errorf("resuming by %s: %d %s", name, status, answer)
		}
	}
}

// cancelled puts a job on a dataset into the store that its owner has cancelled.
func cancelled(t testing.TB, s *Server, kind, dataset string) string {
	t.Helper()
	id, err := jobs.NewID(s.opts.Clock(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	err = s.store.Change(t.Context(), func(tx store.Tx) error {
		d, err := tx.Dataset(t.Context(), dataset)
		if err != nil {
			return err
		}
		args := fmt.Sprintf(`{"dataset":%q,"id":%q}`, d.Name, d.ID)
		j, err := jobs.New(id, jobs.Job{Kind: kind, Subject: "dataset/" + dataset, Args: []byte(args), Actor: "owner"}, s.opts.Clock())
		if err != nil {
			return err
		}
		j.State, j.Finished = jobs.Cancelled, s.opts.Clock().UTC()
		_, _, err = tx.InsertJob(t.Context(), j)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A dataset's connection is read from variables that were set for datasets, and from no other: of the rest a request
// doesn't even learn whether they are set.
func TestOnlyDatasetVariablesAreRead(t *testing.T) {
	s, admin := populated(t)
	const canary = "CANARY-env-61b2"
	s.opts.Environ = []string{"AWS_SECRET_ACCESS_KEY=" + canary, "HOME=sqlite:///" + canary, "KEYTURN_DATASET_A=sqlite:///nowhere.db"}
	answers := map[string]bool{}
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "HOME", "UNSET", "keyturn_dataset_a", "KEYTURN_DATASET_"} {
		status, answer := admin.call(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "x", DBEnv: name, Table: "t", Columns: map[string]string{"c": "phi"}})
		var p api.Problem
		if err := json.Unmarshal(answer, &p); err != nil || status != 400 || p.Field != "dbEnv" {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		answers[p.Detail] = true
	}
	if len(answers) != 1 {
		t.Errorf("the answers tell variables apart: %v", answers)
	}
	if status, answer := admin.call(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "x", DBEnv: "KEYTURN_DATASET_A", Table: "t", Columns: map[string]string{"c": "phi"}}); status != 404 {
		t.Errorf("one that is meant: %d %s", status, answer)
	}
}
