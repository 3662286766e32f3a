// Package keys is the language of key management: what a key is, what its versions are, which states a version goes
// through, how long it may protect data, and what all of this needs from storage. It is pure: no file, no clock, no
// randomness. Time is an argument, material is an opaque wrapped blob that other rooms fill in.
//
//	k, err := keys.NewKey(id, keys.Spec{Name: "phi", Purpose: keys.PurposePHI}, now)
//	moves, err := k.Rotate(now, "ops", "first version", 0) // appends version 1, active
//	v, err := k.MayProtect(now)                            // the version to encrypt under
//	v, err = k.MayProcess(1, false)                        // the version to decrypt under
//
// # Versions
//
// The versions of a key are numbered 1, 2, 3… without a gap and never reused. At most one is active, and none only while
// the key is disabled or suspended. A version goes through the states of NIST SP 800-57 part 1 section 7, in the one
// table of state.go; every transition carries time, actor and reason and increments the version's Seq. The wrapped
// material of a version is bound to its state and its Seq, so whoever puts an older row back into the database has a row
// that no longer opens. That is why a transition must be followed by binding the material anew (keyring.Bind).
//
// # Cryptoperiods
//
// A version protects data for a time, a number of operations and a number of bytes, whichever ends first (SP 800-57
// part 1 section 5.3). Age makes a key overdue: people and doctor hear of it, but encryption goes on, since an outage
// would be the worse harm. Operations and bytes are hard: beyond them protecting is refused with the code "limit".
//
// # Time
//
// Every time is UTC, cut to microseconds, because that is what both databases keep. The zero time means "absent".
package keys
