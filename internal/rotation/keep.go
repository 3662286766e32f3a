package rotation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// scheduleHealth names the schedule of the health check.
const scheduleHealth = "rotation-health"

// Handlers are the handlers of this room's jobs, for the server's table.
func (s *Service) Handlers() []runner.Handler {
	return []runner.Handler{checkHandler{s}, runHandler{s}, followHandler{s}, healthHandler{s}}
}

// wanted are the schedules as the configuration has them. A later room that has something to do from time to time brings
// its own the same way.
func (s *Service) wanted() []jobs.Schedule {
	c := s.cfg.Schedules
	return []jobs.Schedule{
		{Name: jobs.RotationCheck, Kind: KindCheck, Cron: c.Check, Zone: c.Zone, Origin: "keyturn.yaml"},
		{Name: scheduleHealth, Kind: KindHealth, Cron: c.Health, Zone: c.Zone, Origin: "keyturn.yaml"},
	}
}

// Keep makes the stored schedules what the configuration says. A schedule that is there and says the same keeps its next
// time, unless that lies later than it could: then somebody wrote into the database. The rotation check is always brought
// forward to now: while nobody served, keys may have fallen due. With nodes that are configured differently, the one that
// was started last decides.
func (s *Service) Keep(ctx context.Context) error {
	now := s.cfg.Clock().UTC().Truncate(time.Microsecond)
	return s.cfg.Store.Change(ctx, func(tx store.Tx) error {
		stored, err := tx.Schedules(ctx)
		if err != nil {
			return err
		}
		for _, w := range s.wanted() {
			c, err := jobs.ParseCron(w.Cron, w.Zone)
			if err != nil {
				return fault.Wrap("", err, "reading the configuration of the rotation check").WithField("rotation")
			}
			w.NextRun = c.Next(now)
			i := slices.IndexFunc(stored, func(o jobs.Schedule) bool { return o.Name == w.Name })
			if i < 0 || !same(stored[i], w) || stored[i].NextRun.IsZero() || stored[i].NextRun.After(w.NextRun) {
				if err := tx.PutSchedule(ctx, w); err != nil {
					return err
				}
			}
		}
		return tx.BringForward(ctx, jobs.RotationCheck, now)
	})
}

func same(a, b jobs.Schedule) bool {
	return a.Kind == b.Kind && a.Cron == b.Cron && a.Zone == b.Zone && a.Origin == b.Origin && string(a.Args) == string(b.Args)
}

// healthHandler looks at rotation from outside.
type healthHandler struct{ s *Service }

// Kind is "rotation-health".
func (healthHandler) Kind() string { return KindHealth }

// late is how long after its time a check is called late: longer than any chunk, and than a node that is restarted.
const late = 15 * time.Minute

// Run looks at the schedules, at what is overdue, at jobs of every kind that failed, at the master keys, and whether the store's rows are those
// that were written. Each problem is an alert; how many there are is in the event. It mends schedules that are missing or were
// changed, and forgets jobs that ended long ago, whose number is the event's count.
func (h healthHandler) Run(ctx context.Context, run *runner.Run) error {
	s := h.s
	problems, err := s.problems(ctx)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if err := s.cfg.Keys.Alert(ctx, p); err != nil {
			return err
		}
	}
	if err := s.Keep(ctx); err != nil {
		return err
	}
	forgotten, err := s.forget(ctx, run)
	if err != nil {
		return err
	}
	in := gate.Intent{Action: access.SystemRead, Type: audit.KeyRotation, Verb: "rotation_health_checked", Resource: access.Resource{Kind: access.KindSystem}}
	return s.cfg.Gate.Use(ctx, system(), in, func(_ context.Context, ev *audit.Event) error {
		ev.Details.Count = uint64(forgotten)
		ev.Details.Failed, ev.Details.Job, ev.Details.Source = uint64(len(problems)), run.Job.ID, kms.SourceScheduler
		return nil
	})
}

// forgetBatch is how many jobs are forgotten in one transaction.
const forgetBatch = 200

