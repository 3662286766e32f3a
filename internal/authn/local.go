package authn

import (
	"context"
	"crypto/hmac"
	"encoding/json"
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
		if known := l.unchanged(ctx, err); known != nil {
			return known, nil
		}
		return nil, Refusal(err)
	}
	if p.Disabled {
		return nil, ErrUnauthenticated
	}
	l.last.Store(&remembered{&p, gen, now})
	return &p, nil
}

// diagnosing marks the context of a request that asks what is wrong with the master keys.
type diagnosing struct{}

// Diagnosing is ctx for the one request that must be answered also while no master key can be reached, because it says why
// none can. Nobody's row can be proven then. The local administrator is who he was all the same if his row is, to the
// last byte, the one that was proven before in this process.
func Diagnosing(ctx context.Context) context.Context {
	return context.WithValue(ctx, diagnosing{}, true)
}

// Unproven is what a Source also is that can read the local administrator's row without proving it.
type Unproven interface {
	UnprovenAdministrator(ctx context.Context) (access.Principal, error)
}

// unchanged is the local administrator for a request that is Diagnosing, or nil.
func (l *Local) unchanged(ctx context.Context, err error) *access.Principal {
	known := l.last.Load()
	raw, ok := l.source.(Unproven)
	if ctx.Value(diagnosing{}) == nil || fault.CodeOf(err) != api.CodeUnavailable || known == nil || !ok {
		return nil
	}
	if now, err := raw.UnprovenAdministrator(ctx); err != nil || !same(&now, known.principal) {
		return nil
	}
	return known.principal
}

// same says whether two readings of a row are the same in everything, its MAC included.
func same(a, b *access.Principal) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && hmac.Equal(x, y)
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
