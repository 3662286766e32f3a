package oversight

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Runner is what steering needs of package runner.
type Runner interface {
	Pause(ctx context.Context, tx store.Tx, id string) (jobs.Job, error)
	Resume(ctx context.Context, tx store.Tx, id string) (jobs.Job, error)
	Cancel(ctx context.Context, tx store.Tx, id string) (jobs.Job, error)
	Retry(ctx context.Context, tx store.Tx, id string) (jobs.Job, error)
	Wait(ctx context.Context, id string, onProgress func(jobs.Job)) (jobs.Job, error)
}

// JobsConfig is what Jobs is made of; everything is required.
type JobsConfig struct {
	Gate   Doorway
	Store  store.Store
	Runner Runner
	// Work starts the runner of this process if it doesn't run yet: who resumes or watches a job wants it to go on.
	Work  func()
	Clock func() time.Time
	// Counts makes the counts of a job that works on a dataset; nil for other kinds.
	Counts func(jobs.Job) *api.DatasetRun
	// Needs is what somebody must be allowed to have a job's work done, beside job.control: what its first start asked
	// for. No entry at all means that nobody may.
	Needs func(context.Context, jobs.Job) ([]access.Right, error)
	// MayRetry refuses a job whose work can't be taken up again, before anything of it is touched: what it did, and why it ended,
	// stays to be read.
	MayRetry func(jobs.Job) error
	// Steered is told of every wish that changed something, inside its transaction, with the job as it is now.
	Steered func(ctx context.Context, tx store.Tx, c *access.Caller, j jobs.Job, verb string) error
}

// Jobs is the service behind `keyturn job`. It is safe for concurrent use.
type Jobs struct{ cfg JobsConfig }

// NewJobs makes it.
func NewJobs(cfg JobsConfig) *Jobs { return &Jobs{cfg} }

func jobResource(id string) access.Resource { return access.Resource{Kind: access.KindJob, Name: id} }

func reading(verb, id string) gate.Intent {
	return gate.Intent{Action: access.JobRead, Type: audit.ConfigRead, Verb: verb, Resource: jobResource(id)}
}

// List is one page of the jobs that the caller may see, newest first; state is empty or one of jobs.States. Errors:
// invalid for the state.
func (s *Jobs) List(ctx context.Context, c *access.Caller, state, after string, limit int) (api.JobList, error) {
	f := jobs.Filter{After: after, Limit: limit}
	if state != "" {
		if f.States = []jobs.State{jobs.State(state)}; !f.States[0].Valid() {
			return api.JobList{}, fault.New(api.CodeInvalid, "the state is unknown").WithField("state").
				WithNext("use one of queued, running, paused, cancelled, failed, done")
		}
	}
	if after != "" && !jobs.ValidID(after) {
		return api.JobList{}, fault.New(api.CodeInvalid, "the cursor is no job's id").WithField("after").WithNext(`take the "next" of the page before`)
	}
	var out api.JobList
	err := s.cfg.Gate.Use(ctx, c, reading("listed", ""), func(ctx context.Context, ev *audit.Event) error {
		var page []jobs.Job
		out = api.JobList{Jobs: []api.Job{}}
		err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			page, err = tx.Jobs(ctx, f)
			return err
		})
		out = api.JobList{Jobs: []api.Job{}}
		for _, j := range page {
			if access.Decide(c.Principal, access.JobRead, jobResource(j.ID)).Allowed {
				out.Jobs = append(out.Jobs, s.view(j))
			}
		}
		if len(page) == f.PageSize() {
			out.Next = page[len(page)-1].ID
		}
		out.Planned = nil
		if err == nil && after == "" && state == "" {
			out.Planned, err = s.planned(ctx)
		}
		ev.Details.Count = uint64(len(out.Jobs))
		return err
	})
	if err != nil {
		return api.JobList{}, err
	}
	return out, nil
}

// planned lists the standing orders: what will be done, and when. They hold no names of keys or datasets.
func (s *Jobs) planned(ctx context.Context) (out []api.PlannedJob, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		list, err := tx.Schedules(ctx)
		out = make([]api.PlannedJob, len(list))
		for i, p := range list {
			out[i] = api.PlannedJob{
				Name: p.Name, Kind: p.Kind, Cron: p.Cron, Zone: p.Zone, Origin: p.Origin, Next: present(p.NextRun), Last: present(p.LastRun), LastJob: p.LastJob,
			}
		}
		return err
	})
	return out, err
}

