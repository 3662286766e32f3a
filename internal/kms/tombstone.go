package kms

import (
	"context"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// graveyard knows the versions on the list of tombstones. It is written at the start and at each destruction, and asked
// by every use: a version on the list is dead whatever the store says, since a store that was set back to an older
// backup says that it is alive.
type graveyard struct {
	mu   sync.RWMutex
	dead map[versionRef]bool // guarded by mu
}

func (g *graveyard) add(id envelope.KeyID, n uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead == nil {
		g.dead = map[versionRef]bool{}
	}
	g.dead[versionRef{id, n}] = true
}

func (g *graveyard) has(id envelope.KeyID, n uint32) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.dead) > 0 && g.dead[versionRef{id, n}]
}

// Buried says whether a version stands on the list of destroyed versions outside the store.
func (s *Service) Buried(id envelope.KeyID, n uint32) bool { return s.buried.has(id, n) }

// refuse is the error of using a version that is on the list and not destroyed in the store.
func (g *graveyard) refuse(k *keys.Key, n uint32) error {
	if !g.has(k.ID, n) {
		return nil
	}
	return fault.Newf(api.CodeWrongState, "version %d of key %s was destroyed, and an older store brought it back", n, k.Name).
		WithNext("the list of destroyed versions beside the store forbids its use; see keyturn doctor")
}

// bury loads the list, and adds what the store knows to be destroyed and the list doesn't: what a crash between the two
// left out. The keys are only walked when the numbers differ, so that starting doesn't take longer the more keys there are.
func (s *Service) bury(ctx context.Context) error {
	if s.cfg.Tombstones == nil {
		return nil
	}
	list, err := s.cfg.Tombstones.List(ctx)
	if err != nil {
		return fault.Wrap("", err, "reading the list of destroyed versions")
	}
	for _, t := range list {
		s.buried.add(t.KeyID, t.Version)
	}
	missing, err := s.unlisted(ctx)
	if err != nil {
		return err
	}
	for _, t := range missing {
		if err := s.entomb(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// unlisted are the versions that the store has destroyed and the list doesn't name.
func (s *Service) unlisted(ctx context.Context) (missing []Tombstone, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		missing = nil
		_, states, err := tx.CountKeys(ctx)
		if err != nil || states[keys.Destroyed] == s.buried.size() {
			return err
		}
		return eachKey(ctx, tx, func(k keys.Key) error {
			for _, v := range k.Versions {
				if v.State != keys.Destroyed || s.buried.has(k.ID, v.Number) {
					continue
				}
				// The list is for good: nobody gets a version onto it by writing into the database.
				if (attester{s.ring}).key(ctx, k) == nil {
					missing = append(missing, Tombstone{KeyID: k.ID, Key: k.Name, Version: v.Number, At: v.Destroyed})
				}
			}
			return nil
		})
	})
	return missing, err
}

func (g *graveyard) size() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.dead)
}

// entomb writes a version onto the list and forbids its use.
func (s *Service) entomb(ctx context.Context, t Tombstone) error {
	if s.cfg.Tombstones == nil {
		return nil
	}
	if err := s.cfg.Tombstones.Append(ctx, t); err != nil {
		return fault.Wrapf("", err, "listing version %d of key %s as destroyed", t.Version, t.Key).
			WithNext("it is destroyed; make the data directory writable and start keyturn anew to have it listed")
	}
	s.buried.add(t.KeyID, t.Version)
	return nil
}

// risen lists the versions that are on the list of tombstones and not destroyed in the store.
func (s *Service) risen(ctx context.Context) (out []Tombstone, err error) {
	if s.cfg.Tombstones == nil {
		return nil, nil
	}
	list, err := s.cfg.Tombstones.List(ctx)
	if err != nil {
		return nil, err
	}
	err = s.st.View(ctx, func(tx store.Tx) error {
		out = nil
		for _, t := range list {
			k, err := tx.KeyByID(ctx, t.KeyID)
			if fault.CodeOf(err) == api.CodeNotFound {
				continue
			}
			if err != nil {
				return err
			}
			if v, ok := k.Version(t.Version); ok && v.State != keys.Destroyed {
				out = append(out, t)
			}
		}
		return nil
	})
	return out, err
}
