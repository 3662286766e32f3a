package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// checkSteps fails unless a counter did every step, in order, under epochs that only grow, and at most again times twice.
func checkSteps(t *testing.T, steps []step, total int64, again int) {
	t.Helper()
	next, epoch, repeated := int64(0), int64(0), 0
	for _, s := range steps {
		if s.epoch <= epoch {
			t.Errorf("step %d was done under epoch %d after epoch %d", s.n, s.epoch, epoch)
		}
		epoch = s.epoch
		switch s.n {
		case next:
			next++
		case next - 1:
			repeated++
		default:
			t.Errorf("step %d after step %d: skipped or far behind", s.n, next-1)
		}
	}
	if next != total || repeated > again {
		t.Errorf("%d steps of %d, %d of them twice (at most %d)", next, total, repeated, again)
	}
}

// dying runs a job on a process that dies in the middle of step 3, and answers the store it leaves behind.
func dying(t *testing.T, st store.Store, c *counter) jobs.Job {
	t.Helper()
	cut := &cutStore{Store: st}
	dead := make(chan struct{})
	c.at, c.before = 3, func(context.Context, *Run) error {
		c.before = nil
		cut.cut.Store(true)
		close(dead)
		return errCut
	}
	r := newRunner(t, cut, Config{Node: "dies"}, c)
	start(t, r)
	j := enqueue(t, cut, r, jobs.Job{Kind: "count", Total: 10})
	receive(t, dead, "death")
	if err := r.Stop(context.Background()); err != nil { // ends its goroutines; nothing of it is written
		t.Fatal(err)
	}
	left := read(t, st, j.ID)
	if left.State != jobs.Running || left.Done != 3 || left.LeaseUntil.IsZero() {
		t.Fatalf("a dead process left %+v", left)
	}
	return left
}

// P5: another process takes over when the lease has run out, not before, and repeats at most one chunk.
func TestDeadProcessIsReplacedWhenItsLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		left := dying(t, st, c)
		r := newRunner(t, st, Config{Node: "lives"}, c)
		start(t, r)
		done := wait(t, r, left.ID)
		if done.State != jobs.Done || done.Done != 10 {
			t.Errorf("%+v", done)
		}
		checkSteps(t, c.of(left.ID), 10, 1)
		if late := time.Since(left.LeaseUntil); late < 0 || late > 4*time.Second {
			t.Errorf("taken over %v after the lease had ended", late)
		}
	})
}

// P5: when no other process can hold the store, a job of another owner is an orphan, and is taken up at once.
func TestExclusiveOwnerTakesUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		left := dying(t, st, c)
		r := newRunner(t, st, Config{Node: "dies", Exclusive: true}, c) // the same node's name: a restart is another owner
		begun := time.Now()
		start(t, r)
		if done := wait(t, r, left.ID); done.State != jobs.Done {
			t.Errorf("%+v", done)
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("taken up and ended after %v", d)
		}
		checkSteps(t, c.of(left.ID), 10, 1)
	})
}

// A process that only slept (SIGSTOP, a long pause) wakes up when another has taken over: it writes nothing more, and its
// handler is told (FAULTS row 6).
func TestSleeperWritesNothingAfterTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		asleep, wake, told := make(chan struct{}), make(chan struct{}), make(chan error, 3)
		sleeper := funcHandler{"k", func(ctx context.Context, run *Run) error {
			close(asleep)
			<-wake
			told <- run.Save(ctx, []byte("stale"), nil, 99, 99)
			told <- run.AddFailures(ctx, []jobs.Failure{{Item: "stale", Reason: "stale", At: time.Now()}})
			told <- run.ClearFailures(ctx, nil)
			return nil
		}}
		cut := &cutStore{Store: st}
		r1 := newRunner(t, cut, Config{Node: "one"}, sleeper)
		start(t, r1)
		j := enqueue(t, st, r1, jobs.Job{Kind: "k"})
		receive(t, asleep, "chunk")
		cut.cut.Store(true) // no renewals while it sleeps

		r2 := newRunner(t, st, Config{Node: "two"}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			if err := run.AddFailures(ctx, []jobs.Failure{{Item: "good", Reason: "good", At: time.Now()}}); err != nil {
				return err
			}
			return run.Save(ctx, []byte("good"), nil, 1, 1)
		}})
		start(t, r2)
		done := wait(t, r2, j.ID)
		cut.cut.Store(false)
		close(wake)
		for _, what := range []string{"save", "failure", "clearing"} {
			if err := receive(t, told, "answer to the late "+what); !errors.Is(err, jobs.ErrLost) {
				t.Errorf("the late %s answered %v", what, err)
			}
		}
		err := st.View(t.Context(), func(tx store.Tx) error {
			list, n, err := tx.Failures(t.Context(), j.ID, 0, 10)
			if n != 1 || len(list) != 1 || list[0].Item != "good" {
				t.Errorf("the list of failures: %+v", list)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if err := r1.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := read(t, st, j.ID); string(after.Cursor) != "good" || after.State != jobs.Done || after.Epoch != done.Epoch || after.Done != 1 {
			t.Errorf("the sleeper wrote: %+v", after)
		}
	})
}