// Show is one job.
func (s *Jobs) Show(ctx context.Context, c *access.Caller, id string) (out api.Job, err error) {
	if err := checkID(id); err != nil {
		return out, err
	}
	err = s.cfg.Gate.Use(ctx, c, reading("shown", id), func(ctx context.Context, ev *audit.Event) error {
		j, err := s.read(ctx, id)
		ev.Details.Job, ev.Details.Kind = id, j.Kind
		out = s.view(j)
		return err
	})
	return orNothing(out, err)
}

// Failures is a page of a job's dead-letter list.
func (s *Jobs) Failures(ctx context.Context, c *access.Caller, id string, offset, limit int) (out api.JobFailureList, err error) {
	if err := checkID(id); err != nil {
		return out, err
	}
	err = s.cfg.Gate.Use(ctx, c, reading("failures listed", id), func(ctx context.Context, ev *audit.Event) error {
		ev.Details.Job = id
		return s.cfg.Store.View(ctx, func(tx store.Tx) error {
			if _, err := tx.Job(ctx, id); err != nil {
				return err
			}
			page, total, err := tx.Failures(ctx, id, offset, limit)
			out.Failures = []api.JobFailure{}
			for _, f := range page {
				out.Failures = append(out.Failures, api.JobFailure{Item: f.Item, Column: f.Column, Reason: f.Reason, At: f.At})
			}
			out.Total = total
			return err
		})
	})
	return orNothing(out, err)
}

// Pause stops a job after its chunk; its place is kept. One that answers an incident is stopped by who may answer incidents.
func (s *Jobs) Pause(ctx context.Context, c *access.Caller, id string) (api.Job, error) {
	if err := s.mayStop(ctx, c, id, "paused"); err != nil {
		return api.Job{}, err
	}
	return s.steer(ctx, c, id, "paused", s.cfg.Runner.Pause)
}

// Resume lets a job that is paused, or waits for its next attempt, run on, for who may start its work.
func (s *Jobs) Resume(ctx context.Context, c *access.Caller, id string) (api.Job, error) {
	if err := s.mayWork(ctx, c, id, "resumed"); err != nil {
		return api.Job{}, err
	}
	return s.steer(ctx, c, id, "resumed", s.cfg.Runner.Resume)
}

// Cancel ends a job after its chunk; what was done stays done. One that answers an incident is ended by who may answer incidents.
func (s *Jobs) Cancel(ctx context.Context, c *access.Caller, id string) (api.Job, error) {
	if err := s.mayStop(ctx, c, id, "cancelled"); err != nil {
		return api.Job{}, err
	}
	return s.steer(ctx, c, id, "cancelled", s.cfg.Runner.Cancel)
}

// Retry runs a job that failed, was cancelled or left failures behind once more, or one that waits for its next attempt now, for
// who may start its work.
func (s *Jobs) Retry(ctx context.Context, c *access.Caller, id string) (api.Job, error) {
	if err := s.mayWork(ctx, c, id, "retried"); err != nil {
		return api.Job{}, err
	}
	return s.steer(ctx, c, id, "retried", func(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
		j, err := tx.Job(ctx, id)
		if err == nil {
			err = s.cfg.MayRetry(j)
		}
		if err != nil {
			return j, err
		}
		return s.cfg.Runner.Retry(ctx, tx, id)
	})
}

// mayWork refuses, and records the refusal of, whoever steers jobs but may not have this one's work done: to wake a
// decryption is to decrypt.
func (s *Jobs) mayWork(ctx context.Context, c *access.Caller, id, verb string) error {
	return s.may(ctx, c, id, verb, s.cfg.Needs)
}

// mayStop does so with whoever may steer jobs but not answer incidents, when the job does that, which is what is urgent: whoever
// stole a key would else stop the work that moves what it protects. A job that is raised behind this look goes on to be stopped;
// its incident isn't closed then while rows remain.
func (s *Jobs) mayStop(ctx context.Context, c *access.Caller, id, verb string) error {
	return s.may(ctx, c, id, verb, func(_ context.Context, j jobs.Job) ([]access.Right, error) {
		if j.Priority == jobs.PriorityUrgent {
			return []access.Right{{Action: access.IncidentWrite, Resource: access.Resource{Kind: access.KindIncident}}}, nil
		}
		return []access.Right{{Action: access.JobControl, Resource: jobResource(id)}}, nil
	})
}

