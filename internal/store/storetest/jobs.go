package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// newJob makes a job whose every field is set to something of its own. Ids sort by n.
func newJob(n int, unique string) jobs.Job {
	return jobs.Job{
		ID: fmt.Sprintf("%024d", n), Kind: "dataset-encrypt", Subject: "dataset/patients", UniqueKey: unique, Args: []byte(`{"n":1}`),
		Actor: "ann", Priority: jobs.PriorityLow, State: jobs.Queued, Control: jobs.Run, Created: at(n), NextAttempt: at(n),
	}
}

func insert(t *testing.T, st store.Store, j jobs.Job) jobs.Job {
	t.Helper()
	change(t, st, func(tx store.Tx) error {
		got, inserted, err := tx.InsertJob(t.Context(), j)
		if err == nil {
			wantEqual(t, "the job that was added", got, j)
		}
		if err == nil && !inserted {
			t.Error("a new job wasn't inserted")
		}
		return err
	})
	return j
}

func testJobs(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	j := insert(t, st, newJob(1, "u"))
	lost := func(what string, fn func(tx store.Tx) error) {
		t.Helper()
		if err := st.Change(ctx, fn); !errors.Is(err, jobs.ErrLost) {
			t.Errorf("%s: got %v, want ErrLost", what, describe(err))
		}
	}
	claim := func(epoch int64, owner string, now int) (got jobs.Job, err error) {
		err = st.Change(ctx, func(tx store.Tx) error {
			got, err = tx.Claim(ctx, j.ID, epoch, owner, at(now), at(now+60))
			return err
		})
		return got, err
	}
	j.Epoch, j.State, j.Owner, j.LeaseUntil, j.Started = 1, jobs.Running, "x", at(70), at(10)
	got, err := claim(0, "x", 10)
	wantEqual(t, "the first claim", got, j)
	if err != nil {
		t.Fatal(describe(err))
	}
	if _, err := claim(0, "y", 11); !errors.Is(err, jobs.ErrLost) {
		t.Errorf("a second claim of one epoch: %v", err)
	}
	j.Epoch, j.Owner, j.LeaseUntil = 2, "y", at(140)
	got, err = claim(1, "y", 80)
	wantEqual(t, "the claim of a stale job keeps Started", got, j)
	if err != nil {
		t.Fatal(describe(err))
	}
	stale := j
	stale.Epoch = 1
	lost("saving after losing the job", func(tx store.Tx) error { _, err := tx.Save(ctx, stale); return err })
	lost("renewing after losing the job", func(tx store.Tx) error { _, err := tx.Renew(ctx, j.ID, 1, at(999)); return err })
	lost("claiming what isn't there", func(tx store.Tx) error { _, err := tx.Claim(ctx, "none", 0, "x", at(0), at(1)); return err })

	change(t, st, func(tx store.Tx) error {
		after, err := tx.SetControl(ctx, j.ID, jobs.Pause)
		j.Control = jobs.Pause
		wantEqual(t, "the job after SetControl", after, j)
		return err
	})
	change(t, st, func(tx store.Tx) error {
		c, err := tx.Renew(ctx, j.ID, 2, at(200))
		wantEqual(t, "the wish that Renew reads", c, jobs.Pause)
		return err
	})
	j.LeaseUntil = at(200)
	change(t, st, func(tx store.Tx) error {
		after, err := tx.SetPriority(ctx, j.ID, jobs.PriorityUrgent)
		j.Priority = jobs.PriorityUrgent
		wantEqual(t, "the job after SetPriority", after, j)
		return err
	})
	finish(t, st, j)
	refused(t, st, api.CodeNotFound, "raising an unknown job", func(tx store.Tx) error { _, err := tx.SetPriority(ctx, "none", jobs.PriorityUrgent); return err })
	refused(t, st, api.CodeNotFound, "an unknown job", func(tx store.Tx) error { _, err := tx.Job(ctx, "none"); return err })
	refused(t, st, api.CodeNotFound, "controlling an unknown job", func(tx store.Tx) error { _, err := tx.SetControl(ctx, "none", jobs.Run); return err })
}

