package store

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
)

const scheduleColumns = `name, kind, args, cron, zone, origin, next_run, last_run, last_job`

func readSchedule(row scanner) (s jobs.Schedule, err error) {
	return s, row.Scan(&s.Name, &s.Kind, &s.Args, &s.Cron, &s.Zone, &s.Origin, into{&s.NextRun}, into{&s.LastRun}, &s.LastJob)
}

// PutSchedule implements jobs.Tx.
func (t *txn) PutSchedule(ctx context.Context, s jobs.Schedule) error {
	_, err := t.exec(ctx, "storing a schedule",
		`INSERT INTO schedules (`+scheduleColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, args = excluded.args, cron = excluded.cron,
			zone = excluded.zone, origin = excluded.origin, next_run = excluded.next_run`,
		s.Name, s.Kind, s.Args, s.Cron, s.Zone, s.Origin, s.NextRun, s.LastRun, s.LastJob)
	return err
}

// Schedules implements jobs.Tx.
func (t *txn) Schedules(ctx context.Context) ([]jobs.Schedule, error) {
	return all(ctx, t, "reading the schedules", readSchedule, `SELECT `+scheduleColumns+` FROM schedules ORDER BY name`)
}

// DeleteSchedule implements jobs.Tx.
func (t *txn) DeleteSchedule(ctx context.Context, name string) error {
	_, err := t.exec(ctx, "removing a schedule", `DELETE FROM schedules WHERE name = $1`, name)
	return err
}

// Fire implements jobs.Tx.
func (t *txn) Fire(ctx context.Context, name string, seen, due, next time.Time, job string) (bool, error) {
	n, err := t.exec(ctx, "moving a schedule on",
		`UPDATE schedules SET next_run = $3, last_run = $4, last_job = $5 WHERE name = $1 AND next_run = $2`, name, seen, next, due, job)
	return n == 1, err
}

// BringForward implements jobs.Tx.
func (t *txn) BringForward(ctx context.Context, name string, at time.Time) error {
	_, err := t.exec(ctx, "bringing a schedule forward", `UPDATE schedules SET next_run = $2 WHERE name = $1 AND next_run > $2`, name, at)
	return err
}
