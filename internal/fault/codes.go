package fault

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/api"
)

// statuses is the one place where a code becomes an HTTP status (RFC 9110 section 15). Plain integers, so that this
// package needs no net/http. 499 is not in the RFC: it is what proxies log for a client that went away, and nobody
// is there to read it.
var statuses = map[api.Code]int{
	"":                      200,
	api.CodeInvalid:         400,
	api.CodeUnauthenticated: 401,
	api.CodeDenied:          403,
	api.CodeNotFound:        404,
	api.CodeConflict:        409,
	api.CodeWrongState:      409,
	api.CodeInUse:           409,
	api.CodeLimit:           409, // not 429: waiting doesn't help, only a new version does
	api.CodeTooLarge:        413,
	api.CodeIntegrity:       422,
	api.CodeCancelled:       499,
	api.CodeInternal:        500,
	api.CodeBusy:            503,
	api.CodeUnavailable:     503,
}

// HTTPStatus is the status that a code is answered with. An unknown code is an internal error.
func HTTPStatus(code api.Code) int {
	if status, ok := statuses[code]; ok {
		return status
	}
	return statuses[api.CodeInternal]
}

// CodeOf finds the code of err: of the outermost *Error in its chain, else cancelled for context.Canceled, unavailable
// for context.DeadlineExceeded, and internal for everything that nobody classified. The code of nil is empty.
func CodeOf(err error) api.Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return api.CodeCancelled
	case errors.Is(err, context.DeadlineExceeded):
		return api.CodeUnavailable
	}
	return api.CodeInternal
}

// FieldOf is the field named by the outermost *Error of the chain that names one.
func FieldOf(err error) string {
	return first(err, func(e *Error) string { return e.Field })
}

// NextOf is the next step named by the outermost *Error of the chain that names one.
func NextOf(err error) string {
	return first(err, func(e *Error) string { return e.Next })
}

// MessageOf is the text of err that may be shown to anyone: that of its outermost *Error, and a general one for an
// error that nobody classified, whose own text may hold values.
func MessageOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Error()
	}
	if text := fixedText(err); text != "" {
		return text
	}
	return "an unexpected error"
}

func first(err error, get func(*Error) string) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if s := get(e); s != "" {
			return s
		}
		err = e.cause
	}
	return ""
}
