package rotation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the application's own database

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// house is a whole store on SQLite whose clock the test sets, asked by the SDK's client.
type house struct {
	*testing.T
	*keyturn.Client
	s   *server.Server
	dir string

	ahead atomic.Int64 // of the real clock, which jobs that wait for one another need; in nanoseconds
}

func (h *house) clock() time.Time {
	return time.Now().UTC().Add(time.Duration(h.ahead.Load()))
}

func (h *house) pass(d time.Duration) { h.ahead.Add(int64(d)) }

func open(t *testing.T, yaml string) *house {
	t.Helper()
	base, err := os.MkdirTemp("", "kt") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := filepath.Join(base, "d")
	h := &house{T: t, dir: dir}
	if _, err := server.Init(t.Context(), dir, server.InitOptions{Embedded: true, Environ: []string{}}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, server.ConfigFile), os.O_APPEND|os.O_WRONLY, 0)
	h.must(err)
	_, err = f.WriteString(yaml)
	h.must(err)
	h.must(f.Close())
	h.s, err = server.Open(t.Context(), dir, server.Options{Embedded: true, Environ: []string{}, Clock: h.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.s.Close(context.Background()) })
	h.Client = keyturn.NewClient(h.s.InProcess())
	return h
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("%v (%v)", err, keyturn.CodeOf(err))
	}
}

// end waits for a job.
func (h *house) end(id string) (last api.Job) {
	h.Helper()
	for j, err := range h.WatchJob(h.Context(), id) {
		h.must(err)
		last = j
	}
	return last
}

// ends waits for every job of a kind that there is.
func (h *house) ends(kind string) (ended []api.Job) {
	h.Helper()
	list, err := h.Jobs(h.Context(), keyturn.JobFilter{})
	h.must(err)
	for _, j := range list.Jobs {
		if j.Kind == kind {
			ended = append(ended, h.end(j.ID))
		}
	}
	return ended
}

func (h *house) key(name, purpose, period string) {
	h.Helper()
	_, err := h.CreateKey(h.Context(), api.CreateKeyRequest{Name: name, Purpose: purpose, Period: period})
	h.must(err)
}

func (h *house) run(in api.RotationRunRequest) api.RotationRun {
	h.Helper()
	run, err := h.RunRotation(h.Context(), in)
	h.must(err)
	if run.Job != "" {
		if j := h.end(run.Job); j.State != "done" {
			h.Fatalf("%+v", j)
		}
	}
	return run
}

const day = 24 * time.Hour

