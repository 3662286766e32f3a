package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// An urgent job that finds every place taken gets one soon: the chunks of others end early, and go on after it.
func TestUrgentJobsGetAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var chunks atomic.Int64
		long := funcHandler{"long", func(ctx context.Context, run *Run) error {
			for chunks.Add(1); run.Continue(ctx); {
				<-time.After(100 * time.Millisecond)
			}
			return Again
		}}
		began := time.Time{}
		quick := funcHandler{"quick", func(context.Context, *Run) error { began = time.Now(); return nil }}
		r := newRunner(t, st, Config{Concurrency: 1}, long, quick)
		first := enqueue(t, st, r, jobs.Job{Kind: "long"})
		second := enqueue(t, st, r, jobs.Job{Kind: "long"})
		start(t, r)
		<-time.After(5 * time.Second)
		asked := time.Now()
		urgent := enqueue(t, st, r, jobs.Job{Kind: "quick", Priority: jobs.PriorityUrgent})
		if j := wait(t, r, urgent.ID); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
		if waited := began.Sub(asked); waited > 5*time.Second {
			t.Errorf("the urgent job waited %s for its place", waited)
		}
		before := chunks.Load()
		<-time.After(20 * time.Second)
		if n := chunks.Load() - before; n > 3 {
			t.Errorf("%d chunks in 20 s after the urgent job had ended: they still end early", n)
		}
		for _, j := range []jobs.Job{first, second} {
			do(t, st, r, (*Runner).Cancel, j.ID)
		}
		for _, j := range []jobs.Job{first, second} {
			wait(t, r, j.ID)
		}
	})
}

// Raise puts a job that waits before others, lets a paused one go on, and refuses one that has ended.
func TestRaise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{Concurrency: 1}, c)
		waiting := enqueue(t, st, r, jobs.Job{Kind: "count", Total: 2})
		paused := enqueuePaused(t, st, r)
		for _, id := range []string{waiting.ID, paused} {
			if j := do(t, st, r, (*Runner).Raise, id); j.Priority != jobs.PriorityUrgent || j.State != jobs.Queued || j.Control == jobs.Pause && id == waiting.ID {
				t.Errorf("raised: %+v", j)
			}
		}
		start(t, r)
		for _, id := range []string{waiting.ID, paused} {
			if j := wait(t, r, id); j.State != jobs.Done || j.Priority != jobs.PriorityUrgent {
				t.Errorf("%+v", j)
			}
		}
		if n := len(c.of(waiting.ID)); n != 2 {
			t.Errorf("%d steps of a raised job: two wake-up calls must not do a step twice", n)
		}
		refuse(t, st, r, (*Runner).Raise, waiting.ID, api.CodeWrongState)
		refuse(t, st, r, (*Runner).Raise, "none", api.CodeNotFound)
	})
}

// Recall takes a running chunk over: the next one begins at once, and the old one writes nothing more. A job that isn't running
// is left alone.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		stopped := make(chan error, 1)
		begun := make(chan int64, 2)
		long := funcHandler{"long", func(ctx context.Context, run *Run) error {
			if begun <- run.Job.Epoch; run.Job.Epoch > 1 {
				return nil
			}
			for {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
				if err := run.Save(ctx, nil, nil, 1, 2); err != nil {
					stopped <- err
					return err
				}
			}
		}}
		r := newRunner(t, st, Config{}, long)
		recall := func(id string) {
			t.Helper()
			change(t, st, func(tx store.Tx) error { return r.Recall(t.Context(), tx, id) })
		}
		j := enqueue(t, st, r, jobs.Job{Kind: "long"})
		recall(j.ID)
		start(t, r)
		receive(t, begun, "first chunk")
		asked := time.Now()
		recall(j.ID)
		if epoch := receive(t, begun, "second chunk"); epoch != 2 || time.Since(asked) > 2*time.Second {
			t.Errorf("epoch %d after %s", epoch, time.Since(asked))
		}
		if err := receive(t, stopped, "end of the first chunk"); !errors.Is(err, jobs.ErrLost) {
			t.Errorf("the first chunk ended with %v", err)
		}
		if j := wait(t, r, j.ID); j.State != jobs.Done || j.Priority != jobs.PriorityNormal {
			t.Errorf("%+v", j)
		}
		recall(j.ID)
		if j := read(t, st, j.ID); j.State != jobs.Done {
			t.Errorf("%+v", j)
		}
	})
}
