// Package runner runs the jobs of internal/jobs: it wakes them, claims them, calls the handler of their kind for one chunk
// after another, and writes down how it went. One Runner per process; several processes on one PostgreSQL share the work.
//
//	r, err := runner.New(runner.Config{Node: "node-1"}, st, handlers...)
//	err = r.Start(ctx)                                    // takes up what a dead process left
//	err = st.Change(ctx, func(tx store.Tx) error { job, err = r.Enqueue(ctx, tx, jobs.Job{Kind: "census", …}); return err })
//	job, err = r.Wait(ctx, job.ID, func(j jobs.Job) { … })
//	err = r.Stop(ctx)
//
// # Who holds what
//
// The row in our own table is the truth: state, cursor, epoch, lease. River (the job library behind this room) holds only
// wake-up calls: a River job says "look at job J if its epoch is still E", and is inserted in the transaction that made
// the look necessary. A call that comes twice or too late does nothing, because claiming is a compare-and-swap on the
// epoch; a call that is lost is made again by the sweep. docs/decisions/0005-river-behind-our-contract.md says why.
//
// # What a crash leaves behind (P5)
//
// A row in state running whose lease runs out. The sweep of any live process, or of the next one at its start, wakes it;
// the claim raises the epoch, so that the dead owner, should it only have been asleep, can't write any more. The chunk
// begins again at the last saved cursor: one chunk at most is done twice, which is why handlers are idempotent.
package runner

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Handler does the work of one kind of job.
type Handler interface {
	// Kind names the jobs that it runs; it never changes, because it stands in stored rows.
	Kind() string
	// Run does one chunk: it starts at the job's Cursor, saves as it goes, and returns Again when there is more to do, nil
	// when the job is done, and an error otherwise. It looks at Run.Continue between its steps and returns Again soon after
	// that says no. A chunk may be repeated after a crash from the last saved cursor, and two processes may for a moment
	// run it at once, so what it writes elsewhere must be guarded by the old value. An error whose code can't pass by
	// itself (jobs.Retryable) fails the job at once.
	Run(ctx context.Context, run *Run) error
}

// Again is what a Handler returns when its chunk went well and more is left. It isn't a failure.
var Again = fault.New(api.CodeInternal, "the chunk is done and the job is not")

// Later is what a Handler returns when its chunk went well and there is nothing to do before some time has passed. It isn't
// a failure, and the job counts as queued meanwhile. Why is shown with the job: what it waits for, for people.
type Later struct {
	After time.Duration
	Why   string
}

// Error says what it is, for whoever returns it elsewhere.
func (l *Later) Error() string { return "the job has to wait" }

// Away is what a Handler returns when what its job needs can't be reached and is to be waited for: the chunk failed with Err,
// and is tried again with the pauses of jobs.Backoff for about a day (jobs.PatientTries) instead of as often as the job's
// Tries say. Chunks that get on in between begin the day anew.
type Away struct{ Err error }

// Error is that of Err.
func (a *Away) Error() string { return a.Err.Error() }

// Unwrap is Err.
func (a *Away) Unwrap() error { return a.Err }

// Runner is the engine of one process. Its methods are safe for concurrent use.
type Runner struct {
	cfg      Config
	st       store.Store
	handlers map[string]Handler // written by New only
	owner    string             // this process: the node's name and a random part, so that a restart is somebody else
	client   *river.Client[*sql.Tx]
	hub      hub

	active   atomic.Int32 // chunks running now
	here     sync.Map     // ids of the jobs whose lease this process keeps now; the sweep leaves them alone
	strange  sync.Map     // ids of jobs of kinds that nothing here runs, each said once
	stopping atomic.Bool  // set once by Stop; chunks see it through Run.Continue and Run.Control
	hurry    atomic.Int64 // until when chunks make room for an urgent job that waits, in microseconds; 0: none waits

	poke chan struct{} // something was enqueued in a transaction that may not be committed yet; capacity 1
	now  chan struct{} // something was committed; capacity 1
	next alarm         // when a job of ours wants its next attempt

	aborted context.Context    // done when chunks that run have to break off; Stop cancels it
	abort   context.CancelFunc // ends aborted

	mu      sync.Mutex // guards what follows
	state   lifeState
	chunks  sync.WaitGroup // answers that are under way; none is added once state is stopped
	endLoop context.CancelFunc
	loopEnd chan struct{} // closed when the loop has returned
	stopped chan struct{} // closed when Stop has finished
}

