package access

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Settled is for how long a principal and its token must have been there before it counts as one of two people: so long that
// nobody makes himself a second identity, uses it and is gone before others had the time to see it in the audit log.
const Settled = 24 * time.Hour

// Identity is a principal with its tokens, as far as it is known which person stands behind it.
type Identity struct {
	Principal Principal
	Tokens    []Token
}

// Settled is nil when the identity, with a token that isn't revoked, was there long enough before t. Error: denied.
func (i Identity) Settled(t time.Time) error {
	p := i.Principal
	since, usable := p.Created, false
	for _, k := range i.Tokens {
		usable = usable || k.Revoked.IsZero()
		if k.Created.After(since) {
			since = k.Created
		}
	}
	switch {
	case p.Disabled || !usable:
		return fault.Newf(api.CodeDenied, "principal %s can't sign in any more, and counts as nobody", p.Name).
			WithNext("have two others say so, who can")
	case t.Before(since.Add(Settled)):
		return fault.Newf(api.CodeDenied, "principal %s, or its token, was made at %s, and counts as a person of its own %s later only", p.Name,
			since.Format(time.RFC3339), Settled).
			WithNext("have somebody else say so, or begin anew, the first person first, after " + since.Add(Settled).Format(time.RFC3339))
	}
	return nil
}

// Apart is nil when two identities may be two people: neither made the other, or ever issued a token of it, whose
// text he may know. A token that was revoked counts too: with it another could be had that seems to be its holder's own. Error: denied.
func Apart(a, b Identity) error {
	if a.Principal.ID == b.Principal.ID {
		return fault.New(api.CodeDenied, "one principal is one person").WithNext("have somebody else say so")
	}
	for _, pair := range [][2]Identity{{a, b}, {b, a}} {
		by, of := pair[0].Principal, pair[1]
		did := ""
		switch {
		case of.Principal.MadeBy == by.ID:
			did = "made"
		case slices.ContainsFunc(of.Tokens, func(k Token) bool { return k.IssuedBy == by.ID }):
			did = "issued a token of"
		default:
			continue
		}
		return fault.Newf(api.CodeDenied, "principal %s %s principal %s, and the two count as one person", by.Name, did, of.Principal.Name).
			WithNext("have a third person say so, whom neither made and whose token neither issued")
	}
	return nil
}
