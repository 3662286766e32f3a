package jobs

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// ErrLost is what a compare-and-swap answers when the epoch is not the caller's any more (or the job is not in a state
// that can be claimed): somebody else owns the job, and the caller must stop without writing anything.
var ErrLost = fault.New(api.CodeConflict, "writing a job that another process has taken over")

// Failure is one item that a job could not do and left behind: a row of the dead-letter list. It is identified by its
// Item and Column; adding it again replaces reason, time and Retry.
type Failure struct {
	Item   string    // what failed, as people name it, e.g. the row's primary key
	Column string    // empty when the whole item failed
	Reason string    // safe for people; never a value
	At     time.Time // UTC, microseconds
	Retry  []byte    // what a retry needs to find the item again, e.g. the encoded primary key; never a value of it
}

// ItemColumn names one failure.
type ItemColumn struct{ Item, Column string }

// Filter selects jobs, newest first (descending id). Empty fields select everything.
type Filter struct {
	States  []State
	Kind    string
	Subject string
	After   string // only jobs older than this id: the last one of the previous page
	Limit   int    // 0 = DefaultLimit; more than MaxLimit is cut to it
}

// Sizes of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// PageSize is the number of rows that a storage reads for f.
func (f Filter) PageSize() int {
	switch {
	case f.Limit <= 0:
		return DefaultLimit
	case f.Limit > MaxLimit:
		return MaxLimit
	}
	return f.Limit
}

// Tx is what the engine needs of a transaction. internal/store implements it. A job that doesn't exist is a fault with
// api.CodeNotFound. Statements that write come first and answer what stands in the row after the write, so that two
// transactions of PostgreSQL (READ COMMITTED) that touch one job are put in order by its row lock.
type Tx interface {
	// InsertJob writes a new job (epoch 0, state Queued, control Run, as given). When an unfinished job has the same
	// non-empty UniqueKey it writes nothing and answers that job and false. Unfinished: Queued, Running, Paused.
	InsertJob(ctx context.Context, j Job) (Job, bool, error)

	// Job reads one job.
	Job(ctx context.Context, id string) (Job, error)

	// Jobs reads a page of jobs, newest first.
	Jobs(ctx context.Context, f Filter) ([]Job, error)

	// CountJobs counts jobs by state; states without a job are absent.
	CountJobs(ctx context.Context) (map[State]int, error)

	// Claim makes owner the owner: where id and epoch match and the state is Queued or Running, it sets epoch+1, Running,
	// owner, leaseUntil, and Started to now if it was absent. It answers the job after that, or ErrLost (also when the job
	// doesn't exist).
	Claim(ctx context.Context, id string, epoch int64, owner string, now, leaseUntil time.Time) (Job, error)

	// Renew moves the lease of an owner, where id, epoch and state Running match; it answers the control flag, or ErrLost.
	Renew(ctx context.Context, id string, epoch int64, leaseUntil time.Time) (Control, error)

	// Save writes State, Cursor, Progress, Done, Total, Error, Owner, LeaseUntil, Attempts, Started, Finished and
	// NextAttempt where id and j.Epoch match: not Control, and none of the fields that are written once. It answers the
	// control flag as it stands now, or ErrLost. When the new state is unfinished, the old one was not, and another
	// unfinished job has the same UniqueKey, it is a fault with api.CodeConflict that is not ErrLost.
	Save(ctx context.Context, j Job) (Control, error)

	// SetJobSecret keeps with an unfinished job what its handler needs and nobody may read, sealed by the caller: Args are
	// shown, this never is. Saving a final state deletes it, in the same transaction. not_found when the job has ended.
	SetJobSecret(ctx context.Context, id string, sealed []byte) error

	// JobSecret reads it; not_found when there is none, or none any more.
	JobSecret(ctx context.Context, id string) ([]byte, error)

	// SetControl writes the control flag of a job in whatever state, and answers the job after that.
	SetControl(ctx context.Context, id string, c Control) (Job, error)

	// SetPriority writes the priority of a job in whatever state, and answers the job after that.
	SetPriority(ctx context.Context, id string, priority int) (Job, error)

	// Stale reads at most limit jobs, longest due first, on which somebody should work and perhaps nobody does: Running
	// with LeaseUntil <= now, and Queued with NextAttempt <= now (an absent NextAttempt is due).
	Stale(ctx context.Context, now time.Time, limit int) ([]Job, error)

	// AddFailures adds to the dead-letter list of a job, or replaces what is there for the same item and column.
	AddFailures(ctx context.Context, id string, failures []Failure) error

	// Failures reads a page of the dead-letter list in the order of item and column, and its whole length.
	Failures(ctx context.Context, id string, offset, limit int) ([]Failure, int64, error)

	// ClearFailures takes items off the list; nil clears the whole list.
	ClearFailures(ctx context.Context, id string, items []ItemColumn) error

	// PruneJobs forgets at most limit jobs that ended before a time, with their failures and wake-up calls, and says how many:
	// fewer than limit when there are no more. Kept are what schedules name as served last, the newest job of each registered
	// dataset, and, while an incident is open, everything that ended after the oldest open one was opened.
	PruneJobs(ctx context.Context, before time.Time, limit int) (int, error)

	// PutSchedule writes a schedule of a name: a new one as it is; of one that is there Kind, Args, Cron, Zone, Origin and
	// NextRun, while LastRun and LastJob stay.
	PutSchedule(ctx context.Context, s Schedule) error

	// Schedules lists all of them by name.
	Schedules(ctx context.Context) ([]Schedule, error)

	// DeleteSchedule forgets a schedule; one that isn't there is no error.
	DeleteSchedule(ctx context.Context, name string) error

	// Fire moves a schedule on, where its NextRun is still seen: NextRun becomes next, LastRun due, LastJob job. False when
	// somebody else was first, or changed the schedule.
	Fire(ctx context.Context, name string, seen, due, next time.Time, job string) (bool, error)

	// BringForward makes a schedule's NextRun at, unless it is earlier already or the schedule isn't there.
	BringForward(ctx context.Context, name string, at time.Time) error
}