// What is overdue comes first, the longest overdue before the others; then what is next; on demand last. A run takes them in
// that order, as many as it may, and a dry run takes none.
func TestStatusAndRun(t *testing.T) {
	h := open(t, "")
	h.key("c-ten", "", "10d")
	h.key("a-forty", "", "40d")
	h.key("b-twenty", "", "20d")
	h.key("d-never", "", "0")
	h.pass(30 * day)
	status, err := h.RotationStatus(t.Context())
	h.must(err)
	var names []string
	for _, k := range status.Keys {
		names = append(names, fmt.Sprintf("%s %t %t %t", k.Name, k.Overdue, k.DueSoon, k.Next != nil))
	}
	want := []string{"c-ten true false true", "b-twenty true false true", "a-forty false false true", "d-never false false false"}
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if dry := h.run(api.RotationRunRequest{DryRun: true}); dry.Due != 2 || dry.Job != "" || len(dry.Keys) != 2 {
		t.Errorf("%+v", dry)
	}
	if one := h.run(api.RotationRunRequest{Max: 1}); one.Due != 1 || one.Keys[0].Name != "c-ten" {
		t.Errorf("%+v", one)
	}
	if rest := h.run(api.RotationRunRequest{}); rest.Due != 1 || rest.Keys[0].Name != "b-twenty" {
		t.Errorf("%+v", rest)
	}
	if none := h.run(api.RotationRunRequest{}); none.Due != 0 || none.Job != "" || none.Keys == nil {
		t.Errorf("%+v", none)
	}
	h.ends("rotation-followup")
	history, err := h.RotationHistory(t.Context(), "", "", 0)
	h.must(err)
	if len(history.Rotations) != 2 {
		t.Fatalf("%+v", history)
	}
	for _, r := range history.Rotations {
		if r.OldVersion != 1 || r.NewVersion != 2 || r.Actor != "owner" || r.Reason != "rotation_run" || r.SelfCheck != "ok" {
			t.Errorf("%+v", r)
		}
	}
	page, err := h.RotationHistory(t.Context(), "", "", 1)
	h.must(err)
	next, err := h.RotationHistory(t.Context(), "", page.Next, 1)
	h.must(err)
	if page.Rotations[0].Key == next.Rotations[0].Key {
		t.Error("two pages show the same rotation")
	}
	for _, bad := range []string{"x", "1.2.3", page.Next + "0x"} {
		if _, err := h.RotationHistory(t.Context(), "", bad, 1); keyturn.CodeOf(err) != api.CodeInvalid {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

// A key whose policy says so has its datasets moved after a rotation that keyturn makes, and the history counts the rows.
func TestRotationMovesTheDatasets(t *testing.T) {
	h := open(t, "policies:\n  clinic: {purpose: phi, period: 30d, schedule: none, reencrypt: true, concurrency: 1, attempts: 2}\n")
	h.key("phi", "phi", "")
	var files []string
	for i := range 2 {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("app%d.db", i))
		files = append(files, file)
		h.sql(file, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO patients SELECT i, 'number ' || i FROM n`)
		name := fmt.Sprintf("set%d", i)
		_, err := h.AddDataset(t.Context(), api.AddDatasetRequest{Name: name, DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi"}})
		h.must(err)
		run, err := h.EncryptDataset(t.Context(), name, api.DatasetRunRequest{Unthrottled: true})
		h.must(err)
		h.end(run.Job)
	}
	h.pass(31 * day)
	h.run(api.RotationRunRequest{})
	for _, kind := range []string{"rotation-followup", "dataset-reencrypt"} {
		for _, j := range h.ends(kind) {
			if j.State != "done" {
				t.Errorf("%+v", j)
			}
		}
	}
	for i := range files {
		c, err := h.Census(t.Context(), fmt.Sprintf("set%d", i))
		h.must(err)
		if v := c.Columns[0].Versions; len(v) != 1 || v[0].Version != 2 || v[0].Rows != 500 {
			t.Errorf("set%d: %+v", i, v)
		}
	}
	history, err := h.RotationHistory(t.Context(), "phi", "", 0)
	h.must(err)
	if r := history.Rotations; len(r) != 1 || r[0].Rows != 1000 || r[0].SelfCheck != "ok" {
		t.Errorf("%+v", r)
	}
	doc, err := h.Retirement(t.Context(), "phi", 1)
	h.must(err)
	if !strings.Contains(doc.Statement, `"rowsMoved":500`) || len(doc.Proofs) < 4 {
		t.Errorf("%d proofs; %s", len(doc.Proofs), doc.Statement)
	}
}

// Rows of another key's column in the same table are no rows of the version, and moving them says nothing of it.
func TestRetirementCountsItsOwnRows(t *testing.T) {
	h := open(t, "")
	h.key("phi", "phi", "")
	h.key("pii", "pii", "")
	file := filepath.Join(t.TempDir(), "app.db")
	h.sql(file, "CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT, name TEXT); INSERT INTO patients VALUES (1, 'one', 'Ann'), (2, 'two', 'Bob'), (3, NULL, 'Cid')")
	_, err := h.AddDataset(t.Context(), api.AddDatasetRequest{Name: "patients", DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi", "name": "pii"}})
	h.must(err)
	run, err := h.EncryptDataset(t.Context(), "patients", api.DatasetRunRequest{})
	h.must(err)
	h.end(run.Job)
	var told []string
	var first time.Time
	for _, key := range []string{"phi", "pii"} {
		_, err = h.RotateKey(t.Context(), key, api.RotateKeyRequest{})
		h.must(err)
		run, err = h.ReencryptDataset(t.Context(), "patients", api.DatasetRunRequest{})
		h.must(err)
		h.end(run.Job)
		if first.IsZero() {
			first = h.clock()
			h.pass(day)
		}
	}
	for line, err := range h.TailAudit(t.Context(), false, keyturn.AuditQuery{Type: "reencryption", Resource: "dataset/patients"}) {
		h.must(err)
		if _, moved, ok := strings.Cut(string(line), `"moved":"`); ok {
			moved, _, _ = strings.Cut(moved, `"`)
			told = append(told, moved)
		}
	}
	if !slices.Equal(told, []string{"phi:1=2", "pii:1=3"}) {
		t.Errorf("events say %q", told)
	}
	for key, rows := range map[string]int64{"phi": 2, "pii": 3} {
		doc, err := h.Retirement(t.Context(), key, 1)
		h.must(err)
		var r api.Retirement
		h.must(json.Unmarshal([]byte(doc.Statement), &r))
		if len(r.Datasets) != 1 || r.Datasets[0].RowsMoved != rows || r.Datasets[0].ZeroSince == nil || r.Datasets[0].ZeroSince.After(first) != (key == "pii") {
			t.Errorf("%s: %s", key, doc.Statement)
		}
	}
}

// A dry run moves nothing, and neither does it in the evidence.
func TestDryRunIsNoEvidence(t *testing.T) {
	h := open(t, "")
	h.key("phi", "phi", "")
	file := filepath.Join(t.TempDir(), "app.db")
	h.sql(file, "CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT); INSERT INTO patients VALUES (1, 'one'), (2, 'two')")
	_, err := h.AddDataset(t.Context(), api.AddDatasetRequest{Name: "patients", DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi"}})
	h.must(err)
	run, err := h.EncryptDataset(t.Context(), "patients", api.DatasetRunRequest{})
	h.must(err)
	h.end(run.Job)
	_, err = h.RotateKey(t.Context(), "phi", api.RotateKeyRequest{})
	h.must(err)
	run, err = h.ReencryptDataset(t.Context(), "patients", api.DatasetRunRequest{DryRun: true})
	h.must(err)
	if j := h.end(run.Job); j.State != "done" || j.Run == nil || j.Run.Changed != 2 {
		t.Fatalf("%+v", j)
	}
	doc, err := h.Retirement(t.Context(), "phi", 1)
	h.must(err)
	if !strings.Contains(doc.Statement, `"rows":2`) || strings.Contains(doc.Statement, "rowsMoved") || strings.Contains(doc.Statement, `"zeroSince":"`) {
		t.Error(doc.Statement)
	}
}

// A key that could not be rotated stands on the job's list; job retry takes it up again, once what kept it is mended.
func TestRetryOfWhatWasGivenUp(t *testing.T) {
	h := open(t, "")
	h.key("bad", "", "10d")
	h.key("good", "", "10d")
	db := sqlitetest.Open(t, filepath.Join(h.dir, "keyturn.db"))
	change := func(to int) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `UPDATE keys SET suspended_decrypts = $1 WHERE name = 'bad'`, to)
		h.must(err)
	}
	change(1) // not by keyturn: the row's MAC says so
	h.pass(11 * day)
	run, err := h.RunRotation(t.Context(), api.RotationRunRequest{})
	h.must(err)
	if j := h.end(run.Job); j.State != "failed" || !strings.Contains(j.Error, "1 key could not be rotated") {
		t.Errorf("%+v", j)
	}
	left := func() []api.JobFailure {
		t.Helper()
		list, err := h.JobFailures(t.Context(), run.Job, 0, 0)
		h.must(err)
		return list.Failures
	}
	if f := left(); len(f) != 1 || f[0].Item != "bad" {
		t.Fatalf("%+v", f)
	}
	if j, err := h.Job(t.Context(), run.Job); err != nil || j.Done != 1 || j.Total != 2 {
		t.Errorf("%+v, %v", j, err)
	}
	for _, to := range []int{1, 0} { // in vain, and then not
		change(to)
		_, err = h.RetryJob(t.Context(), run.Job)
		h.must(err)
		if j, want := h.end(run.Job), map[int]string{1: "failed", 0: "done"}[to]; j.State != want {
			t.Errorf("%+v, want %s", j, want)
		}
		if f := left(); len(f) != to {
			t.Errorf("%+v", f)
		}
	}
	for _, name := range []string{"bad", "good"} {
		history, err := h.RotationHistory(t.Context(), name, "", 0)
		h.must(err)
		if len(history.Rotations) != 1 {
			t.Errorf("%s: %+v", name, history)
		}
	}
	for _, j := range h.ends("rotation-followup") {
		if j.State != "done" || j.Done != 1 || j.Total != 1 {
			t.Errorf("%+v", j)
		}
	}
}

// The job of who may rotate some keys rotates no others, however late it runs: what falls due after the request isn't hers.
func TestRunStaysInScope(t *testing.T) {
	h := open(t, "")
	h.key("a", "", "10d")
	h.key("b", "", "20d")
	p, err := h.CreatePrincipal(t.Context(), api.CreatePrincipalRequest{Name: "ann", Role: "key-administrator", Scope: []string{"key/a", "job/*"}})
	h.must(err)
	ann := keyturn.NewClient(h.s.InProcess(), keyturn.WithToken(p.Token))
	db := sqlitetest.Open(t, filepath.Join(h.dir, "keyturn.db"))
	change := func(to int) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `UPDATE keys SET suspended_decrypts = $1 WHERE name = 'a'`, to)
		h.must(err)
	}
	change(1) // a's row isn't what keyturn signed: her job gives it up, to be retried once b is due too
	h.pass(11 * day)
	run, err := ann.RunRotation(t.Context(), api.RotationRunRequest{})
	h.must(err)
	if j := h.end(run.Job); run.Due != 1 || j.State != "failed" {
		t.Fatalf("%+v %+v", run, j)
	}
	change(0)
	h.pass(10 * day)
	_, err = ann.RetryJob(t.Context(), run.Job)
	h.must(err)
	if j := h.end(run.Job); j.State != "done" {
		t.Fatalf("%+v", j)
	}
	for name, want := range map[string]int{"a": 2, "b": 1} {
		if k, err := h.Key(t.Context(), name); err != nil || len(k.Versions) != want {
			t.Errorf("%s: %+v, %v; want %d versions", name, k, err, want)
		}
	}
	run, err = h.RunRotation(t.Context(), api.RotationRunRequest{})
	h.must(err)
	if j := h.end(run.Job); run.Due != 1 || j.State != "done" {
		t.Fatalf("%+v %+v", run, j)
	}
	if _, err := ann.RetryJob(t.Context(), run.Job); keyturn.CodeOf(err) != api.CodeDenied { // it may rotate every key
		t.Errorf("retrying a job of the owner's: %v", err)
	}
}

