package keyturn

import (
	"errors"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Error is a refusal or failure that the server reported as a problem document (RFC 9457). Its texts name fields,
// names and states, never a value of the request.
type Error struct {
	Code      api.Code // what class of failure; what programs act on
	Message   string   // what was being done and why it failed
	Field     string   // the member of the request at fault, empty when none is
	Next      string   // what to do now, empty when there is nothing better than reading the message
	Status    int      // the HTTP status it came with
	RequestID string   // names the request in the server's log and audit events
}

// Error is the message alone; a caller that shows errors to people shows Field and Next too.
func (e *Error) Error() string {
	if e.Message == "" {
		return "keyturn: " + string(e.Code)
	}
	return e.Message
}

// Is makes errors.Is(err, &Error{Code: code}) true for every error with that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}

// CodeOf is the code of err: that of the server's answer, or of the failure inside this package (unavailable for a
// server that can't be reached, cancelled for a context that was). It is empty for nil and internal for an error that
// isn't of keyturn.
func CodeOf(err error) api.Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fault.CodeOf(err)
}

// Explain takes err apart for showing it to people: its text, the field at fault and the next step, each empty where
// there is none.
func Explain(err error) (message, field, next string) {
	var e *Error
	if errors.As(err, &e) {
		return e.Error(), e.Field, e.Next
	}
	if err == nil {
		return "", "", ""
	}
	return fault.MessageOf(err), fault.FieldOf(err), fault.NextOf(err)
}

// errorOf makes an Error from a problem document and the status line it came with. A code that is missing, as from a
// proxy between, is read off the status.
func errorOf(p api.Problem, status int) *Error {
	e := &Error{Code: p.Code, Message: p.Detail, Field: p.Field, Next: p.Next, Status: status, RequestID: p.RequestID}
	if e.Message == "" {
		e.Message = strings.TrimSpace(p.Title)
	}
	if e.Code == "" {
		e.Code = codeOfStatus(status)
	}
	return e
}

// codeOfStatus is for answers without a code: something other than keyturn sent them.
func codeOfStatus(status int) api.Code {
	switch status {
	case 401:
		return api.CodeUnauthenticated
	case 403:
		return api.CodeDenied
	case 404:
		return api.CodeNotFound
	case 409:
		return api.CodeConflict
	case 413:
		return api.CodeTooLarge
	case 502, 503, 504:
		return api.CodeUnavailable
	}
	if status >= 400 && status < 500 {
		return api.CodeInvalid
	}
	return api.CodeInternal
}
