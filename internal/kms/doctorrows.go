package kms

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// mostBadRows is how many bad rows a check names.
const mostBadRows = 5

// badRows collects what a check found; only the first few are kept, however many there are.
type badRows struct {
	count int
	first []string
}

func (b *badRows) add(row string) {
	if b.count++; b.count <= mostBadRows {
		b.first = append(b.first, row)
	}
}

// join adds what another one collected.
func (b *badRows) join(o badRows) {
	b.count += o.count
	b.first = append(b.first, o.first[:min(len(o.first), mostBadRows-len(b.first))]...)
}

func (b *badRows) String() string {
	text := strings.Join(b.first, ", ")
	if more := b.count - len(b.first); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// checkKeys proves that every key is as keyturn wrote it, and that every version which isn't destroyed opens. Keys are
// walked a page at a time, so that it needs no more memory the more there are.
func (s *Service) checkKeys(ctx context.Context) (bool, string, string) {
	var bad badRows
	var walked, opened int
	err := s.st.View(ctx, func(tx store.Tx) error {
		bad, walked, opened = badRows{}, 0, 0
		return eachKey(ctx, tx, func(k keys.Key) error {
			walked++
			n, err := s.checkKey(ctx, k, &bad)
			opened += n
			return err
		})
	})
	switch {
	case err != nil:
		return unknown(err)
	case bad.count > 0:
		return false, "not as keyturn wrote them: " + bad.String(),
			"find out who writes to the database, and restore these rows from a backup; what a version sealed doesn't open without its material"
	}
	return true, fmt.Sprintf("%d keys are as they were written, and %d versions open", walked, opened), ""
}

// checkKey says how many versions of k open. Its error ends the walk: only that nobody waits for the answer any more.
func (s *Service) checkKey(ctx context.Context, k keys.Key, bad *badRows) (opened int, err error) {
	if err := (attester{s.ring}).key(ctx, k); err != nil {
		bad.add("key " + k.Name)
	}
	for i, v := range k.Versions {
		if err := ctx.Err(); err != nil {
			return opened, fault.Wrap("", err, "checking the keys")
		}
		if v.Number != uint32(i)+1 {
			break // the key is named already, and its versions have no places
		}
		if v.State == keys.Destroyed {
			continue
		}
		m, err := s.ring.Export(ctx, &k, v.Number)
		if err != nil {
			bad.add(fmt.Sprintf("key %s version %d", k.Name, v.Number))
			continue
		}
		m.Destroy()
		opened++
	}
	return opened, nil
}

// checkPrincipals proves that every principal, every token and the setting that names the local administrator is as
// keyturn wrote it.
func (s *Service) checkPrincipals(ctx context.Context) (bool, string, string) {
	var bad badRows
	var walked int
	err := s.st.View(ctx, func(tx store.Tx) error {
		bad, walked = badRows{}, 0
		by := attester{s.ring}
		if _, err := tx.Meta(ctx, metaLocalAdministrator); fault.CodeOf(err) == api.CodeIntegrity {
			bad.add("setting " + metaLocalAdministrator)
		}
		all, err := tx.Principals(ctx)
		if err != nil {
			return err
		}
		for _, p := range all {
			walked++
			if by.principal(ctx, p) != nil {
				bad.add("principal " + p.Name)
			}
			tokens, err := tx.TokensOf(ctx, p.ID)
			if err != nil {
				return err
			}
			for _, t := range tokens {
				if t.Revoked.IsZero() && by.token(ctx, t) != nil {
					bad.add("token " + t.ID + " of " + p.Name)
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return unknown(err)
	case bad.count > 0:
		return false, "not written by keyturn: " + bad.String(),
			"find out who writes to the database; end a token with keyturn principal token NAME, and restore the other rows from a backup"
	}
	return true, fmt.Sprintf("%d principals and their tokens are as they were written", walked), ""
}

// checkIncidents proves that every incident and every entry of it is as keyturn wrote it.
func (s *Service) checkIncidents(ctx context.Context) (bool, string, string) {
	var bad badRows
	var walked, open int
	err := s.st.View(ctx, func(tx store.Tx) error {
		bad, walked, open = badRows{}, 0, 0
		for after := ""; ; {
			page, err := tx.Incidents(ctx, incidents.Filter{After: after, Limit: pageOfKeys})
			if err != nil {
				return err
			}
			for _, i := range page {
				walked, after = walked+1, i.ID
				if i.State == incidents.Open {
					open++
				}
				if _, err := tx.Entries(ctx, i.ID); fault.CodeOf(err) == api.CodeIntegrity {
					bad.add("incident " + i.ID)
				} else if err != nil {
					return err
				}
			}
			if len(page) < pageOfKeys {
				return nil
			}
		}
	})
	switch {
	case err != nil:
		return unknown(err)
	case bad.count > 0:
		return false, "not as keyturn wrote them: " + bad.String(), "find out who writes to the database, and restore these rows from a backup"
	}
	return true, fmt.Sprintf("%d incidents are as they were written, %d of them open", walked, open), ""
}
