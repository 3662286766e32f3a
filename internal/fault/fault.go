// Package fault is the one error type that crosses the rooms of keyturn.
//
// An [Error] carries a stable code for machines ([api.Code]), a message for people ("unwrapping key 7": gerund and
// object), the input field that was wrong and the next step that helps. Rooms make one where a failure is understood:
//
//	return fault.New(api.CodeWrongState, "encrypting under key phi").WithNext("activate a version: keyturn key rotate phi")
//	return fault.Wrap(api.CodeUnavailable, err, "reading the master key")
//
// # What an error may say
//
// Promise P3: no error carries a secret. A foreign error (of a driver, a parser, a remote service) may quote the value
// that it choked on, so its text is never printed: Error prints the Message of each *Error in the chain, and at its end
// the text of a cause only if that text comes from a fixed table (a [syscall.Errno] such as "no space left on device",
// or one of package context's two). Everything else stays reachable by errors.Is, errors.As and Unwrap. So a message is
// safe to show as long as whoever writes it puts names and numbers into it, never values.
package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/api"
)

// Error is a failure with a code. It is immutable after it was made: the With methods return copies, so package-level
// sentinels can be refined without a race.
type Error struct {
	Code    api.Code // what class of failure; never empty
	Message string   // what was being done and why it failed; shown to people, holds no values
	Field   string   // the input field at fault, as the wire names it; empty when none is
	Next    string   // what the reader should do now; empty when there is nothing better than reading the message
	cause   error
	parts   []error // what Join made it of
}

// New makes an error without a cause.
func New(code api.Code, msg string) *Error {
	return &Error{Code: code, Message: msg}
}

// Newf is New with a formatted message. Arguments must be names, numbers or states: never a secret or a user's value.
func Newf(code api.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap puts a message and a code around err. An empty code keeps the code of err. Wrapping nil is a programming
// error and gives an error that says so rather than a silent success.
func Wrap(code api.Code, err error, msg string) *Error {
	if err == nil {
		return &Error{Code: api.CodeInternal, Message: msg + ": a missing error was wrapped"}
	}
	if code == "" {
		code = CodeOf(err)
	}
	return &Error{Code: code, Message: msg, cause: err}
}

// Wrapf is Wrap with a formatted message, under the rule of Newf.
func Wrapf(code api.Code, err error, format string, args ...any) *Error {
	return Wrap(code, err, fmt.Sprintf(format, args...))
}

// Join is one error of several that were found at once, so that who asked can mend all of them; nil when there is none, and
// the error itself when there is one. Code and field are the first one's. The text names the first mostJoined and counts the
// others; the next steps are theirs, each once.
func Join(errs ...error) error {
	var all []error
	for _, err := range errs {
		all = append(all, Each(err)...)
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	var messages, steps []string
	oneField := true
	for _, err := range all[:min(len(all), mostJoined)] {
		messages = append(messages, MessageOf(err))
		oneField = oneField && FieldOf(err) == FieldOf(all[0])
	}
	for _, err := range all[:len(messages)] {
		next := NextOf(err)
		if !oneField { // else it is clear what they are about
			next = strings.TrimPrefix(FieldOf(err)+": "+next, ": ")
		}
		if NextOf(err) != "" && !slices.Contains(steps, next) {
			steps = append(steps, next)
		}
	}
	if more := len(all) - mostJoined; more > 0 {
		messages = append(messages, fmt.Sprintf("and %d more", more))
	}
	return &Error{Code: CodeOf(all[0]), Message: strings.Join(messages, "; "), Field: FieldOf(all[0]), Next: strings.Join(steps, "; "), parts: all}
}

// mostJoined is how many errors the text of a joined one names.
const mostJoined = 20

// Each is what Join made err of, and err itself if it is made of nothing else.
func Each(err error) []error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok && len(e.parts) > 0 { // not errors.As: what was wrapped around it says more than its parts
		return e.parts
	}
	return []error{err}
}

// WithField returns a copy that names the input field at fault.
func (e *Error) WithField(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// WithNext returns a copy that says what to do now.
func (e *Error) WithNext(next string) *Error {
	c := *e
	c.Next = next
	return &c
}

// Error is the text for people: the messages of the chain from the outermost inwards, joined by ": ".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for cause := e.cause; cause != nil; {
		var inner *Error
		if errors.As(cause, &inner) {
			b.WriteString(": ")
			b.WriteString(inner.Message)
			cause = inner.cause
			continue
		}
		if text := fixedText(cause); text != "" {
			b.WriteString(": ")
			b.WriteString(text)
		}
		break
	}
	return b.String()
}

// Unwrap returns the cause, whose own text may hold values: for errors.Is and errors.As, not for printing.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is the same failure: same code, message and field. It makes the copies that WithNext and
// WithField return still match the sentinel that they came from when the sentinel leaves these empty.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == e.Message && (t.Field == "" || t.Field == e.Field)
}

// fixedText is the text of a cause whose words come from a fixed table, empty for every other.
func fixedText(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.Canceled):
		return context.Canceled.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded.Error()
	}
	return ""
}
