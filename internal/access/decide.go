package access

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Principal is somebody or something that may ask.
type Principal struct {
	ID       string   // immutable; whatever is kept about a principal is kept under it, never under the name
	Name     string   // unique in the store, see keys.ValidateName
	Role     string   // exactly one of Roles
	Scope    []string // resources, see ValidateScope; empty covers nothing
	Allow    []Action // actions beyond the role, within the same scope
	Disabled bool
	Created  time.Time
	MadeBy   string // the id of who made it; empty for one that an older release made
	Revision int64  // of the stored row, for optimistic updates
	MAC      string // of the stored row, made and checked by package kms
}

// Caller is a principal in one request.
type Caller struct {
	Principal           *Principal // nil = nobody, who may nothing
	Method              string     // token, peer, embedded or internal
	SourceIP, RequestID string

	recorded uint32 // see MarkRecorded
}

// Local says whether the caller is on this machine and was vouched for by its kernel, or is this very process: only then
// may a request name a file of this machine.
func (c *Caller) Local() bool { return c.Method == "peer" || c.Method == "embedded" }

// Decision is the answer of Decide. Why is for the audit log and for the caller: it names the rule, not other people's
// resources.
type Decision struct {
	Allowed bool
	Why     string
}

// Decide says whether p may do a to r. It is pure and cheap; a denial is always the default.
func Decide(p *Principal, a Action, r Resource) Decision {
	switch set, known := rights(p); {
	case p == nil:
		return Decision{Why: "nobody is signed in"}
	case p.Disabled:
		return Decision{Why: "the principal is disabled"}
	case !known:
		return Decision{Why: "the principal's role is unknown"}
	case !set.has(a):
		return Decision{Why: "the role doesn't have the action " + string(a)}
	case !inScope(p.Scope, r):
		return Decision{Why: "the resource is outside the principal's scope"}
	}
	return Decision{Allowed: true, Why: "role " + p.Role}
}

// rights is the set of actions of a principal: of its role and its extra ones. An unknown role has none at all.
func rights(p *Principal) (actionSet, bool) {
	if p == nil {
		return 0, false
	}
	set, known := roleSets[p.Role]
	if !known {
		return 0, false
	}
	if len(p.Allow) > 0 {
		set |= setOf(p.Allow)
	}
	return set, true
}

func inScope(scope []string, r Resource) bool {
	if !slices.Contains(kinds, r.Kind) {
		return false
	}
	for _, entry := range scope {
		if covers(entry, r) {
			return true
		}
	}
	return false
}

// Rights lists what a principal may do somewhere, in the order of Actions; nothing when it is disabled.
func Rights(p *Principal) []Action {
	set, _ := rights(p)
	if p == nil || p.Disabled {
		return nil
	}
	var out []Action
	for i, a := range actions {
		if set&(1<<i) != 0 {
			out = append(out, a.Action)
		}
	}
	return out
}

// CanGrant says whether granter may make, change, disable or sign in as a principal with this role, extra actions and
// scope: only if he has all of it himself. Errors: invalid for an unknown role or action or a malformed scope, denied.
func CanGrant(granter *Principal, role string, allow []Action, scope []string) error {
	wanted, ok := roleSets[role]
	if !ok {
		return fault.New(api.CodeInvalid, "the role is unknown").WithField("role").WithNext("see keyturn role list")
	}
	for _, a := range allow {
		if !a.Known() {
			return fault.New(api.CodeInvalid, "an extra action is unknown").WithField("allow").WithNext("see keyturn role list")
		}
	}
	if err := ValidateScope(scope); err != nil {
		return err
	}
	held, _ := rights(granter)
	if granter == nil || granter.Disabled || (wanted|setOf(allow))&^held != 0 {
		return fault.New(api.CodeDenied, "nobody can give rights that he doesn't have").WithField("role")
	}
	for _, entry := range scope {
		if !slices.ContainsFunc(granter.Scope, func(own string) bool { return includes(own, entry) }) {
			return fault.New(api.CodeDenied, "nobody can give rights on resources outside his own scope").WithField("scope")
		}
	}
	return nil
}
