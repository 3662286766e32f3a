// Package access decides who may do what: principals, a closed list of actions, five roles, and one pure function.
//
//	d := access.Decide(principal, access.KeyDecrypt, access.Resource{Kind: access.KindKey, Name: "phi"})
//	if !d.Allowed { … d.Why … }
//
// # How a decision is made
//
// A principal has one role (a set of actions), perhaps a few actions more, and a scope (a list of resources). An action
// on a resource is allowed when the principal is enabled, the action is in the role or among the extra ones, and the
// scope covers the resource. Everything else is denied: no principal, an unknown role, an unknown action, an empty
// scope. An empty list means nobody, never everybody. There is no wildcard over actions.
//
// Names of roles and actions and entries of scopes are compared byte by byte, and only exact spellings exist: "Owner",
// " owner" and a look-alike in another script are unknown, not equal.
//
// # Giving rights away
//
// Nobody gives what he doesn't have: [CanGrant] holds for making a principal, for giving it a token (whoever holds the
// token is that principal), and for changing or disabling it.
//
// The package reads no clock and no randomness; both are arguments. Sign-in is package authn's, recording is gate's.
package access
