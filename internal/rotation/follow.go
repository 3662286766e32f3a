package rotation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// followArgs is the rotation that a job of kind rotation-followup follows.
type followArgs struct {
	Key     string `json:"key"`
	Version uint32 `json:"version"`
	Move    bool   `json:"move,omitempty"` // re-encrypt afterwards, if the policy says so
}

// followProgress is what it keeps between two chunks.
type followProgress struct {
	Checked bool     `json:"checked"`
	Begun   []string `json:"begun,omitempty"` // datasets whose re-encryption is under way
	Waits   int      `json:"waits,omitempty"` // chunks in a row that found everything taken by others
}

// followHandler does what follows a rotation.
type followHandler struct{ s *Service }

// Kind is "rotation-followup".
func (followHandler) Kind() string { return KindFollow }

// Others' work is waited for with growing pauses: twice as long each time, from the first to the last. A place among the
// re-encryptions comes free soon; what somebody else does with a dataset may take long, or be paused.
const (
	firstPause  = 2 * time.Second
	placePause  = 15 * time.Second
	othersPause = time.Minute
)

// Run makes the self-check, and then starts the re-encryption of each dataset of the key, if its policy says so and never
// more at once than it says. It doesn't wait for their end: they are jobs of their own. Interrupted, it makes the
// self-check again or starts a job that is there already, which are both as good as once.
//
// What can't be reached is waited for, see runner.Away, and keeps no other dataset from being moved. The wait ends early when
// the key was rotated again: what follows that rotation moves the same rows.
func (h followHandler) Run(ctx context.Context, run *runner.Run) error {
	var a followArgs
	var p followProgress
	if err := unmarshal(run.Job.Args, &a); err != nil {
		return err
	}
	if err := unmarshal(run.Job.Progress, &p); err != nil {
		return err
	}
	if !p.Checked {
		if err := h.s.cfg.Keys.SelfCheck(ctx, a.Key, a.Version); err != nil {
			if c := fault.CodeOf(err); ctx.Err() == nil && (c == api.CodeUnavailable || c == api.CodeBusy) {
				return &runner.Away{Err: err} // a master key
			}
			return err
		}
		p.Checked = true
		var done int64
		if !a.Move {
			done = 1 // nothing else follows
		}
		if err := h.save(ctx, run, p, done, 1); err != nil {
			return err
		}
		failpoint.Hit("rotation/after-self-check")
	}
	if !a.Move {
		return nil
	}
	rule, sets, err := h.s.toMove(ctx, a.Key)
	if err != nil {
		return err
	}
	if !rule.Reencrypt || len(sets) == 0 {
		return h.save(ctx, run, p, 1, 1)
	}
	return h.move(ctx, run, a, p, rule, sets)
}

// move starts what isn't started yet.
func (h followHandler) move(ctx context.Context, run *runner.Run, a followArgs, p followProgress, rule keys.Effective, sets []datasets.Dataset) error {
	var away, failed error   // the first of each
	var others *runner.Later // what somebody else's work keeps
	for i := range sets {
		d := &sets[i]
		if slices.Contains(p.Begun, d.Name) {
			continue
		}
		if !run.Continue(ctx) {
			return runner.Again
		}
		err := h.s.begin(ctx, d, rule)
		var later *runner.Later
		switch {
		case errors.As(err, &later):
			others = later
		case err != nil && ctx.Err() != nil:
			return err
		case isAway(err):
			away = cmp.Or(away, err)
		case err != nil:
			failed = cmp.Or(failed, err)
		default:
			failpoint.Hit("rotation/after-dataset")
			p.Begun, p.Waits = append(p.Begun, d.Name), 0
			if err := h.save(ctx, run, p, int64(len(p.Begun)), int64(len(sets))); err != nil {
				return err
			}
		}
		if later != nil && later.After == placePause {
			break // there is none for the next dataset either
		}
	}
	switch {
	case away != nil:
		if followed, err := h.s.followed(ctx, a); err != nil || followed {
			return err
		}
		return &runner.Away{Err: away}
	case others != nil:
		pause := min(firstPause<<min(p.Waits, 10), others.After)
		p.Waits++
		if err := h.save(ctx, run, p, int64(len(p.Begun)), int64(len(sets))); err != nil {
			return err
		}
		return &runner.Later{After: pause, Why: others.Why}
	}
	return failed
}