// Several who ask at once have each key rotated once.
func TestRunsAtOnce(t *testing.T) {
	h := open(t, "")
	for i := range 20 {
		h.key(fmt.Sprintf("k%d", i), "", "10d")
	}
	h.pass(11 * day)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			run, err := h.RunRotation(t.Context(), api.RotationRunRequest{Max: 5 + 5*i})
			if err != nil {
				t.Errorf("%v", err)
			} else if run.Job != "" {
				h.end(run.Job)
			}
		})
	}
	wg.Wait()
	for k, err := range h.AllKeys(t.Context()) {
		h.must(err)
		if len(k.Versions) != 2 {
			t.Errorf("%s has %d versions", k.Name, len(k.Versions))
		}
	}
}

// What the server does by itself, on a clock that the test moves: the check at its start, what falls due, the warning before,
// and the health check.
func TestServerRotatesByItself(t *testing.T) {
	h := open(t, "listen: []\n")
	h.key("short", "", "20d")
	h.key("soon", "", "45d")
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.s.Serve(ctx) }()
	defer func() { stop(); h.must(<-served) }()
	await := func(typ, action, resource string) {
		t.Helper()
		for line, err := range h.TailAudit(t.Context(), true, keyturn.AuditQuery{Type: typ, Resource: resource}) {
			h.must(err)
			if strings.Contains(string(line), `"action":"`+action+`"`) {
				return
			}
		}
		t.Fatalf("no event %s of %s", action, resource)
	}
	await("key_rotation", "rotation_checked", "key")
	h.pass(40 * day)
	await("key_rotation", "rotated", "key/short")
	await("key_rotation", "self_checked", "key/short")
	await("alert", "rotation_due_soon", "key/soon")
	await("key_rotation", "rotation_health_checked", "system")
	list, err := h.Jobs(t.Context(), keyturn.JobFilter{})
	h.must(err)
	if len(list.Planned) != 2 || list.Planned[0].Name != "rotation-check" || list.Planned[0].Last == nil || list.Planned[1].Cron != "0 */4 * * *" {
		t.Errorf("%+v", list.Planned)
	}
}

