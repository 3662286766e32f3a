package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// A server holds its master keys for as long as it runs; what their URLs name can be moved away or replaced meanwhile.
// Whoever vouched for the held copy, or wrapped under it and let another key go, would leave a store that nothing opens
// after the next start. So a master key counts only while its URL still gives it.

// present says whether the URL of a master key gives the same key now, read anew.
func (s *Service) present(ctx context.Context, url, id string) error {
	if s.cfg.Masters == nil {
		return nil // nobody here can read URLs: the list is fixed, and so are the keys
	}
	if url == keyring.EscrowURL {
		return s.escrowPresent(ctx, id)
	}
	fresh, err := s.cfg.Masters.Open(ctx, url)
	if err != nil {
		return fault.Wrapf("", err, "reading master key %s again", url).
			WithNext("put it back where the URL says; the running server holds a copy, and the next start will not")
	}
	same := fresh.ID() == id
	_ = fresh.Close()
	if !same {
		return fault.Newf(api.CodeIntegrity, "master key %s is another one now than the one that this server holds", url).
			WithNext("put the right key back where the URL says")
	}
	return nil
}

// allPresent refuses to wrap anything under a list of master keys of which one is gone.
func (s *Service) allPresent(ctx context.Context, list []keyring.MasterKey) error {
	for _, m := range list {
		if err := s.present(ctx, m.URL(), m.ID()); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceMasters puts what choose makes of the master keys in use in their place, as the same list opened anew: nothing is
// stored or wrapped. choose returns nil to leave them.
func (s *Service) ReplaceMasters(ctx context.Context, choose func([]keyring.MasterKey) ([]keyring.MasterKey, error)) error {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	now := s.ring.Masters()
	next, err := choose(now)
	if err != nil || next == nil {
		return err
	}
	if err := s.ring.Use(ctx, next); err != nil {
		closeNew(next, now)
		return err
	}
	return nil
}

// ReachMaster is nil when at least one configured master key can be fetched now and opens the store. It confirms that to
// the ring, whose open keys serve for a bounded time without (keyring.Ring.Limit).
func (s *Service) ReachMaster(ctx context.Context) error {
	var first error
	for _, m := range s.ring.Masters() {
		if !keyring.Opens(m) {
			continue // escrow: its key is in people's hands
		}
		err := s.reach(ctx, m.URL(), m.ID())
		if err == nil {
			s.ring.Confirm()
			return nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fault.New(api.CodeUnavailable, "no master key is configured")
	}
	return first
}

func (s *Service) reach(ctx context.Context, url, id string) error {
	if s.cfg.Masters == nil {
		return nil
	}
	fresh, err := s.cfg.Masters.Open(ctx, url)
	if err != nil {
		return fault.Wrapf("", err, "reading master key %s again", url)
	}
	defer fresh.Close() //nolint:errcheck // nothing depends on it
	if id != "" && fresh.ID() != id {
		return fault.Newf(api.CodeIntegrity, "master key %s is another one now than the one that this server holds", url)
	}
	return s.ring.Reaches(ctx, fresh)
}

// MastersUsable is nil when every configured master key opens every key-encryption key now, and otherwise the first reason
// why one doesn't.
func (s *Service) MastersUsable(ctx context.Context) error {
	all, _ := s.verifyMasters(ctx)
	for _, m := range all {
		if m.Err != nil {
			return fault.Wrap("", m.Err, "using master key "+m.URL)
		}
	}
	return nil
}

// verifyMasters is the ring's own verification, with every key read anew. A ring that may not be used any more, because
// no master key was reached, has let go of its master keys: then those are tried that the URLs give now.
func (s *Service) verifyMasters(ctx context.Context) ([]keyring.MasterStatus, []keyring.Elsewhere) {
	masters := s.ring.Masters()
	if s.ring.Usable() != nil && s.cfg.Masters != nil {
		masters = s.fetched(ctx, masters)
		defer closeNew(masters, s.ring.Masters())
	} else {
		s.attachEscrow(ctx, masters)
	}
	all, elsewhere := s.ring.VerifyUnder(ctx, masters)
	for i := range all {
		if m := &all[i]; m.OK {
			m.Err = s.present(ctx, m.URL, m.ID)
			m.OK = m.Err == nil
		}
	}
	return all, elsewhere
}

// fetched are the master keys of the same URLs, each opened anew; one that can't be is there with the reason.
func (s *Service) fetched(ctx context.Context, masters []keyring.MasterKey) []keyring.MasterKey {
	fresh := make([]keyring.MasterKey, 0, len(masters))
	for _, m := range masters {
		f, err := s.cfg.Masters.Open(ctx, m.URL())
		if err != nil {
			f = keyring.Away(m.URL(), err)
		}
		fresh = append(fresh, f)
	}
	return fresh
}
