package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
)

// The compliance statuses of a key, in events and in health.
const (
	compliant = "compliant"
	dueSoon   = "due_soon"
	overdue   = "overdue"
)

// Rotate makes a new version the active one; the one before opens what it sealed and seals nothing new. Errors: conflict
// when in.IfVersion is not the active one any more.
func (s *Service) Rotate(ctx context.Context, c *access.Caller, name string, in api.RotateKeyRequest) (api.Key, error) {
	if err := keyNamed(name); err != nil {
		return api.Key{}, err
	}
	if in.Emergency && in.Reason == "" {
		return api.Key{}, fault.New(api.CodeInvalid, "rotating in an emergency: a reason is needed").WithField("reason").WithNext("say why, for the audit log: --reason WHY")
	}
	if in.DryRun {
		return s.shown(s.planRotation(ctx, c, name, in))
	}
	intent := gate.Intent{Action: access.KeyRotate, Type: audit.KeyRotation, Verb: "rotated", Resource: keyResource(name), Reason: in.Reason}
	return s.shown(s.changeKey(ctx, c, intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		ev.Details.Emergency = in.Emergency
		return s.rotateStep(k, ev, c, actor(c), in.Reason, in.IfVersion)
	}))
}

// RotateDue makes the next version of a key for keyturn itself, unless version seen isn't the active one any more. The event
// says that keyturn did it; by is who decided it, for the history: a person who had rotated what is due, or keyturn.
func (s *Service) RotateDue(ctx context.Context, name string, seen uint32, reason, by string) (api.Key, error) {
	if err := keyNamed(name); err != nil {
		return api.Key{}, err
	}
	intent := gate.Intent{Action: access.KeyRotate, Type: audit.KeyRotation, Verb: "rotated", Resource: keyResource(name), Reason: reason}
	return s.shown(s.changeKey(ctx, system(), intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		return s.rotateStep(k, ev, system(), by, reason, seen)
	}))
}

// planRotation is the key as it would be after a rotation, which isn't made.
func (s *Service) planRotation(ctx context.Context, c *access.Caller, name string, in api.RotateKeyRequest) (k keys.Key, err error) {
	intent := gate.Intent{Action: access.KeyRotate, Type: audit.ConfigRead, Verb: "rotation_planned", Resource: keyResource(name), Reason: in.Reason}
	err = s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) error {
		if k, err = s.stored(ctx, name); err != nil {
			return err
		}
		k = k.Clone()
		_, err := k.Rotate(s.clock(), actor(c), in.Reason, in.IfVersion)
		return err
	})
	return k, err
}

// rotateStep is the pure part of every rotation, with what the event says of it.
func (s *Service) rotateStep(k *keys.Key, ev *audit.Event, c *access.Caller, by, reason string, ifVersion uint32) ([]keys.Transition, error) {
	now := s.clock()
	old, _ := k.Active()
	rules := s.Known()
	ev.Details.Source, ev.Details.ComplianceStatus = source(c), rules.status(k, now)
	moves, err := k.Rotate(now, by, reason, ifVersion)
	if err != nil {
		return nil, err
	}
	added := k.Versions[len(k.Versions)-1]
	ev.KeyVersion = added.Number
	ev.Details.OldVersion, ev.Details.NewVersion = old.Number, added.Number
	ev.Details.NextRotationDue, ev.Details.ComplianceStatus = rules.Times(k).Due, compliant
	return moves, nil
}

// SourceScheduler is the source of what keyturn does by itself, in events and in the history.
const SourceScheduler = "scheduler"

// source says whether people or keyturn itself asked.
func source(c *access.Caller) string {
	if c.Method == methodInternal {
		return SourceScheduler
	}
	return "api"
}
