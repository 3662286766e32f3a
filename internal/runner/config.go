package runner

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Config says how a process runs jobs. The zero value of each field is a good one.
type Config struct {
	// Node names this process in the rows that it owns. Two processes may have the same: a random part is added.
	// Default: "local".
	Node string

	// Concurrency is how many chunks run at once in this process. Default 4.
	Concurrency int

	// Exclusive says that no other process can hold the store (SQLite under the lock of its directory): then every running
	// job of another owner belongs to a dead process, and is taken up at the start instead of when its lease runs out.
	Exclusive bool

	// Poll is how often the queue is asked for wake-up calls that another process made; our own come without waiting for
	// it. Between 250 ms and 1 s is sensible. Default 500 ms, and 1 s when Exclusive.
	Poll time.Duration

	// Sweep is how often the table is searched for jobs that nobody works on. Default 3 s.
	Sweep time.Duration

	// Lease is how long an owner is believed alive after it last wrote; it is renewed three times within. After a kill -9
	// another process takes over within Lease plus Sweep. Default 30 s.
	Lease time.Duration

	// ChunkTime is after how much time Run.Continue ends a chunk. Default 30 s.
	ChunkTime time.Duration

	// ChunkLimit is when the context of a chunk ends, for handlers that didn't listen. Default 1 min; more than ChunkTime.
	ChunkLimit time.Duration

	// HandOn is the length of a chunk after which the job's next one is left to whichever process asks first, this one at its
	// next poll like the others: so long jobs spread over the nodes, and short chunks follow one another without a pause.
	// Default 5 s. It has no meaning when Exclusive.
	HandOn time.Duration

	// MaxAttempts is how many chunks of a job may fail in a row. Default jobs.DefaultMaxAttempts.
	MaxAttempts int

	// GaveUp hears of every job that a chunk of this process made fail, after that is written down; a process that is killed
	// in between says nothing. Default: nobody.
	GaveUp func(ctx context.Context, j jobs.Job)

	// Clock tells the time. Default time.Now.
	Clock func() time.Time

	// Jitter draws a number in [0, 1) for the back-off. Default math/rand/v2: it need not be unpredictable.
	Jitter func() float64

	// Logger gets what goes wrong in the machinery: warnings and errors, ids and kinds, never arguments. Default: nowhere.
	Logger *slog.Logger
}

// Times that are no choice.
const (
	// patience is how long a wake-up call may take to be answered while this process has nothing else to do, before the
	// sweep makes it again.
	patience = 30 * time.Second
	// saveTime bounds the writes that end a chunk; they happen even when the chunk's own time is up.
	saveTime = 10 * time.Second
	// controlAge is how old the answer of Run.Control may be.
	controlAge = 200 * time.Millisecond
	// waitPoll is how often Wait looks at a job that another process may be running.
	waitPoll = 250 * time.Millisecond
	// hurryTime is how long after an urgent job was queued the chunks of others end early to make room for it. It comes to
	// an end because the transaction that queued it may not have been committed.
	hurryTime = 10 * time.Second
	// sweepLimit is how many jobs one sweep looks at, those due longest first.
	sweepLimit = 1000
)

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	if c.Node == "" {
		c.Node = "local"
	}
	if c.Concurrency == 0 {
		c.Concurrency = 4
	}
	if c.Exclusive {
		or(&c.Poll, time.Second)
	}
	or(&c.Poll, 500*time.Millisecond)
	or(&c.Sweep, 3*time.Second)
	or(&c.Lease, 30*time.Second)
	or(&c.ChunkTime, 30*time.Second)
	or(&c.ChunkLimit, time.Minute)
	or(&c.HandOn, 5*time.Second)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Concurrency < 0 || c.Concurrency > 100:
		return fault.New(api.CodeInvalid, "configuring the job runner: concurrency is not between 1 and 100").WithField("concurrency")
	case c.Poll < 0 || c.Sweep < 0 || c.Lease < 0 || c.ChunkTime < 0 || c.MaxAttempts < 0:
		return fault.New(api.CodeInvalid, "configuring the job runner: a duration or count is negative")
	case c.ChunkLimit <= c.ChunkTime:
		return fault.New(api.CodeInvalid, "configuring the job runner: the limit of a chunk is not more than its time").WithField("chunkLimit")
	case c.ChunkLimit > rescueAfter/2:
		return fault.New(api.CodeInvalid, "configuring the job runner: the limit of a chunk is more than 2.5 minutes").WithField("chunkLimit")
	}
	return nil
}

// shared is the time by which all processes of the store judge leases and attempts; by their own clocks, one that is ahead
// would take the jobs of those that are alive.
func (r *Runner) shared(ctx context.Context, tx store.Tx) (time.Time, error) {
	return tx.Now(ctx, r.clock())
}

// clock is the time as rows hold it: UTC, microseconds. It is this process's own: for what no other process compares.
func (r *Runner) clock() time.Time { return r.cfg.Clock().UTC().Truncate(time.Microsecond) }
