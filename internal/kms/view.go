package kms

import (
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/keys"
)

// view is a key as the wire shows it. What this node has reserved and not used is taken off the counters, so that on a
// single node they are exact.
func (s *Service) view(k keys.Key, rules *Rules) api.Key {
	period := k.Cryptoperiod.Period
	if k.ByPolicy {
		period = rules.Of(k.Name, k.Purpose).Period
	}
	out := api.Key{
		Name: k.Name, ID: k.ID.String(), Purpose: string(k.Purpose), Algorithm: string(k.Algorithm), Suite: int(k.Suite),
		Period: keys.FormatPeriod(period), MaxOperations: k.Cryptoperiod.MaxOperations, MaxBytes: k.Cryptoperiod.MaxBytes,
		Created: k.Created, Versions: make([]api.KeyVersion, len(k.Versions)),
	}
	for i, v := range k.Versions {
		ops, bytes := s.usage.rest(k.ID, v.Number)
		out.Versions[i] = api.KeyVersion{
			Version: v.Number, State: string(v.State), Created: v.Created, Activated: optional(v.Activated), Expires: optional(v.Expires),
			DestroyAt: optional(v.DestroyAt), LastOpened: optional(v.LastOpened), Reason: v.Reason,
			ForceAskedAt: optional(v.ForceAt), Forced: v.Forced(),
			Operations: v.Operations - min(ops, v.Operations), Bytes: v.Bytes - min(bytes, v.Bytes),
		}
		if v.State == keys.Active {
			out.Versions[i].Expires = optional(rules.Times(&k).Due)
		}
	}
	return out
}

// optional turns the zero time into the wire's null.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func principalView(p access.Principal) api.Principal {
	out := api.Principal{
		Principal: p.Name, ID: p.ID, Role: p.Role, Scope: append([]string{}, p.Scope...), Disabled: p.Disabled, Created: p.Created,
	}
	for _, a := range p.Allow {
		out.Allow = append(out.Allow, string(a))
	}
	return out
}

func roleView(r access.Role) api.Role {
	return api.Role{Role: r.Name, Description: r.Description, Actions: actionNames(r.Actions)}
}

func actionNames(as []access.Action) []string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = string(a)
	}
	return out
}
