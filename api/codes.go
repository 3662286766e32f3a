// Package api holds what travels between keyturn and the programs that use it: error codes here, request and answer
// types in the other files. It imports nothing of keyturn, so a program that only dials a server links nothing else.
//
// A client acts on the [Code] of an error, never on its text: texts may be reworded in any release, the list of codes
// only grows.
package api

// Code names one class of failure. It is the `code` member of a problem document (RFC 9457), the `code` of a failed
// item of a batch, and what the exit status of the command line is made from.
type Code string

// The closed list of codes. The empty Code means "no failure".
const (
	CodeInvalid         Code = "invalid"         // malformed input, or a value out of its range
	CodeUnauthenticated Code = "unauthenticated" // no credential, or one that isn't accepted
	CodeDenied          Code = "denied"          // the credential is known and doesn't allow this
	CodeNotFound        Code = "not_found"       // no such thing, or none that the caller may know of
	CodeConflict        Code = "conflict"        // exists already, or somebody else was first
	CodeWrongState      Code = "wrong_state"     // the state of the thing doesn't allow this
	CodeInUse           Code = "in_use"          // something still depends on it
	CodeIntegrity       Code = "integrity"       // tampered with, corrupt, or another key or context
	CodeLimit           Code = "limit"           // a cryptoperiod or usage limit is reached
	CodeTooLarge        Code = "too_large"       // more bytes or items than are accepted at once
	CodeBusy            Code = "busy"            // the store is held by another process
	CodeUnavailable     Code = "unavailable"     // audit, store or master key can't be reached: refused, fails closed
	CodeCancelled       Code = "cancelled"       // the caller went away or interrupted
	CodeInternal        Code = "internal"        // keyturn's own fault
)

// The exit statuses of the command line. They are part of its contract with scripts.
const (
	ExitDone      = 0 // the work is done
	ExitFailed    = 1 // it failed for a reason that none of the others names
	ExitUsage     = 2 // the command or its input was wrong
	ExitNotFound  = 3 // what was named doesn't exist
	ExitDenied    = 4 // the caller may not
	ExitRefused   = 5 // a rule refused it: conflict, wrong state, still in use, limit reached
	ExitIntegrity = 6 // tampered, corrupt, or the wrong key or context
)

// exitStatuses holds the codes that don't end as ExitFailed.
var exitStatuses = map[Code]int{
	"":                  ExitDone,
	CodeInvalid:         ExitUsage,
	CodeTooLarge:        ExitUsage,
	CodeUnauthenticated: ExitDenied,
	CodeDenied:          ExitDenied,
	CodeNotFound:        ExitNotFound,
	CodeConflict:        ExitRefused,
	CodeWrongState:      ExitRefused,
	CodeInUse:           ExitRefused,
	CodeLimit:           ExitRefused,
	CodeBusy:            ExitRefused, // the store is still in use by another command
	CodeIntegrity:       ExitIntegrity,
}

// Codes returns every code, in the order in which the documentation lists them.
func Codes() []Code {
	return []Code{
		CodeInvalid, CodeUnauthenticated, CodeDenied, CodeNotFound, CodeConflict, CodeWrongState, CodeInUse,
		CodeIntegrity, CodeLimit, CodeTooLarge, CodeBusy, CodeUnavailable, CodeCancelled, CodeInternal,
	}
}

// ExitStatus is the exit status of a command that ends with this code. A code that this release doesn't know, as a
// newer server may send, is a plain failure.
func (c Code) ExitStatus() int {
	if status, ok := exitStatuses[c]; ok {
		return status
	}
	return ExitFailed
}
