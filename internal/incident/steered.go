package incident

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Steered puts into the timeline of every open incident that a job answers what a person did to the job, in the transaction that does
// it: verb is a participle, such as paused. An incident whose rows can't be trusted keeps nobody from steering; the audit log
// has it all the same.
func (s *Service) Steered(ctx context.Context, tx store.Tx, c *access.Caller, j jobs.Job, verb string) error {
	if j.Priority != jobs.PriorityUrgent && j.Kind != KindScope {
		return nil
	}
	f := incidents.Filter{State: incidents.Open, Limit: incidents.MaxLimit}
	page, err := tx.Incidents(ctx, f)
	for ; err == nil && len(page) > 0; page, err = tx.Incidents(ctx, f) {
		for _, i := range page {
			answers, err := s.answers(ctx, tx, &i, j.ID)
			if err == nil && answers {
				text := fmt.Sprintf("job %s (%s, %s) was %s", j.ID, j.Kind, j.Subject, verb)
				_, err = s.add(ctx, tx, i.ID, incidents.Entry{Kind: incidents.Action, By: actor(c), Text: text})
			}
			if err != nil && fault.CodeOf(err) != api.CodeIntegrity {
				return err
			}
		}
		f.After = page[len(page)-1].ID
	}
	if fault.CodeOf(err) == api.CodeIntegrity {
		return nil
	}
	return err
}

// answers says whether a job is the incident's own, or one that it queued or raised.
func (s *Service) answers(ctx context.Context, tx store.Tx, i *incidents.Incident, job string) (bool, error) {
	if i.Job == job {
		return true, nil
	}
	entries, err := tx.Entries(ctx, i.ID)
	for _, e := range entries {
		var found api.IncidentDataset
		if e.Kind == incidents.Dataset && json.Unmarshal(e.Data, &found) == nil && found.Job == job {
			return true, err
		}
	}
	return false, err
}