func TestPoliciesAreChecked(t *testing.T) {
	h := open(t, "policies:\n  yaml: {environment: staging, warn: 3d}\n")
	h.key("k", "", "")
	for field, in := range map[string]api.SetPolicyRequest{
		"period": {Period: "59m"}, "schedule": {Schedule: "0 0 31 2 *"}, "zone": {Schedule: "0 0 * * *", Zone: "Nowhere"}, "reencrypt": {Reencrypt: "perhaps"},
		"grace": {Grace: "400d"}, "attempts": {Attempts: 21}, "policy": {}, "purpose": {Purpose: "UPPER", Period: "1d"},
	} {
		if _, err := h.SetPolicy(t.Context(), "p", in); keyturn.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v", in, err)
		} else if _, got, _ := keyturn.Explain(err); got != field {
			t.Errorf("%+v: field %q, want %q", in, got, field)
		}
	}
	_, err := h.SetPolicy(t.Context(), "p", api.SetPolicyRequest{Period: "forever", Grace: "400d", Zone: "Nowhere", Schedule: "0 0 31 2 *", Purpose: "UPPER", Attempts: 21})
	for _, want := range []string{"not a duration", "0 and 365 days", "zone is not known", "never comes", "purpose", "between 1 and 20"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	set := func(name string, in api.SetPolicyRequest) error {
		_, err := h.SetPolicy(t.Context(), name, in)
		return err
	}
	h.must(set("p", api.SetPolicyRequest{Key: "k", Period: "1d"}))
	h.must(set("p", api.SetPolicyRequest{Schedule: "0 5 * * *", Zone: "Europe/Zurich"}))
	e, err := h.EffectivePolicy(t.Context(), "k")
	h.must(err)
	if e.Period != "1d" || e.Schedule != "0 5 * * *" || e.From["period"] != "p" || e.From["warn"] != "default" {
		t.Errorf("%+v", e)
	}
	if err := set("q", api.SetPolicyRequest{Key: "k", Attempts: 1}); keyturn.CodeOf(err) != api.CodeConflict {
		t.Errorf("a second policy about the same keys: %v", err)
	}
	for _, name := range []string{"default", "yaml"} {
		if err := set(name, api.SetPolicyRequest{Attempts: 1}); keyturn.CodeOf(err) != api.CodeConflict {
			t.Errorf("a name that is shipped or configured: %v", err)
		}
	}
	h.must(h.RemovePolicy(t.Context(), "p"))
	for _, name := range []string{"default", "yaml"} {
		if err := h.RemovePolicy(t.Context(), name); keyturn.CodeOf(err) != api.CodeConflict {
			t.Errorf("removing a shipped or configured one: %v", err)
		}
	}
	if err := h.RemovePolicy(t.Context(), "nothing"); keyturn.CodeOf(err) != api.CodeNotFound {
		t.Errorf("removing none: %v", err)
	}
	list, err := h.Policies(t.Context())
	h.must(err)
	if len(list.Policies) != 5 || list.Policies[4].Policy != "yaml" || list.Policies[4].Origin != "keyturn.yaml" {
		t.Errorf("%+v", list.Policies)
	}
}

