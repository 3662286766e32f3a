package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/store"
)

// The kinds of jobs.
const (
	KindCheck  = "rotation-check"
	KindRun    = "rotation-run"
	KindFollow = "rotation-followup"
	KindHealth = "rotation-health"
)

// Config is what a Service is made of; everything is required but Log.
type Config struct {
	Gate     *gate.Gate
	Store    store.Store
	Keys     *kms.Service
	Datasets *reencrypt.Service
	Clock    func() time.Time
	// Enqueue puts a job into the queue, inside the transaction that makes it necessary.
	Enqueue func(ctx context.Context, tx store.Tx, j jobs.Job) (jobs.Job, error)
	// Masters says what is wrong with the master keys now; nil when each opens the store.
	Masters func(ctx context.Context) error
	// Rows is an error of code integrity when signed rows of the store were put back to their own past, taken away or added.
	Rows func(ctx context.Context) error
	// Schedules are when the check and the health check run.
	Schedules Schedules
	KeepJobs  time.Duration // how long jobs that ended are kept; 0: for ever
	Log       *slog.Logger  // gets what the background could not do; nil: nowhere
}

// Schedules are cron expressions, see jobs.ParseCron, in one time zone.
type Schedules struct{ Check, Health, Zone string }

// Service is what `keyturn policy` and `keyturn rotation` do. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg}
}

// system is who rotates what is due.
func system() *access.Caller {
	return &access.Caller{
		Principal: &access.Principal{ID: "system", Name: "system", Role: access.RoleOwner, Scope: []string{"*"}},
		Method:    "internal",
	}
}

func allowed(c *access.Caller, a access.Action, r access.Resource) bool {
	return c != nil && access.Decide(c.Principal, a, r).Allowed
}

func keyResource(name string) access.Resource {
	return access.Resource{Kind: access.KindKey, Name: name}
}

// optional is nil for an absent time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// marshal writes what only this package reads again.
func marshal(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	return text, nil
}

func unmarshal(text []byte, v any) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	return nil
}

// Needs is what somebody must be allowed to have a job of this room done: to rotate the keys that it names, or all that there
// are. Nothing for jobs that aren't this room's.
func (s *Service) Needs(j jobs.Job) []access.Right {
	switch j.Kind {
	case KindCheck, KindRun, KindFollow:
		var of struct {
			Keys []string `json:"keys"` // of a runArgs
			Key  string   `json:"key"`  // of a followArgs
		}
		if unmarshal(j.Args, &of) != nil || len(of.Keys) == 0 && of.Key == "" {
			return []access.Right{{Action: access.KeyRotate, Resource: access.Every(access.KindKey)}}
		}
		var out []access.Right
		for _, name := range append(of.Keys, of.Key) {
			if name != "" {
				out = append(out, access.Right{Action: access.KeyRotate, Resource: keyResource(name)})
			}
		}
		return out
	case KindHealth:
		return []access.Right{{Action: access.SystemRead, Resource: access.Resource{Kind: access.KindSystem}}}
	}
	return nil
}

// GaveUp is called when a job has failed for good. It records an alert at once when that leaves something behind: keys that
// aren't rotated, rows that aren't moved, an incident that isn't answered, a destruction that isn't done. What fails over and
// over for the same reason, as destructions do that are looked at every few minutes, is one alert a day; the health check goes
// on saying it.
func (s *Service) GaveUp(ctx context.Context, j jobs.Job) {
	if !s.leavesBehind(j) {
		return
	}
	var p runProgress
	if j.Kind == KindRun && unmarshal(j.Progress, &p) == nil && p.Ended {
		return // each key that it gave up had its alert
	}
	if said, err := s.said(ctx, j); err == nil && said {
		return
	}
	kind, name, _ := strings.Cut(j.Subject, "/")
	w := kms.Warning{
		Name: "job_failed", Resource: access.Resource{Kind: kind, Name: name}, Count: 1,
		Reason: fmt.Sprintf("job %s (%s) was given up: %s; mend that, then: %s", j.ID, j.Kind, j.Error, again(j)),
	}
	if s.rotates(j) {
		w.Name = "rotation_job_failed"
	}
	switch kind {
	case access.KindKey, access.KindDataset:
	case access.KindIncident:
		w.Incident = name
	default:
		w.Resource = access.Resource{Kind: access.KindSystem}
	}
	if err := s.cfg.Keys.Alert(ctx, w); err != nil {
		s.cfg.Log.Error("an alert could not be recorded", "alert", w.Name, "job", j.ID, "reason", fault.MessageOf(err))
	}
}

// again is how the work of a job that failed is taken up. What opens the values of an import was forgotten when it ended.
func again(j jobs.Job) string {
	if j.Kind == string(reencrypt.KindImport) {
		return "keyturn dataset encrypt " + strings.TrimPrefix(j.Subject, "dataset/") + " --from, with the keys once more"
	}
	return "keyturn job retry " + j.ID
}

// said says whether another job like this one failed for the same reason on the same day, by UTC: the first one of each day is told.
func (s *Service) said(ctx context.Context, j jobs.Job) (said bool, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		list, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Failed}, Kind: j.Kind, Subject: j.Subject, Limit: jobs.MaxLimit})
		said = slices.ContainsFunc(list, func(o jobs.Job) bool {
			return o.ID != j.ID && o.Error == j.Error && o.Finished.Truncate(24*time.Hour).Equal(j.Finished.Truncate(24*time.Hour))
		})
		return err
	})
	return said, err
}

// recently is for how long a job that failed is a problem to the health check.
const recently = 24 * time.Hour

// leavesBehind says whether a job's failure is somebody's business besides his who asked for it: whatever the kind, but for jobs
// that only looked at a dataset.
func (s *Service) leavesBehind(j jobs.Job) bool {
	run := reencrypt.RunOf(j)
	return run == nil || j.Kind != string(reencrypt.KindVerify) && !run.DryRun
}

// rotates says whether a job is one of rotation: of this room, or a re-encryption, whoever began it, since what follows a rotation
// counts on one that is under way already.
func (s *Service) rotates(j jobs.Job) bool {
	return j.Kind == string(reencrypt.KindReencrypt) || s.Needs(j) != nil
}

// Rotated is called in the transaction of every rotation. It brings the next check forward to when the new version is due,
// and has the self-check made. Datasets are moved after the rotations that keyturn makes by itself; who rotates a key by hand
// decides himself, and an incident moves them on its own.
func (s *Service) Rotated(ctx context.Context, tx store.Tx, r keys.Rotation) error {
	k, err := tx.KeyByID(ctx, r.KeyID)
	if err != nil {
		return err
	}
	rules := s.cfg.Keys.Known() // the store can't be asked for more in the midst of a transaction
	if due := rules.Times(&k).Due; !due.IsZero() {
		if err := tx.BringForward(ctx, jobs.RotationCheck, due); err != nil {
			return err
		}
	}
	args, err := marshal(followArgs{Key: r.Key, Version: r.NewVersion, Move: r.Source == kms.SourceScheduler})
	if err != nil {
		return err
	}
	_, err = s.cfg.Enqueue(ctx, tx, jobs.Job{
		Kind: KindFollow, Subject: "key/" + r.Key, UniqueKey: fmt.Sprintf("rotation-followup/%s/%d", r.Key, r.NewVersion), Args: args, Actor: "system",
		Tries: rules.Of(k.Name, k.Purpose).Attempts,
	})
	return err
}
