package runner

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// With polling and sweeping put off for an hour, only the nudge after the commit can start the chunks.
func TestChunksStartWithoutPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{Exclusive: true, Poll: time.Hour, Sweep: time.Hour}, c)
		start(t, r)
		<-time.After(time.Second) // the first sweep and fetch are over
		begun := time.Now()
		j := wait(t, r, enqueue(t, st, r, jobs.Job{Kind: "count", Total: 20}).ID)
		if j.State != jobs.Done || j.Done != 20 || !j.Finished.After(j.Created) {
			t.Errorf("%+v", j)
		}
		checkSteps(t, c.of(j.ID), 20, 0)
		if d := time.Since(begun); d > time.Second {
			t.Errorf("20 chunks took %v of a clock that stands still while anything works", d)
		}
	})
}

func TestUniqueAmongUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{}, c)
		job := jobs.Job{Kind: "count", Total: 3, UniqueKey: "dataset/patients", Subject: "dataset/patients", Actor: "admin"}
		first := enqueue(t, st, r, job)
		if again := enqueue(t, st, r, job); again.ID != first.ID {
			t.Errorf("two unfinished jobs share a unique key: %s and %s", first.ID, again.ID)
		}
		start(t, r)
		wait(t, r, first.ID)
		second := enqueue(t, st, r, job)
		if second.ID == first.ID {
			t.Error("a finished job stands in the way of a new one")
		}
		wait(t, r, second.ID)
		if n := len(c.of(first.ID)) + len(c.of(second.ID)); n != 6 {
			t.Errorf("%d steps in two jobs of 3", n)
		}
	})
}

func TestEnqueueRefusesWhatNobodyRuns(t *testing.T) {
	st := openStore(t)
	r := newRunner(t, st, Config{}, &counter{})
	for _, j := range []jobs.Job{{Kind: "other"}, {}, {Kind: "count", Priority: 9}} {
		err := st.Change(t.Context(), func(tx store.Tx) error { _, err := r.Enqueue(t.Context(), tx, j); return err })
		if err == nil {
			t.Errorf("%+v was enqueued", j)
		}
	}
}

// A job whose transaction is rolled back never runs: its call was rolled back with it.
func TestRolledBackJobNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, c := openStore(t), &counter{}
		r := newRunner(t, st, Config{}, c)
		start(t, r)
		var id string
		err := st.Change(t.Context(), func(tx store.Tx) error {
			j, err := r.Enqueue(t.Context(), tx, jobs.Job{Kind: "count", Total: 1})
			id = j.ID
			return errors.Join(err, errors.New("no"))
		})
		if err == nil {
			t.Fatal("committed")
		}
		<-time.After(time.Minute)
		var calls int
		if err := st.DB().QueryRow(`SELECT count(*) FROM river_job`).Scan(&calls); err != nil || calls != 0 || len(c.of(id)) != 0 {
			t.Errorf("%d calls, %d steps, %v", calls, len(c.of(id)), err)
		}
	})
}

func TestBoundedConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var now, most atomic.Int32
		r := newRunner(t, st, Config{Concurrency: 3}, funcHandler{"k", func(context.Context, *Run) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-time.After(time.Second)
			now.Add(-1)
			return nil
		}})
		start(t, r)
		var ids []string
		for range 12 {
			ids = append(ids, enqueue(t, st, r, jobs.Job{Kind: "k"}).ID)
		}
		for _, id := range ids {
			wait(t, r, id)
		}
		if most.Load() != 3 {
			t.Errorf("%d chunks ran at once, want 3", most.Load())
		}
	})
}

func TestPriorityGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		var mu sync.Mutex
		var order []string
		r := newRunner(t, st, Config{Concurrency: 1}, funcHandler{"k", func(_ context.Context, run *Run) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, strconv.Itoa(run.Job.Priority))
			return nil
		}})
		var ids []string
		for _, p := range []int{4, 0, 3, 1, 2} {
			ids = append(ids, enqueue(t, st, r, jobs.Job{Kind: "k", Priority: p}).ID)
		}
		start(t, r)
		for _, id := range ids {
			wait(t, r, id)
		}
		if got := strings.Join(order, " "); got != "1 2 2 3 4" {
			t.Errorf("ran in the order %s", got)
		}
	})
}

// Stop lets the chunk save, gives the job back, may be called twice; the next process goes on at once.
func TestStopLeavesTheJobResumable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		running := make(chan struct{})
		var seen jobs.Control
		r := newRunner(t, st, Config{Node: "first"}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			close(running)
			for run.Continue(ctx) {
				<-time.After(time.Millisecond)
			}
			seen, _ = run.Control(ctx)
			if err := run.Save(ctx, []byte("here"), nil, 1, 2); err != nil {
				return err
			}
			return Again
		}})
		start(t, r)
		id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
		receive(t, running, "chunk")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := r.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		left := read(t, st, id)
		if left.State != jobs.Queued || left.Control != jobs.Run || left.Owner != "" || string(left.Cursor) != "here" || seen != jobs.Pause {
			t.Errorf("left %+v, the handler saw %q", left, seen)
		}
		next := newRunner(t, st, Config{Node: "second"}, funcHandler{"k", func(_ context.Context, run *Run) error {
			if string(run.Job.Cursor) != "here" {
				t.Errorf("began at %q", run.Job.Cursor)
			}
			return nil
		}})
		begun := time.Now()
		start(t, next)
		if j := wait(t, next, id); j.State != jobs.Done || time.Since(begun) > time.Second {
			t.Errorf("after %v: %+v", time.Since(begun), j)
		}
	})
}

