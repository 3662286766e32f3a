package httpapi

import (
	"context"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// recordFor is how long the record of a refused request may take once whoever asked has gone.
const recordFor = 5 * time.Second

// refused sees to it that no request of a known caller to a row of the table is answered without a record (P2): what was
// refused before the doorway decided, because its body, query or name can't be right, is decided and recorded here. It
// returns what to answer: err; denied where the caller may not do this however he spells it; or why nothing was recorded.
func (f *failures) refused(x *exchange, err error) error {
	if x.caller.Principal == nil || x.route == nil || x.route.Public || x.caller.Recorded() || fault.CodeOf(err) == api.CodeUnavailable {
		return err
	}
	ev := x.refusal(&err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), recordFor)
	defer cancel()
	if lost := f.to.Record(ctx, ev); lost != nil {
		return lost
	}
	return err
}

// refusal is the event of a request that was refused with err, or denied, which err then becomes. It holds nothing of the
// request but a name that could be one of ours.
func (x *exchange) refusal(err *error) *audit.Event {
	name := x.params.Name
	if keys.ValidateName(name) != nil {
		name = ""
	}
	p, r := x.caller.Principal, x.route.Resource(name)
	if r.Kind == "" {
		r.Kind = access.KindSystem
	}
	_, verb, _ := strings.Cut(string(x.route.Action), ".")
	if verb == "" {
		verb = "read"
	}
	ev := &audit.Event{
		Type: audit.ValidationFailure, Action: verb, UserID: p.Name, Role: p.Role, Resource: r.String(),
		RequestID: x.caller.RequestID, SourceIP: x.caller.SourceIP, Details: audit.Details{Source: "api", Method: x.caller.Method},
	}
	if x.route.Action != "" {
		if d := access.Decide(p, x.route.Action, r); !d.Allowed {
			ev.Type, ev.Reason = audit.PermissionDenied, d.Why
			*err = fault.Newf(api.CodeDenied, "%s on %s is not allowed: %s", x.route.Action, r.Kind, d.Why).
				WithNext("ask an owner for a role or a scope that has it")
		}
	}
	ev.Details.Code, ev.Details.Field = string(fault.CodeOf(*err)), fault.FieldOf(*err)
	return ev
}