// Whoever may write some policies doesn't come to decide over keys outside his scope by what a policy is about.
func TestPoliciesStayInScope(t *testing.T) {
	h := open(t, "")
	h.key("own", "", "")
	h.key("phi", "phi", "")
	p, err := h.CreatePrincipal(t.Context(), api.CreatePrincipalRequest{Name: "team", Role: "key-administrator", Scope: []string{"policy/*", "key/own"}})
	h.must(err)
	team := keyturn.NewClient(h.s.InProcess(), keyturn.WithToken(p.Token))
	for _, in := range []api.SetPolicyRequest{
		{Key: "phi", Schedule: "* * * * *"}, {Purpose: "phi", Grace: "0"}, {Environment: "production", Period: "730d"},
	} {
		if _, err := team.SetPolicy(t.Context(), "team", in); keyturn.CodeOf(err) != api.CodeDenied {
			t.Errorf("%+v: %v", in, err)
		}
	}
	_, err = h.SetPolicy(t.Context(), "ours", api.SetPolicyRequest{Key: "phi", Period: "30d"})
	h.must(err)
	if _, err := team.SetPolicy(t.Context(), "ours", api.SetPolicyRequest{Key: "own"}); keyturn.CodeOf(err) != api.CodeDenied {
		t.Errorf("taking over the policy of another key: %v", err)
	}
	if err := team.RemovePolicy(t.Context(), "ours"); keyturn.CodeOf(err) != api.CodeDenied {
		t.Errorf("taking away the policy of another key: %v", err)
	}
	if _, err := team.SetPolicy(t.Context(), "team", api.SetPolicyRequest{Key: "own", Period: "30d"}); err != nil {
		t.Error(err)
	}
	h.must(team.RemovePolicy(t.Context(), "team"))
	if e, err := h.EffectivePolicy(t.Context(), "phi"); err != nil || e.Period != "30d" || e.From["period"] != "ours" {
		t.Errorf("%+v, %v", e, err)
	}
}

