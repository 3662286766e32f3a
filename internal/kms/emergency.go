package kms

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Emergency is what an incident does to one key.
type Emergency struct {
	Incident, Job string // ids, for the event
	Key           string
	KeyID         envelope.KeyID // another key may have taken over the name
	Last          uint32         // the newest version when the incident was opened; 0: the key isn't rotated
	Compromised   []uint32       // versions to mark
	Actor, Reason string         // for the transitions
}

// RotateInEmergency makes a new active version unless the key got one since the incident was opened, and marks versions
// compromised, all in one transaction with its event and whatever also writes (a job's cursor). Doing it again does
// nothing: changed is false then, also wasn't called, and no event was written. The right to it was decided when the
// incident was opened; here keyturn itself acts. Errors: not_found for a key or version that isn't there, wrong_state for
// a version whose destruction is scheduled.
func (s *Service) RotateInEmergency(ctx context.Context, e Emergency, also func(context.Context, store.Tx) error) (changed bool, err error) {
	k, err := s.stored(ctx, e.Key)
	if err != nil {
		return false, err
	}
	verb, err := e.verb(&k)
	if err != nil || verb == nil {
		return false, err
	}
	intent := gate.Intent{Action: verb.action, Type: verb.event, Verb: verb.name, Resource: keyResource(e.Key), Reason: e.Reason}
	done, began := k, s.clock()
	if _, err := s.Rules(ctx); err != nil { // what follows a rotation looks at them
		return false, err
	}
	err = s.gate.Change(ctx, system(), intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		old, err := tx.KeyByName(ctx, e.Key)
		if err != nil {
			return err
		}
		next := old.Clone()
		moves, err := s.emergencyStep(&next, ev, e)
		if err != nil {
			return err
		}
		if err := s.bindTouched(ctx, &next, old, moves); err != nil {
			return err
		}
		if err := tx.UpdateKey(ctx, next); err != nil {
			return err
		}
		if err := tx.AddTransitions(ctx, old.ID, moves); err != nil {
			return err
		}
		if err := s.noteRotation(ctx, tx, ev, old, next, moves, began); err != nil {
			return err
		}
		done = next
		failpoint.Hit("kms/inside-emergency")
		return also(ctx, tx)
	})
	failpoint.Hit("kms/after-emergency")
	s.ring.Drop(k.ID)
	if err != nil {
		return false, err
	}
	s.settle(ctx, done)
	return true, nil
}

// emergencyVerb is how the event of an emergency calls it.
type emergencyVerb struct {
	name   string
	action access.Action
	event  audit.EventType
}

// verb is what is to be done to the key as it stands; nil when nothing is.
func (e *Emergency) verb(k *keys.Key) (*emergencyVerb, error) {
	marks, err := e.toMark(k)
	switch {
	case err != nil:
		return nil, err
	case e.needsVersion(k):
		return &emergencyVerb{"rotated", access.KeyRotate, audit.KeyRotation}, nil
	case len(marks) > 0:
		return &emergencyVerb{"compromised", access.KeyCompromise, audit.KeyState}, nil
	}
	return nil, nil
}

// needsVersion says whether the key gets a new version: when none was made since, and when the one that is active is among
// the compromised ones.
func (e *Emergency) needsVersion(k *keys.Key) bool {
	if e.Last == 0 {
		return false
	}
	active, ok := k.Active()
	for _, n := range e.Compromised {
		if ok && active.Number == n {
			return true
		}
	}
	return uint64(len(k.Versions)) <= uint64(e.Last)
}

// toMark are the versions that aren't marked yet. One that is destroyed needs no mark.
func (e *Emergency) toMark(k *keys.Key) (out []uint32, err error) {
	if k.ID != e.KeyID {
		return nil, fault.Newf(api.CodeNotFound, "key %s is another one than when the incident was opened", k.Name).WithField("key")
	}
	for _, n := range e.Compromised {
		v, ok := k.Version(n)
		switch {
		case !ok:
			return nil, noVersion(k, n)
		case v.State == keys.Compromised || v.State == keys.Destroyed || v.State == keys.DestroyScheduled && v.PriorState == keys.Compromised:
			continue
		case v.State == keys.DestroyScheduled:
			return nil, fault.Newf(api.CodeWrongState, "version %d of key %s can't be marked, its destruction is scheduled", n, k.Name).
				WithField("compromised").WithNext("keyturn key undestroy " + k.Name + fmt.Sprintf(" --version %d", n))
		}
		out = append(out, n)
	}
	return out, nil
}

// emergencyStep is the pure part: first the successor, so that sealing doesn't stop, then the marks.
func (s *Service) emergencyStep(k *keys.Key, ev *audit.Event, e Emergency) (moves []keys.Transition, err error) {
	marks, err := e.toMark(k)
	if err != nil {
		return nil, err
	}
	ev.Details.Emergency, ev.Details.Incident, ev.Details.Job, ev.Details.OrderedBy = true, e.Incident, e.Job, e.Actor
	if e.needsVersion(k) {
		if moves, err = s.rotateStep(k, ev, system(), e.Actor, e.Reason, 0); err != nil {
			return nil, err
		}
	}
	ev.Details.Source = "incident"
	var marked []string
	for _, n := range marks {
		move, err := k.Move(n, keys.Compromised, s.clock(), e.Actor, e.Reason, 0)
		if err != nil {
			return nil, err
		}
		moves = append(moves, move)
		marked = append(marked, fmt.Sprintf("%s:%d", k.Name, n))
		if ev.KeyVersion == 0 {
			ev.KeyVersion = n
		}
		ev.Details.State = string(keys.Compromised)
	}
	ev.Details.Scope = strings.Join(marked, " ")
	return moves, nil
}