// finish saves progress, then the end, then a retry, and looks at what Save may change and what not.
func finish(t *testing.T, st store.Store, j jobs.Job) {
	ctx := t.Context()
	save := func(change jobs.Job) {
		t.Helper()
		if err := st.Change(ctx, func(tx store.Tx) error {
			c, err := tx.Save(ctx, change)
			wantEqual(t, "the wish that Save reads", c, j.Control)
			return err
		}); err != nil {
			t.Fatal(describe(err))
		}
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Job(ctx, j.ID)
			wantEqual(t, "the saved job", got, j)
			return err
		})
	}
	j.Cursor, j.Progress, j.Done, j.Total, j.Error, j.Attempts = []byte{0, 1}, []byte(`{"rows":1}`), 7, 9, "the reason", 3
	other := j
	other.Control, other.Kind, other.Subject, other.Actor, other.UniqueKey, other.Args, other.Created = jobs.Run, "k", "s", "a", "q", nil, at(0)
	save(other)
	j.State, j.Owner, j.LeaseUntil, j.Finished, j.Error = jobs.Failed, "", time.Time{}, at(300), "gave up"
	save(j)

	// While it was ended somebody else took its key: it can't come back.
	second := insert(t, st, newJob(2, j.UniqueKey))
	back := j
	back.State = jobs.Queued
	refused(t, st, api.CodeConflict, "coming back to a key that is taken", func(tx store.Tx) error {
		_, err := tx.Save(ctx, back)
		if errors.Is(err, jobs.ErrLost) {
			t.Error("a taken key looks like a lost job")
		}
		return err
	})
	second.State = jobs.Done
	if err := st.Change(ctx, func(tx store.Tx) error { _, err := tx.Save(ctx, second); return err }); err != nil {
		t.Fatal(describe(err))
	}
	j.State = jobs.Queued
	save(j)
}

// testJobRace: of many who add the same work at once, one does; the others learn which job it is.
func testJobRace(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	const racers, rounds = 6, 5
	for round := range rounds {
		var mu sync.Mutex
		var wg sync.WaitGroup
		ids, inserted := map[string]int{}, 0
		for i := range racers {
			wg.Go(func() {
				var got jobs.Job
				var mine bool
				err := st.Change(ctx, func(tx store.Tx) (err error) {
					got, mine, err = tx.InsertJob(ctx, newJob(round*100+i, fmt.Sprintf("round-%d", round)))
					return err
				})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("adding a job: %v", describe(err))
				}
				ids[got.ID]++
				if mine {
					inserted++
				}
			})
		}
		wg.Wait()
		if inserted != 1 || len(ids) != 1 {
			t.Errorf("round %d: %d were inserted, and the racers saw %d jobs", round, inserted, len(ids))
		}
	}
	// Without a key, or once the first has ended, there may be another.
	insert(t, st, newJob(9001, ""))
	insert(t, st, newJob(9002, ""))
}

