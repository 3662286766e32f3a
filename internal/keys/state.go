package keys

import "slices"

// State is where a version stands in its life (NIST SP 800-57 part 1 section 7). The empty State is not a state.
type State string

// The states of a version.
const (
	PreActivation    State = "pre-activation"    // made, not yet used
	Active           State = "active"            // protects and processes; at most one per key
	Suspended        State = "suspended"         // held back; processes only where the key says so
	Deactivated      State = "deactivated"       // opens what it sealed, seals nothing new
	Compromised      State = "compromised"       // may be known to others; opens only with its own permission
	DestroyScheduled State = "destroy-scheduled" // does nothing; waits for its end, or for undestroy
	Destroyed        State = "destroyed"         // the material is gone for good
)

// States lists every state, in the order of a life.
func States() []State {
	return []State{PreActivation, Active, Suspended, Deactivated, Compromised, DestroyScheduled, Destroyed}
}

// transitions is the one table of which state may follow which. What the table alone can't say is checked by Move: only
// one version is active at a time, destroy-scheduled goes back to where it came from and nowhere else, and what was
// suspended after it was deactivated protects nothing ever again.
var transitions = map[State][]State{
	PreActivation:    {Active, Compromised},
	Active:           {Suspended, Deactivated, Compromised},
	Suspended:        {Active, Deactivated, Compromised},
	Deactivated:      {Suspended, Compromised, DestroyScheduled}, // suspended: opens nothing either, until it is resumed
	Compromised:      {DestroyScheduled},
	DestroyScheduled: {Deactivated, Compromised, Destroyed},
	Destroyed:        {},
}

// Valid says whether s is one of States.
func (s State) Valid() bool {
	_, ok := transitions[s]
	return ok
}

// MayBecome says whether the table allows the transition.
func (s State) MayBecome(to State) bool { return slices.Contains(transitions[s], to) }

// Protects says whether a version in this state may seal new data.
func (s State) Protects() bool { return s == Active }

// Processes says whether a version of k in this state may open data that it sealed. compromisedAllowed is the caller's
// right to use compromised versions.
func (s State) Processes(k Key, compromisedAllowed bool) bool {
	switch s {
	case Active, Deactivated:
		return true
	case Suspended:
		return k.SuspendedDecrypts
	case Compromised:
		return compromisedAllowed
	}
	return false
}
