package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
)

// steps is the demo, in order.
var steps = []struct {
	title string
	run   func(context.Context, *demo) error
}{
	{"Make a key and register the table", register},
	{"Encrypt what is there, while the application writes", encrypt},
	{"Rotate the key: nothing is touched, everything still opens", rotate},
	{"Try to destroy version 1: refused, it is needed", destroyTooEarly},
	{"Re-encrypt every row, while the application writes", reencrypt},
	{"Nothing is left under version 1, and every value opens where it stands", census},
	{"Not one of the application's writes was lost", compare},
	{"A ciphertext moved to another patient does not open", moved},
	{"Destroy version 1: accepted, scheduled", destroy},
	{"The audit log verifies offline, with the public key alone", verifyAudit},
}

func register(ctx context.Context, d *demo) error {
	d.command("key create phi --purpose phi --period 90d")
	if _, err := d.Client.CreateKey(ctx, api.CreateKeyRequest{Name: keyName, Purpose: "phi", Period: "90d"}); err != nil {
		return err
	}
	d.command("dataset add patients --db sqlite:///…/clinic.db --table patients --column ssn=phi --column note=phi \\")
	d.say("       --context table={table} --context column={column} --context patient={pk.id}")
	ds, err := d.Client.AddDataset(ctx, api.AddDatasetRequest{Name: datasetName, DB: "sqlite://" + d.app.path, Table: "patients",
		Columns: map[string]string{"ssn": keyName, "note": keyName}, Context: template})
	if err != nil {
		return err
	}
	for _, note := range ds.Notes {
		d.say("   note: %s", note)
	}
	d.app.open(ctx)
	d.say("   The application is open: it gives a random patient a new number every few milliseconds, until step 7.")
	return nil
}

func encrypt(ctx context.Context, d *demo) error {
	d.command("dataset encrypt patients --unthrottled")
	run, err := d.work(ctx, d.Client.EncryptDataset)
	if err != nil {
		return err
	}
	if err := d.onlyVersion(ctx, 1); err != nil {
		return err
	}
	d.shown("%d rows encrypted in place, %.0f rows a second; the application wrote %d times meanwhile", run.Changed, run.RowsPerSecond, d.app.written())
	return nil
}

func rotate(ctx context.Context, d *demo) error {
	before, err := d.app.sealed(ctx, 1)
	if err != nil {
		return err
	}
	d.command("key rotate phi")
	key, err := d.Client.RotateKey(ctx, keyName, api.RotateKeyRequest{Reason: "demo"})
	if err != nil {
		return err
	}
	if err := claim(len(key.Versions) == 2 && key.Versions[0].State == "deactivated" && key.Versions[1].State == "active", "version 2 active, version 1 deactivated"); err != nil {
		return err
	}
	opened, err := d.Client.Decrypt(ctx, keyName, api.DecryptRequest{Ciphertext: before, Context: boundTo("ssn", 1)})
	if err != nil {
		return err
	}
	d.shown("version 2 protects from now on; a value under version %d still opens", opened.Version)
	return nil
}

func destroyTooEarly(ctx context.Context, d *demo) error {
	d.command("key destroy phi --version 1")
	_, err := d.Client.DestroyKey(ctx, keyName, api.VersionStateRequest{Version: 1, Reason: "demo"})
	if err == nil {
		return claim(false, "the destruction of a version in use is refused")
	}
	if keyturn.CodeOf(err) != api.CodeInUse {
		return err
	}
	message, _, _ := keyturn.Explain(err)
	d.shown("refused (exit status 5): %s", message)
	return nil
}

func reencrypt(ctx context.Context, d *demo) error {
	d.command("dataset reencrypt patients --unthrottled")
	before := d.app.written()
	run, err := d.work(ctx, d.Client.ReencryptDataset)
	if err != nil {
		return err
	}
	d.shown("%d rows moved to version 2 by compare-and-swap, %.0f rows a second; %d writes of the application meanwhile, %d conflicts, all of which it won",
		run.Changed, run.RowsPerSecond, d.app.written()-before, run.Conflicts)
	return nil
}

func census(ctx context.Context, d *demo) error {
	d.command("dataset census patients")
	if err := d.onlyVersion(ctx, 2); err != nil {
		return err
	}
	d.command("dataset verify patients")
	run, err := d.work(ctx, d.Client.VerifyDataset)
	if err != nil {
		return err
	}
	if err := claim(run.Failed == 0 && run.Plaintext == 0, "every value opens (%d did not, %d are in clear)", run.Failed, run.Plaintext); err != nil {
		return err
	}
	d.shown("census: 0 values under version 1, 0 in clear, 0 unreadable; verify opened all %d", run.Opened)
	return nil
}

func compare(ctx context.Context, d *demo) error {
	writes, err := d.app.shut()
	if err != nil {
		return err
	}
	checked, wrong, err := d.app.compare(ctx)
	if err != nil {
		return err
	}
	if err := claim(wrong == 0 && checked == d.Patients, "every row holds what was last written (%d of %d do not)", wrong, checked); err != nil {
		return err
	}
	d.shown("%d rows compared with what the application last wrote (%d writes in all): 0 lost", checked, writes)
	return nil
}

