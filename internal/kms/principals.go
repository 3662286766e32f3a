package kms

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// metaLocalAdministrator is the setting that names the principal, by id, as which whoever owns the data directory acts.
const metaLocalAdministrator = "local_administrator"

// Bootstrap makes the first principal, an owner of everything, with its token: the one as which the unix socket's peer and
// commands on the data directory act. It is recorded as the system's own deed. Errors: conflict when there is one.
func (s *Service) Bootstrap(ctx context.Context, name string) (api.Principal, error) {
	in := api.CreatePrincipalRequest{Name: name, Role: access.RoleOwner, Scope: []string{"*"}}
	return s.createPrincipal(ctx, system(), in, func(ctx context.Context, tx store.Tx, p access.Principal) error {
		_, err := tx.Meta(ctx, metaLocalAdministrator)
		switch fault.CodeOf(err) {
		case api.CodeNotFound:
			return tx.SetMeta(ctx, metaLocalAdministrator, p.ID)
		case "":
			return fault.New(api.CodeConflict, "the store has its first administrator already")
		}
		return err
	})
}

// CreatePrincipal makes a principal with a token, which the answer holds and nothing ever shows again. Nobody gives
// rights that he doesn't have. An empty scope covers nothing.
func (s *Service) CreatePrincipal(ctx context.Context, c *access.Caller, in api.CreatePrincipalRequest) (api.Principal, error) {
	return s.createPrincipal(ctx, c, in, nil)
}

func (s *Service) createPrincipal(ctx context.Context, c *access.Caller, in api.CreatePrincipalRequest,
	also func(context.Context, store.Tx, access.Principal) error) (api.Principal, error) {
	if err := keys.ValidateName(in.Name); err != nil {
		return api.Principal{}, err
	}
	p := access.Principal{ID: newID(), Name: in.Name, Role: in.Role, Scope: in.Scope, Created: stamp(s.clock())}
	for _, a := range in.Allow {
		p.Allow = append(p.Allow, access.Action(a))
	}
	text, token, err := access.NewToken(rand.Reader)
	if err != nil {
		return api.Principal{}, err
	}
	token.PrincipalID, token.Created = p.ID, p.Created
	if c != nil && c.Principal != nil {
		p.MadeBy, token.IssuedBy = c.Principal.ID, c.Principal.ID
	}
	err = s.gate.Change(ctx, c, principalIntent("principal_created", p.Name), func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		describePrincipal(ev, p, token.ID)
		if err := access.CanGrant(c.Principal, p.Role, p.Allow, p.Scope); err != nil {
			return err
		}
		if err := tx.CreatePrincipal(ctx, p); err != nil {
			return err
		}
		if err := tx.PutToken(ctx, token); err != nil {
			return err
		}
		if also != nil {
			return also(ctx, tx, p)
		}
		return nil
	})
	s.signedOut()
	if err != nil {
		return api.Principal{}, err
	}
	out := principalView(p)
	out.Token = text
	return out, nil
}

func principalIntent(verb, name string) gate.Intent {
	return gate.Intent{Action: access.PrincipalWrite, Type: audit.ConfigWrite, Verb: verb, Resource: access.Resource{Kind: access.KindPrincipal, Name: name}}
}

// describePrincipal says in the event who was given which rights. The token's id is public; its text is nowhere.
func describePrincipal(ev *audit.Event, p access.Principal, tokenID string) {
	ev.Details.Principal, ev.Details.Role, ev.Details.Scope, ev.Details.Token = p.Name, p.Role, strings.Join(p.Scope, " "), tokenID
}

// DisablePrincipal shuts a principal out, at once on this node and within seconds on others. Only who could give its
// rights may; the local administrator can't be disabled, since nobody could then administer the store.
func (s *Service) DisablePrincipal(ctx context.Context, c *access.Caller, name string) (api.Principal, error) {
	return s.changePrincipal(ctx, c, "principal_disabled", name, func(ctx context.Context, tx store.Tx, p *access.Principal, _ *audit.Event) error {
		if id, err := tx.Meta(ctx, metaLocalAdministrator); err != nil && fault.CodeOf(err) != api.CodeNotFound {
			return err
		} else if err == nil && id == p.ID {
			return fault.New(api.CodeInUse, "the local administrator can't be disabled: commands on the data directory act as it").
				WithNext("give it a new token instead, which ends the old one")
		}
		if err := revokeAll(ctx, tx, p.ID, s.clock()); err != nil {
			return err
		}
		if p.Disabled {
			return nil
		}
		p.Disabled = true
		return tx.UpdatePrincipal(ctx, *p)
	})
}

