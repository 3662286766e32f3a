package keys

import (
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MayProtect is the version to seal new data under. It refuses with wrong_state when none is active, and with limit when
// the active one has used up its operations or bytes; age alone refuses nothing (see Times). A holder of a reserved
// block, whose operations are counted already, asks Usable instead.
func (k Key) MayProtect(now time.Time) (Version, error) {
	v, err := k.Usable(now)
	if err == nil && k.Cryptoperiod.exhausted(v) {
		return Version{}, LimitReached(k.Name, v.Number)
	}
	return v, err
}

// Usable is MayProtect without the counters: the active version. A clock that stands days before its activation is
// refused (unavailable): such a machine would date its audit records wrongly and count no cryptoperiod.
func (k Key) Usable(now time.Time) (Version, error) {
	v, ok := k.Active()
	switch {
	case !ok:
		return Version{}, fault.Newf(api.CodeWrongState, "key %s has no active version", k.Name).
			WithNext("resume the suspended version, or make a new one with key rotate")
	case ahead(v.Activated, now):
		return Version{}, fault.Newf(api.CodeUnavailable, "the clock stands before the activation of version %d of key %s", v.Number, k.Name).
			WithNext("set the clock of this machine right; if it is, and was ahead when the version was made: keyturn key rotate " + k.Name)
	}
	return v, nil
}

func (c Cryptoperiod) exhausted(v Version) bool {
	return c.MaxOperations > 0 && v.Operations >= c.MaxOperations || c.MaxBytes > 0 && v.Bytes >= c.MaxBytes
}

// LimitReached is the error of a version that may protect no more; storage and services say it alike.
func LimitReached(key string, version uint32) error {
	return fault.Newf(api.CodeLimit, "version %d of key %s has protected as much as its cryptoperiod allows", version, key).
		WithNext("make a new version: keyturn key rotate " + key)
}

// MayProcess is version n if it may open what it sealed. compromisedAllowed says that the caller has
// key.decrypt-compromised. Errors: not_found for a version that never was, wrong_state, and denied for a compromised
// version without the permission.
func (k Key) MayProcess(n uint32, compromisedAllowed bool) (Version, error) {
	v, ok := k.Version(n)
	switch {
	case !ok:
		return Version{}, fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, n).WithField("version")
	case v.State.Processes(k, compromisedAllowed):
		return v, nil
	case v.State == Compromised:
		return Version{}, fault.Newf(api.CodeDenied, "version %d of key %s is compromised", n, k.Name).
			WithNext("opening it needs the action key.decrypt-compromised")
	}
	return Version{}, fault.Newf(api.CodeWrongState, "version %d of key %s is %s and opens nothing", n, k.Name, v.State).
		WithNext(nextFrom(v.State))
}