// may refuses who lacks one of the rights that a job needs. Who may not steer at all is left to steer. A job never changes what it
// is about, so looking before steer's transaction is no race.
func (s *Jobs) may(ctx context.Context, c *access.Caller, id, verb string, rights func(context.Context, jobs.Job) ([]access.Right, error)) error {
	if !jobs.ValidID(id) || c == nil || !access.Decide(c.Principal, access.JobControl, jobResource(id)).Allowed {
		return nil
	}
	j, err := s.read(ctx, id)
	if fault.CodeOf(err) == api.CodeNotFound {
		return nil // steer finds that too, and records it
	}
	if err != nil {
		return err
	}
	needs, err := rights(ctx, j)
	if err != nil {
		return err
	}
	if len(needs) == 0 {
		needs = []access.Right{{Resource: jobResource(id)}} // no action: denied to everyone
	}
	for _, n := range needs {
		if access.Decide(c.Principal, n.Action, n.Resource).Allowed {
			continue
		}
		in := gate.Intent{Action: n.Action, Type: audit.System, Verb: verb, Resource: n.Resource}
		return s.cfg.Gate.Use(ctx, c, in, func(context.Context, *audit.Event) error { return nil })
	}
	return nil
}

// steer is one wish and its event in one transaction.
func (s *Jobs) steer(ctx context.Context, c *access.Caller, id, verb string,
	wish func(context.Context, store.Tx, string) (jobs.Job, error)) (api.Job, error) {
	if err := checkID(id); err != nil {
		return api.Job{}, err
	}
	var j jobs.Job
	in := gate.Intent{Action: access.JobControl, Type: audit.System, Verb: verb, Resource: jobResource(id)}
	err := s.cfg.Gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		before, err := tx.Job(ctx, id)
		if err == nil {
			j, err = wish(ctx, tx, id)
		}
		ev.Details.Job, ev.Details.Kind, ev.Details.State = id, j.Kind, string(j.State)
		if err != nil || j.State == before.State && j.Control == before.Control && j.NextAttempt.Equal(before.NextAttempt) {
			return err
		}
		return s.cfg.Steered(ctx, tx, c, j, verb)
	})
	if err != nil {
		return api.Job{}, err
	}
	if !j.State.Final() {
		s.cfg.Work()
	}
	return s.view(j), nil
}

// Watch calls each with the job now and after every change, until it is settled (ended or paused) or ctx ends. An error
// of each ends it too.
func (s *Jobs) Watch(ctx context.Context, c *access.Caller, id string, each func(api.Job) error) error {
	if err := checkID(id); err != nil {
		return err
	}
	err := s.cfg.Gate.Use(ctx, c, reading("watched", id), func(ctx context.Context, ev *audit.Event) error {
		j, err := s.read(ctx, id)
		ev.Details.Job, ev.Details.Kind = id, j.Kind
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Work()
	allowed := newStill(s.cfg.Store, s.cfg.Clock, c, access.JobRead, jobResource(id))
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var failed error
	_, err = s.cfg.Runner.Wait(ctx, id, func(j jobs.Job) {
		if failed != nil {
			return
		}
		if failed = allowed.allowed(ctx); failed == nil {
			failed = each(s.view(j))
		}
		if failed != nil {
			stop(failed)
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

func (s *Jobs) read(ctx context.Context, id string) (j jobs.Job, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		j, err = tx.Job(ctx, id)
		return err
	})
	return j, err
}

// checkID refuses what can't be a job's id, before it is looked up or recorded.
func checkID(id string) error {
	if !jobs.ValidID(id) {
		return fault.New(api.CodeNotFound, "there is no such job: its id is 24 characters").WithField("job").WithNext("see keyturn job list")
	}
	return nil
}

// view is a job as the wire has it.
func (s *Jobs) view(j jobs.Job) api.Job {
	out := api.Job{
		ID: j.ID, Kind: j.Kind, State: string(j.State), Subject: j.Subject, Done: j.Done, Total: j.Total, Created: j.Created,
		Started: present(j.Started), Finished: present(j.Finished), Error: j.Error, Attempts: j.Attempts, Actor: j.Actor, Run: s.cfg.Counts(j),
	}
	if j.Waits(s.cfg.Clock()) {
		out.NextAttempt = present(j.NextAttempt)
	}
	if j.State == jobs.Done && out.Run != nil && out.Run.Failed > 0 { // done isn't well: the rest stays as it was
		out.Error = fmt.Sprintf("%d values could not be done; keyturn job show %s lists them", out.Run.Failed, j.ID)
	}
	return out
}

// present is nil for an absent time.
func present(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// orNothing keeps what was read from leaving when it could not be recorded.
func orNothing[T any](v T, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}
