package runner

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// funcHandler is a handler made of a function.
type funcHandler struct {
	kind string
	run  func(context.Context, *Run) error
}

func (h funcHandler) Kind() string                            { return h.kind }
func (h funcHandler) Run(ctx context.Context, run *Run) error { return h.run(ctx, run) }

// counter is a handler that counts from its cursor to Total, one step per chunk, and notes each step with the epoch
// under which it was done.
type counter struct {
	mu    sync.Mutex
	steps map[string][]step

	at     int64                               // call before at this step
	before func(context.Context, *Run) error   // nil: nothing
	each   func(ctx context.Context, run *Run) // called in every chunk; nil: nothing
	done   func(step)                          // called for every step before it is saved; nil: nothing
}

type step struct{ n, epoch int64 }

func (c *counter) Kind() string { return "count" }

func (c *counter) Run(ctx context.Context, run *Run) error {
	n := int64(0)
	if len(run.Job.Cursor) == 8 {
		n = int64(binary.BigEndian.Uint64(run.Job.Cursor))
	}
	if c.each != nil {
		c.each(ctx, run)
	}
	if c.before != nil && n == c.at {
		if err := c.before(ctx, run); err != nil {
			return err
		}
	}
	if n >= run.Job.Total {
		return nil
	}
	c.mu.Lock()
	if c.steps == nil {
		c.steps = map[string][]step{}
	}
	c.steps[run.Job.ID] = append(c.steps[run.Job.ID], step{n, run.Job.Epoch})
	c.mu.Unlock()
	if c.done != nil {
		c.done(step{n, run.Job.Epoch})
	}
	n++
	if err := run.Save(ctx, binary.BigEndian.AppendUint64(nil, uint64(n)), nil, n, run.Job.Total); err != nil {
		return err
	}
	if n == run.Job.Total {
		return nil
	}
	return Again
}

func (c *counter) of(id string) []step {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]step(nil), c.steps[id]...)
}

// newRunner makes a runner that is stopped when the test ends.
func newRunner(t *testing.T, st store.Store, cfg Config, hs ...Handler) *Runner {
	t.Helper()
	r, err := New(cfg, st, hs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return r
}

func start(t *testing.T, r *Runner) {
	t.Helper()
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// enqueue puts a job of the counter into the store.
func enqueue(t *testing.T, st store.Store, r *Runner, j jobs.Job) jobs.Job {
	t.Helper()
	var out jobs.Job
	change(t, st, func(tx store.Tx) (err error) { out, err = r.Enqueue(t.Context(), tx, j); return err })
	return out
}

func change(t *testing.T, st store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := st.Change(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, st store.Store, id string) (j jobs.Job) {
	t.Helper()
	err := st.View(t.Context(), func(tx store.Tx) (err error) { j, err = tx.Job(t.Context(), id); return err })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// testPatience is how long an event may take on a machine that is busy with other tests; one that never comes must not hang the test.
const testPatience = 5 * time.Minute

// wait waits until the job is settled, or fails the test when that takes too long.
func wait(t *testing.T, r *Runner, id string) jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	j, err := r.Wait(ctx, id, nil)
	if err != nil {
		t.Fatalf("waiting for %s: %v (%+v)", id, err, j)
	}
	return j
}

func receive[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testPatience):
		t.Fatalf("no %s within %v", what, testPatience)
	}
	return v
}
