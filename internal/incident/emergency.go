package incident

import (
	"context"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Emergency opens an incident and begins to rotate: every chosen key gets a new version, compromised versions are marked,
// and what stands under them is re-encrypted ahead of all other work. It needs incident.write, and key.rotate and
// key.compromise on every chosen key: who lacks one of them is denied as a whole. Everything that is wrong with the request
// is said at once, and nothing is changed then.
//
// Who names no compromised version means those that are active now, or were active last in a key that is named although it
// has no active one: somebody may have disabled it as the first thing that came to mind. When All or Purpose chooses, keys
// without an active version are skipped, which the answer says, unless a version of theirs is said to be compromised.
//
// Which keys belong to it is decided by rows that keyturn wrote. One that was changed by other hands may belong to it or
// not: an emergency of All, or of a Purpose, is refused with integrity then, and those that can be read have to be named.
func (s *Service) Emergency(ctx context.Context, c *access.Caller, in api.EmergencyRequest) (api.Emergency, error) {
	i, p, checked, err := s.prepare(ctx, c, in, "opened")
	if err != nil {
		return api.Emergency{}, err
	}
	opened, err := s.open(ctx, c, i, checked)
	if err != nil {
		return api.Emergency{}, err
	}
	return api.Emergency{Incident: opened, Skipped: append([]string{}, p.skipped...)}, nil
}

// prepare is what an emergency and its dry run have in common: everything up to the point where something is changed. checked
// is what is wrong with the keys and versions, for the doorway to record; err is recorded already, or needs no record. verb is
// how the event of a denial calls it.
func (s *Service) prepare(ctx context.Context, c *access.Caller, in api.EmergencyRequest, verb string) (i incidents.Incident, p plan, checked, err error) {
	if in.Type == "" {
		in.Type = string(incidents.KeyCompromise)
	}
	if in.Severity == "" {
		in.Severity = string(incidents.DefaultSeverity)
	}
	if i, err = s.begin(in.Type, in.Severity, in.Reason, in.Details); err != nil {
		return i, p, nil, err
	}
	if err := chosen(in); err != nil {
		return i, p, nil, err
	}
	i.Emergency = true
	if !allowed(c, access.IncidentWrite, resource(i.ID)) {
		return i, p, nil, nil // the doorway will say so
	}
	if lacks, ok := firstLacking(c, named(in), access.KeyRotate, access.KeyCompromise); ok {
		return i, p, nil, s.deny(ctx, c, lacks, verb, i.Reason)
	}
	if p, checked = s.plan(ctx, c, in); p.lacks != nil {
		return i, p, nil, s.deny(ctx, c, *p.lacks, verb, i.Reason)
	}
	i.Targets, i.Versions = p.targets, p.versions
	return i, p, checked, nil
}

// chosen wants exactly one way of saying which keys.
func chosen(in api.EmergencyRequest) error {
	ways := 0
	for _, given := range []bool{len(in.Keys) > 0, in.All, in.Purpose != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fault.New(api.CodeInvalid, "exactly one of the keys' names, all, and a purpose says which keys are rotated").WithField("keys").
			WithNext("name keys, or a purpose, or take all")
	case len(in.Keys) > maxVersions:
		return fault.Newf(api.CodeTooLarge, "more than %d keys are named", maxVersions).WithField("keys").WithNext("rotate all, or those of a purpose")
	case len(in.Compromised) > maxVersions:
		return fault.Newf(api.CodeTooLarge, "more than %d compromised versions are named", maxVersions).WithField("compromised")
	case in.Purpose != "":
		return keys.Purpose(in.Purpose).Validate()
	}
	return nil
}

// named are the keys that a request names.
func named(in api.EmergencyRequest) []api.IncidentVersion {
	out := slices.Clone(in.Compromised)
	for _, name := range in.Keys {
		out = append(out, api.IncidentVersion{Key: name})
	}
	return out
}

// plan is what an emergency will do.
type plan struct {
	targets  []incidents.Target
	versions []incidents.Version
	states   map[incidents.Version]keys.State
	skipped  []string
	lacks    *access.Right // on a key that wasn't named
}

// plan looks at everything in one snapshot.
func (s *Service) plan(ctx context.Context, c *access.Caller, in api.EmergencyRequest) (p plan, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		p = plan{}
		var bad problems
		found := map[string]keys.Key{}
		for n, name := range in.Keys {
			k, err := key(ctx, tx, "keys", n, name)
			if _, twice := found[k.Name]; err == nil && !twice {
				found[k.Name] = k
				err = p.take(&k)
			}
			if err := bad.add(err); err != nil {
				return err
			}
		}
		if len(in.Keys) == 0 {
			if err := p.walk(ctx, tx, c, in, found, &bad); err != nil || p.lacks != nil {
				return err
			}
		}
		if err := p.mark(ctx, tx, in, found, &bad); err != nil {
			return err
		}
		if len(p.targets) == 0 && len(bad) == 0 {
			return fault.New(api.CodeNotFound, "there is no key with an active version to rotate").WithField("keys").
				WithNext("see the purposes of the keys, and their active versions: keyturn key list")
		}
		return fault.Join(bad...)
	})
	return p, err
}

// take has a key rotated, if it can be.
func (p *plan) take(k *keys.Key) error {
	if k.Suspended() {
		return fault.Newf(api.CodeWrongState, "key %s is suspended", k.Name).WithField("keys").
			WithNext("keyturn key resume " + k.Name + ", or mark its version alone: keyturn key compromise " + k.Name + " --version N")
	}
	if err := k.MayRotate(); err != nil {
		return fault.New(fault.CodeOf(err), fault.MessageOf(err)).WithField("keys").WithNext(fault.NextOf(err))
	}
	p.targets = append(p.targets, incidents.Target{Key: k.Name, KeyID: k.ID, From: lastActive(k), Last: uint32(len(k.Versions))})
	return nil
}