// forget takes away jobs that ended longer ago than they are kept; what there is no time for is left to the next check.
func (s *Service) forget(ctx context.Context, run *runner.Run) (total int, err error) {
	before := s.cfg.Clock().Add(-s.cfg.KeepJobs)
	for n := forgetBatch; s.cfg.KeepJobs > 0 && n == forgetBatch && run.Continue(ctx); total += n {
		err := s.cfg.Store.Change(ctx, func(tx store.Tx) (err error) {
			n, err = tx.PruneJobs(ctx, before, forgetBatch)
			return err
		})
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// problems lists what is wrong with rotation now.
func (s *Service) problems(ctx context.Context) (out []kms.Warning, err error) {
	now := s.cfg.Clock()
	system := access.Resource{Kind: access.KindSystem}
	var stored []jobs.Schedule
	var failed, queued []jobs.Job
	err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if stored, err = tx.Schedules(ctx); err != nil {
			return err
		}
		if failed, err = every(ctx, tx, jobs.Failed); err != nil {
			return err
		}
		queued, err = every(ctx, tx, jobs.Queued)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, w := range s.wanted() {
		i := slices.IndexFunc(stored, func(o jobs.Schedule) bool { return o.Name == w.Name })
		switch {
		case i < 0 || !same(stored[i], w):
			out = append(out, kms.Warning{Name: "schedule_changed", Resource: system, Reason: "schedule " + w.Name + " is missing, or isn't what the configuration says"})
		case w.Name != scheduleHealth && now.Sub(stored[i].NextRun) > late:
			out = append(out, kms.Warning{Name: "schedule_late", Resource: system, Reason: "schedule " + w.Name + " wasn't served at its time"})
		}
	}
	f, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	if f.due > 0 {
		out = append(out, kms.Warning{Name: "rotation_overdue", Resource: keyResource(""), Count: f.due, Reason: "keyturn rotation status lists the keys"})
	}
	out = append(out, s.troubled(failed, queued, now)...)
	if err := s.cfg.Masters(ctx); err != nil {
		out = append(out, kms.Warning{Name: "master_key_unusable", Resource: access.Resource{Kind: access.KindMaster}, Reason: fault.MessageOf(err)})
	}
	switch err := s.cfg.Rows(ctx); {
	case fault.CodeOf(err) == api.CodeIntegrity:
		out = append(out, kms.Warning{Name: "rows_set_back", Resource: system, Reason: fault.MessageOf(err)})
	case err != nil:
		return nil, err
	}
	return out, nil
}

// every reads all jobs in a state: one that matters may be older than a thousand that don't.
func every(ctx context.Context, tx store.Tx, state jobs.State) (all []jobs.Job, err error) {
	for f := (jobs.Filter{States: []jobs.State{state}, Limit: jobs.MaxLimit}); ; {
		page, err := tx.Jobs(ctx, f)
		all = append(all, page...)
		if err != nil || len(page) < jobs.MaxLimit {
			return all, err
		}
		f.After = page[len(page)-1].ID
	}
}

// troubled warns of jobs that failed within a day, and of those that wait because what they need is away; those of rotation apart from
// the others. An incident whose job failed is open still, so that is said for as long as it is so.
func (s *Service) troubled(failed, queued []jobs.Job, now time.Time) (out []kms.Warning) {
	warn := func(list []jobs.Job, name, reason string, counts func(jobs.Job) bool) {
		for _, prefix := range []string{"rotation_", ""} {
			n, rotates := 0, prefix != ""
			for _, j := range list {
				if s.leavesBehind(j) && s.rotates(j) == rotates && counts(j) {
					n++
				}
			}
			if n > 0 {
				out = append(out, kms.Warning{Name: prefix + name, Resource: access.Resource{Kind: access.KindSystem}, Count: uint64(n), Reason: fmt.Sprintf(reason, n)})
			}
		}
	}
	warn(failed, "jobs_failed", "%d jobs failed: keyturn job list --state failed names them, keyturn job show ID says why and what to do", func(j jobs.Job) bool {
		return now.Sub(j.Finished) < recently || strings.HasPrefix(j.Subject, access.KindIncident+"/")
	})
	warn(queued, "jobs_waiting", "%d jobs can't reach what they need: keyturn job list --state queued says what", func(j jobs.Job) bool { return j.Attempts > 0 })
	return out
}
