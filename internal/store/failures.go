package store

import (
	"context"

	"github.com/keyturn/keyturn/internal/jobs"
)

func readFailure(row scanner) (f jobs.Failure, err error) {
	return f, row.Scan(&f.Item, &f.Column, &f.Reason, into{&f.At}, &f.Retry)
}

// AddFailures implements jobs.Tx.
func (t *txn) AddFailures(ctx context.Context, id string, failures []jobs.Failure) error {
	for _, f := range failures {
		err := t.mustChange(ctx, notFound("job"), "recording what a job could not do",
			`INSERT INTO job_failures (job_id, item, field, reason, at, retry)
			SELECT j.id, $2, $3, $4, $5, $6 FROM jobs j WHERE j.id = $1
			ON CONFLICT (job_id, item, field) DO UPDATE SET reason = excluded.reason, at = excluded.at, retry = excluded.retry`,
			id, f.Item, f.Column, f.Reason, f.At, f.Retry)
		if err != nil {
			return err
		}
	}
	return nil
}

// Failures implements jobs.Tx.
func (t *txn) Failures(ctx context.Context, id string, offset, limit int) ([]jobs.Failure, int64, error) {
	const doing = "listing what a job could not do"
	if _, err := t.Job(ctx, id); err != nil {
		return nil, 0, err
	}
	var n int64
	if err := t.one(ctx, nil, doing, []any{&n}, `SELECT count(*) FROM job_failures WHERE job_id = $1`, id); err != nil {
		return nil, 0, err
	}
	list, err := all(ctx, t, doing, readFailure,
		`SELECT item, field, reason, at, retry FROM job_failures WHERE job_id = $1 ORDER BY item, field LIMIT $3 OFFSET $2`,
		id, offset, limit)
	return list, n, err
}

// ClearFailures implements jobs.Tx.
func (t *txn) ClearFailures(ctx context.Context, id string, items []jobs.ItemColumn) error {
	const doing = "clearing what a job could not do"
	if items == nil {
		_, err := t.exec(ctx, doing, `DELETE FROM job_failures WHERE job_id = $1`, id)
		return err
	}
	for _, i := range items {
		if _, err := t.exec(ctx, doing, `DELETE FROM job_failures WHERE job_id = $1 AND item = $2 AND field = $3`,
			id, i.Item, i.Column); err != nil {
			return err
		}
	}
	return nil
}
