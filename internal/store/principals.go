package store

import (
	"context"
	"encoding/json"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
)

const principalColumns = `id, name, role, scope, allow, disabled, created, revision, mac, made_by`

func readPrincipal(row scanner) (p access.Principal, err error) {
	var scope, allow string
	if err := row.Scan(&p.ID, &p.Name, &p.Role, &scope, &allow, &p.Disabled, into{&p.Created}, &p.Revision, &p.MAC, &p.MadeBy); err != nil {
		return p, err
	}
	if err := parseList(scope, &p.Scope); err != nil {
		return p, err
	}
	return p, parseList(allow, &p.Allow)
}

// formatList keeps a list of names in one column, as a JSON array.
func formatList[S ~string](list []S) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return "", fault.Wrap(api.CodeInternal, err, "storing a list of names")
	}
	return string(text), nil
}

func parseList[S ~string](text string, list *[]S) error {
	if text == "[]" {
		*list = nil
		return nil
	}
	if err := json.Unmarshal([]byte(text), list); err != nil {
		return fault.Wrap(api.CodeIntegrity, err, "reading a list of names")
	}
	return nil
}

// CreatePrincipal implements access.Tx. The stored revision is 1, whatever p says.
func (t *txn) CreatePrincipal(ctx context.Context, p access.Principal) error {
	scope, err := formatList(p.Scope)
	if err != nil {
		return err
	}
	allow, err := formatList(p.Allow)
	if err != nil {
		return err
	}
	return t.mustChange(ctx, taken("principal"), "creating a principal",
		`INSERT INTO principals (`+principalColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9) ON CONFLICT DO NOTHING`,
		p.ID, p.Name, p.Role, scope, allow, p.Disabled, p.Created, p.MAC, p.MadeBy)
}

// PrincipalByID implements access.Tx.
func (t *txn) PrincipalByID(ctx context.Context, id string) (access.Principal, error) {
	return t.principal(ctx, `id = $1`, id)
}

// PrincipalByName implements access.Tx.
func (t *txn) PrincipalByName(ctx context.Context, name string) (access.Principal, error) {
	return t.principal(ctx, `name = $1`, name)
}

func (t *txn) principal(ctx context.Context, where, arg string) (access.Principal, error) {
	return single(ctx, t, notFound("principal"), "reading a principal", readPrincipal,
		`SELECT `+principalColumns+` FROM principals WHERE `+where, arg)
}

// Principals implements access.Tx.
func (t *txn) Principals(ctx context.Context) ([]access.Principal, error) {
	return all(ctx, t, "listing principals", readPrincipal, `SELECT `+principalColumns+` FROM principals ORDER BY name`)
}

// UpdatePrincipal implements access.Tx. A principal keeps its id, its time of creation and who made it.
func (t *txn) UpdatePrincipal(ctx context.Context, p access.Principal) error {
	scope, err := formatList(p.Scope)
	if err != nil {
		return err
	}
	allow, err := formatList(p.Allow)
	if err != nil {
		return err
	}
	t.signInsChanged()
	return t.mustChange(ctx, stale("principal"), "changing a principal",
		`UPDATE principals SET name = $3, role = $4, scope = $5, allow = $6, disabled = $7, mac = $8,
			revision = revision + 1
		WHERE id = $1 AND revision = $2`, p.ID, p.Revision, p.Name, p.Role, scope, allow, p.Disabled, p.MAC)
}

const tokenColumns = `id, principal_id, hash, created, expires, revoked, mac, issued_by`

func readToken(row scanner) (k access.Token, err error) {
	return k, row.Scan(&k.ID, &k.PrincipalID, fixed{k.Hash[:]}, into{&k.Created}, into{&k.Expires}, into{&k.Revoked}, &k.MAC, &k.IssuedBy)
}

// PutToken implements access.Tx.
func (t *txn) PutToken(ctx context.Context, k access.Token) error {
	t.signInsChanged()
	return t.mustChange(ctx, notFound("principal"), "storing a token",
		`INSERT INTO tokens (`+tokenColumns+`) SELECT $1, p.id, $3, $4, $5, $6, $7, $8 FROM principals p WHERE p.id = $2
		ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, revoked = excluded.revoked, mac = excluded.mac`,
		k.ID, k.PrincipalID, k.Hash[:], k.Created, k.Expires, k.Revoked, k.MAC, k.IssuedBy)
}

// TokenByID implements access.Tx.
func (t *txn) TokenByID(ctx context.Context, id string) (access.Token, error) {
	return single(ctx, t, notFound("token"), "reading a token", readToken, `SELECT `+tokenColumns+` FROM tokens WHERE id = $1`, id)
}

// TokensOf implements access.Tx.
func (t *txn) TokensOf(ctx context.Context, principalID string) ([]access.Token, error) {
	return all(ctx, t, "listing tokens", readToken,
		`SELECT `+tokenColumns+` FROM tokens WHERE principal_id = $1 ORDER BY created DESC, id DESC`, principalID)
}
