package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
)

// A waiter of the same process sees every save at once: here each save waits until the one before was seen.
func TestWaiterSeesEverySave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		seen := make(chan int64, 1)
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			for n := int64(1); n <= 5; n++ {
				if err := run.Save(ctx, nil, nil, n, 5); err != nil {
					return err
				}
				begun := time.Now()
				for got := int64(0); got < n; {
					got = receive(t, seen, "progress")
				}
				if d := time.Since(begun); d > 0 {
					t.Errorf("save %d was seen after %v: polled, not told", n, d)
				}
			}
			return nil
		}})
		start(t, r)
		var last int64 = -1
		j, err := r.Wait(t.Context(), enqueue(t, st, r, jobs.Job{Kind: "k"}).ID, func(j jobs.Job) {
			if j.Done < last {
				t.Errorf("%d done after %d", j.Done, last)
			}
			if last = j.Done; j.State == jobs.Running {
				seen <- j.Done
			}
		})
		if err != nil || j.State != jobs.Done || j.Done != 5 {
			t.Errorf("%v: %+v", err, j)
		}
	})
}

// A waiter of another process, which runs nothing itself, sees the end within its poll.
func TestWaiterOfAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		r := newRunner(t, st, Config{Node: "works"}, funcHandler{"k", func(context.Context, *Run) error {
			<-time.After(5 * time.Second)
			return nil
		}})
		start(t, r)
		watcher := newRunner(t, st, Config{Node: "watches"})
		j := enqueue(t, st, r, jobs.Job{Kind: "k"})
		j = wait(t, watcher, j.ID)
		if late := time.Now().UTC().Sub(j.Finished); j.State != jobs.Done || late > 250*time.Millisecond {
			t.Errorf("seen %v late: %+v", late, j)
		}
	})
}

// Ctrl-C of a waiter is not the end of the job: the error says how to go on.
func TestInterruptedWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			for run.Continue(ctx) {
				<-time.After(time.Second)
			}
			return Again
		}})
		start(t, r)
		id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
		ctx, cancel := context.WithCancel(t.Context())
		_, err := r.Wait(ctx, id, func(j jobs.Job) {
			if j.State == jobs.Running {
				cancel()
			}
		})
		if fault.CodeOf(err) != api.CodeCancelled || !errors.Is(err, context.Canceled) || fault.NextOf(err) == "" {
			t.Errorf("%v (next: %s)", err, fault.NextOf(err))
		}
		if err := r.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if j := read(t, st, id); j.State != jobs.Queued {
			t.Errorf("%+v", j)
		}
		if len(r.hub.subs) != 0 {
			t.Error("the waiter is still on the list")
		}
	})
}

func TestWaitForNoJob(t *testing.T) {
	r := newRunner(t, openStore(t), Config{})
	if _, err := r.Wait(t.Context(), "0123456789abcdefghijklmn", nil); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("%v", err)
	}
}
