package runner

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/postgres"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// place is where a store lies, so that it can be opened more than once and by other processes.
type place struct {
	dialect store.Dialect
	at      string // path or URL
}

func (p place) open(ctx context.Context) (store.Store, error) {
	if p.dialect == store.Postgres {
		return postgres.Open(ctx, p.at, postgres.Config{})
	}
	return sqlite.Open(ctx, p.at, sqlite.Config{})
}

// config is that of one process on this place, with short times on PostgreSQL, where these tests wait for real. The lease is
// longer than any stall of the machine or its disk: who lives keeps his jobs, and a test of who doesn't ends the lease itself.
func (p place) config(node string) Config {
	if p.dialect == store.SQLite {
		return Config{Node: node, Exclusive: true}
	}
	return Config{Node: node, Poll: 50 * time.Millisecond, Sweep: 100 * time.Millisecond, Lease: time.Minute}
}

// onEach runs a test on a fresh store of each kind.
func onEach(t *testing.T, test func(*testing.T, place)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, place{store.SQLite, filepath.Join(t.TempDir(), "keyturn.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, place{store.Postgres, pgtest.Start(t).Database(t)})
	})
}

func (p place) mustOpen(t *testing.T) store.Store {
	t.Helper()
	st, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return st
}

// openStore makes a fresh SQLite store; it works inside a bubble of testing/synctest too.
func openStore(t *testing.T) store.Store {
	t.Helper()
	return place{store.SQLite, filepath.Join(t.TempDir(), "keyturn.db")}.mustOpen(t)
}

func TestRealStoresRunToTheEnd(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		st, c := p.mustOpen(t), &counter{}
		r := newRunner(t, st, p.config("one"), c)
		start(t, r)
		job := jobs.Job{Kind: "count", Total: 20, UniqueKey: "u", Subject: "dataset/x", Actor: "admin", Args: []byte(`{"a":1}`)}
		id := enqueue(t, st, r, job).ID
		if again := enqueue(t, st, r, job); again.ID != id {
			t.Errorf("two unfinished jobs with one key")
		}
		j := wait(t, r, id)
		if j.State != jobs.Done || j.Done != 20 || j.Epoch != 20 || j.Owner != "" || j.Started.Before(j.Created) || j.Finished.Before(j.Started) {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(id), 20, 0)
	})
}

func TestRealStoresPauseResumeCancelRetry(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		st := p.mustOpen(t)
		var r *Runner
		var id string
		c := atStep(4, func() { do(t, st, r, (*Runner).Pause, id) })
		r = newRunner(t, st, p.config("one"), c)
		id = enqueue(t, st, r, jobs.Job{Kind: "count", Total: 10}).ID
		start(t, r)
		if j := wait(t, r, id); j.State != jobs.Paused || j.Done != 5 {
			t.Errorf("%+v", j)
		}
		c.mu.Lock()
		c.at, c.before = 7, func(context.Context, *Run) error { c.before = nil; do(t, st, r, (*Runner).Cancel, id); return nil }
		c.mu.Unlock()
		do(t, st, r, (*Runner).Resume, id)
		if j := wait(t, r, id); j.State != jobs.Cancelled || j.Done != 8 {
			t.Errorf("%+v", j)
		}
		do(t, st, r, (*Runner).Retry, id)
		if j := wait(t, r, id); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(id), 10, 0)
	})
}

// P5 on the real stores: the process is cut off in the middle of a chunk.
func TestRealStoresTakeUpWhatADeadProcessLeft(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		st, c := p.mustOpen(t), &counter{}
		left := dying(t, st, c)
		cfg := p.config("lives")
		if p.dialect == store.Postgres { // a lease of 30 s would be waited for
			if _, err := st.DB().ExecContext(t.Context(), `UPDATE jobs SET lease_until = 1`); err != nil {
				t.Fatal(err)
			}
		}
		r := newRunner(t, st, cfg, c)
		start(t, r)
		if j := wait(t, r, left.ID); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(left.ID), 10, 1)
	})
}

// Two processes on one PostgreSQL: no step is done twice, every chunk has its own epoch, and both of them work (FAULTS row 6).
func TestTwoProcessesOnOnePostgres(t *testing.T) {
	p := place{store.Postgres, pgtest.Start(t).Database(t)}
	st1, st2 := p.mustOpen(t), p.mustOpen(t)
	var mu sync.Mutex
	nodes := map[string]int{}
	c := &counter{each: func(_ context.Context, run *Run) { mu.Lock(); defer mu.Unlock(); nodes[run.r.cfg.Node]++ }}
	r1, r2 := newRunner(t, st1, p.config("one"), c), newRunner(t, st2, p.config("two"), c)
	start(t, r1)
	start(t, r2)
	var ids []string
	for i := range 40 {
		st, r := st1, r1
		if i%2 == 1 {
			st, r = st2, r2
		}
		ids = append(ids, enqueue(t, st, r, jobs.Job{Kind: "count", Total: 10}).ID)
	}
	for _, id := range ids {
		if j := wait(t, r2, id); j.State != jobs.Done || j.Epoch != 10 {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(id), 10, 0)
	}
	if nodes["one"] == 0 || nodes["two"] == 0 {
		t.Errorf("chunks by node: %v", nodes)
	}
}

