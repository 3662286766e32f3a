package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// answer is what a wake-up call leads to: claim, one chunk, settle. It returns when all is written down. Crash points:
// before the claim nothing happened, and the call is made again by the sweep; after it the row is running with a lease,
// and the chunk is repeated by the next owner from the last saved cursor; after settling all is as if nothing was.
// False says that this process doesn't run such a job, or none any more.
func (r *Runner) answer(ctx context.Context, call wakeUp) bool {
	if !r.enter() {
		return false
	}
	defer r.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.aborted, cancel)()
	j, ok, err := r.claim(ctx, call)
	if !ok {
		return !errors.Is(err, errNobody)
	}
	failpoint.Hit("runner/after-claim")
	run := r.newRun(j)
	outcome := r.work(ctx, run)
	failpoint.Hit("runner/before-settle")
	r.settle(ctx, run, outcome)
	failpoint.Hit("runner/after-settle")
	r.hub.tell(j.ID)
	if !r.handsOn(run, outcome) {
		signal(r.now)
	}
	return true
}

// handsOn reports whether the next chunk is left to whoever asks first. Otherwise this process, which knows of it before
// all others, would keep every job that it ever began, however idle the others are.
func (r *Runner) handsOn(run *Run, outcome error) bool {
	return !r.cfg.Exclusive && errors.Is(outcome, Again) && r.clock().Sub(run.begun) >= r.cfg.HandOn
}

// errNobody undoes a claim whose job this process has no handler for, as during an upgrade of one node after another.
var errNobody = fault.New(api.CodeInternal, "claiming a job of a kind that nothing here runs")

// claim makes this process the owner. When somebody else was first it answers false, in silence. A wish to pause or to
// cancel is obeyed in the same transaction, and nothing is left to run.
func (r *Runner) claim(ctx context.Context, call wakeUp) (j jobs.Job, ok bool, err error) {
	err = r.st.Change(ctx, func(tx store.Tx) error {
		now, err := r.shared(ctx, tx)
		if err != nil {
			return err
		}
		if j, err = tx.Claim(ctx, call.Job, call.Epoch, r.owner, now, now.Add(r.cfg.Lease)); err != nil {
			return err
		}
		if r.handlers[j.Kind] == nil {
			return errNobody
		}
		as := j.Begin()
		if j.Control != jobs.Run {
			as = as.Obey(j.Control, now)
		}
		if as.State != j.State || as.Error != j.Error {
			_, err = tx.Save(ctx, as)
		}
		j = as
		return err
	})
	switch {
	case errors.Is(err, jobs.ErrLost):
		return j, false, err
	case errors.Is(err, errNobody):
		if _, said := r.strange.LoadOrStore(call.Job, true); !said {
			r.warn("leaving to others", call.Job, err)
		}
		return j, false, err
	case err != nil:
		r.warn("claiming", call.Job, err)
		return j, false, err
	}
	if j.Priority == jobs.PriorityUrgent {
		r.hurry.Store(0)
	}
	r.hub.tell(j.ID)
	return j, j.State == jobs.Running, nil
}

// work calls the handler, with its lease kept alive. It answers nil, Again or the error. A panic is an error whose text
// doesn't hold the value that was panicked with: that may be anything.
func (r *Runner) work(ctx context.Context, run *Run) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	beats := make(chan struct{})
	r.here.Store(run.Job.ID, true)
	go func() {
		defer close(beats)
		defer r.here.Delete(run.Job.ID)
		run.keepLease(ctx, cancel)
	}()
	defer func() {
		if p := recover(); p != nil {
			err = fault.Newf(api.CodeInternal, "running a chunk of job %s: its handler %s panicked (%T)", run.Job.ID, run.Job.Kind, p)
			r.warn("running a chunk", run.Job.ID, err)
		}
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, jobs.ErrLost) {
			err = cause
		}
		cancel(nil)
		<-beats
	}()
	return r.handlers[run.Job.Kind].Run(ctx, run)
}

