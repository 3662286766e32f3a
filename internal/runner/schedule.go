package runner

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// KeepSchedules makes the jobs of schedules when their time has come, until ctx ends. Every process that serves calls it:
// a schedule's row is moved on by compare-and-swap in the transaction that makes the job, so that each time is served
// once. It looks every Sweep, and at the very time when one of them is due. A command that runs its own job and ends
// doesn't call it.
func (r *Runner) KeepSchedules(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		until, err := r.fireDue(ctx)
		if err != nil && ctx.Err() == nil {
			r.warn("serving the schedules", "", err)
		}
		timer.Reset(min(max(until, time.Millisecond), r.cfg.Sweep))
	}
}

// fireDue serves every schedule that is due and answers in how long the next one is, at most an hour. A schedule of a kind that this process has
// no handler for, as during an upgrade of one node after another, is left to those who have.
func (r *Runner) fireDue(ctx context.Context) (until time.Duration, err error) {
	until = time.Hour
	var list []jobs.Schedule
	var now time.Time
	err = r.st.View(ctx, func(tx store.Tx) (err error) {
		if list, err = tx.Schedules(ctx); err == nil {
			now, err = tx.Now(ctx, r.clock()) // nodes' clocks may differ; the database has one
		}
		return err
	})
	if err != nil {
		return until, err
	}
	for _, s := range list {
		switch {
		case s.NextRun.IsZero() || r.handlers[s.Kind] == nil:
		case s.NextRun.After(now):
			until = min(until, s.NextRun.Sub(now))
			if failed := r.pullBack(ctx, s, now); failed != nil && err == nil {
				err = fault.Wrapf("", failed, "looking at schedule %s", s.Name)
			}
		default:
			if failed := r.fire(ctx, s, now); failed != nil && err == nil {
				err = fault.Wrapf("", failed, "serving schedule %s", s.Name)
			}
		}
	}
	return until, err
}

// fire serves one schedule. While the job that served it before hasn't ended, no other is made: then that one counts.
// *A crash here*: the transaction happened or it didn't.
func (r *Runner) fire(ctx context.Context, s jobs.Schedule, now time.Time) error {
	due, next, err := s.Missed(now)
	if err != nil {
		return err
	}
	err = r.st.Change(ctx, func(tx store.Tx) error {
		j, err := s.Job(due)
		if err != nil {
			return err
		}
		if j, err = r.Enqueue(ctx, tx, j); err != nil {
			return err
		}
		ours, err := tx.Fire(ctx, s.Name, s.NextRun, due, next, j.ID)
		if err == nil && !ours {
			err = errServed
		}
		return err
	})
	failpoint.Hit("runner/after-fire")
	if err == errServed {
		return nil
	}
	return err
}

// pullBack sees to it that a schedule doesn't stand still after a clock that was ahead was set right: it comes to its turn no
// later than at the second of its times from now on, so that what was just served isn't served again at once.
func (r *Runner) pullBack(ctx context.Context, s jobs.Schedule, now time.Time) error {
	if s.NextRun.Sub(now) < time.Hour {
		return nil
	}
	latest, err := s.Latest(now)
	if err != nil || latest.IsZero() || !s.NextRun.After(latest) {
		return err
	}
	r.cfg.Logger.Warn("a schedule's next time was too far away", "schedule", s.Name, "was", s.NextRun, "is", latest)
	return r.st.Change(ctx, func(tx store.Tx) error { return tx.BringForward(ctx, s.Name, latest) })
}

// errServed undoes the job of whoever came second.
var errServed = fault.New(api.CodeConflict, "another node has served the schedule")