// lastActive is the active version, or the one that was active last.
func lastActive(k *keys.Key) uint32 {
	if v, ok := k.Active(); ok {
		return v.Number
	}
	for n := len(k.Versions) - 1; n >= 0; n-- {
		if !k.Versions[n].Activated.IsZero() {
			return k.Versions[n].Number
		}
	}
	return 0
}

// walk chooses among all keys. All means all of the store: an emergency that silently left out what the caller may not rotate
// would be worse than none. Each row of the list is read by itself before anything is decided by it: whoever writes to the
// database could else keep a key out by giving it another purpose or state.
func (p *plan) walk(ctx context.Context, tx store.Tx, c *access.Caller, in api.EmergencyRequest, found map[string]keys.Key, bad *problems) error {
	const page = 500
	said := map[string]bool{} // to be compromised
	for _, v := range in.Compromised {
		said[v.Key] = true
	}
	var forged []string
	for after := ""; ; {
		list, err := tx.Keys(ctx, after, page)
		if err != nil {
			return err
		}
		for _, row := range list {
			after = row.Name
			k, err := tx.KeyByID(ctx, row.ID)
			if fault.CodeOf(err) == api.CodeIntegrity {
				forged = append(forged, row.Name)
				continue
			} else if err != nil {
				return err
			}
			if in.Purpose != "" && string(k.Purpose) != in.Purpose {
				continue
			}
			for _, a := range []access.Action{access.KeyRotate, access.KeyCompromise} {
				if !allowed(c, a, keyResource(k.Name)) {
					p.lacks = &access.Right{Action: a, Resource: keyResource(k.Name)}
					return nil
				}
			}
			found[k.Name] = k
			if _, active := k.Active(); !active && !said[k.Name] {
				p.skipped = append(p.skipped, k.Name)
			} else if err := bad.add(p.take(&k)); err != nil {
				return err
			}
			if len(p.targets) > maxTargets {
				return fault.Newf(api.CodeLimit, "more than %d keys would be rotated at once", maxTargets).WithField("keys").
					WithNext("rotate them purpose by purpose")
			}
		}
		if len(list) < page {
			return changedByOthers(c, forged)
		}
	}
}

// changedByOthers is why nobody knows which keys all are. It names those that the caller may see.
func changedByOthers(c *access.Caller, forged []string) error {
	if len(forged) == 0 {
		return nil
	}
	var seen []string
	for _, name := range forged {
		if keys.ValidateName(name) == nil && allowed(c, access.KeyRead, keyResource(name)) {
			seen = append(seen, name)
		}
	}
	text := fmt.Sprintf("choosing keys: %d of them were changed by other hands than keyturn's, so nobody knows what belongs to the emergency", len(forged))
	if len(seen) > 0 {
		text += ": " + some(seen)
	}
	return fault.New(api.CodeIntegrity, text).WithField("keys").
		WithNext("name the keys that are to be rotated at once: keyturn key rotate NAME… --emergency; then find the others with keyturn doctor and restore their rows from a backup")
}

// mark finds the compromised versions.
func (p *plan) mark(ctx context.Context, tx store.Tx, in api.EmergencyRequest, found map[string]keys.Key, bad *problems) error {
	for n, v := range in.Compromised {
		k, ok := found[v.Key]
		var err error
		if !ok {
			if k, err = key(ctx, tx, "compromised", n, v.Key); err == nil {
				err = fault.Newf(api.CodeInvalid, "key %s isn't among those that are rotated", k.Name).WithField("compromised").
					WithNext("rotate it, too: name it among the keys, or take all; or leave its version out")
			}
		} else {
			err = mayMark(&k, v.Version)
		}
		if err := bad.add(err); err != nil {
			return err
		}
		p.add(&k, v.Version)
	}
	if len(in.Compromised) == 0 {
		for _, t := range p.targets {
			k := found[t.Key]
			if err := bad.add(mayMark(&k, t.From)); err != nil {
				return err
			}
			p.add(&k, t.From)
		}
	}
	p.versions = sorted(p.versions)
	return nil
}

// add takes a version among those that are compromised.
func (p *plan) add(k *keys.Key, n uint32) {
	v, _ := k.Version(n)
	it := incidents.Version{Key: k.Name, KeyID: k.ID, Number: n}
	p.versions = append(p.versions, it)
	if p.states == nil {
		p.states = map[incidents.Version]keys.State{}
	}
	p.states[it] = v.State
}

// mayMark says whether a version can be marked compromised, or is already.
func mayMark(k *keys.Key, n uint32) error {
	v, ok := k.Version(n)
	switch {
	case !ok:
		return fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, n).WithField("compromised").WithNext("keyturn key show " + k.Name)
	case v.State == keys.Compromised || v.State.MayBecome(keys.Compromised) && v.State != keys.DestroyScheduled:
		return nil
	case v.State == keys.DestroyScheduled && v.PriorState == keys.Compromised:
		return nil
	case v.State == keys.DestroyScheduled:
		return fault.Newf(api.CodeWrongState, "the destruction of version %d of key %s is scheduled", n, k.Name).WithField("compromised").
			WithNext(fmt.Sprintf("keyturn key undestroy %s --version %d", k.Name, n))
	}
	return fault.Newf(api.CodeWrongState, "version %d of key %s is %s", n, k.Name, v.State).WithField("compromised")
}
