package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// verb is one of the runner's controls.
type verb func(*Runner, context.Context, store.Tx, string) (jobs.Job, error)

func do(t *testing.T, st store.Store, r *Runner, v verb, id string) jobs.Job {
	t.Helper()
	var j jobs.Job
	change(t, st, func(tx store.Tx) (err error) { j, err = v(r, t.Context(), tx, id); return err })
	return j
}

func refuse(t *testing.T, st store.Store, r *Runner, v verb, id string, code api.Code) {
	t.Helper()
	err := st.Change(t.Context(), func(tx store.Tx) error { _, err := v(r, t.Context(), tx, id); return err })
	if fault.CodeOf(err) != code {
		t.Errorf("answered %v (%s), want %s", err, fault.CodeOf(err), code)
	}
}

// atStep makes a counter that calls fn once, at the given step, in the middle of the chunk.
func atStep(n int64, fn func()) *counter {
	c := &counter{at: n}
	c.before = func(context.Context, *Run) error { c.before = nil; fn(); return nil }
	return c
}

func TestPauseAndResumeInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var r *Runner
		var id string
		c := atStep(4, func() {
			if j := do(t, st, r, (*Runner).Pause, id); j.State != jobs.Running || j.Control != jobs.Pause {
				t.Errorf("pausing a running job: %+v", j)
			}
		})
		r = newRunner(t, st, Config{}, c)
		id = enqueue(t, st, r, jobs.Job{Kind: "count", Total: 10}).ID
		start(t, r)
		paused := wait(t, r, id) // a waiter isn't kept by a paused job
		if paused.State != jobs.Paused || paused.Done != 5 || paused.Owner != "" || !paused.LeaseUntil.IsZero() {
			t.Errorf("%+v", paused)
		}
		<-time.After(10 * time.Minute)
		if still := read(t, st, id); still.Done != 5 || still.Epoch != paused.Epoch {
			t.Errorf("a paused job went on: %+v", still)
		}
		do(t, st, r, (*Runner).Pause, id) // again: nothing changes
		if j := do(t, st, r, (*Runner).Resume, id); j.State != jobs.Queued || j.Control != jobs.Run {
			t.Errorf("%+v", j)
		}
		do(t, st, r, (*Runner).Resume, id)
		if done := wait(t, r, id); done.State != jobs.Done {
			t.Errorf("%+v", done)
		}
		checkSteps(t, c.of(id), 10, 0)
	})
}

func TestCancelInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var r *Runner
		var id string
		c := atStep(4, func() { do(t, st, r, (*Runner).Cancel, id) })
		r = newRunner(t, st, Config{}, c)
		id = enqueue(t, st, r, jobs.Job{Kind: "count", Total: 10, UniqueKey: "u"}).ID
		start(t, r)
		if j := wait(t, r, id); j.State != jobs.Cancelled || j.Done != 5 || j.Finished.IsZero() {
			t.Errorf("%+v", j)
		}
		do(t, st, r, (*Runner).Cancel, id) // repeated: fine
		for _, v := range []verb{(*Runner).Pause, (*Runner).Resume} {
			refuse(t, st, r, v, id, api.CodeWrongState)
		}
		do(t, st, r, (*Runner).Retry, id)
		if j := wait(t, r, id); j.State != jobs.Done {
			t.Errorf("after the retry: %+v", j)
		}
		checkSteps(t, c.of(id), 10, 0)
	})
}

// What nobody owns obeys at once, whether or not anything runs; its calls lead nowhere afterwards.
func TestControlOfAQueuedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{}, c)
		a := enqueue(t, st, r, jobs.Job{Kind: "count", Total: 2}).ID
		b := enqueue(t, st, r, jobs.Job{Kind: "count", Total: 2}).ID
		if j := do(t, st, r, (*Runner).Pause, a); j.State != jobs.Paused {
			t.Errorf("%+v", j)
		}
		if j := do(t, st, r, (*Runner).Cancel, b); j.State != jobs.Cancelled || j.Finished.IsZero() {
			t.Errorf("%+v", j)
		}
		start(t, r)
		<-time.After(time.Minute)
		if len(c.of(a))+len(c.of(b)) != 0 {
			t.Error("a paused or cancelled job ran")
		}
		do(t, st, r, (*Runner).Resume, a)
		if j := wait(t, r, a); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
		if j := do(t, st, r, (*Runner).Cancel, enqueuePaused(t, st, r)); j.State != jobs.Cancelled {
			t.Errorf("cancelling a paused job: %+v", j)
		}
	})
}

