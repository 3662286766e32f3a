package keys

import (
	"fmt"
	"math"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// ExpectNext is nil when the next version of k will have the number n, or n is 0; otherwise it is a conflict that names
// the number. A key without versions begins with 1.
func (k *Key) ExpectNext(n uint32) error {
	next := uint64(len(k.Versions)) + 1
	if n == 0 || uint64(n) == next {
		return nil
	}
	e := fault.Newf(api.CodeConflict, "the next version of the key is %d, not %d", next, n).WithField("version")
	if uint64(n) < next {
		return e.WithNext("version numbers are never given twice: if this material is there already, go on with the one that follows it")
	}
	return e.WithNext("import the versions in their order, oldest first")
}

// Rotate appends a new version, active at once, and deactivates the one that was. A key whose active version was disabled
// or marked compromised just gets the new one: this is its way back. One that is suspended, or of which nothing is left, is
// refused with wrong_state. ifVersion, when not 0, refuses with conflict unless that version is the active one: whoever
// decided to rotate had seen it.
//
// The new version has no material yet: the caller fills it (keyring.Fill) and binds the deactivated one anew before the
// key is stored. Returns the transitions in order. After an error the key is unchanged.
func (k *Key) Rotate(now time.Time, actor, reason string, ifVersion uint32) ([]Transition, error) {
	if err := k.Whole(); err != nil {
		return nil, err
	}
	old, hadActive := k.Active()
	switch {
	case ifVersion != 0 && (!hadActive || old.Number != ifVersion):
		return nil, fault.Newf(api.CodeConflict, "version %d is not the active one any more", ifVersion).
			WithField("ifVersion").WithNext("look at the key again, with key show: somebody else changed it")
	case len(k.Versions) >= math.MaxUint32:
		return nil, fault.New(api.CodeLimit, "the key has as many versions as a ciphertext can name").WithNext("make another key, and move the data to it")
	}
	if err := k.MayRotate(); err != nil {
		return nil, err
	}
	var moves []Transition
	k.Versions = append(k.Versions, Version{Number: uint32(len(k.Versions)) + 1, Created: stamp(now)})
	if hadActive {
		moves = append(moves, k.step(k.at(old.Number), Deactivated, now, actor, reason))
	}
	added := &k.Versions[len(k.Versions)-1]
	return append(moves, k.step(added, Active, now, actor, reason)), nil
}

// MayRotate is nil when the key may get a new active version, as far as its states go; otherwise it is wrong_state and names
// the way on. A suspended key waits for whoever may end the suspension, and a new version would end it behind his back. One
// whose versions are all destroyed, or about to be, was given up on purpose.
func (k *Key) MayRotate() error {
	if _, ok := k.Active(); ok || len(k.Versions) == 0 {
		return nil
	}
	if k.Suspended() {
		return fault.Newf(api.CodeWrongState, "key %s is suspended", k.Name).WithField("key").WithNext("end the suspension first: keyturn key resume " + k.Name)
	}
	var scheduled uint32
	for _, v := range k.Versions {
		switch v.State {
		case DestroyScheduled:
			scheduled = v.Number
		case Destroyed:
		default:
			return nil
		}
	}
	if scheduled > 0 {
		return fault.Newf(api.CodeWrongState, "every version of key %s is destroyed or will be", k.Name).WithField("key").
			WithNext(fmt.Sprintf("keyturn key undestroy %s --version %d, or make another key", k.Name, scheduled))
	}
	return fault.Newf(api.CodeWrongState, "every version of key %s is destroyed", k.Name).WithField("key").WithNext("make another key: keyturn key create")
}

// Suspended says whether the key protects nothing until somebody resumes it: the last version that was active is held back,
// and can become active again. One that was suspended after it was deactivated suspends no key.
func (k *Key) Suspended() bool {
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if v := k.Versions[i]; !v.Activated.IsZero() {
			return v.State == Suspended && v.PriorState != Deactivated
		}
	}
	return false
}
