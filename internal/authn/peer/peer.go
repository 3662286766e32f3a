// Package peer signs in who stands at the other end of a unix socket, by the user id that the kernel vouches for
// (SO_PEERCRED, unix(7)).
//
//	srv := &http.Server{ConnContext: peer.ConnContext, …}
//	m := peer.New(local, os.Getuid())
//
// The user as which the server runs, and root, are the local administrator: both can read the data directory anyway.
// Nobody else is anybody here; other users of the machine need a token, also through the socket. A request that carries
// an Authorization header is never answered by this method: who presents a token acts as its holder.
package peer

import (
	"context"
	"net"
	"net/http"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
)

// Method implements authn.Method. It is safe for concurrent use.
type Method struct {
	local *authn.Local
	owner int
}

var _ authn.Method = (*Method)(nil)

// New makes the method for a server that runs as the user owner (os.Getuid).
func New(local *authn.Local, owner int) *Method {
	return &Method{local: local, owner: owner}
}

// Name is "peer".
func (m *Method) Name() string { return authn.MethodPeer }

// uidKey is the place of the peer's user id in a connection's context.
type uidKey struct{}

// ConnContext is for http.Server: it notes the user id of a unix socket's peer, once per connection. Other connections,
// and systems that don't tell, note nothing.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if uid, ok := uidOf(c); ok {
		return context.WithValue(ctx, uidKey{}, uid)
	}
	return ctx
}

// Authenticate finds a credential only in the request of the server's own user or of root.
func (m *Method) Authenticate(ctx context.Context, r *http.Request) (*access.Principal, bool, error) {
	uid, ok := r.Context().Value(uidKey{}).(int)
	if !ok || uid != m.owner && uid != 0 || len(r.Header["Authorization"]) > 0 {
		return nil, false, nil
	}
	p, err := m.local.Principal(ctx)
	return p, true, err
}