// lifeState is how far a Runner has come; it only grows.
type lifeState int

const (
	fresh lifeState = iota
	started
	stopped
)

// New prepares a Runner and checks its configuration. It doesn't touch the database and starts nothing: jobs can be
// enqueued at once, and run when some process starts.
func New(cfg Config, st store.Store, handlers ...Handler) (*Runner, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	r := &Runner{
		cfg: cfg, st: st, handlers: map[string]Handler{}, hub: hub{subs: map[string]map[chan struct{}]bool{}},
		poke: make(chan struct{}, 1), now: make(chan struct{}, 1), stopped: make(chan struct{}),
		next: alarm{ring: make(chan struct{}, 1)},
	}
	r.aborted, r.abort = context.WithCancel(context.Background())
	for _, h := range handlers {
		if _, twice := r.handlers[h.Kind()]; twice || h.Kind() == "" {
			return nil, fault.Newf(api.CodeInternal, "registering job handlers: kind %q is empty or taken", h.Kind())
		}
		r.handlers[h.Kind()] = h
	}
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "drawing the runner's name")
	}
	r.owner = fmt.Sprintf("%s/%s", cfg.Node, hex.EncodeToString(id[:]))
	client, err := r.newClient()
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "preparing the job queue")
	}
	r.client = client
	return r, nil
}

// Start begins to run jobs and returns when it does. The first sweep, which takes up what a dead process left, follows at
// once. Cancelling ctx afterwards stops nothing: Stop does. A second call does nothing; a Runner that was stopped can't be
// started again. Not to be called inside a transaction: with SQLite it would wait for the connection that this holds.
func (r *Runner) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.state {
	case started:
		return nil
	case stopped:
		return fault.New(api.CodeInternal, "starting a job runner that was stopped")
	}
	ctx = context.WithoutCancel(ctx)
	if err := r.startQueue(ctx); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "starting the job queue").WithNext("check that the store can be reached: keyturn doctor")
	}
	ctx, r.endLoop = context.WithCancel(ctx)
	r.loopEnd = make(chan struct{})
	r.state = started
	go r.loop(ctx)
	return nil
}

// queueStart is how long River may take to start, which is a few statements: whoever wants to stop waits for that.
const queueStart = 30 * time.Second

// startQueue starts River under a context that ends only when starting takes too long: its end later would end all work.
func (r *Runner) startQueue(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(queueStart, cancel)
	err := r.client.Start(ctx)
	if !limit.Stop() && err == nil {
		err = context.DeadlineExceeded // River has seen the end of ctx, and stops by itself
	}
	if err != nil {
		cancel()
	}
	return err
}

// queueEnd is how long Stop waits for River once no chunk runs any more.
const queueEnd = 3 * time.Second

// Stop ends the work of this process. It takes no new chunk, asks those that run to come to an end, and returns when each
// has saved its cursor and put its job back for others. When ctx ends first, their contexts are cancelled, and Stop still
// waits for them to return. What could not be saved is repeated by whoever runs next. Further calls wait for the first.
//
// River gets a few seconds more to put its own affairs in order and is then left behind: none of our work is in its hands
// any more, and there are states from which it never comes back (see TestStopDoesNotWaitForRiver).
func (r *Runner) Stop(ctx context.Context) error {
	r.mu.Lock()
	was := r.state
	r.state = stopped
	r.mu.Unlock()
	r.stopping.Store(true)
	switch was {
	case fresh:
		close(r.stopped)
		return nil
	case stopped:
		<-r.stopped
		return nil
	}
	defer close(r.stopped)
	r.endLoop()
	<-r.loopEnd
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = r.client.Stop(context.WithoutCancel(ctx)) // fails only with its context
	}()
	unwatch := context.AfterFunc(ctx, r.abort)
	r.chunks.Wait()
	unwatch()
	r.abort()
	patience := time.NewTimer(queueEnd)
	defer patience.Stop()
	select {
	case <-gone:
	case <-patience.C:
		r.cfg.Logger.Warn("jobs: the queue has not stopped and is left behind; no job was running any more", slog.Duration("waited", queueEnd))
	}
	return nil
}

// enter counts an answer that begins, unless Stop was called. leave is called at its end.
func (r *Runner) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == stopped {
		return false
	}
	r.chunks.Add(1)
	r.active.Add(1)
	return true
}

func (r *Runner) leave() {
	r.active.Add(-1)
	r.chunks.Done()
}
