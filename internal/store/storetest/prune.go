package storetest

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

func testInactiveKeys(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	active, held, retired := newKey(t, "active", 2), newKey(t, "held", 1), newKey(t, "retired", 1)
	for _, move := range []struct {
		k  *keys.Key
		to []keys.State
	}{{&held, []keys.State{keys.Suspended}}, {&retired, []keys.State{keys.Deactivated, keys.DestroyScheduled}}} {
		for _, to := range move.to {
			if _, err := move.k.Move(1, to, at(9), "", "", 14); err != nil {
				t.Fatal(err)
			}
		}
	}
	change(t, st, func(tx store.Tx) error {
		for _, k := range []keys.Key{retired, active, held} {
			if err := tx.CreateKey(ctx, k); err != nil {
				return err
			}
		}
		return nil
	})
	for _, all := range []bool{true, false} {
		view(t, st, func(tx store.Tx) error {
			list, err := tx.InactiveKeys(ctx, all)
			var names []string
			for _, v := range list {
				names = append(names, v.Key)
				if v.Number != 0 || !v.Activated.IsZero() || v.Purpose == "" {
					t.Errorf("%+v", v)
				}
			}
			wantEqual(t, "the keys without an active version", names, map[bool][]string{true: {"held", "retired"}, false: {"held"}}[all])
			return err
		})
	}
}

func testPruneJobs(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	ended := func(n int, state jobs.State, finished time.Time) jobs.Job {
		j := newJob(n, "")
		j.State, j.Finished = state, finished
		j = insert(t, st, j)
		change(t, st, func(tx store.Tx) error {
			return tx.AddFailures(ctx, j.ID, []jobs.Failure{{Item: "row", Reason: "r", At: at(1)}})
		})
		return j
	}
	old := []jobs.Job{ended(1, jobs.Done, at(10)), ended(2, jobs.Failed, at(10)), ended(3, jobs.Cancelled, at(20))}
	kept := []jobs.Job{ended(4, jobs.Done, at(100)), ended(5, jobs.Running, time.Time{}), ended(6, jobs.Paused, time.Time{}), ended(7, jobs.Done, at(10))}
	change(t, st, func(tx store.Tx) error {
		return tx.PutSchedule(ctx, jobs.Schedule{Name: "s", Kind: "k", Cron: "@daily", LastJob: kept[3].ID})
	})
	prune := func(limit, want int) {
		t.Helper()
		change(t, st, func(tx store.Tx) error {
			n, err := tx.PruneJobs(ctx, at(50), limit)
			if err == nil && n != want {
				t.Errorf("%d were forgotten, want %d", n, want)
			}
			return err
		})
	}
	i := newIncident(1)
	i.State, i.Opened = incidents.Open, at(15)
	change(t, st, func(tx store.Tx) error { return tx.CreateIncident(ctx, i) })
	prune(1, 1)
	prune(10, 1) // the third ended after the incident was opened
	prune(10, 0)
	change(t, st, func(tx store.Tx) error {
		now, err := tx.Incident(ctx, i.ID)
		if err != nil {
			return err
		}
		now.State, now.Closed = incidents.Closed, at(60)
		return tx.UpdateIncident(ctx, now)
	})
	prune(10, 1)
	for _, j := range old {
		refused(t, st, api.CodeNotFound, "a job that was forgotten", func(tx store.Tx) error { _, err := tx.Job(ctx, j.ID); return err })
	}
	for _, j := range kept {
		view(t, st, func(tx store.Tx) error {
			_, n, err := tx.Failures(ctx, j.ID, 0, 1)
			if err != nil || n != 1 {
				t.Errorf("job %s: %d failures, %v", j.ID, n, err)
			}
			return err
		})
	}
}