// A handler that doesn't listen is cut off when Stop's own time is up; its job is put back all the same, without a failure.
func TestStopCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		running := make(chan struct{})
		r := newRunner(t, st, Config{}, funcHandler{"k", func(ctx context.Context, run *Run) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		}})
		start(t, r)
		id := enqueue(t, st, r, jobs.Job{Kind: "k"}).ID
		receive(t, running, "chunk")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
		if j := read(t, st, id); j.State != jobs.Queued || j.Attempts != 0 || j.Error != "" || time.Since(begun) > 3*time.Second {
			t.Errorf("after %v: %+v", time.Since(begun), j)
		}
	})
}

// River may never come to its end: its elector tells subscribers of a lost election while it holds the lock that a subscriber
// wants for leaving (v0.31.0, about one stop in ten thousand when it comes right after the start). Here it waits for the
// only connection, which the test holds. No chunk runs, so nobody has to wait for it.
func TestStopDoesNotWaitForRiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		log := &recorder{}
		r := newRunner(t, st, Config{Exclusive: true, Logger: log.logger()}, &counter{})
		start(t, r)
		enqueued := enqueue(t, st, r, jobs.Job{Kind: "count", Total: 3}).ID
		wait(t, r, enqueued)
		synctest.Wait()
		conn, err := st.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended, begun := r.client.Stopped(), time.Now()
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != queueEnd || !strings.Contains(log.String(), "left behind") {
			t.Errorf("stopped after %v, saying %q", took, log.String())
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-ended // a bubble must not be left before what it holds has ended
	})
}

func TestLifeOfARunner(t *testing.T) {
	st := openStore(t)
	r := newRunner(t, st, Config{}, &counter{})
	start(t, r)
	start(t, r) // twice is once
	for range 2 {
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := r.Start(t.Context()); err == nil {
		t.Error("a stopped runner started again")
	}
	idle := newRunner(t, st, Config{}, &counter{})
	for range 2 {
		if err := idle.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	st := openStore(t)
	for name, cfg := range map[string]Config{
		"concurrency": {Concurrency: 101}, "below": {Concurrency: -1}, "poll": {Poll: -1}, "limit": {ChunkLimit: 30 * time.Second},
		"rescue": {ChunkLimit: 3 * time.Minute}, "attempts": {MaxAttempts: -1},
	} {
		if _, err := New(cfg, st); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{}, st, &counter{}, &counter{}); err == nil {
		t.Error("two handlers of one kind")
	}
	if _, err := New(Config{}, st, funcHandler{}); err == nil {
		t.Error("a handler without a kind")
	}
}

// Two runners on one store never run one chunk twice: every step is done once, each under its own epoch (FAULTS row 6).
func TestNoDoubleRun(t *testing.T) {
	st, c := openStore(t), &counter{}
	r1 := newRunner(t, st, Config{Node: "one", Poll: 20 * time.Millisecond}, c)
	r2 := newRunner(t, st, Config{Node: "two", Poll: 20 * time.Millisecond}, c)
	var ids []string
	for range 20 {
		ids = append(ids, enqueue(t, st, r1, jobs.Job{Kind: "count", Total: 5}).ID)
	}
	start(t, r1)
	start(t, r2)
	for _, id := range ids {
		wait(t, r2, id)
		checkSteps(t, c.of(id), 5, 0)
	}
}

// P3: what a job is about stands in our table only, not in River's.
func TestRiverHoldsNoArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t)
		log := &recorder{}
		r := newRunner(t, st, Config{Logger: log.logger(), MaxAttempts: 1}, funcHandler{"k", func(context.Context, *Run) error {
			return fault.Wrap(api.CodeUnavailable, errors.New("canary-77aa"), "reading")
		}})
		start(t, r)
		j := enqueue(t, st, r, jobs.Job{Kind: "k", Args: []byte(`{"x":"canary-77aa"}`), Subject: "canary-77aa", UniqueKey: "canary-77aa", Actor: "canary-77aa"})
		wait(t, r, j.ID)
		<-time.After(time.Minute)
		var rows string
		err := st.DB().QueryRow(`SELECT coalesce(group_concat(cast(args AS text) || coalesce(cast(errors AS text), '') || cast(metadata AS text) || cast(tags AS text)), '') FROM river_job`).Scan(&rows)
		if err != nil || !strings.Contains(rows, j.ID) || strings.Contains(rows, "canary") {
			t.Errorf("%v: %s", err, rows)
		}
		log.mustNotHold(t, "canary")
	})
}
