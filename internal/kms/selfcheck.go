package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// SelfCheck opens the kept sample of every version of a key that may open anything (promise P4), and writes what it found
// into the history of the rotation that made version, also if others were made since. When one fails nothing is changed: the versions stay as
// they are, an alert is recorded, and the error, of code integrity, stops whatever was to follow the rotation. A version
// that can't be asked now, because a database or a master key is away, is no failure; its error says so.
func (s *Service) SelfCheck(ctx context.Context, name string, version uint32) error {
	k, err := s.stored(ctx, name)
	if err != nil {
		return err
	}
	in := gate.Intent{Action: access.KeyRead, Type: audit.KeyRotation, Verb: "self_checked", Resource: keyResource(name)}
	var found error
	err = s.gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		found = nil
		ev.Details.Source = "scheduler"
		for _, v := range k.Versions {
			switch v.State {
			case keys.Active, keys.Deactivated, keys.Compromised:
			default:
				continue
			}
			ev.Details.Items++
			err := s.ring.CheckSample(ctx, &k, v)
			if err != nil && fault.CodeOf(err) != api.CodeIntegrity {
				return err
			}
			if err != nil {
				ev.Details.Failed++
				if found == nil {
					ev.KeyVersion, ev.Details.Code, found = v.Number, string(api.CodeIntegrity), err
				}
			}
		}
		result := keys.SelfCheckOK
		if found != nil {
			result = keys.SelfCheckFailed
		}
		return tx.NoteSelfCheck(ctx, k.ID, version, result)
	})
	failpoint.Hit("kms/after-self-check")
	if err != nil {
		return err
	}
	if found == nil {
		return nil
	}
	if err := s.Alert(ctx, Warning{Name: "self_check_failed", Resource: keyResource(name), Reason: "an older version doesn't open what it sealed"}); err != nil {
		return err
	}
	return fault.Wrap("", found, "checking key "+name+" after its rotation").
		WithNext("nothing was moved or destroyed; look at keyturn doctor, and restore the key's rows from a backup")
}

// Warning is something that people should hear of. Until there are channels it is an event of type alert, which every
// collector can select.
type Warning struct {
	Name     string // what happened, in a word or two: "rotation_failed"
	Resource access.Resource
	Reason   string // in words; never a value
	Version  uint32
	Incident string
	Count    uint64
}

// Alert records a warning and returns when it is durable.
func (s *Service) Alert(ctx context.Context, w Warning) error {
	in := gate.Intent{Action: access.SystemRead, Type: audit.Alert, Verb: w.Name, Resource: w.Resource, Reason: w.Reason}
	return s.gate.Use(ctx, system(), in, func(_ context.Context, ev *audit.Event) error {
		ev.KeyVersion, ev.Details.Count, ev.Details.Incident, ev.Details.Source = w.Version, w.Count, w.Incident, "system"
		return nil
	})
}
