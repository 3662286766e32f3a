// Package authn turns a credential into a principal. It answers who asks; whether he may is package access's business.
//
// Each way of signing in is a [Method] in a package of its own below this one: token (bearer tokens) and peer (the unix
// socket's other end). A transport asks them in turn:
//
//	for _, m := range methods {
//		p, found, err := m.Authenticate(ctx, r)
//		if err != nil { … } // a credential of this kind that isn't accepted: the request ends here
//		if found { … }      // p is who asks
//	}
//	… authn.ErrUnauthenticated // nobody
//
// # One refusal
//
// No credential, a malformed one, an unknown one, an expired or revoked one and that of a disabled principal all get
// ErrUnauthenticated, to the letter. Only a store that can't be read is told apart (unavailable), because that one will
// pass. A credential that was presented and refused never falls through to the next method.
//
// # How long an answer is remembered
//
// Answers of the store are kept for at most TTL, and no longer than until somebody calls Drop on the shared
// [Generation], which whoever changes principals or tokens does, and whoever hears of such a change by another node. So
// a revocation holds at once on the node that made it, on every other as soon as it hears of it (milliseconds), and within
// TTL if it doesn't. Refusals are not remembered.
package authn

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
)

// TTL is how long an answer of the store may be used without asking again.
const TTL = 5 * time.Second

// The names of the methods, as they appear in audit events (details.method) and in whoami.
const (
	MethodToken    = "token"
	MethodPeer     = "peer"
	MethodEmbedded = "embedded" // in this very process, through server's InProcess
	MethodInternal = "internal" // keyturn's own jobs
)

// ErrUnauthenticated is the answer to everything that is no accepted credential.
var ErrUnauthenticated = fault.New(api.CodeUnauthenticated, "no accepted credential").
	WithNext("send a valid token: Authorization: Bearer kt_…")

// Method is one way of signing in.
type Method interface {
	// Name is one of the constants above.
	Name() string
	// Authenticate looks for a credential of its kind in the request. found is false when there is none. An error is
	// ErrUnauthenticated or has code unavailable. The principal is shared: nobody changes it.
	Authenticate(ctx context.Context, r *http.Request) (p *access.Principal, found bool, err error)
}

// Source is what the methods need to know. not_found faults say that something doesn't exist.
type Source interface {
	TokenByID(ctx context.Context, id string) (access.Token, error)
	PrincipalByID(ctx context.Context, id string) (access.Principal, error)
	// LocalAdministrator is the principal as which whoever owns the data directory acts: the one that init made.
	LocalAdministrator(ctx context.Context) (access.Principal, error)
}

// Generation counts the changes to principals and tokens that this node knows of. Everything remembered under an older
// generation is void. Its zero value is ready; it is shared by pointer and safe for concurrent use.
type Generation struct{ n atomic.Uint64 }

// Drop voids everything remembered so far. Call it after the change is committed and before it is acknowledged.
func (g *Generation) Drop() { g.n.Add(1) }

// Now is the current generation. Read it before asking the store: an answer that was on its way during a Drop is then
// void from the start.
func (g *Generation) Now() uint64 { return g.n.Load() }