func enqueuePaused(t *testing.T, st store.Store, r *Runner) string {
	t.Helper()
	var id string
	change(t, st, func(tx store.Tx) error {
		j, err := r.Enqueue(t.Context(), tx, jobs.Job{Kind: "count", Total: 1})
		if err != nil {
			return err
		}
		id = j.ID
		_, err = r.Pause(t.Context(), tx, id)
		return err
	})
	return id
}

// The owner is dead and somebody cancels: whoever finds the job next obeys instead of running it.
func TestCancelOfADeadProcessesJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		left := dying(t, st, c)
		r := newRunner(t, st, Config{Exclusive: true}, c)
		do(t, st, r, (*Runner).Cancel, left.ID)
		start(t, r)
		if j := wait(t, r, left.ID); j.State != jobs.Cancelled || j.Done != 3 {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(left.ID), 3, 0)
	})
}

func TestResumeTakesAWishBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var r *Runner
		var id string
		c := atStep(1, func() { do(t, st, r, (*Runner).Pause, id); do(t, st, r, (*Runner).Resume, id) })
		r = newRunner(t, st, Config{}, c)
		id = enqueue(t, st, r, jobs.Job{Kind: "count", Total: 3}).ID
		start(t, r)
		if j := wait(t, r, id); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
	})
}

// Within a chunk the handler learns of a wish within a quarter of a second.
func TestChunkLearnsOfAWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		running := make(chan struct{})
		var after time.Duration
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			close(running)
			begun := time.Now()
			for run.Continue(ctx) {
				<-time.After(10 * time.Millisecond)
			}
			after = time.Since(begun)
			return Again
		}})
		start(t, r)
		id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
		receive(t, running, "chunk")
		do(t, st, r, (*Runner).Pause, id)
		if j := wait(t, r, id); j.State != jobs.Paused || after > 250*time.Millisecond {
			t.Errorf("after %v: %+v", after, j)
		}
	})
}

func TestContinueEndsWithTheChunksTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var chunks []time.Duration
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			begun := time.Now()
			for run.Continue(ctx) {
				<-time.After(time.Second)
			}
			if chunks = append(chunks, time.Since(begun)); len(chunks) == 2 {
				return nil
			}
			return Again
		}})
		start(t, r)
		wait10(t, r, enqueue(t, st, r, jobs.Job{Kind: "k"}).ID)
		if len(chunks) != 2 || chunks[0] != 30*time.Second || chunks[1] != 30*time.Second {
			t.Errorf("chunks took %v", chunks)
		}
	})
}

// wait10 is wait with ten minutes of a bubble's clock.
func wait10(t *testing.T, r *Runner, id string) jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	j, err := r.Wait(ctx, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// A job that is done and left rows behind is retried: the handler finds them on the list and takes them off.
func TestRetryOfWhatWasLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			left, n, err := run.Failures(ctx, 0, 10)
			if err != nil {
				return err
			}
			if run.Job.Done == 0 {
				if err := run.AddFailures(ctx, nil); err != nil {
					return err
				}
				if err := run.AddFailures(ctx, []jobs.Failure{{Item: "7", Column: "ssn", Reason: "unreadable"}}); err != nil {
					return err
				}
				return run.Save(ctx, nil, []byte(`{"changed":4}`), 5, 5)
			}
			if n != 1 || left[0].Item != "7" || string(run.Job.Progress) != `{"changed":4}` {
				t.Errorf("the retry found %v, progress %s", left, run.Job.Progress)
			}
			return run.ClearFailures(ctx, []jobs.ItemColumn{{Item: "7", Column: "ssn"}})
		}})
		start(t, r)
		id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
		wait(t, r, id)
		if j := do(t, st, r, (*Runner).Retry, id); j.State != jobs.Queued || !j.Finished.IsZero() || j.Attempts != 0 {
			t.Errorf("%+v", j)
		}
		refuse(t, st, r, (*Runner).Retry, id, api.CodeWrongState)
		if j := wait(t, r, id); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
		refuse(t, st, r, (*Runner).Retry, id, api.CodeWrongState) // nothing is left
		for _, v := range []verb{(*Runner).Pause, (*Runner).Resume, (*Runner).Cancel, (*Runner).Retry} {
			refuse(t, st, r, v, "0123456789abcdefghijklmn", api.CodeNotFound)
		}
	})
}
