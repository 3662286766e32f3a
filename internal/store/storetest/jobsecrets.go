package storetest

import (
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// testJobSecrets: a job's secret is there as long as the job may run, and gone with whatever end it finds.
func testJobSecrets(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	none := func(what, id string) {
		t.Helper()
		refused(t, st, api.CodeNotFound, what, func(tx store.Tx) error { _, err := tx.JobSecret(ctx, id); return err })
	}
	keep := func(id, sealed string) func(store.Tx) error {
		return func(tx store.Tx) error { return tx.SetJobSecret(ctx, id, []byte(sealed)) }
	}
	for i, end := range []jobs.State{jobs.Done, jobs.Failed, jobs.Cancelled} {
		j := insert(t, st, newJob(i, ""))
		none("a job without a secret", j.ID)
		change(t, st, keep(j.ID, "first"))
		change(t, st, keep(j.ID, "sealed"))
		for _, state := range []jobs.State{jobs.Running, jobs.Paused, jobs.Queued} {
			j.State = state
			change(t, st, func(tx store.Tx) error { _, err := tx.Save(ctx, j); return err })
			view(t, st, func(tx store.Tx) error {
				got, err := tx.JobSecret(ctx, j.ID)
				wantEqual(t, "the secret of a job that is "+string(state), string(got), "sealed")
				return err
			})
		}
		// An owner that lost the job doesn't end it.
		j.State = end
		stale := j
		stale.Epoch = 7
		if err := st.Change(ctx, func(tx store.Tx) error { _, err := tx.Save(ctx, stale); return err }); err == nil {
			t.Error("a stale owner ends a job")
		}
		view(t, st, func(tx store.Tx) error { _, err := tx.JobSecret(ctx, j.ID); return err })
		change(t, st, func(tx store.Tx) error { _, err := tx.Save(ctx, j); return err })
		none("a job that is "+string(end), j.ID)
		refused(t, st, api.CodeNotFound, "a secret for a job that has ended", keep(j.ID, "late"))
		j.State = jobs.Queued
		change(t, st, func(tx store.Tx) error { _, err := tx.Save(ctx, j); return err })
		none("a job that was taken up again", j.ID)
	}
	refused(t, st, api.CodeNotFound, "a secret for an unknown job", keep("none", "x"))
}
