package runner

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// bursts are the pauses between the nudges after something was enqueued in a transaction that is still open: the commit
// comes when the caller pleases, usually within milliseconds. What is later is found by the poll.
var bursts = []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond}

// woken remembers the calls that sweeps made, so that one that waits in the queue isn't made again and again. It belongs
// to the loop's goroutine.
type woken map[string]wokenJob

type wokenJob struct {
	epoch int64
	at    time.Time
}

// loop is the runner's own goroutine: it nudges, and sweeps at the start, at every interval, and when a job of ours wants
// its next attempt.
func (r *Runner) loop(ctx context.Context) {
	defer close(r.loopEnd)
	calls := woken{}
	sweep, burst := time.NewTimer(0), time.NewTimer(time.Hour)
	defer sweep.Stop()
	defer burst.Stop()
	step := len(bursts)
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.now:
			r.nudge(ctx)
		case <-r.poke:
			step = 0
			burst.Reset(bursts[step])
		case <-burst.C:
			r.nudge(ctx)
			if step++; step < len(bursts) {
				burst.Reset(bursts[step])
			}
		case <-r.next.ring:
			sweep.Reset(r.next.within(r.clock(), r.cfg.Sweep))
		case <-sweep.C:
			r.sweep(ctx, calls, first)
			first = false
			sweep.Reset(r.next.within(r.clock(), r.cfg.Sweep))
		}
	}
}

// sweep makes a wake-up call for every job that somebody should work on and perhaps nobody does.
func (r *Runner) sweep(ctx context.Context, calls woken, first bool) {
	now := r.clock()
	r.next.clear(now)
	for id, w := range calls {
		if now.Sub(w.at) >= patience {
			delete(calls, id)
		}
	}
	found, err := r.search(ctx, first)
	if err != nil {
		if ctx.Err() == nil {
			r.warn("looking for jobs that nobody runs", "", err)
		}
		return
	}
	var wake []jobs.Job
	for _, j := range found {
		if w, ok := calls[j.ID]; !ok || w.epoch != j.Epoch {
			wake = append(wake, j)
		}
	}
	if len(wake) == 0 {
		return
	}
	err = r.st.Change(ctx, func(tx store.Tx) error {
		for _, j := range wake {
			if err := r.wake(ctx, tx, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.warn("waking jobs that nobody runs", "", err)
		return
	}
	for _, j := range wake {
		calls[j.ID] = wokenJob{epoch: j.Epoch, at: now}
	}
	r.nudge(ctx)
}

// search reads the jobs that need a call. Only the first sweep of an exclusive store looks at leases that have not run
// out: later, every running job is our own.
func (r *Runner) search(ctx context.Context, first bool) (found []jobs.Job, err error) {
	var stale, running []jobs.Job
	var now time.Time
	err = r.st.View(ctx, func(tx store.Tx) (err error) {
		if now, err = r.shared(ctx, tx); err != nil {
			return err
		}
		if stale, err = tx.Stale(ctx, now, sweepLimit); err != nil || !first || !r.cfg.Exclusive {
			return err
		}
		running, err = tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Running}, Limit: jobs.MaxLimit})
		return err
	})
	patience := patience
	if first && r.cfg.Exclusive {
		patience = 0 // whoever fetched their calls is dead
	}
	for _, j := range stale {
		if r.neglected(j, now, patience) {
			found = append(found, j)
		}
	}
	for _, j := range running {
		if !j.Orphaned(now, "") && j.Orphaned(now, r.owner) { // the others are among the stale
			found = append(found, j)
		}
	}
	return found, err
}

// neglected reports whether a job that Stale gave needs a call. One that waits in the queue for its first chunk has a
// call already; that this is lost can only be known when this process has a free place and still doesn't get it. One
// that runs here is alive however late our clock says it is: after a long sleep, or when somebody set the clock.
func (r *Runner) neglected(j jobs.Job, now time.Time, patience time.Duration) bool {
	if _, runsHere := r.here.Load(j.ID); runsHere && j.Owner == r.owner {
		return false
	}
	if j.State == jobs.Queued && j.Attempts == 0 && int(r.active.Load()) >= r.cfg.Concurrency {
		return false
	}
	return j.Orphaned(now, "") || j.Due(now, patience)
}

// alarm is the earliest time at which a job of this process wants another attempt.
type alarm struct {
	ring chan struct{} // gets something when the time was moved forward; capacity 1
	mu   sync.Mutex    // guards when
	when time.Time     // zero: none
}

// at sets the alarm unless an earlier one is set.
func (a *alarm) at(t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.when.IsZero() || t.Before(a.when) {
		a.when = t
		signal(a.ring)
	}
}

// within is the time until the alarm, at least a millisecond and at most limit.
func (a *alarm) within(now time.Time, limit time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.when.IsZero() {
		return limit
	}
	return min(max(a.when.Sub(now), time.Millisecond), limit)
}

// clear forgets an alarm that has rung.
func (a *alarm) clear(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.when.After(now) {
		a.when = time.Time{}
	}
}

// signal puts something into a channel of capacity 1 unless it is full: the reader will come anyway.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