// A handler that takes longer than a lease keeps its job, because the lease is renewed; the lost one's context ends.
func TestLongChunkKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		runs := 0
		slow := funcHandler{"k", func(ctx context.Context, run *Run) error {
			runs++
			<-time.After(50 * time.Second)
			return ctx.Err()
		}}
		r1 := newRunner(t, st, Config{Node: "one", Lease: 10 * time.Second}, slow)
		r2 := newRunner(t, st, Config{Node: "two", Lease: 10 * time.Second}, slow)
		start(t, r1)
		start(t, r2)
		j := enqueue(t, st, r1, jobs.Job{Kind: "k"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done, err := r2.Wait(ctx, j.ID, nil)
		if err != nil || done.State != jobs.Done || runs != 1 || done.Epoch != 1 {
			t.Errorf("%d runs, %v: %+v", runs, err, done)
		}
	})
}

// FAULTS row 5: somebody sets the clock an hour forward in the middle of a chunk. The lease looks expired, but this process
// knows that it is alive, and doesn't take its own job away from itself.
func TestClockJumpInAChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var jump atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		r := newRunner(t, st, Config{Clock: clock}, funcHandler{"k", func(context.Context, *Run) error {
			jump.Store(int64(time.Hour))
			<-time.After(20 * time.Second)
			return nil
		}})
		start(t, r)
		if j := wait(t, r, enqueue(t, st, r, jobs.Job{Kind: "k"}).ID); j.State != jobs.Done || j.Epoch != 1 {
			t.Errorf("%+v", j)
		}
	})
}

func TestLostLeaseEndsTheChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var cause error
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			err := st.Change(ctx, func(tx store.Tx) error { // somebody else claims
				_, err := tx.Claim(ctx, run.Job.ID, run.Job.Epoch, "other", time.Now(), time.Now().Add(time.Hour))
				return err
			})
			if err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			cause = context.Cause(ctx)
			return ctx.Err()
		}})
		start(t, r)
		j := enqueue(t, st, r, jobs.Job{Kind: "k"})
		<-time.After(20 * time.Second)
		if err := r.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := read(t, st, j.ID); !errors.Is(cause, jobs.ErrLost) || after.State != jobs.Running || after.Error != "" {
			t.Errorf("cause %v: %+v", cause, after)
		}
	})
}

// A handler that doesn't listen is ended by the limit of a chunk; that counts as a failure, and passes.
func TestChunkLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		tries := 0
		r := newRunner(t, st, Config{MaxAttempts: 2}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			if tries++; tries == 2 {
				return nil
			}
			<-ctx.Done()
			return fault.Wrap("", ctx.Err(), "reading the rows")
		}})
		start(t, r)
		j := enqueue(t, st, r, jobs.Job{Kind: "k"})
		begun := time.Now()
		<-time.After(10 * time.Minute)
		if after := read(t, st, j.ID); after.State != jobs.Done || tries != 2 {
			t.Errorf("%d tries: %+v", tries, after)
		} else if d := after.Finished.Sub(begun); d < time.Minute || d > 63*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
}

func TestPanicIsAFailureWithoutItsValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		log := &recorder{}
		first := true
		r := newRunner(t, st, Config{Logger: log.logger()}, funcHandler{"k", func(context.Context, *Run) error {
			if first {
				first = false
				panic("canary-4f1d")
			}
			return nil
		}})
		start(t, r)
		j := enqueue(t, st, r, jobs.Job{Kind: "k", Args: []byte(`{"a":"canary-4f1d"}`)})
		var errs []string
		done, err := r.Wait(t.Context(), j.ID, func(j jobs.Job) { errs = append(errs, j.Error) })
		if err != nil || done.State != jobs.Done || done.Attempts != 0 || done.Error != "" {
			t.Fatalf("%v: %+v", err, done)
		}
		if want := "running a chunk of job " + j.ID + ": its handler k panicked (string)"; !contains(errs, want) {
			t.Errorf("errors seen: %q", errs)
		}
		log.mustNotHold(t, "canary-4f1d")
	})
}

func TestErrorThatCannotPassFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		r := newRunner(t, st, Config{}, funcHandler{"k", func(context.Context, *Run) error {
			return fault.Wrap(api.CodeIntegrity, errors.New("canary-4f1d"), "opening row 7")
		}})
		start(t, r)
		j := wait(t, r, enqueue(t, st, r, jobs.Job{Kind: "k"}).ID)
		if j.State != jobs.Failed || j.Attempts != 1 || j.Error != "opening row 7" || j.Finished.IsZero() {
			t.Errorf("%+v", j)
		}
	})
}

// A chunk that got somewhere before it failed doesn't use up the attempts: only failures in a row count.
func TestProgressStartsTheCountAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		n := int64(0)
		r := newRunner(t, st, Config{MaxAttempts: 2}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			if n++; n > 8 {
				return nil
			}
			if err := run.Save(ctx, []byte{byte(n)}, nil, n, 8); err != nil {
				return err
			}
			return fault.New(api.CodeUnavailable, "the database went away again")
		}})
		start(t, r)
		if j := wait(t, r, enqueue(t, st, r, jobs.Job{Kind: "k"}).ID); j.State != jobs.Done || j.Done != 8 {
			t.Errorf("%+v", j)
		}
	})
}

// A wake-up call that was lost (somebody emptied River's table) is made again.
func TestLostCallIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{Exclusive: true}, c)
		j := enqueue(t, st, r, jobs.Job{Kind: "count", Total: 3})
		if _, err := st.DB().Exec(`DELETE FROM river_job`); err != nil {
			t.Fatal(err)
		}
		start(t, r)
		if done := wait(t, r, j.ID); done.State != jobs.Done {
			t.Errorf("%+v", done)
		}
		checkSteps(t, c.of(j.ID), 3, 0)
	})
}
