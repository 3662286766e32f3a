package rotation

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// The reasons of rotations that keyturn makes.
const (
	reasonScheduled = "scheduled_rotation"
	reasonOnDemand  = "rotation_run"
)

// runArgs is what a job of kind rotation-run was asked to do.
type runArgs struct {
	Reason string `json:"reason"`
	// Keys are those that the job may rotate, while they are due. Empty = every key that is, those that fall due until the job
	// runs or is retried included: only for who may rotate all keys.
	Keys []string `json:"keys,omitempty"`
}

// runProgress is what such a job keeps between two chunks.
type runProgress struct {
	Rotated int            `json:"rotated"`
	GivenUp []string       `json:"givenUp,omitempty"`
	Tries   map[string]int `json:"tries,omitempty"` // of keys that failed so far
	Ended   bool           `json:"ended,omitempty"` // the job ended with keys given up: a retry takes them up again
}

// mostShown is how many keys an answer lists.
const mostShown = 1000

// Run has rotated what is due now, of those keys that the caller may rotate: the longest overdue first, at most in.Max of
// them. It answers at once; the job does it. One job does it at a time: an unfinished one is the answer.
func (s *Service) Run(ctx context.Context, c *access.Caller, in api.RotationRunRequest) (api.RotationRun, error) {
	if in.Max < 0 {
		return api.RotationRun{}, fault.New(api.CodeInvalid, "rotating what is due: the number of keys is negative").WithField("max")
	}
	intent := gate.Intent{Action: access.KeyRotate, Type: audit.KeyRotation, Verb: "rotation_requested", Resource: keyResource("")}
	out := api.RotationRun{DryRun: in.DryRun, State: string(jobs.Done), Keys: []api.RotationKey{}}
	var due []api.RotationKey
	whole := allowed(c, access.KeyRotate, access.Every(access.KindKey))
	if allowed(c, access.KeyRotate, keyResource("")) {
		now := s.cfg.Clock()
		found, err := s.standing(ctx, func(v *keys.ActiveVersion, t keys.Times) bool {
			return t.ToRotate(now) && allowed(c, access.KeyRotate, keyResource(v.Key))
		})
		if err != nil {
			return out, err
		}
		if due = found; in.Max > 0 && len(due) > in.Max {
			due, whole = due[:in.Max], false
		}
	}
	out.Due, out.Keys = len(due), append(out.Keys, due[:min(len(due), mostShown)]...)
	err := s.cfg.Gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items = uint64(len(due))
		if in.DryRun || len(due) == 0 {
			return nil
		}
		a := runArgs{Reason: reasonOnDemand}
		if !whole {
			for _, k := range due {
				a.Keys = append(a.Keys, k.Name)
			}
		}
		j, err := s.enqueueRun(ctx, tx, a, c.Principal.Name)
		out.Job, out.State, ev.Details.Job = j.ID, string(j.State), j.ID
		return err
	})
	if err != nil {
		return api.RotationRun{}, err
	}
	return out, nil
}

func (s *Service) enqueueRun(ctx context.Context, tx store.Tx, a runArgs, actor string) (jobs.Job, error) {
	text, err := marshal(a)
	if err != nil {
		return jobs.Job{}, err
	}
	unique := KindRun
	if a.Keys != nil {
		unique = "" // others may want other keys; whoever comes second to one finds that it isn't due any more
	}
	return s.cfg.Enqueue(ctx, tx, jobs.Job{Kind: KindRun, Subject: "key", UniqueKey: unique, Args: text, Actor: actor})
}

// runHandler rotates what is due.
type runHandler struct{ s *Service }

// Kind is "rotation-run".
func (runHandler) Kind() string { return KindRun }

// retryAfter is how long a key that could not be rotated waits for its next attempt.
const retryAfter = 5 * time.Second