func moved(ctx context.Context, d *demo) error {
	text, err := d.app.sealed(ctx, 1)
	if err != nil {
		return err
	}
	d.command("decrypt phi --context table=patients --context column=ssn --context patient=2   # patient 1's ciphertext")
	_, err = d.Client.Decrypt(ctx, keyName, api.DecryptRequest{Ciphertext: text, Context: boundTo("ssn", 2)})
	if err == nil {
		return claim(false, "a ciphertext of another row does not open")
	}
	if keyturn.CodeOf(err) != api.CodeIntegrity {
		return err
	}
	d.shown("patient 1's number presented as patient 2's: refused (exit status 6)")
	return nil
}

func destroy(ctx context.Context, d *demo) error {
	d.say("   keyturn refuses while a version was opened a short while ago: an hour by default, %s in this demo's configuration.", d.Quiet)
	d.command("key destroy phi --version 1 --yes")
	key, err := d.destroyWhenQuiet(ctx)
	if err != nil {
		return err
	}
	v := key.Versions[0]
	if err := claim(v.State == "destroy-scheduled" && v.DestroyAt != nil, "version 1 is scheduled for destruction"); err != nil {
		return err
	}
	d.shown("accepted: version 1 opens nothing from now on and is destroyed on %s (until then: keyturn key undestroy phi --version 1)", v.DestroyAt.Format(time.DateOnly))
	return nil
}

// destroyWhenQuiet asks until the quiet time is over, and no longer.
func (d *demo) destroyWhenQuiet(ctx context.Context) (api.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Quiet+30*time.Second)
	defer cancel()
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		key, err := d.Client.DestroyKey(ctx, keyName, api.VersionStateRequest{Version: 1, Reason: "nothing depends on it"})
		if err == nil || keyturn.CodeOf(err) != api.CodeInUse {
			return key, err
		}
		select {
		case <-ctx.Done():
			return key, errors.Join(err, ctx.Err())
		case <-again.C:
		}
	}
}

func verifyAudit(ctx context.Context, d *demo) error {
	path := filepath.Join(d.Dir, "audit.jsonl")
	d.command("audit export --out audit.jsonl && keyturn audit verify audit.jsonl --key keyturn/audit.pub --checkpoints keyturn/checkpoints.log")
	if err := d.export(ctx, path); err != nil {
		return err
	}
	report, err := d.verifyFile(path)
	if err != nil {
		return err
	}
	if err := claim(report.OK(), "the log verifies: %v", report.Bad); err != nil {
		return err
	}
	d.shown("%d events verified with the public key and %d kept checkpoints; nothing else of keyturn is needed for it", report.Events, report.Kept)
	return d.tampered(path)
}

func (d *demo) export(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := d.Client.ExportAudit(ctx, f, keyturn.AuditQuery{}); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// tampered changes one word of one event in a copy and shows that it is found.
func (d *demo) tampered(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(text), `"action":"rotate`, `"action":"retire`, 1)
	if changed == string(text) {
		return fmt.Errorf("the log holds no rotation to tamper with")
	}
	path = filepath.Join(d.Dir, "audit-tampered.jsonl")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return err
	}
	report, err := d.verifyFile(path)
	if err == nil && report.OK() {
		return claim(false, "one changed word in the log is found")
	}
	d.shown("one word changed in a copy of the log: found (%v)", report.Bad)
	return nil
}

func (d *demo) verifyFile(path string) (audit.Report, error) {
	text, err := os.ReadFile(d.AuditKey)
	if err != nil {
		return audit.Report{}, err
	}
	key, err := audit.ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return audit.Report{}, err
	}
	kept, err := d.checkpoints(key)
	if err != nil {
		return audit.Report{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return audit.Report{}, err
	}
	defer f.Close()
	return audit.Verify(f, key, kept)
}

// checkpoints are the signed heads that were kept outside the store: against them a cut tail is found.
func (d *demo) checkpoints(key *audit.Key) ([]audit.Checkpoint, error) {
	f, err := os.Open(d.Checkpoints)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return audit.ReadCheckpoints(f, key)
}

// work starts a job on the dataset, waits for it and wants it done without failures.
func (d *demo) work(ctx context.Context, start func(context.Context, string, api.DatasetRunRequest) (api.DatasetRun, error)) (api.DatasetRun, error) {
	run, err := start(ctx, datasetName, api.DatasetRunRequest{Unthrottled: true})
	if err != nil {
		return run, err
	}
	job, err := d.Wait(ctx, run.Job)
	if err != nil {
		return run, err
	}
	if job.Run != nil {
		run = *job.Run
	}
	return run, claim(job.State == "done" && run.Failed == 0, "the job ends well (%s, %d failures: %s)", job.State, run.Failed, job.Error)
}

// onlyVersion takes a census and wants everything under one version.
func (d *demo) onlyVersion(ctx context.Context, version uint32) error {
	c, err := d.Client.Census(ctx, datasetName)
	if err != nil {
		return err
	}
	for _, col := range c.Columns {
		d.say("   %-5s %d null, %d in clear, %d unreadable%s", col.Column, col.Null, col.Plaintext, col.Unreadable, versions(col.Versions))
		only := len(col.Versions) == 1 && col.Versions[0].Version == version && col.Versions[0].Rows == int64(d.Patients)
		if err := claim(only && col.Plaintext == 0 && col.Unreadable == 0, "column %s stands under version %d alone", col.Column, version); err != nil {
			return err
		}
	}
	return nil
}

func versions(list []api.CensusVersion) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintf(&b, ", %d under %s version %d (%s)", v.Rows, v.Key, v.Version, v.State)
	}
	return b.String()
}
