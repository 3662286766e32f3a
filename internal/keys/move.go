package keys

import (
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Transition is one step in the life of a version, as it is kept for good. From is empty for the first.
type Transition struct {
	Version       uint32
	From, To      State
	At            time.Time
	Actor, Reason string
}

// How long a destruction waits, in days: between these, and the default where none is asked for (CRYPTO.md).
const (
	MinWaitDays     = 7
	MaxWaitDays     = 30
	DefaultWaitDays = 30
)

// Move takes version n to another state, by the table of transitions and two rules more: a version becomes active only
// while no other is, and destroy-scheduled goes back only to the state that it came from, and suspended only to active when
// it came from there. waitDays counts for
// destroy-scheduled alone; 0 is DefaultWaitDays. Moving to Destroyed is refused: see Destroy.
//
// Errors: not_found, wrong_state, invalid. After an error the key is unchanged; after success the version's material
// must be bound anew.
func (k *Key) Move(n uint32, to State, now time.Time, actor, reason string, waitDays int) (Transition, error) {
	v, err := k.existing(n)
	if err != nil {
		return Transition{}, err
	}
	if err := k.mayMove(v, to); err != nil {
		return Transition{}, err
	}
	destroyAt := time.Time{}
	if to == DestroyScheduled {
		if destroyAt, err = destroyTime(now, waitDays); err != nil {
			return Transition{}, err
		}
	}
	from := v.State
	v.PriorState, v.DestroyAt, v.ForceBy, v.ForceAt = "", destroyAt, "", time.Time{}
	if to == DestroyScheduled || to == Suspended && from == Deactivated {
		v.PriorState = from
	}
	return k.step(v, to, now, actor, reason), nil
}

// ForceWithin is how long the second person has to agree to a forced destruction.
const ForceWithin = 24 * time.Hour

// Force is one person's wish that version n be destroyed although something depends on it. agreed is true when another
// person wished the same within ForceWithin: then the destruction is scheduled like any other. Otherwise the wish is noted
// and nothing else happens. by is the immutable id of the person.
func (k *Key) Force(n uint32, by string, now time.Time, actor, reason string, waitDays int) (t Transition, agreed bool, err error) {
	v, err := k.existing(n)
	if err != nil {
		return t, false, err
	}
	if err := k.mayMove(v, DestroyScheduled); err != nil {
		return t, false, err
	}
	if _, err := destroyTime(now, waitDays); err != nil {
		return t, false, err
	}
	if !v.AwaitsSecond(by, now) {
		v.ForceBy, v.ForceAt = by, stamp(now)
		return t, false, nil
	}
	first := v.ForceBy
	if t, err = k.Move(n, DestroyScheduled, now, actor, reason, waitDays); err != nil {
		return t, false, err
	}
	v.ForceBy, v.ForceAt = first, stamp(now)
	return t, true, nil
}

// AwaitsSecond says that somebody else than by wished for the version's destruction a short time ago, and that by would be the
// second. Whether the two are two people is not known here.
func (v Version) AwaitsSecond(by string, now time.Time) bool {
	age := now.Sub(v.ForceAt)
	return v.ForceBy != "" && v.ForceBy != by && age >= 0 && age <= ForceWithin
}

// Forced says whether two people had the version destroyed, or have its destruction scheduled, whatever depends on it.
func (v Version) Forced() bool {
	return v.ForceBy != "" && (v.State == DestroyScheduled || v.State == Destroyed)
}

// mayMove checks everything about a transition but its time.
func (k *Key) mayMove(v *Version, to State) error {
	switch {
	case !to.Valid():
		return fault.New(api.CodeInvalid, "changing the state of a version: there is no such state").WithField("state")
	case to == Destroyed || !v.State.MayBecome(to):
		return fault.Newf(api.CodeWrongState, "version %d is %s and can't become %s", v.Number, v.State, to).
			WithNext(nextFrom(v.State))
	case v.State == DestroyScheduled && to != v.PriorState:
		return fault.Newf(api.CodeWrongState, "version %d can only go back to %s", v.Number, v.PriorState).
			WithNext("undestroy it first")
	case v.State == Suspended && to == Active && v.PriorState == Deactivated:
		return fault.Newf(api.CodeWrongState, "version %d was deactivated before it was suspended, and can't become active again", v.Number).
			WithNext("resume it to let it open what it sealed; make a new active version with key rotate")
	}
	if active, ok := k.Active(); ok && to == Active {
		return fault.Newf(api.CodeWrongState, "version %d is active already, and only one may be", active.Number).
			WithNext("disable the active version first")
	}
	return nil
}

// nextFrom says what helps a version that stands in the wrong state.
func nextFrom(s State) string {
	switch s {
	case Active:
		return "rotate the key or disable the version first"
	case Suspended:
		return "end the suspension first: key resume"
	case PreActivation:
		return "activate the version first"
	case DestroyScheduled:
		return "undestroy the version first"
	case Destroyed:
		return "nothing brings a destroyed version back; what it sealed is lost for good"
	}
	return "look at the version's state with key show"
}

func destroyTime(now time.Time, waitDays int) (time.Time, error) {
	if waitDays == 0 {
		waitDays = DefaultWaitDays
	}
	if waitDays < MinWaitDays || waitDays > MaxWaitDays {
		return time.Time{}, fault.Newf(api.CodeInvalid, "scheduling a destruction: the waiting time is not between %d and %d days",
			MinWaitDays, MaxWaitDays).WithField("waitDays").WithNext("leave it out for the default of 30 days")
	}
	return stamp(now).Add(time.Duration(waitDays) * day), nil
}

// Destroy ends version n: its wrapped material is dropped and nothing opens under it again. It is refused with
// wrong_state unless the destruction is scheduled and due. The row stays as a tombstone.
func (k *Key) Destroy(n uint32, now time.Time, actor, reason string) (Transition, error) {
	v, err := k.existing(n)
	if err != nil {
		return Transition{}, err
	}
	if v.State != DestroyScheduled {
		return Transition{}, fault.Newf(api.CodeWrongState, "version %d is %s, its destruction isn't scheduled", n, v.State).
			WithNext("schedule it with key destroy")
	}
	if now.Before(v.DestroyAt) {
		return Transition{}, fault.Newf(api.CodeWrongState, "the destruction of version %d is not due before %s", n,
			v.DestroyAt.Format(time.RFC3339))
	}
	v.Wrapped, v.Sample, v.KEK, v.PriorState, v.DestroyAt = nil, nil, "", "", time.Time{}
	v.Destroyed = stamp(now)
	return k.step(v, Destroyed, now, actor, reason), nil
}

// step is the only place that changes a state.
func (k *Key) step(v *Version, to State, now time.Time, actor, reason string) Transition {
	t := Transition{Version: v.Number, From: v.State, To: to, At: stamp(now), Actor: actor, Reason: reason}
	v.State, v.Actor, v.Reason = to, actor, reason
	v.Seq++
	if to == Active && v.Activated.IsZero() {
		v.Activated = t.At
		if k.Cryptoperiod.Period > 0 {
			v.Expires = t.At.Add(k.Cryptoperiod.Period)
		}
	}
	return t
}

// existing points to version n, or says that there is none.
func (k *Key) existing(n uint32) (*Version, error) {
	if v := k.at(n); v != nil {
		return v, nil
	}
	return nil, fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, n).WithField("version").WithNext("keyturn key show " + k.Name + " lists them")
}