// settle writes down how a chunk ended. It works on the row as it stands, because a handler may save in transactions of
// its own. A failure to settle is logged and left to the lease: the chunk is repeated.
func (r *Runner) settle(ctx context.Context, run *Run, outcome error) {
	if errors.Is(outcome, jobs.ErrLost) {
		return
	}
	aborted := ctx.Err() != nil && r.stopping.Load()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	var settled jobs.Job
	var now time.Time
	err := r.st.Change(ctx, func(tx store.Tx) (err error) {
		if now, err = r.shared(ctx, tx); err != nil {
			return err
		}
		j, err := tx.Job(ctx, run.Job.ID)
		if err != nil {
			return err
		}
		if j.Epoch != run.Job.Epoch || j.State != jobs.Running {
			return jobs.ErrLost
		}
		settled = r.judge(j, run.Job, outcome, aborted, now)
		control, err := tx.Save(ctx, settled)
		if err != nil {
			return err
		}
		failpoint.Hit("runner/inside-settle")
		if control != jobs.Run && !settled.State.Final() {
			settled = settled.Obey(control, now)
			_, err = tx.Save(ctx, settled)
			return err
		}
		if awaitsNext(settled, r.clock()) {
			return r.wake(ctx, tx, settled)
		}
		return nil
	})
	switch {
	case errors.Is(err, jobs.ErrLost):
	case err != nil:
		r.warn("saving the end of a chunk", run.Job.ID, err)
	case settled.State == jobs.Queued:
		r.next.at(r.clock().Add(settled.NextAttempt.Sub(now))) // by our own clock
	case settled.State == jobs.Failed && r.cfg.GaveUp != nil:
		r.cfg.GaveUp(ctx, settled)
	}
}

// judge decides what becomes of job j after its chunk; before is the job as it was claimed.
func (r *Runner) judge(j, before jobs.Job, outcome error, aborted bool, now time.Time) jobs.Job {
	switch {
	case outcome == nil:
		return j.Finish(now)
	case aborted, errors.Is(outcome, Again) && r.stopping.Load():
		return j.Requeue(now)
	case errors.Is(outcome, Again):
		return j.Continue(now.Add(r.cfg.Lease))
	}
	var later *Later
	if errors.As(outcome, &later) {
		return j.Defer(now.Add(later.After), later.Why)
	}
	progressed := j.Done != before.Done || string(j.Cursor) != string(before.Cursor)
	var away *Away
	var failed jobs.Job
	if errors.As(outcome, &away) {
		failed = j.Wait(fault.MessageOf(away.Err), progressed, now, r.cfg.Jitter())
	} else {
		failed = j.Fail(fault.CodeOf(outcome), fault.MessageOf(outcome), progressed, now, r.cfg.Jitter(), r.cfg.MaxAttempts)
	}
	if failed.State == jobs.Failed {
		r.warn(fmt.Sprintf("giving up a %s after %d attempts", j.Kind, failed.Attempts), j.ID, outcome)
	}
	return failed
}

// awaitsNext reports whether a job needs a wake-up call now. One that waits for another attempt, or was deferred, doesn't:
// the sweep calls it when its time has come.
func awaitsNext(j jobs.Job, now time.Time) bool {
	return j.State == jobs.Running || j.State == jobs.Queued && !j.NextAttempt.After(now)
}

// keepLease renews the lease until the chunk ends, and ends the chunk when the job is somebody else's. It stops with ctx,
// which the limit of a chunk ends, so a handler that never returns doesn't keep its job for ever.
func (run *Run) keepLease(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(run.r.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := run.renew(ctx)
		if errors.Is(err, jobs.ErrLost) {
			cancel(jobs.ErrLost)
			return
		}
		if err != nil && ctx.Err() == nil {
			run.r.warn("renewing the lease", run.Job.ID, err)
		}
	}
}
