package store

import (
	"context"

	"github.com/keyturn/keyturn/internal/jobs"
)

// SetJobSecret implements jobs.Tx.
func (t *txn) SetJobSecret(ctx context.Context, id string, sealed []byte) error {
	return t.mustChange(ctx, notFound("unfinished job"), "keeping what a job needs",
		`INSERT INTO job_secrets (job_id, sealed)
		SELECT j.id, $2 FROM jobs j WHERE j.id = $1 AND j.`+unfinished+`
		ON CONFLICT (job_id) DO UPDATE SET sealed = excluded.sealed`, id, sealed)
}

// JobSecret implements jobs.Tx.
func (t *txn) JobSecret(ctx context.Context, id string) (sealed []byte, err error) {
	err = t.one(ctx, notFound("secret of this job"), "reading what a job needs", []any{&sealed},
		`SELECT sealed FROM job_secrets WHERE job_id = $1`, id)
	return sealed, err
}

// eraseSecret is part of Save: with the end of a job goes what it alone needed.
func (t *txn) eraseSecret(ctx context.Context, j jobs.Job) error {
	if !j.State.Final() {
		return nil
	}
	_, err := t.exec(ctx, "erasing what a job needed", `DELETE FROM job_secrets WHERE job_id = $1`, j.ID)
	return err
}