// NewToken gives a principal a new token and ends all that it had, at once on this node and within seconds on others.
// Whoever holds a token is that principal, so only who could give its rights may.
func (s *Service) NewToken(ctx context.Context, c *access.Caller, name string) (api.Principal, error) {
	text, token, err := access.NewToken(rand.Reader)
	if err != nil {
		return api.Principal{}, err
	}
	out, err := s.changePrincipal(ctx, c, "token_issued", name, func(ctx context.Context, tx store.Tx, p *access.Principal, ev *audit.Event) error {
		if p.Disabled {
			return fault.Newf(api.CodeWrongState, "principal %s is disabled", p.Name)
		}
		if err := revokeAll(ctx, tx, p.ID, s.clock()); err != nil {
			return err
		}
		ev.Details.Token = token.ID
		token.PrincipalID, token.Created, token.IssuedBy = p.ID, stamp(s.clock()), c.Principal.ID
		return tx.PutToken(ctx, token)
	})
	if err != nil {
		return api.Principal{}, err
	}
	out.Token = text
	return out, nil
}

// changePrincipal runs a change of one principal, for who could give its rights.
func (s *Service) changePrincipal(ctx context.Context, c *access.Caller, verb, name string,
	do func(context.Context, store.Tx, *access.Principal, *audit.Event) error) (api.Principal, error) {
	if err := keys.ValidateName(name); err != nil {
		return api.Principal{}, err
	}
	var done access.Principal
	err := s.gate.Change(ctx, c, principalIntent(verb, name), func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		p, err := tx.PrincipalByName(ctx, name)
		if err != nil {
			return err
		}
		describePrincipal(ev, p, "")
		if err := access.CanGrant(c.Principal, p.Role, p.Allow, p.Scope); err != nil {
			return err
		}
		err = do(ctx, tx, &p, ev)
		done = p
		return err
	})
	// Also after an error: when nobody knows whether it was committed, the store must be asked.
	s.signedOut()
	if err != nil {
		return api.Principal{}, err
	}
	return principalView(done), nil
}

func (s *Service) signedOut() {
	if s.cfg.SignedOut != nil {
		s.cfg.SignedOut()
	}
}

// revokeAll ends every token of a principal.
func revokeAll(ctx context.Context, tx store.Tx, id string, now time.Time) error {
	tokens, err := tx.TokensOf(ctx, id)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if !t.Revoked.IsZero() {
			continue
		}
		t.Revoked = stamp(now)
		if err := tx.PutToken(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// Principals lists those that the caller may see.
func (s *Service) Principals(ctx context.Context, c *access.Caller) (api.PrincipalList, error) {
	var out api.PrincipalList
	in := gate.Intent{Action: access.PrincipalRead, Type: audit.ConfigRead, Verb: "listed", Resource: access.Resource{Kind: access.KindPrincipal}}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		var all []access.Principal
		err := s.st.View(ctx, func(tx store.Tx) (err error) {
			all, err = tx.Principals(ctx)
			return err
		})
		out.Principals = []api.Principal{}
		for _, p := range all {
			if allowed(c, access.PrincipalRead, access.Resource{Kind: access.KindPrincipal, Name: p.Name}) {
				out.Principals = append(out.Principals, principalView(p))
			}
		}
		ev.Details.Items = uint64(len(out.Principals))
		return err
	})
	if err != nil {
		return api.PrincipalList{}, err
	}
	return out, nil
}

// Principal is one of them.
func (s *Service) Principal(ctx context.Context, c *access.Caller, name string) (api.Principal, error) {
	if err := keys.ValidateName(name); err != nil {
		return api.Principal{}, err
	}
	var p access.Principal
	in := gate.Intent{Action: access.PrincipalRead, Type: audit.ConfigRead, Verb: "read", Resource: access.Resource{Kind: access.KindPrincipal, Name: name}}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, _ *audit.Event) error {
		return s.st.View(ctx, func(tx store.Tx) (err error) {
			p, err = tx.PrincipalByName(ctx, name)
			return err
		})
	})
	if err != nil {
		return api.Principal{}, err
	}
	return principalView(p), nil
}

// newID is 32 random lower-case hexadecimal digits.
func newID() string {
	var raw [16]byte
	rand.Read(raw[:]) //nolint:errcheck // never returns an error since Go 1.24
	return hex.EncodeToString(raw[:])
}

// stamp brings a time into the form in which both databases keep it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
