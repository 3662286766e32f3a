package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
)

const jobColumns = `id, kind, subject, unique_key, args, actor, priority, state, control, cursor, progress, done, total, error,
	epoch, owner, lease_until, attempts, created, started, finished, next_attempt, tries`

func readJob(row scanner) (j jobs.Job, err error) {
	return j, row.Scan(&j.ID, &j.Kind, &j.Subject, &j.UniqueKey, &j.Args, &j.Actor, &j.Priority, &j.State, &j.Control,
		&j.Cursor, &j.Progress, &j.Done, &j.Total, &j.Error, &j.Epoch, &j.Owner, into{&j.LeaseUntil}, &j.Attempts,
		into{&j.Created}, into{&j.Started}, into{&j.Finished}, into{&j.NextAttempt}, &j.Tries)
}

// unfinished are the states in which a job's UniqueKey keeps others out. The index job_unique says the same.
const unfinished = `state IN ('queued', 'running', 'paused')`

// InsertJob implements jobs.Tx. The index refuses a second unfinished job however close they come.
func (t *txn) InsertJob(ctx context.Context, j jobs.Job) (jobs.Job, bool, error) {
	const doing = "adding a job"
	if j.Priority == 0 {
		j.Priority = jobs.PriorityNormal
	}
	added, err := all(ctx, t, doing, readJob,
		`INSERT INTO jobs (`+jobColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
		ON CONFLICT (unique_key) WHERE unique_key <> '' AND `+unfinished+` DO NOTHING RETURNING `+jobColumns,
		j.ID, j.Kind, j.Subject, j.UniqueKey, j.Args, j.Actor, j.Priority, string(j.State), string(j.Control), j.Cursor,
		j.Progress, j.Done, j.Total, j.Error, j.Epoch, j.Owner, j.LeaseUntil, j.Attempts, j.Created, j.Started,
		j.Finished, j.NextAttempt, j.Tries)
	if err != nil {
		return jobs.Job{}, false, err
	}
	if len(added) == 1 {
		return added[0], true, nil
	}
	there, err := single(ctx, t, notFound("job"), doing, readJob,
		`SELECT `+jobColumns+` FROM jobs WHERE unique_key = $1 AND unique_key <> '' AND `+unfinished, j.UniqueKey)
	return there, false, err
}

// Job implements jobs.Tx.
func (t *txn) Job(ctx context.Context, id string) (jobs.Job, error) {
	return single(ctx, t, notFound("job"), "reading a job", readJob, `SELECT `+jobColumns+` FROM jobs WHERE id = $1`, id)
}

// Jobs implements jobs.Tx.
func (t *txn) Jobs(ctx context.Context, f jobs.Filter) ([]jobs.Job, error) {
	c := &conditions{}
	if len(f.States) > 0 {
		places := make([]string, len(f.States))
		states := make([]any, len(f.States))
		for i, s := range f.States {
			places[i], states[i] = "$%d", string(s)
		}
		c.add(`state IN (`+strings.Join(places, ", ")+`)`, states...)
	}
	if f.Kind != "" {
		c.add(`kind = $%d`, f.Kind)
	}
	if f.Subject != "" {
		c.add(`subject = $%d`, f.Subject)
	}
	if f.After != "" {
		c.add(`id < $%d`, f.After)
	}
	return all(ctx, t, "listing jobs", readJob,
		`SELECT `+jobColumns+` FROM jobs`+c.where()+` ORDER BY id DESC LIMIT `+strconv.Itoa(f.PageSize()), c.args...)
}

// CountJobs implements jobs.Tx.
func (t *txn) CountJobs(ctx context.Context) (map[jobs.State]int, error) {
	return countBy[jobs.State](ctx, t, "counting jobs", `SELECT state, count(*) FROM jobs GROUP BY state`)
}

// Claim implements jobs.Tx.
func (t *txn) Claim(ctx context.Context, id string, epoch int64, owner string, now, leaseUntil time.Time) (jobs.Job, error) {
	return single(ctx, t, jobs.ErrLost, "claiming a job", readJob,
		`UPDATE jobs SET epoch = epoch + 1, state = 'running', owner = $3, lease_until = $5,
			started = CASE WHEN started = 0 THEN $4 ELSE started END
		WHERE id = $1 AND epoch = $2 AND state IN ('queued', 'running') RETURNING `+jobColumns,
		id, epoch, owner, now, leaseUntil)
}

// Renew implements jobs.Tx.
func (t *txn) Renew(ctx context.Context, id string, epoch int64, leaseUntil time.Time) (c jobs.Control, err error) {
	err = t.one(ctx, jobs.ErrLost, "renewing the lease of a job", []any{&c},
		`UPDATE jobs SET lease_until = $3 WHERE id = $1 AND epoch = $2 AND state = 'running' RETURNING control`,
		id, epoch, leaseUntil)
	return c, err
}

// Save implements jobs.Tx. A job that comes back to life may find its UniqueKey taken; that is asked for first, because
// the index's own refusal would end the transaction. Of two that come back at once one runs into it all the same and
// gets the same code.
func (t *txn) Save(ctx context.Context, j jobs.Job) (c jobs.Control, err error) {
	const doing = "saving a job"
	if !j.State.Final() {
		if err := t.uniqueKeyFree(ctx, doing, j.ID); err != nil {
			return "", err
		}
	}
	err = t.one(ctx, jobs.ErrLost, doing, []any{&c},
		`UPDATE jobs SET state = $3, cursor = $4, progress = $5, done = $6, total = $7, error = $8, owner = $9,
			lease_until = $10, attempts = $11, started = $12, finished = $13, next_attempt = $14
		WHERE id = $1 AND epoch = $2 RETURNING control`,
		j.ID, j.Epoch, string(j.State), j.Cursor, j.Progress, j.Done, j.Total, j.Error, j.Owner, j.LeaseUntil, j.Attempts,
		j.Started, j.Finished, j.NextAttempt)
	if err != nil {
		return "", err
	}
	return c, t.eraseSecret(ctx, j)
}

func (t *txn) uniqueKeyFree(ctx context.Context, doing, id string) error {
	var other string
	err := t.one(ctx, nil, doing, []any{&other},
		`SELECT coalesce(max(o.id), '') FROM jobs j JOIN jobs o ON o.unique_key = j.unique_key AND o.id <> j.id
		WHERE j.id = $1 AND j.unique_key <> '' AND j.state IN ('cancelled', 'failed', 'done')
			AND o.unique_key <> '' AND o.`+unfinished, id)
	if err == nil && other != "" {
		return fault.Newf(api.CodeConflict, "another job does the same work already: %s", other).
			WithNext("wait for it with keyturn job watch " + other + ", or cancel it first")
	}
	return err
}

// SetControl implements jobs.Tx.
func (t *txn) SetControl(ctx context.Context, id string, c jobs.Control) (jobs.Job, error) {
	return single(ctx, t, notFound("job"), "controlling a job", readJob,
		`UPDATE jobs SET control = $2 WHERE id = $1 RETURNING `+jobColumns, id, string(c))
}

// SetPriority implements jobs.Tx.
func (t *txn) SetPriority(ctx context.Context, id string, priority int) (jobs.Job, error) {
	return single(ctx, t, notFound("job"), "raising a job", readJob,
		`UPDATE jobs SET priority = $2 WHERE id = $1 RETURNING `+jobColumns, id, priority)
}

// Stale implements jobs.Tx.
func (t *txn) Stale(ctx context.Context, now time.Time, limit int) ([]jobs.Job, error) {
	return all(ctx, t, "looking for jobs that nobody works on", readJob,
		`SELECT `+jobColumns+` FROM jobs
		WHERE state = 'running' AND lease_until <= $1 OR state = 'queued' AND next_attempt <= $1
		ORDER BY CASE WHEN state = 'running' THEN lease_until ELSE next_attempt END, id LIMIT $2`, now, limit)
}
