package rotation

import (
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
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
}

// followHandler does what follows a rotation.
type followHandler struct{ s *Service }

// Kind is "rotation-followup".
func (followHandler) Kind() string { return KindFollow }

// busyAfter is how long a follow-up waits for others to finish their re-encryptions.
const busyAfter = 2 * time.Second

// Run makes the self-check, and then starts the re-encryption of each dataset of the key, if its policy says so and never
// more at once than it says. It doesn't wait for their end: they are jobs of their own. Interrupted, it makes the
// self-check again or starts a job that is there already, which are both as good as once.
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
	for i, name := range sets {
		if slices.Contains(p.Begun, name) {
			continue
		}
		if !run.Continue(ctx) {
			return runner.Again
		}
		if busy, err := h.s.moving(ctx); err != nil || busy >= max(rule.Concurrency, 1) {
			return later(err, busyAfter)
		}
		err := h.s.cfg.Datasets.Move(ctx, name, reencrypt.Queue{Tries: rule.Attempts}, api.DatasetRunRequest{BatchSize: rule.BatchSize})
		if fault.CodeOf(err) == api.CodeConflict { // another kind of work is done on it
			return later(nil, busyAfter)
		}
		if err != nil && fault.CodeOf(err) != api.CodeNotFound {
			return err
		}
		failpoint.Hit("rotation/after-dataset")
		p.Begun = append(p.Begun, name)
		if err := h.save(ctx, run, p, int64(i+1), int64(len(sets))); err != nil {
			return err
		}
	}
	return nil
}

// later is err, or the wish to be asked again.
func later(err error, after time.Duration) error {
	if err != nil {
		return err
	}
	return &runner.Later{After: after}
}

func (h followHandler) save(ctx context.Context, run *runner.Run, p followProgress, done, total int64) error {
	text, err := marshal(p)
	if err != nil {
		return err
	}
	return run.Save(ctx, nil, text, done, total)
}

// toMove is what the policies say about a key, and the datasets that hold its ciphertexts.
func (s *Service) toMove(ctx context.Context, name string) (rule keys.Effective, sets []string, err error) {
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
			sets = append(sets, d.Name)
		}
	}
	return rules.Of(k.Name, k.Purpose), sets, nil
}

func uses(d datasets.Dataset, id envelope.KeyID) bool {
	return slices.ContainsFunc(d.Columns, func(c datasets.Column) bool { return c.KeyID == id })
}

// moving counts the re-encryptions that keyturn started by itself and that haven't ended.
func (s *Service) moving(ctx context.Context) (n int, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		page, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running}, Kind: string(reencrypt.KindReencrypt), Limit: jobs.MaxLimit})
		n = 0
		for _, j := range page {
			if j.Actor == kms.SystemName {
				n++
			}
		}
		return err
	})
	return n, err
}