// Each rotation has its own self-check, also when others follow before it is made and when people rotate by hand.
func TestEveryRotationIsChecked(t *testing.T) {
	h := open(t, "")
	h.key("k", "", "10d")
	for range 5 {
		_, err := h.RotateKey(t.Context(), "k", api.RotateKeyRequest{})
		h.must(err)
	}
	h.ends("rotation-followup")
	history, err := h.RotationHistory(t.Context(), "k", "", 0)
	h.must(err)
	if len(history.Rotations) != 5 {
		t.Fatalf("%+v", history)
	}
	for _, r := range history.Rotations {
		if r.SelfCheck != "ok" {
			t.Errorf("%+v", r)
		}
	}
}

// What a policy doesn't do as things stand is said when it is set.
func TestSettingAPolicyWarns(t *testing.T) {
	h := open(t, "")
	h.key("own", "phi", "90d")
	h.key("plain", "phi", "")
	for _, c := range []struct {
		in   api.SetPolicyRequest
		want string // "": no warning
	}{
		{api.SetPolicyRequest{Purpose: "phi", Schedule: "0 5 * * *"}, "period of their own: own;"},
		{api.SetPolicyRequest{Purpose: "phi", Attempts: 2}, ""},
		{api.SetPolicyRequest{Key: "own", Schedule: "0 5 * * *", Period: "30d"}, ""},
		{api.SetPolicyRequest{Key: "nokey", Period: "30d"}, "there is no key nokey"},
		{api.SetPolicyRequest{Purpose: "phi", Warn: "90d"}, "due soon from its begin: own, plain;"},
		{api.SetPolicyRequest{Purpose: "phi", Warn: "1h"}, ""},
		{api.SetPolicyRequest{Purpose: "nopurpose", Period: "30d"}, "there is no key of purpose nopurpose"},
		{api.SetPolicyRequest{Environment: "staging", Purpose: "phi", Warn: "1d"}, "nodes of environment staging, and this one is of production"},
	} {
		p, err := h.SetPolicy(t.Context(), "p", c.in)
		h.must(err)
		if said := strings.Join(p.Warnings, "; "); (c.want == "") != (said == "") || !strings.Contains(said, c.want) {
			t.Errorf("%+v: %q, want %q", c.in, said, c.want)
		}
		h.must(h.RemovePolicy(t.Context(), "p"))
	}
}

