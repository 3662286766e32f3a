package runner

import (
	"context"
	"crypto/rand"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// The methods of this file work inside a transaction of the caller, so that a wish and its audit event are one change
// (gate.Change). They write before they read what they decide on, and may be run again with the transaction.

// Enqueue inserts a job and its wake-up call, and answers it as it was stored. The caller sets Kind, Subject, UniqueKey,
// Args, Actor, Priority and perhaps Total; the rest is filled in here. When an unfinished job with the same UniqueKey
// exists, that job is the answer and nothing is written: it has the other's id, arguments and state (perhaps Paused).
func (r *Runner) Enqueue(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error) {
	if r.handlers[j.Kind] == nil {
		return jobs.Job{}, fault.Newf(api.CodeInternal, "enqueueing a job of kind %q, which nothing here runs", j.Kind)
	}
	now, err := r.shared(ctx, tx)
	if err != nil {
		return jobs.Job{}, err
	}
	id, err := jobs.NewID(now, rand.Reader)
	if err != nil {
		return jobs.Job{}, fault.Wrap(api.CodeInternal, err, "enqueueing a job")
	}
	if j, err = jobs.New(id, j, now); err != nil {
		return jobs.Job{}, err
	}
	stored, inserted, err := tx.InsertJob(ctx, j)
	if err != nil || !inserted {
		return stored, err
	}
	return stored, r.call(ctx, tx, stored)
}

// call is wake, and tells our loop to look soon: the transaction is not committed yet.
func (r *Runner) call(ctx context.Context, tx store.Tx, j jobs.Job) error {
	if err := r.wake(ctx, tx, j); err != nil {
		return err
	}
	if j.Priority == jobs.PriorityUrgent {
		r.hurry.Store(r.clock().Add(hurryTime).UnixMicro())
	}
	signal(r.poke)
	return nil
}

// Raise puts an unfinished job before all that isn't urgent; a paused one, or one that is to be paused, runs on. Whoever is
// working on it goes on with it. Errors: not_found, wrong_state when it has ended.
func (r *Runner) Raise(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.SetPriority(ctx, id, jobs.PriorityUrgent)
	if err != nil {
		return j, err
	}
	if err := j.MayResume(); err != nil {
		return j, err
	}
	if j.State == jobs.Paused || j.Control == jobs.Pause {
		return r.Resume(ctx, tx, id)
	}
	if j.State == jobs.Queued {
		return j, r.call(ctx, tx, j) // the call that waits already has the priority from before; of two one does nothing
	}
	return j, nil
}

// Recall has the next chunk of a running job begin now, before all that isn't urgent. A chunk that is being run, or waits to be, is
// taken over as from an owner that has died: it stops at its next save. This is for a job whose handler would do something else
// now than it does. A job that isn't running, or is told to stop already, is left alone. Errors: not_found.
func (r *Runner) Recall(ctx context.Context, tx store.Tx, id string) error {
	j, err := tx.Job(ctx, id)
	if err != nil || j.State != jobs.Running || j.Control != jobs.Run {
		return err
	}
	j.Priority = jobs.PriorityUrgent // the call's; the job keeps its own
	return r.call(ctx, tx, j)
}

// Pause asks a job to stop after its chunk and to keep its place. A queued job is paused at once, a running one soon.
// Errors: not_found, wrong_state when it has ended.
func (r *Runner) Pause(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.Job(ctx, id)
	if err != nil {
		return j, err
	}
	if err := j.MayPause(); err != nil {
		return j, err
	}
	return r.wish(ctx, tx, id, jobs.Pause)
}

// Cancel asks a job to end after its chunk; what was done stays done. A queued or paused job ends at once. Errors:
// not_found, wrong_state when it has ended otherwise.
func (r *Runner) Cancel(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.Job(ctx, id)
	if err != nil {
		return j, err
	}
	if err := j.MayCancel(); err != nil || j.State == jobs.Cancelled {
		return j, err
	}
	return r.wish(ctx, tx, id, jobs.Cancel)
}

// wish writes the flag, and obeys it here and now if nobody owns the job: whoever owns it does so at the end of its
// chunk, and a dead owner's job is obeyed by whoever claims it next.
func (r *Runner) wish(ctx context.Context, tx store.Tx, id string, c jobs.Control) (jobs.Job, error) {
	j, err := tx.SetControl(ctx, id, c)
	if err != nil || j.State == jobs.Running || (c == jobs.Pause && j.State == jobs.Paused) {
		return j, err
	}
	now, err := r.shared(ctx, tx)
	if err != nil {
		return j, err
	}
	j = j.Obey(c, now)
	_, err = tx.Save(ctx, j)
	r.hub.tell(id)
	return j, err
}

// Resume lets a paused job run on, takes back the wish to pause or cancel one that runs, or has one that waits for its next
// attempt make it now. Errors: not_found, wrong_state when it has ended.
func (r *Runner) Resume(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.Job(ctx, id)
	if err != nil {
		return j, err
	}
	if err := j.MayResume(); err != nil {
		return j, err
	}
	return r.goOn(ctx, tx, id)
}

// goOn has a job that hasn't ended run now, if it is paused or waits. What it failed by, and how often, stays until the attempt
// has ended. Whoever claimed it meanwhile is left alone.
func (r *Runner) goOn(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.SetControl(ctx, id, jobs.Run)
	if err != nil {
		return j, err
	}
	now, err := r.shared(ctx, tx)
	if err != nil || j.State != jobs.Paused && !j.Waits(now) {
		return j, err
	}
	return r.again(ctx, tx, j.Requeue(now))
}

// Retry runs a job again that failed or was cancelled, or that is done and left failures behind. Its cursor and its list
// of failures are kept, and its handler decides what to do with them. One that waits for its next attempt makes it now.
// Errors: not_found, wrong_state, conflict when another job has taken its place.
func (r *Runner) Retry(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	j, err := tx.Job(ctx, id)
	if err != nil {
		return j, err
	}
	_, failures, err := tx.Failures(ctx, id, 0, 1)
	if err != nil {
		return j, err
	}
	now, err := r.shared(ctx, tx)
	if err != nil {
		return j, err
	}
	if err := j.MayRetry(failures, now); err != nil {
		return j, err
	}
	if !j.State.Final() {
		return r.goOn(ctx, tx, id)
	}
	if j, err = tx.SetControl(ctx, id, jobs.Run); err != nil {
		return j, err
	}
	return r.again(ctx, tx, j.Retry(now))
}

// again saves a job that is queued anew, and wakes it.
func (r *Runner) again(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error) {
	if _, err := tx.Save(ctx, j); err != nil {
		return j, err
	}
	r.hub.tell(j.ID)
	return j, r.call(ctx, tx, j)
}
