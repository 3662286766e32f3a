package main

import (
	"context"
	"strings"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// What a job begins are jobs of their own. A server goes on with them; on an embedded store nobody would, so whoever waits for
// the job there waits for them, too.

// afterwards waits for what a job began. failed is the first of them that went wrong; err that nobody could wait.
func (a *app) afterwards(ctx context.Context, s *store, j api.Job) (failed, err error) {
	switch j.Kind {
	case "emergency-rotate":
		return a.awaitMoves(ctx, s, strings.TrimPrefix(j.Subject, "incident/"))
	case "rotation-run", "rotation-followup":
		return a.awaitFollowing(ctx, s, j.Created)
	}
	return nil, nil
}

// awaitMoves waits for every re-encryption that an incident queued.
func (a *app) awaitMoves(ctx context.Context, s *store, incident string) (failed, err error) {
	d, err := s.Incident(ctx, incident)
	if err != nil {
		return nil, err
	}
	for _, set := range d.Datasets {
		if set.Job == "" {
			continue
		}
		j, err := a.watch(ctx, s, set.Job, "job watch "+set.Job, "rows")
		if err != nil {
			return failed, err
		}
		if bad := outcomeOf(j); failed == nil {
			failed = bad
		}
	}
	return failed, nil
}

// awaitFollowing waits for everything that follows rotations: also for what an earlier command left, which is the same work.
// What failed before since is told, too.
func (a *app) awaitFollowing(ctx context.Context, s *store, since time.Time) (failed, err error) {
	seen := map[string]bool{}
	for {
		var found []api.Job
		for _, state := range []string{"queued", "running", "failed"} {
			if found, err = following(ctx, s, state, since, found); err != nil {
				return failed, err
			}
		}
		watched := 0
		for _, j := range found {
			if seen[j.ID] {
				continue
			}
			seen[j.ID] = true
			watched++
			unit := "rows"
			if j.Kind == "rotation-followup" {
				unit = "datasets"
			}
			last, err := a.watch(ctx, s, j.ID, "job watch "+j.ID, unit)
			bad := outcomeOf(last)
			if fault.FieldOf(err) == waiting { // the others needn't wait for that one
				bad, err = err, nil
			}
			if err != nil {
				return failed, err
			}
			if failed == nil {
				failed = bad
			}
		}
		if watched == 0 {
			return failed, nil
		}
	}
}

// following adds the jobs of a state that follow rotations; of failed ones, those that were made since.
func following(ctx context.Context, s *store, state string, since time.Time, to []api.Job) ([]api.Job, error) {
	for after := ""; ; {
		page, err := s.Jobs(ctx, keyturn.JobFilter{State: state, After: after})
		if err != nil {
			return to, err
		}
		for _, j := range page.Jobs {
			if j.Kind == "rotation-followup" || j.Kind == "dataset-reencrypt" && j.Actor == "system" {
				if state != "failed" || !j.Created.Before(since) {
					to = append(to, j)
				}
			}
		}
		if after = page.Next; after == "" || state == "failed" && len(page.Jobs) > 0 && page.Jobs[len(page.Jobs)-1].Created.Before(since) {
			return to, nil
		}
	}
}

// waiting is the field of the error that says that a job waits for what may take long.
const waiting = "job"

// patience tells when a command on an embedded store stops standing by: the job can't reach what it needs, or waits for another
// one that doesn't end. It stays in the queue, and is taken up by whatever runs jobs on the store next.
type patience struct {
	begun bool
	first int // attempts when watching began
	waits int
}

func (p *patience) over(j api.Job) error {
	if !p.begun {
		p.begun, p.first = true, j.Attempts
	}
	if j.State != "queued" || j.Error == "" {
		return nil
	}
	if strings.HasPrefix(j.Error, "waiting for another job") {
		p.waits++
	}
	if j.Attempts < 3 && p.waits < 4 || j.Attempts > 0 && j.Attempts <= p.first {
		return nil
	}
	return fault.Newf(api.CodeUnavailable, "job %s has to wait: %s", j.ID, j.Error).WithField(waiting).
		WithNext("mend that, then: keyturn job watch " + j.ID + "; a server (keyturn serve) goes on with it by itself")
}
