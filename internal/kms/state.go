package kms

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
)

// verb is one of the ways to change a version's state.
type verb struct {
	name   string // as events say it
	action access.Action
	to     keys.State // see goal
	from   keys.State // what version 0 stands for: the only one in this state
}

// The verbs. Destroy has more to check and is in destroy.go.
var (
	suspend    = verb{"suspended", access.KeyState, keys.Suspended, keys.Active}
	resume     = verb{"resumed", access.KeyState, keys.Active, keys.Suspended}
	disable    = verb{"disabled", access.KeyState, keys.Deactivated, keys.Active}
	compromise = verb{"compromised", access.KeyCompromise, keys.Compromised, keys.Active}
	undestroy  = verb{"undestroyed", access.KeyDestroy, "", keys.DestroyScheduled} // to its prior state
)

// Suspend holds a version back: it seals nothing, and opens only if the key says so, until it is resumed.
func (s *Service) Suspend(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error) {
	return s.move(ctx, c, key, in, suspend)
}

// Resume ends a suspension: the version is active again, or, when it was not before or another is by now, opens again what
// it sealed.
func (s *Service) Resume(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error) {
	return s.move(ctx, c, key, in, resume)
}

// Disable takes one thing away from a version. The active one seals nothing more, and the key protects nothing until it is
// rotated. One that only opens is suspended: it opens nothing either (unless the key lets suspended versions open), until it
// is resumed. Doing it once more is refused, so that a command which is repeated never gives anything back.
func (s *Service) Disable(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error) {
	return s.move(ctx, c, key, in, disable)
}

// Compromise marks a version as known to others. If it was the active one, a new version is made first, in the same
// transaction, so that nothing is sealed under the compromised one any more and sealing doesn't stop.
func (s *Service) Compromise(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error) {
	return s.move(ctx, c, key, in, compromise)
}

// Undestroy takes a scheduled destruction back: the version is again what it was before.
func (s *Service) Undestroy(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error) {
	return s.move(ctx, c, key, in, undestroy)
}

// move changes the state of one version.
func (s *Service) move(ctx context.Context, c *access.Caller, name string, in api.VersionStateRequest, v verb) (api.Key, error) {
	if err := keyNamed(name); err != nil {
		return api.Key{}, err
	}
	if err := noWaitDays(in); err != nil {
		return api.Key{}, err
	}
	intent := gate.Intent{Action: v.action, Type: audit.KeyState, Verb: v.name, Resource: keyResource(name), Reason: in.Reason}
	return s.shown(s.changeKey(ctx, c, intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		n, err := pick(k, in.Version, v.from)
		if err != nil {
			return nil, err
		}
		return s.moveStep(k, ev, c, n, v, in.Reason)
	}))
}

func noWaitDays(in api.VersionStateRequest) error {
	if in.Force {
		return fault.New(api.CodeInvalid, "forcing is for destroy only").WithField("force").WithNext("leave it out, or use key destroy")
	}
	if in.WaitDays == 0 {
		return nil
	}
	return fault.New(api.CodeInvalid, "a waiting time is for destroy only").WithField("waitDays").WithNext("leave it out, or use key destroy")
}

// moveStep is the pure part: the transition, and before that of an active version to compromised, its successor.
func (s *Service) moveStep(k *keys.Key, ev *audit.Event, c *access.Caller, n uint32, v verb, reason string) ([]keys.Transition, error) {
	before, ok := k.Version(n)
	if !ok {
		return nil, noVersion(k, n)
	}
	to, err := goal(k, before, v)
	if err != nil {
		return nil, err
	}
	var moves []keys.Transition
	if v == compromise && before.State == keys.Active {
		if moves, err = s.rotateStep(k, ev, c, actor(c), reason, n); err != nil {
			return nil, err
		}
	}
	last, err := k.Move(n, to, s.clock(), actor(c), reason, 0)
	if err != nil {
		return nil, err
	}
	ev.KeyVersion = n
	ev.Details.FromState, ev.Details.State = string(before.State), string(to)
	return append(moves, last), nil
}

// goal is the state that a verb leads a version to.
func goal(k *keys.Key, before keys.Version, v verb) (keys.State, error) {
	switch {
	case v == undestroy && before.State != keys.DestroyScheduled:
		return "", fault.Newf(api.CodeWrongState, "version %d of key %s is %s, its destruction isn't scheduled", before.Number, k.Name, before.State).
			WithNext(undestroyNext(k))
	case v == undestroy:
		return before.PriorState, nil
	case v == disable && before.State == keys.Deactivated:
		return keys.Suspended, nil
	case v == disable && before.State == keys.Suspended:
		return "", fault.Newf(api.CodeWrongState, "version %d of key %s is suspended already", before.Number, k.Name).
			WithNext("key resume lets it open again what it sealed")
	case v == resume && before.State == keys.Suspended:
		if _, taken := k.Active(); taken || before.PriorState == keys.Deactivated {
			return keys.Deactivated, nil
		}
	case v == resume:
		return "", fault.Newf(api.CodeWrongState, "version %d of key %s is %s, and not suspended", before.Number, k.Name, before.State)
	}
	return v.to, nil
}

// undestroyNext names the versions that can be taken back.
func undestroyNext(k *keys.Key) string {
	for _, v := range k.Versions {
		if v.State == keys.DestroyScheduled {
			return fmt.Sprintf("the destruction of version %d is: keyturn key undestroy %s --version %d", v.Number, k.Name, v.Number)
		}
	}
	return "there is nothing to take back: look at the versions with keyturn key show " + k.Name
}

func noVersion(k *keys.Key, n uint32) error {
	return fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, n).WithField("version").WithNext("keyturn key show " + k.Name + " lists them")
}

// pick resolves version 0: the only version in the state that the verb is about.
func pick(k *keys.Key, n uint32, from keys.State) (uint32, error) {
	if n != 0 {
		return n, nil
	}
	var found []string
	for _, v := range k.Versions {
		if v.State == from {
			found, n = append(found, fmt.Sprint(v.Number)), v.Number
		}
	}
	switch len(found) {
	case 0:
		return 0, fault.Newf(api.CodeWrongState, "no version of key %s is %s", k.Name, from).WithField("version").
			WithNext("look at the versions with key show")
	case 1:
		return n, nil
	}
	return 0, fault.Newf(api.CodeInvalid, "more than one version of key %s is %s", k.Name, from).WithField("version").
		WithNext("name one of them: " + strings.Join(found, ", "))
}