func TestThousandJobsAreDrained(t *testing.T) {
	onEach(t, func(t *testing.T, p place) {
		st, c := p.mustOpen(t), &counter{}
		r := newRunner(t, st, p.config("one"), c)
		const n = 1000
		for range n / 100 { // before anything runs, 100 in a transaction
			change(t, st, func(tx store.Tx) error {
				for range 100 {
					if _, err := r.Enqueue(t.Context(), tx, jobs.Job{Kind: "count", Total: 1}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		start(t, r)
		begun := time.Now()
		if left := drained(t, st, r); left != "" {
			t.Fatal(left)
		}
		if got := len(c.steps); got != n {
			t.Errorf("%d jobs ran, want %d", got, n)
		}
		t.Logf("%d jobs in %v", n, time.Since(begun))
	})
}

// drained waits for every job that there is, and answers what is wrong.
func drained(t *testing.T, st store.Store, r *Runner) string {
	t.Helper()
	var all []jobs.Job
	var counts map[jobs.State]int
	look := func() error {
		return st.View(t.Context(), func(tx store.Tx) (err error) {
			if counts, err = tx.CountJobs(t.Context()); err != nil {
				return err
			}
			all, err = tx.Jobs(t.Context(), jobs.Filter{Limit: jobs.MaxLimit})
			return err
		})
	}
	if err := look(); err != nil {
		return err.Error()
	}
	for _, j := range all {
		wait(t, r, j.ID)
	}
	if err := look(); err != nil {
		return err.Error()
	}
	if counts[jobs.Done] != len(all) || len(counts) != 1 {
		return fmt.Sprintf("%d jobs, by state %v", len(all), counts)
	}
	return ""
}

// TestAJobSpreads: the chunks of one job are run by more than one process, because who ran a long one leaves the next to
// whoever asks first. Each chunk is done once, under an epoch of its own.
func TestAJobSpreads(t *testing.T) {
	p := place{store.Postgres, pgtest.Start(t).Database(t)}
	var mu sync.Mutex
	nodes := map[string]int{}
	c := &counter{each: func(_ context.Context, run *Run) { mu.Lock(); defer mu.Unlock(); nodes[run.Node()]++ }}
	var last *Runner
	var st store.Store
	for _, name := range []string{"one", "two", "three"} {
		cfg := p.config(name)
		cfg.HandOn = time.Nanosecond
		st = p.mustOpen(t)
		last = newRunner(t, st, cfg, c)
		start(t, last)
	}
	const chunks = 60
	id := enqueue(t, st, last, jobs.Job{Kind: "count", Total: chunks}).ID
	if j := wait(t, last, id); j.State != jobs.Done || j.Epoch != chunks {
		t.Errorf("%+v", j)
	}
	checkSteps(t, c.of(id), chunks, 0)
	if len(nodes) < 2 {
		t.Errorf("all chunks ran on one node: %v", nodes)
	}
	t.Logf("chunks by node: %v", nodes)
}

// TestClocksThatDiffer: processes whose clocks are minutes apart work on jobs of one store, and none takes a job from one
// that lives, nor runs a chunk twice: leases go by the database's clock (FAULTS row 5).
func TestClocksThatDiffer(t *testing.T) {
	p := place{store.Postgres, pgtest.Start(t).Database(t)}
	c := &counter{}
	var runners []*Runner
	var st store.Store
	for i, skew := range []time.Duration{-10 * time.Minute, 0, 5 * time.Minute, 10 * 365 * 24 * time.Hour} {
		cfg := p.config(fmt.Sprint("node-", i))
		cfg.Lease, cfg.Clock = time.Minute, func() time.Time { return time.Now().Add(skew) }
		st = p.mustOpen(t)
		runners = append(runners, newRunner(t, st, cfg, c))
		start(t, runners[i])
	}
	var ids []string
	for i := range 8 {
		ids = append(ids, enqueue(t, st, runners[i%len(runners)], jobs.Job{Kind: "count", Total: 15}).ID)
	}
	for _, id := range ids {
		if j := wait(t, runners[0], id); j.State != jobs.Done || j.Epoch != 15 || j.Finished.After(time.Now().Add(time.Minute)) {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(id), 15, 0)
	}
}

// TestStrangeKindsAreLeftToOthers: during a rolling upgrade an old process meets the calls of jobs that only the new one can
// run. It puts them back, and the new one runs them; what the old one can run goes on.
func TestStrangeKindsAreLeftToOthers(t *testing.T) {
	p := place{store.Postgres, pgtest.Start(t).Database(t)}
	known, young := &counter{}, &counter{}
	oldStore, newStore := p.mustOpen(t), p.mustOpen(t)
	old := newRunner(t, oldStore, p.config("old"), known)
	var runs atomic.Int32
	upgraded := newRunner(t, newStore, p.config("new"), young, funcHandler{"of-the-new-release", func(context.Context, *Run) error { runs.Add(1); return nil }})
	start(t, old)
	strange := enqueue(t, newStore, upgraded, jobs.Job{Kind: "of-the-new-release"})
	usual := enqueue(t, oldStore, old, jobs.Job{Kind: "count", Total: 3})
	if j := wait(t, old, usual.ID); j.State != jobs.Done { // by then the other call has been met too
		t.Errorf("%+v", j)
	}
	start(t, upgraded)
	if j := wait(t, old, strange.ID); j.State != jobs.Done || runs.Load() != 1 || j.Epoch != 1 {
		t.Errorf("%d runs: %+v", runs.Load(), j)
	}
}