// Run looks for what is due and rotates it, key by key, until there is no more or the chunk is over. What is due is looked
// for anew in each chunk: a key that was rotated isn't due any more, whoever did it, so nothing is rotated twice.
func (h runHandler) Run(ctx context.Context, run *runner.Run) error {
	var a runArgs
	p := runProgress{Tries: map[string]int{}}
	if err := unmarshal(run.Job.Args, &a); err != nil {
		return err
	}
	if err := unmarshal(run.Job.Progress, &p); err != nil {
		return err
	}
	if p.Tries == nil {
		p.Tries = map[string]int{}
	}
	if p.Ended {
		p = runProgress{Rotated: p.Rotated, Tries: map[string]int{}}
		if err := run.ClearFailures(ctx, nil); err != nil {
			return err
		}
	}
	due, err := h.s.dueOf(ctx, a.Keys, p.GivenUp)
	if err != nil {
		return err
	}
	total, waiting := int64(p.Rotated+len(due)), 0
	for _, k := range due {
		if !run.Continue(ctx) {
			return h.save(ctx, run, &p, total, runner.Again)
		}
		failed := h.s.rotate(ctx, k, a.Reason, run.Job.Actor)
		failpoint.Hit("rotation/after-key")
		switch {
		case failed == nil:
			p.Rotated++
			delete(p.Tries, k.Name)
		case ctx.Err() != nil:
			return h.save(context.WithoutCancel(ctx), run, &p, total, failed)
		default:
			again, err := h.failed(ctx, run, &p, k, failed)
			if err != nil {
				return err
			}
			if again {
				waiting++
			}
		}
		if p.Rotated%saveEvery == 0 {
			if err := h.save(ctx, run, &p, total, nil); err != nil {
				return err
			}
		}
	}
	if waiting > 0 {
		return h.save(ctx, run, &p, total, &runner.Later{After: retryAfter})
	}
	p.Ended = len(p.GivenUp) > 0
	var outcome error
	if p.Ended {
		if err := h.lookAgain(ctx); err != nil {
			return err
		}
	}
	if p.Ended { // so that `job list --state failed` finds it
		outcome = fault.Newf(api.CodeWrongState, "rotating what is due: %s could not be rotated", numberOfKeys(len(p.GivenUp))).
			WithNext("see them with keyturn job show " + run.Job.ID + ", mend the cause, then: keyturn job retry " + run.Job.ID)
	}
	return h.save(ctx, run, &p, int64(p.Rotated+len(p.GivenUp)), outcome)
}

// lookedAtAfter is when what was given up is looked at once more, if nobody has mended it and said so by then: the next check may be a day away.
const lookedAtAfter = time.Hour

// lookAgain has the next check come in time for what was given up. Interrupted behind it, a check comes early, which harms nobody.
func (h runHandler) lookAgain(ctx context.Context) error {
	at := h.s.cfg.Clock().Add(lookedAtAfter)
	return h.s.cfg.Store.Change(ctx, func(tx store.Tx) error { return tx.BringForward(ctx, jobs.RotationCheck, at) })
}

func numberOfKeys(n int) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", n)
}

// saveEvery is after how many rotations progress is saved: it is for people, since what is due is looked for anew.
const saveEvery = 50

func (h runHandler) save(ctx context.Context, run *runner.Run, p *runProgress, total int64, outcome error) error {
	text, err := marshal(p)
	if err != nil {
		return err
	}
	if err := run.Save(ctx, nil, text, int64(p.Rotated), total); err != nil {
		return err
	}
	return outcome
}

// failed counts a failure. A key that used up its attempts, or whose failure time doesn't heal, goes to the job's list, and
// an alert is recorded; the others go on.
func (h runHandler) failed(ctx context.Context, run *runner.Run, p *runProgress, k api.RotationKey, why error) (again bool, err error) {
	rules, err := h.s.cfg.Keys.Rules(ctx)
	if err != nil {
		return false, err
	}
	p.Tries[k.Name]++
	if attempts := rules.Of(k.Name, keys.Purpose(k.Purpose)).Attempts; jobs.Retryable(fault.CodeOf(why)) && p.Tries[k.Name] < attempts {
		return true, nil
	}
	delete(p.Tries, k.Name)
	p.GivenUp = append(p.GivenUp, k.Name)
	reason := fault.MessageOf(why)
	if err := run.AddFailures(ctx, []jobs.Failure{{Item: k.Name, Reason: reason, At: h.s.cfg.Clock()}}); err != nil {
		return false, err
	}
	return false, h.s.cfg.Keys.Alert(ctx, kms.Warning{Name: "rotation_failed", Resource: keyResource(k.Name), Version: k.Version, Reason: reason})
}

// dueOf lists what is due: of the named keys, or of all when none is named, without those that were given up.
func (s *Service) dueOf(ctx context.Context, names, without []string) ([]api.RotationKey, error) {
	only, not := setOf(names), setOf(without)
	now := s.cfg.Clock()
	return s.standing(ctx, func(v *keys.ActiveVersion, t keys.Times) bool {
		return t.ToRotate(now) && (len(only) == 0 || only[v.Key]) && !not[v.Key]
	})
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// rotate makes the next version of a key that was seen to be due, for whoever asked for the run. When somebody else was first there is nothing to do.
func (s *Service) rotate(ctx context.Context, k api.RotationKey, reason, actor string) error {
	_, err := s.cfg.Keys.RotateDue(ctx, k.Name, k.Version, reason, actor)
	if fault.CodeOf(err) == api.CodeConflict && fault.FieldOf(err) == "ifVersion" {
		return nil
	}
	return err
}
