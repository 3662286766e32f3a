package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// step is a pure change of a key: it works on its own copy, says which transitions it made, and fills in the event. It
// may run more than once, each time on what the transaction reads.
type step func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error)

// changeKey runs a step in a transaction together with its event, as the package comment describes. It returns the key
// as it is afterwards.
func (s *Service) changeKey(ctx context.Context, c *access.Caller, in gate.Intent, name string, do step) (keys.Key, error) {
	var done keys.Key
	var id envelope.KeyID
	var waits *clockState
	began := s.clock()
	if _, err := s.Rules(ctx); err != nil { // the step looks at them
		return keys.Key{}, err
	}
	err := s.gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		old, err := tx.KeyByName(ctx, name)
		if err != nil {
			return err
		}
		id = old.ID
		next := old.Clone()
		moves, err := do(&next, ev)
		if err != nil {
			return err
		}
		if err := s.bindTouched(ctx, &next, old, moves); err != nil {
			return err
		}
		if err := tx.UpdateKey(ctx, next); err != nil {
			return err
		}
		if waits, err = s.beginWaits(ctx, tx, next, moves); err != nil {
			return err
		}
		done = next
		if err := tx.AddTransitions(ctx, id, moves); err != nil {
			return err
		}
		if err := s.activeAgain(ctx, tx, old, next); err != nil {
			return err
		}
		return s.noteRotation(ctx, tx, ev, old, next, moves, began)
	})
	failpoint.Hit("kms/after-change")
	// Dropped also after an error: when nobody knows whether the transaction was committed, the store must be asked.
	if !id.IsZero() {
		s.ring.Drop(id)
	}
	if err != nil {
		return keys.Key{}, err
	}
	if waits != nil {
		s.watched.saw(*waits, s.time.Elapsed())
	}
	s.settle(ctx, done)
	return done, nil
}

// refuse records that something was refused before its transaction began, and returns why. It isn't left to the
// transaction: an error of the store in there would be taken for the transaction's own, and tried again.
func (s *Service) refuse(ctx context.Context, c *access.Caller, in gate.Intent, describe func(*audit.Event), why error) error {
	return s.gate.Use(ctx, c, in, func(_ context.Context, ev *audit.Event) error {
		describe(ev)
		return why
	})
}

// bindTouched gives new versions their material and binds the others to the state in which they stand now.
func (s *Service) bindTouched(ctx context.Context, next *keys.Key, old keys.Key, moves []keys.Transition) error {
	seen := map[uint32]bool{}
	for _, m := range moves {
		if seen[m.Version] {
			continue
		}
		seen[m.Version] = true
		before, existed := old.Version(m.Version)
		now, _ := next.Version(m.Version)
		switch {
		case !existed && now.Wrapped == nil:
			if err := s.ring.Fill(ctx, next, m.Version); err != nil {
				return err
			}
			if err := s.sample(ctx, next, m.Version); err != nil {
				return err
			}
		case !existed: // imported: filled already
			if err := s.sample(ctx, next, m.Version); err != nil {
				return err
			}
		case existed:
			if err := s.ring.Bind(ctx, next, m.Version, before); err != nil {
				return err
			}
		}
	}
	return nil
}

// sample has a new version seal its sample.
func (s *Service) sample(ctx context.Context, k *keys.Key, n uint32) error {
	sample, err := s.ring.Sample(ctx, k, n)
	if err != nil {
		return err
	}
	k.Versions[n-1].Sample = sample
	return nil
}

// activeAgain brings the rotation check forward to when a version is due that has become active without being new: while it was
// suspended nobody looked at it.
func (s *Service) activeAgain(ctx context.Context, tx store.Tx, old, next keys.Key) error {
	_, before := old.Active()
	if _, now := next.Active(); before || !now || len(next.Versions) != len(old.Versions) {
		return nil
	}
	times := s.Known().Times(&next)
	switch {
	case times.ToRotate(s.clock()):
		return tx.BringForward(ctx, jobs.RotationCheck, s.clock())
	case times.Due.IsZero():
		return nil
	}
	return tx.BringForward(ctx, jobs.RotationCheck, times.Due)
}

// noteRotation writes into the history what became a rotation, and has decided what follows it. Its actor is who decided it,
// as the new version's transition says, where the event names keyturn itself.
func (s *Service) noteRotation(ctx context.Context, tx store.Tx, ev *audit.Event, old, next keys.Key, moves []keys.Transition, began time.Time) error {
	if len(next.Versions) == len(old.Versions) || len(old.Versions) == 0 {
		return nil
	}
	before, _ := old.Active()
	now := s.clock()
	r := keys.Rotation{
		KeyID: next.ID, Key: next.Name, OldVersion: before.Number, NewVersion: uint32(len(next.Versions)), Reason: ev.Reason, Actor: ev.UserID,
		Source: ev.Details.Source, Incident: ev.Details.Incident, At: stamp(now), Duration: max(0, now.Sub(began)),
	}
	for _, m := range moves {
		if m.Version == r.NewVersion && m.Actor != "" {
			r.Actor = m.Actor
		}
	}
	if err := tx.AddRotation(ctx, r); err != nil || s.cfg.Rotated == nil {
		return err
	}
	return s.cfg.Rotated(ctx, tx, r)
}

// settle gives back what is reserved under versions that protect nothing any more. When that fails, their counters stay
// too high, which harms nobody.
func (s *Service) settle(ctx context.Context, k keys.Key) {
	for _, v := range k.Versions {
		if ops, bytes := s.usage.rest(k.ID, v.Number); !v.State.Protects() && ops+bytes > 0 {
			_ = s.usage.release(ctx, k.ID, v.Number)
		}
	}
}

// stored reads a key past all caches.
func (s *Service) stored(ctx context.Context, name string) (k keys.Key, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		k, err = tx.KeyByName(ctx, name)
		return err
	})
	return k, err
}

// shown is the answer of a change: the key as the wire shows it, or the error.
func (s *Service) shown(k keys.Key, err error) (api.Key, error) {
	if err != nil {
		return api.Key{}, err
	}
	return s.view(k, s.Known()), nil
}
