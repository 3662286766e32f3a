package kms

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// AlertForce is the action of the alert that somebody asks for a destruction whatever depends on the version.
const AlertForce = "destroy_force_asked"

// twoPeople are who asks for a forced destruction, and who did before him, as they were looked up.
type twoPeople struct {
	second access.Identity
	first  *access.Identity // nil while nobody asked before
	why    error            // nil when the one who asks counts as a person at all
}

// people raises the alert, and looks up who is asking and who asked before. What it finds only becomes worse with time
// (principals keep who made them, tokens are only added), so that a decision may rest on it a moment later.
func (s *Service) people(ctx context.Context, c *access.Caller, name string, in gate.Intent, req api.VersionStateRequest) (p twoPeople, err error) {
	in.Action, in.Type, in.Verb = access.KeyForceDestroy, audit.Alert, AlertForce
	err = s.gate.Use(ctx, c, in, func(_ context.Context, ev *audit.Event) error {
		ev.KeyVersion = req.Version
		return nil
	})
	if err != nil {
		return p, err
	}
	if c.Local() {
		p.why = fault.New(api.CodeDenied, "forcing a destruction: whoever owns the data directory is not known as a person").
			WithNext("sign in as yourself, with your own token: --server URL --token-file FILE")
		return p, nil
	}
	err = s.st.View(ctx, func(tx store.Tx) error {
		p = twoPeople{}
		k, err := tx.KeyByName(ctx, name)
		if err != nil {
			return nil // the change will say so
		}
		if p.second, err = identity(ctx, tx, c.Principal.ID); fault.CodeOf(err) == api.CodeNotFound {
			p.why = fault.New(api.CodeDenied, "forcing a destruction: the caller is no principal of this store").WithNext("sign in with a token")
			return nil
		} else if err != nil {
			return err
		}
		if v, _ := k.Version(req.Version); v.AwaitsSecond(c.Principal.ID, s.clock()) {
			first, err := identity(ctx, tx, v.ForceBy)
			p.first = &first
			return err
		}
		return nil
	})
	if err != nil {
		return p, fault.Wrap("", err, "looking up who asks for a forced destruction")
	}
	return p, nil
}

// identity reads a principal with its tokens, each row checked.
func identity(ctx context.Context, tx store.Tx, id string) (out access.Identity, err error) {
	if out.Principal, err = tx.PrincipalByID(ctx, id); err != nil {
		return out, err
	}
	list, err := tx.TokensOf(ctx, id)
	if err != nil {
		return out, err
	}
	for _, listed := range list {
		t, err := tx.TokenByID(ctx, listed.ID)
		if err != nil {
			return out, err
		}
		out.Tokens = append(out.Tokens, t)
	}
	return out, nil
}

// agree is nil when the wish may be noted as that of a person, and, where one stands before it, as that of another.
func (p *twoPeople) agree(v keys.Version, now time.Time) error {
	if p.why != nil {
		return p.why
	}
	if !v.AwaitsSecond(p.second.Principal.ID, now) {
		return forcing(p.second.Settled(now))
	}
	if p.first == nil || p.first.Principal.ID != v.ForceBy {
		return fault.New(api.CodeConflict, "forcing a destruction: somebody else asked for it at the same moment").WithNext("try again")
	}
	// Before the first one asked: what was made since may have been made for this.
	for _, err := range []error{access.Apart(*p.first, p.second), p.first.Settled(v.ForceAt), p.second.Settled(v.ForceAt)} {
		if err != nil {
			return forcing(err)
		}
	}
	return nil
}

func forcing(err error) error {
	if err == nil {
		return nil
	}
	return fault.Wrap("", err, "forcing a destruction")
}
