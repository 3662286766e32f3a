package authn

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
)

// Local finds the principal of local use: the unix socket's peer and a store opened in process act as the local
// administrator. Who may open the data directory could read the store anyway; this gives him a name in the audit log.
type Local struct {
	source Source
	gen    *Generation
	clock  func() time.Time
	last   atomic.Pointer[remembered] // replaced, never changed
}

type remembered struct {
	principal *access.Principal
	gen       uint64
	at        time.Time
}

// NewLocal makes a Local.
func NewLocal(source Source, gen *Generation, clock func() time.Time) *Local {
	return &Local{source: source, gen: gen, clock: clock}
}

// Principal is the local administrator, at most TTL old. Errors: ErrUnauthenticated when there is none or it is
// disabled, unavailable when the store can't be read.
func (l *Local) Principal(ctx context.Context) (*access.Principal, error) {
	gen, now := l.gen.Now(), l.clock()
	if r := l.last.Load(); r != nil && r.gen == gen && Fresh(r.at, now) {
		return r.principal, nil
	}
	p, err := l.source.LocalAdministrator(ctx)
	if err != nil {
		return nil, Refusal(err)
	}
	if p.Disabled {
		return nil, ErrUnauthenticated
	}
	l.last.Store(&remembered{&p, gen, now})
	return &p, nil
}

// Fresh says whether an answer of that moment may still be used. A clock that went backwards makes everything stale:
// otherwise an answer would live until the clock has caught up.
func Fresh(at, now time.Time) bool {
	age := now.Sub(at)
	return age >= 0 && age < TTL
}

// Refusal turns an error of the source into what a method answers: what doesn't exist is not accepted, and what couldn't
// be asked is unavailable. A row that somebody else wrote keeps its code, integrity: a credential that rests on it is no
// credential, and people must hear of it.
func Refusal(err error) error {
	switch fault.CodeOf(err) {
	case api.CodeNotFound, api.CodeUnauthenticated:
		return ErrUnauthenticated
	case api.CodeIntegrity:
		return fault.Wrap("", err, "checking a credential")
	}
	return fault.Wrap(api.CodeUnavailable, err, "checking a credential")
}
