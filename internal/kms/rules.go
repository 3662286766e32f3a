package kms

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Rules are the policies that hold on this node, as one snapshot: those of the configuration and those that were set. They
// are safe for concurrent use.
type Rules struct {
	all         []keys.Policy
	environment string

	mu    sync.Mutex // guards what follows: answers that were given already
	known map[ruleRef]keys.Effective
	crons map[cronRef]func(time.Time) time.Time
}

// ruleRef names an answer. Keys that no policy names share that of their purpose.
type ruleRef struct {
	key     string
	purpose keys.Purpose
}

type cronRef struct{ text, zone string }

// NewRules makes a snapshot of policies for an environment.
func NewRules(policies []keys.Policy, environment string) *Rules {
	return &Rules{all: policies, environment: environment, known: map[ruleRef]keys.Effective{}, crons: map[cronRef]func(time.Time) time.Time{}}
}

// All lists the policies.
func (r *Rules) All() []keys.Policy { return r.all }

// Environment is the one that they are looked at in.
func (r *Rules) Environment() string { return r.environment }

// Of is what holds for a key.
func (r *Rules) Of(name string, purpose keys.Purpose) keys.Effective {
	ref := ruleRef{purpose: purpose}
	for _, p := range r.all {
		if p.Key == name {
			ref.key = name
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.known[ref]
	if !ok {
		e = keys.Resolve(r.all, name, purpose, r.environment)
		r.known[ref] = e
	}
	return e
}

// Times is how a key's active version stands.
func (r *Rules) Times(k *keys.Key) keys.Times {
	e := r.Of(k.Name, k.Purpose)
	return k.Times(e, r.cron(e))
}

// TimesOf is Times of an active version that was listed.
func (r *Rules) TimesOf(v *keys.ActiveVersion) (keys.Times, keys.Effective) {
	e := r.Of(v.Key, v.Purpose)
	return v.Times(e, r.cron(e)), e
}

// cron is the schedule of an answer. One that can't be read names no time: it was checked when it was set, so somebody
// else's zone data has gone, and the period still holds.
func (r *Rules) cron(e keys.Effective) func(time.Time) time.Time {
	if e.Schedule == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ref := cronRef{e.Schedule, e.Zone}
	if next, ok := r.crons[ref]; ok {
		return next
	}
	var next func(time.Time) time.Time
	if c, err := jobs.ParseCron(e.Schedule, e.Zone); err == nil {
		next = c.Next
	}
	r.crons[ref] = next
	return next
}

// status is how a key stands, as events and health say it.
func (r *Rules) status(k *keys.Key, now time.Time) string { return standing(r.Times(k), now) }

func standing(t keys.Times, now time.Time) string {
	switch {
	case t.Overdue(now):
		return overdue
	case t.DueSoon(now):
		return dueSoon
	}
	return compliant
}

// ruleBook remembers the rules for a few seconds: as long as another node's change may go unseen.
type ruleBook struct {
	mu   sync.Mutex // guards what follows; not held while the store is asked
	last *Rules
	read time.Time
	gen  uint64 // grows with every drop
}

// rulesAge is how long a snapshot is used on a node that didn't change the policies itself.
const rulesAge = 5 * time.Second

// Rules is the present snapshot, at most five seconds old where another node changed a policy.
func (s *Service) Rules(ctx context.Context) (*Rules, error) {
	b := &s.book
	b.mu.Lock()
	last, fresh, gen := b.last, b.last != nil && time.Since(b.read) < rulesAge, b.gen
	b.mu.Unlock()
	if fresh {
		return last, nil
	}
	began := time.Now()
	var set []keys.Policy
	err := s.st.View(ctx, func(tx store.Tx) (err error) {
		set, err = tx.Policies(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := append(append([]keys.Policy{}, s.cfg.Policies...), set...)
	made := NewRules(all, s.cfg.Environment)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gen == gen {
		b.last, b.read = made, began
	}
	return made, nil
}

// Known is the last snapshot that was read, for those who may not ask the store now; with none, the configuration's
// policies.
func (s *Service) Known() *Rules {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	if s.book.last != nil {
		return s.book.last
	}
	return NewRules(s.cfg.Policies, s.cfg.Environment)
}

// PoliciesChanged has the next reader ask the store.
func (s *Service) PoliciesChanged() {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	s.book.gen++
	s.book.read = time.Time{}
}
