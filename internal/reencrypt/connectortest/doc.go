// Package connectortest is the suite that every database driver of the room reencrypt passes: [Exercise] runs it against
// a real database. It also has what tests of a whole run need: a key without a keyring ([KeySet]) and a run that is kept
// in memory ([Run]).
package connectortest
