package runner

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivertype"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

const (
	queueName = "keyturn"
	// rescueAfter is when River calls one of its own jobs stuck. It doesn't matter to us, because leases are ours; River
	// only wants it to be more than the limit of a chunk.
	rescueAfter = 5 * time.Minute
	// keepCalls is how long answered wake-up calls stay in River's table.
	keepCalls = 15 * time.Minute
	// snooze is how long a call waits that was put back: less than the 5 s from which on River wants its leader for it.
	snooze = 2 * time.Second
	// fetchCooldown is the least time between two fetches, which bounds how fast tiny jobs follow one another.
	fetchCooldown = 5 * time.Millisecond
)

// wakeUp is the only kind of River job: look at this job if its epoch is still this. It holds no argument of the job
// itself, so River's tables, logs and errors can't show one.
type wakeUp struct {
	Job   string `json:"job"`
	Epoch int64  `json:"epoch"`
}

// Kind names the calls in River's table.
func (wakeUp) Kind() string { return "keyturn-chunk" }

// worker answers wake-up calls.
type worker struct {
	river.WorkerDefaults[wakeUp]
	r *Runner
}

// Work runs a chunk. It never asks River for a retry: what must be tried again stands in our own row. A call for a job of
// a kind that nothing here runs is put back for a process that does, as there is one while nodes are upgraded.
func (w *worker) Work(ctx context.Context, call *river.Job[wakeUp]) error {
	if w.r.answer(ctx, call.Args) {
		return nil
	}
	return river.JobSnooze(snooze)
}

func (r *Runner) newClient() (*river.Client[*sql.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{r: r}); err != nil {
		return nil, err
	}
	var driver riverdriver.Driver[*sql.Tx] = riversqlite.New(r.st.DB())
	if r.st.Dialect() == store.Postgres {
		driver = riverdatabasesql.New(r.st.DB())
	}
	return river.NewClient(driver, &river.Config{
		ID:                          r.owner,
		Queues:                      map[string]river.QueueConfig{queueName: {MaxWorkers: r.cfg.Concurrency}},
		Workers:                     workers,
		Middleware:                  []rivertype.Middleware{river.JobInsertMiddlewareFunc(skipNudges)},
		PollOnly:                    true,
		FetchPollInterval:           r.cfg.Poll,
		FetchCooldown:               min(fetchCooldown, r.cfg.Poll),
		JobTimeout:                  r.cfg.ChunkLimit,
		RescueStuckJobsAfter:        rescueAfter,
		CompletedJobRetentionPeriod: keepCalls,
		CancelledJobRetentionPeriod: keepCalls,
		DiscardedJobRetentionPeriod: keepCalls,
		MaxAttempts:                 1,
		Logger:                      slog.New(quiet{r.cfg.Logger.Handler()}),
	})
}

// wake puts a wake-up call for the job's present epoch into the transaction.
func (r *Runner) wake(ctx context.Context, tx store.Tx, j jobs.Job) error {
	opts := &river.InsertOpts{Queue: queueName, Priority: priority(j), MaxAttempts: 1}
	if _, err := r.client.InsertTx(ctx, tx.SQL(), wakeUp{Job: j.ID, Epoch: j.Epoch}, opts); err != nil {
		return fault.Wrapf(api.CodeUnavailable, err, "queueing job %s", j.ID)
	}
	return nil
}

// priority is the job's, within River's range even if a row was edited by hand.
func priority(j jobs.Job) int {
	return min(max(j.Priority, jobs.PriorityUrgent), jobs.PriorityIdle)
}

// nudging marks a context in which an insert is only a nudge.
type nudging struct{}

// nudge makes this process ask for wake-up calls now instead of at the next poll. River triggers a fetch after every
// insert that isn't part of a caller's transaction; ours are, so River can't know when they are committed. The nudge is
// such an insert that skipNudges keeps from writing anything: a BEGIN and a COMMIT. With SQLite's single connection it
// also waits for the transaction that is open at the moment, which is usually the one that enqueued.
func (r *Runner) nudge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, nudging{}, true), saveTime)
	defer cancel()
	if _, err := r.client.Insert(ctx, wakeUp{}, &river.InsertOpts{Queue: queueName}); err != nil && ctx.Err() == nil {
		r.warn("asking for work", "", err) // the poll asks again
	}
}

// skipNudges is River's hook around inserts: it lets a nudge through without inserting.
func skipNudges(ctx context.Context, _ []*rivertype.JobInsertParams, insert func(context.Context) ([]*rivertype.JobInsertResult, error)) ([]*rivertype.JobInsertResult, error) {
	if ctx.Value(nudging{}) == nil {
		return insert(ctx)
	}
	return []*rivertype.JobInsertResult{{Job: &rivertype.JobRow{Queue: queueName}}}, nil
}
