package kms

import (
	"context"
	"strings"

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
		again := fault.Wrapf("", err, "reading master key %s again", url)
		return again.WithNext(cure(url, again))
	}
	same := fresh.ID() == id
	_ = fresh.Close()
	if !same {
		return fault.Newf(api.CodeIntegrity, "master key %s is another one now than the one that this server holds", url).
			WithNext("put the right key back where the URL says")
	}
	return nil
}

// cure is what helps where a master key doesn't serve: what its provider or the ring says, who know the cause.
func cure(url string, err error) string {
	if next := fault.NextOf(err); next != "" {
		return next
	}
	if fault.CodeOf(err) == api.CodeIntegrity {
		return "repair the master key, or wrap the store's keys under it anew: keyturn master rotate"
	}
	provider, _, _ := strings.Cut(url, ":")
	return "see that " + provider + " answers and lets keyturn use the key"
}

// allPresent refuses to wrap anything under a list of master keys of which one is gone, and says how it can be given up
// where the store has another: with going, the URLs that are being removed, in one step, as each that is lost keeps the others from it.
func (s *Service) allPresent(ctx context.Context, list []keyring.MasterKey, going string) error {
	var first error
	var lost []string
	opener := false
	for _, m := range list {
		err := s.present(ctx, m.URL(), m.ID())
		switch {
		case err == nil:
			opener = opener || keyring.Opens(m)
			continue
		case first == nil:
			first = err
		}
		lost = append(lost, m.URL())
	}
	if first == nil || !opener {
		return first
	}
	give := "keyturn master remove"
	for _, url := range append(strings.Fields(going), lost...) {
		if strings.ContainsAny(url, "?&*;") { // which shells take for themselves
			url = "'" + url + "'"
		}
		give += " " + url
	}
	return fault.Wrap("", first, "changing the master keys").WithNext(fault.NextOf(first) + "; if it is lost for good: " + give)
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
	var all []error
	for _, m := range s.ring.Masters() {
		if !keyring.Opens(m) {
			continue // escrow: its key is in people's hands
		}
		err := s.reach(ctx, m.URL(), m.ID())
		if err == nil {
			s.ring.Confirm()
			return nil
		}
		all = append(all, err)
	}
	if len(all) == 0 {
		return fault.New(api.CodeUnavailable, "no master key is configured")
	}
	return fault.Join(all...)
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
	if err := s.ring.Reaches(ctx, fresh); err != nil {
		return fault.Wrap("", err, "using master key "+url)
	}
	return nil
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
