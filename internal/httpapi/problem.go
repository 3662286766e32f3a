package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// titles holds the title of every code's problem document (RFC 9457 section 3.1.3).
var titles = map[api.Code]string{
	api.CodeInvalid:         "The request is not valid",
	api.CodeUnauthenticated: "Sign in first",
	api.CodeDenied:          "Not allowed",
	api.CodeNotFound:        "Not found",
	api.CodeConflict:        "Conflict",
	api.CodeWrongState:      "Wrong state",
	api.CodeInUse:           "Still in use",
	api.CodeIntegrity:       "Integrity check failed",
	api.CodeLimit:           "Limit reached",
	api.CodeTooLarge:        "Too large",
	api.CodeBusy:            "Busy",
	api.CodeUnavailable:     "Unavailable",
	api.CodeCancelled:       "Cancelled",
	api.CodeInternal:        "Internal error",
}

// errPanic is what a caller learns of a fault of keyturn's own.
var errPanic = fault.New(api.CodeInternal, "serving the request failed").
	WithNext("look for this request's id in the server's log, and report it")

// problem is the document that err is answered with. Nothing of it comes from the request but the id that the server
// itself gave it.
func problem(err error, requestID string) api.Problem {
	code := fault.CodeOf(err)
	return api.Problem{
		Type:      "about:blank",
		Title:     titles[code],
		Status:    fault.HTTPStatus(code),
		Code:      code,
		Detail:    fault.MessageOf(err),
		Field:     fault.FieldOf(err),
		Next:      fault.NextOf(err),
		RequestID: requestID,
	}
}

// fail answers with err. A caller who isn't known gets no request id: his refusal is the same to the byte everywhere.
func (x *exchange) fail(err error) {
	id := x.caller.RequestID
	if x.caller.Principal == nil {
		id = ""
	}
	p := problem(err, id)
	switch p.Code {
	case api.CodeUnauthenticated:
		x.w.Header()["Www-Authenticate"] = []string{`Bearer realm="keyturn"`}
	case api.CodeBusy, api.CodeUnavailable:
		x.w.Header()["Retry-After"] = []string{"1"}
	}
	b, _ := json.Marshal(p) // a struct of strings and an int
	x.send(p.Status, problemType, append(b, '\n'))
}

// methodNotAllowed answers 405 (RFC 9110 section 15.5.6), a status that no code stands for.
func (x *exchange) methodNotAllowed(allowed string) {
	x.w.Header()["Allow"] = []string{allowed}
	p := problem(fault.New(api.CodeInvalid, "the path doesn't take this method").WithField("method"), x.caller.RequestID)
	p.Status = http.StatusMethodNotAllowed
	b, _ := json.Marshal(p)
	x.send(p.Status, problemType, append(b, '\n'))
}
