package keys

import (
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

// Rotate appends a new version, active at once, and deactivates the one that was. A key without an active version
// (new, disabled, suspended) just gets the new one; a suspended version stays suspended. ifVersion, when not 0, refuses
// with conflict unless that version is the active one: whoever decided to rotate had seen it.
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
			WithField("ifVersion").WithNext("look at the key again: somebody else rotated it")
	case len(k.Versions) >= math.MaxUint32:
		return nil, fault.New(api.CodeLimit, "the key has as many versions as a ciphertext can name")
	}
	var moves []Transition
	k.Versions = append(k.Versions, Version{Number: uint32(len(k.Versions)) + 1, Created: stamp(now)})
	if hadActive {
		moves = append(moves, k.step(k.at(old.Number), Deactivated, now, actor, reason))
	}
	added := &k.Versions[len(k.Versions)-1]
	return append(moves, k.step(added, Active, now, actor, reason)), nil
}
