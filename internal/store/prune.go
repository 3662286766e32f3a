package store

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// PruneJobs implements jobs.Tx. An incident refers to jobs that hadn't ended when it was opened, and to later ones.
func (t *txn) PruneJobs(ctx context.Context, before time.Time, limit int) (int, error) {
	const doing = "forgetting jobs that ended long ago"
	ids, err := all(ctx, t, doing, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		`SELECT id FROM jobs WHERE state IN ('cancelled', 'failed', 'done') AND finished > 0 AND finished < $1
			AND finished < (SELECT COALESCE(min(opened), 9223372036854775807) FROM incidents WHERE state = 'open')
			AND id NOT IN (SELECT last_job FROM schedules)
			AND id NOT IN (SELECT max(j.id) FROM jobs j JOIN datasets d ON j.subject = 'dataset/' || d.name GROUP BY j.subject)
		ORDER BY id LIMIT $2`, before, limit)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	places, args := make([]string, len(ids)), make([]any, len(ids))
	for i, id := range ids {
		places[i], args[i] = "$"+strconv.Itoa(i+1), id
	}
	in := ` IN (` + strings.Join(places, ", ") + `)`
	for _, query := range []string{
		`DELETE FROM job_failures WHERE job_id` + in,
		`DELETE FROM job_secrets WHERE job_id` + in,
		`DELETE FROM river_job WHERE kind = 'keyturn-chunk' AND args ->> 'job'` + in,
		`DELETE FROM jobs WHERE id` + in,
	} {
		if _, err := t.exec(ctx, doing, query, args...); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}
