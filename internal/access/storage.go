package access

import "context"

// Tx is what this room needs from storage, within one transaction. What isn't there is a fault with code not_found; what
// is there already, or was changed by somebody else, is a conflict. Names and ids are compared byte by byte.
type Tx interface {
	// CreatePrincipal writes a new principal; conflict when the name or id is taken.
	CreatePrincipal(ctx context.Context, p Principal) error
	PrincipalByID(ctx context.Context, id string) (Principal, error)
	PrincipalByName(ctx context.Context, name string) (Principal, error)
	// Principals lists all of them in name order.
	Principals(ctx context.Context) ([]Principal, error)
	// UpdatePrincipal writes the row where the stored revision is still p.Revision, and increments it; conflict otherwise.
	UpdatePrincipal(ctx context.Context, p Principal) error
	// PutToken writes a token, or changes Expires and Revoked of the one with this id.
	PutToken(ctx context.Context, t Token) error
	TokenByID(ctx context.Context, id string) (Token, error)
	// TokensOf lists the tokens of a principal, newest first, revoked ones included.
	TokensOf(ctx context.Context, principalID string) ([]Token, error)
}