// begin starts the re-encryption of a dataset. A *runner.Later says what it waits for, and the longest pause.
func (s *Service) begin(ctx context.Context, d *datasets.Dataset, rule keys.Effective) error {
	most := max(rule.Concurrency, 1)
	var taken error
	busy := 0
	err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) { // so that a refusal isn't recorded each time
		taken = s.cfg.Datasets.MayMove(ctx, tx, d)
		busy, err = s.cfg.Datasets.Moving(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	if taken == nil && busy < most {
		taken = s.cfg.Datasets.Move(ctx, d.Name, reencrypt.Queue{Tries: rule.Attempts, AtOnce: most}, api.DatasetRunRequest{BatchSize: rule.BatchSize})
	} else if taken == nil {
		taken = reencrypt.ErrEnough
	}
	switch code := fault.CodeOf(taken); {
	case errors.Is(taken, reencrypt.ErrEnough):
		return &runner.Later{After: placePause, Why: fault.MessageOf(taken)}
	case taken != nil && (code == api.CodeConflict || code == api.CodeWrongState): // another kind of work is done on it
		return &runner.Later{After: othersPause, Why: "waiting for another job: " + fault.MessageOf(taken)}
	case taken != nil && code == api.CodeNotFound:
		there, err := s.registered(ctx, d)
		if err != nil || !there {
			return err // removed meanwhile: somebody decided that
		}
	}
	return taken
}

// isAway says whether an error of a dataset may mean that its database can't be reached now.
func isAway(err error) bool {
	switch fault.CodeOf(err) {
	case api.CodeUnavailable, api.CodeBusy, api.CodeNotFound:
		return err != nil
	}
	return false
}

func (s *Service) registered(ctx context.Context, d *datasets.Dataset) (there bool, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		now, err := tx.Dataset(ctx, d.Name)
		there = err == nil && now.ID == d.ID
		if fault.CodeOf(err) == api.CodeNotFound {
			return nil
		}
		return err
	})
	return there, err
}

// followed says whether keyturn has rotated the key again, so that another job of this kind moves the same datasets.
func (s *Service) followed(ctx context.Context, a followArgs) (is bool, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		is = false
		k, err := tx.KeyByName(ctx, a.Key)
		if err != nil {
			return err
		}
		newest, err := tx.Rotations(ctx, k.ID, keys.Rotation{}, 1)
		if err == nil && len(newest) > 0 {
			is = newest[0].NewVersion > a.Version && newest[0].Source == kms.SourceScheduler
		}
		return err
	})
	return is, err
}

func (h followHandler) save(ctx context.Context, run *runner.Run, p followProgress, done, total int64) error {
	text, err := marshal(p)
	if err != nil {
		return err
	}
	return run.Save(ctx, nil, text, done, total)
}

// toMove is what the policies say about a key, and the datasets that hold its ciphertexts.
func (s *Service) toMove(ctx context.Context, name string) (rule keys.Effective, sets []datasets.Dataset, err error) {
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return rule, nil, err
	}
	var k keys.Key
	var all []datasets.Dataset
	err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if k, err = tx.KeyByName(ctx, name); err != nil {
			return err
		}
		all, err = tx.Datasets(ctx)
		return err
	})
	if err != nil {
		return rule, nil, err
	}
	for _, d := range all {
		if uses(d, k.ID) {
			sets = append(sets, d)
		}
	}
	return rules.Of(k.Name, k.Purpose), sets, nil
}

func uses(d datasets.Dataset, id envelope.KeyID) bool {
	return slices.ContainsFunc(d.Columns, func(c datasets.Column) bool { return c.KeyID == id })
}