// Who says how long before is warned is obeyed; only the shipped warning gives way to a short life, and what holds is shown.
func TestAWarningThatWasSetIsObeyed(t *testing.T) {
	h := open(t, "policies:\n  yaml: {key: configured, period: 2h, warn: 110m}\n")
	for _, name := range []string{"set", "configured", "shipped"} {
		h.key(name, "", "")
	}
	for name, in := range map[string]api.SetPolicyRequest{"set": {Period: "1h", Warn: "55m"}, "shipped": {Period: "6h"}} {
		in.Key = name
		_, err := h.SetPolicy(t.Context(), "p-"+name, in)
		h.must(err)
	}
	for name, want := range map[string]string{"set": "55m", "configured": "1h50m", "shipped": "1h"} {
		if e, err := h.EffectivePolicy(t.Context(), name); err != nil || e.Warn != want {
			t.Errorf("%s: warned %s before, want %s (%v)", name, e.Warn, want, err)
		}
	}
	h.pass(11 * time.Minute)
	status, err := h.RotationStatus(t.Context())
	h.must(err)
	for _, k := range status.Keys {
		if k.DueSoon != (k.Name != "shipped") || k.Overdue {
			t.Errorf("%+v", k)
		}
	}
	for _, warn := range []string{"1h", "2h"} {
		_, err := h.SetPolicy(t.Context(), "p-set", api.SetPolicyRequest{Warn: warn})
		if _, field, _ := keyturn.Explain(err); field != "warn" || keyturn.CodeOf(err) != api.CodeInvalid {
			t.Errorf("to warn %s before the end of an hour: %v", warn, err)
		}
	}
}

// A key without an active version is shown as such, and the doctor says so.
func TestKeysWithoutAnActiveVersionAreShown(t *testing.T) {
	h := open(t, "")
	h.key("held", "", "")
	h.key("k", "", "")
	_, err := h.SuspendKey(t.Context(), "held", api.VersionStateRequest{})
	h.must(err)
	status, err := h.RotationStatus(t.Context())
	h.must(err)
	if n := len(status.Keys); n != 2 || status.Keys[1].Name != "held" || !status.Keys[1].Inactive || status.Keys[1].Next != nil || status.Keys[0].Inactive {
		t.Errorf("%+v", status.Keys)
	}
	doc, err := h.Doctor(t.Context())
	h.must(err)
	i := slices.IndexFunc(doc.Checks, func(c api.DoctorCheck) bool { return c.Name == "active-versions" })
	if i < 0 || doc.Checks[i].OK || doc.Checks[i].Severity != "warning" || !strings.Contains(doc.Checks[i].Detail, "held") {
		t.Errorf("%+v", doc.Checks)
	}
}