func testJobLists(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	states := []jobs.State{jobs.Queued, jobs.Running, jobs.Paused, jobs.Failed, jobs.Done, jobs.Queued}
	var all []jobs.Job
	for i, s := range states {
		j := newJob(i, "")
		j.State, j.LeaseUntil, j.NextAttempt = s, at(100+i), at(200-i*10)
		if i%2 == 0 {
			j.Kind, j.Subject = "even", "dataset/even"
		}
		all = append([]jobs.Job{insert(t, st, j)}, all...)
	}
	pick := func(want ...int) (out []jobs.Job) {
		for _, n := range want {
			out = append(out, all[len(all)-1-n])
		}
		return out
	}
	view(t, st, func(tx store.Tx) error {
		for _, c := range []struct {
			f    jobs.Filter
			want []jobs.Job
		}{
			{jobs.Filter{}, all},
			{jobs.Filter{Limit: 2}, pick(5, 4)},
			{jobs.Filter{Limit: 2, After: all[1].ID}, pick(3, 2)},
			{jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Done}}, pick(5, 4, 0)},
			{jobs.Filter{Kind: "even"}, pick(4, 2, 0)},
			{jobs.Filter{Subject: "dataset/even", States: []jobs.State{jobs.Paused}}, pick(2)},
			{jobs.Filter{Kind: "eve_"}, nil},
		} {
			got, err := tx.Jobs(ctx, c.f)
			if err != nil {
				return err
			}
			wantEqual(t, fmt.Sprintf("jobs of %+v", c.f), got, c.want)
		}
		counts, err := tx.CountJobs(ctx)
		wantEqual(t, "the counts", counts, map[jobs.State]int{jobs.Queued: 2, jobs.Running: 1, jobs.Paused: 1, jobs.Failed: 1, jobs.Done: 1})
		return err
	})
	for _, c := range []struct {
		now, limit int
		want       []jobs.Job
	}{
		{100, 9, nil}, {101, 9, pick(1)}, {149, 9, pick(1)}, {150, 9, pick(1, 5)}, {200, 9, pick(1, 5, 0)}, {200, 2, pick(1, 5)},
	} {
		view(t, st, func(tx store.Tx) error {
			got, err := tx.Stale(ctx, at(c.now), c.limit)
			wantEqual(t, fmt.Sprintf("stale jobs at %d", c.now), got, c.want)
			return err
		})
	}
}

func testFailures(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	j, other := insert(t, st, newJob(1, "")), insert(t, st, newJob(2, ""))
	fail := func(item, column string) jobs.Failure {
		return jobs.Failure{Item: item, Column: column, Reason: "because", At: epoch, Retry: []byte(item)}
	}
	list := []jobs.Failure{fail("1", "ssn"), fail("10", ""), fail("10", "ssn"), fail("2", "ssn"), fail("A", "x"), fail("a", "x")}
	change(t, st, func(tx store.Tx) error {
		for _, order := range [][]int{{5, 2, 0}, {1, 3, 4, 0}} {
			var some []jobs.Failure
			for _, i := range order {
				some = append(some, list[i])
			}
			if err := tx.AddFailures(ctx, j.ID, some); err != nil {
				return err
			}
		}
		return tx.AddFailures(ctx, other.ID, list[:1])
	})
	want := func(offset, limit int, total int64, want ...jobs.Failure) {
		t.Helper()
		view(t, st, func(tx store.Tx) error {
			got, n, err := tx.Failures(ctx, j.ID, offset, limit)
			wantEqual(t, "the failures", got, want)
			wantEqual(t, "their number", n, total)
			return err
		})
	}
	want(0, 100, 6, list...)
	want(2, 2, 6, list[2:4]...)
	list[0].Reason, list[0].At, list[0].Retry = "another", at(5), nil
	change(t, st, func(tx store.Tx) error { return tx.AddFailures(ctx, j.ID, list[:1]) })
	want(0, 1, 6, list[0])
	change(t, st, func(tx store.Tx) error {
		return tx.ClearFailures(ctx, j.ID, []jobs.ItemColumn{{Item: "10"}, {Item: "a", Column: "x"}, {Item: "zz", Column: "x"}})
	})
	want(0, 100, 4, list[0], list[2], list[3], list[4])
	change(t, st, func(tx store.Tx) error { return tx.ClearFailures(ctx, j.ID, []jobs.ItemColumn{}) })
	want(0, 1, 4, list[0])
	change(t, st, func(tx store.Tx) error { return tx.ClearFailures(ctx, j.ID, nil) })
	want(0, 100, 0)
	view(t, st, func(tx store.Tx) error {
		_, n, err := tx.Failures(ctx, other.ID, 0, 10)
		wantEqual(t, "another job's failures", n, 1)
		return err
	})
	refused(t, st, api.CodeNotFound, "failures of nothing", func(tx store.Tx) error { return tx.AddFailures(ctx, "none", list[:1]) })
	refused(t, st, api.CodeNotFound, "the failures of nothing", func(tx store.Tx) error { _, _, err := tx.Failures(ctx, "none", 0, 1); return err })
}
