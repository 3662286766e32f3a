package runner

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Run is one chunk as its handler sees it. Its methods are safe for concurrent use; one goroutine at a time saves.
type Run struct {
	// Job is the job as it was claimed for this chunk. It doesn't change when the chunk saves.
	Job jobs.Job

	r     *Runner
	begun time.Time

	mu      sync.Mutex // guards the two below
	control jobs.Control
	asked   time.Time // when control was read
}

// Node is the name of the process's node, for records.
func (run *Run) Node() string { return run.r.cfg.Node }

func (r *Runner) newRun(j jobs.Job) *Run {
	now := r.clock()
	return &Run{Job: j, r: r, begun: now, control: j.Control, asked: now}
}

// Save writes how far the job has come, in a transaction of its own, and renews the lease. After a crash the job begins
// again at the cursor given last. Nil progress keeps the one that is stored. An error that is jobs.ErrLost means that
// another process has taken over: return it (or anything) at once, nothing more is written.
func (run *Run) Save(ctx context.Context, cursor, progress []byte, done, total int64) error {
	failpoint.Hit("runner/before-save")
	err := run.r.st.Change(ctx, func(tx store.Tx) error { return run.SaveTx(ctx, tx, cursor, progress, done, total) })
	failpoint.Hit("runner/after-save")
	if err == nil {
		run.r.hub.tell(run.Job.ID)
	}
	return err
}

// SaveTx is Save inside a transaction of the caller, for work whose effect and cursor must be one (an audit event of
// gate.Change, a row of our own store). It counts when that transaction commits.
func (run *Run) SaveTx(ctx context.Context, tx store.Tx, cursor, progress []byte, done, total int64) error {
	j := run.Job
	j.Cursor, j.Done, j.Total = cursor, done, total
	if progress != nil {
		j.Progress = progress
	}
	now, err := run.r.shared(ctx, tx)
	if err != nil {
		return err
	}
	j.LeaseUntil = now.Add(run.r.cfg.Lease)
	control, err := tx.Save(ctx, j)
	if err == nil {
		run.learned(control)
	}
	return err
}

// Control reads what people want of the job; it looks into the store at most every 200 ms. While the runner is being
// stopped it answers jobs.Pause without that standing anywhere.
func (run *Run) Control(ctx context.Context) (jobs.Control, error) {
	if run.r.stopping.Load() {
		return jobs.Pause, nil
	}
	run.mu.Lock()
	c, fresh := run.control, run.r.clock().Sub(run.asked) < controlAge
	run.mu.Unlock()
	if fresh {
		return c, nil
	}
	var j jobs.Job
	err := run.r.st.View(ctx, func(tx store.Tx) (err error) {
		j, err = tx.Job(ctx, run.Job.ID)
		return err
	})
	if err != nil {
		return "", err
	}
	run.learned(j.Control)
	return j.Control, nil
}

// Continue reports whether the chunk should do another step: its time isn't up, its context is alive, nobody wants the job
// to pause or end, and no urgent job waits for its place. When it says no, save and return Again.
func (run *Run) Continue(ctx context.Context) bool {
	if ctx.Err() != nil || run.r.clock().Sub(run.begun) >= run.r.cfg.ChunkTime || run.inTheWay() {
		return false
	}
	c, err := run.Control(ctx)
	return err != nil || c == jobs.Run // a store that can't be read now will say so at the next Save
}

// inTheWay reports whether every place of this process is taken while an urgent job was queued here a moment ago.
func (run *Run) inTheWay() bool {
	r := run.r
	until := r.hurry.Load()
	return until != 0 && run.Job.Priority > jobs.PriorityUrgent && int(r.active.Load()) >= r.cfg.Concurrency && r.clock().UnixMicro() < until
}

// AddFailures puts items on the job's dead-letter list, or replaces what stands there for the same item and column. Errors: jobs.ErrLost
// when the job has another owner by now.
func (run *Run) AddFailures(ctx context.Context, failures []jobs.Failure) error {
	if len(failures) == 0 {
		return nil
	}
	return run.asOwner(ctx, func(tx store.Tx) error { return tx.AddFailures(ctx, run.Job.ID, failures) })
}

// Failures reads a page of the dead-letter list, and its whole length.
func (run *Run) Failures(ctx context.Context, offset, limit int) (page []jobs.Failure, total int64, err error) {
	err = run.r.st.View(ctx, func(tx store.Tx) (err error) {
		page, total, err = tx.Failures(ctx, run.Job.ID, offset, limit)
		return err
	})
	return page, total, err
}

// ClearFailures takes items off the dead-letter list: a retry did them. Nil clears the list. Errors: as AddFailures.
func (run *Run) ClearFailures(ctx context.Context, items []jobs.ItemColumn) error {
	return run.asOwner(ctx, func(tx store.Tx) error { return tx.ClearFailures(ctx, run.Job.ID, items) })
}

// renew moves the lease, and learns the control flag by the way.
func (run *Run) renew(ctx context.Context) error {
	return run.asOwner(ctx, func(store.Tx) error { return nil })
}

// asOwner renews, and changes something that belongs to the job in the same transaction: whoever was taken over changes nothing.
func (run *Run) asOwner(ctx context.Context, change func(store.Tx) error) error {
	var control jobs.Control
	err := run.r.st.Change(ctx, func(tx store.Tx) error {
		now, err := run.r.shared(ctx, tx)
		if err == nil {
			control, err = tx.Renew(ctx, run.Job.ID, run.Job.Epoch, now.Add(run.r.cfg.Lease))
		}
		if err != nil {
			return err
		}
		return change(tx)
	})
	if err == nil {
		run.learned(control)
	}
	return err
}

func (run *Run) learned(c jobs.Control) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.control, run.asked = c, run.r.clock()
}
