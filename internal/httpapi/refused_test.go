package httpapi

import (
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// appToken is the credential of an application.
const appToken = "Bearer app"

// P2: a known caller's request that is refused before any decision is recorded before it is answered: as a denial where he
// may not do such a thing anyway. What can't be recorded is answered with unavailable.
func TestRefusedRequestsAreRecorded(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
		want               audit.EventType
		resource           string
	}{
		{"POST", "/v1/keys/phi/encrypt", `{"plaintext":17}`, 400, audit.ValidationFailure, "key/phi"},
		{"POST", "/v1/keys/phi/encrypt", `{"unheard-of":1}`, 400, audit.ValidationFailure, "key/phi"},
		{"GET", "/v1/keys?limit=x", "", 400, audit.ValidationFailure, "key"},
		{"GET", "/v1/keys?limit=1&limit=2", "", 400, audit.ValidationFailure, "key"},
		{"GET", "/v1/keys?unheard=x", "", 400, audit.ValidationFailure, "key"},
		{"POST", "/v1/keys/phi/destroy", `{`, 403, audit.PermissionDenied, "key/phi"},
		{"POST", "/v1/principals", `{"role":17}`, 403, audit.PermissionDenied, "principal"},
	} {
		r := newRig(t)
		w := r.call(c.method, c.path, c.body, appToken)
		all := r.log.all()
		if w.Code != c.status || len(all) != 1 || all[0].Type != c.want || all[0].Resource != c.resource || all[0].Success ||
			all[0].UserID != "app" || all[0].RequestID == "" || all[0].Details.Code != string(problemOf(t, w).Code) {
			t.Errorf("%s %s: %d %s, recorded %+v", c.method, c.path, w.Code, w.Body, all)
		}
		r.log.fail = fault.New(api.CodeUnavailable, "the log can't be written")
		if w := r.call(c.method, c.path, c.body, appToken); w.Code != 503 {
			t.Errorf("%s %s without a log: %d", c.method, c.path, w.Code)
		}
	}
}

// What the doorway has recorded is not recorded again.
func TestRefusedOnce(t *testing.T) {
	r, log := newRig(t), &recorder{}
	route := r.routes[0]
	x := &exchange{api: r.API, route: route, caller: &access.Caller{Principal: &access.Principal{Name: "app", Role: access.RoleOwner, Scope: []string{"*"}}}}
	x.caller.MarkRecorded()
	err := fault.New(api.CodeConflict, "taken")
	if got := newFailures(log, r.clock).refused(x, err); got != error(err) || len(log.all()) != 0 {
		t.Errorf("%v, %d events", got, len(log.all()))
	}
}
