package kms

import (
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/store"
)

// Escrow is a master key in shares (package keyring/escrow). What a crash leaves of a split: before its transaction,
// nothing; after it, a set whose shares nobody has, which the next split replaces and doctor warns of, since nobody has
// shown its shares. The old set's shares are worthless from the transaction on.

// SplitEscrow makes a new escrow key, wraps every key-encryption key under it, and answers with its shares, this once. They
// stand in no event, no log and nowhere in the store.
func (s *Service) SplitEscrow(ctx context.Context, c *access.Caller, in api.SplitEscrowRequest) (api.EscrowShares, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	var made split
	var read, wrapped []keys.KEK
	var refused error
	now := s.ring.Masters()
	if allowed(c, access.MasterEscrow, masterResource) {
		if made, refused = s.split(ctx, in, now); refused == nil {
			read, wrapped, refused = s.wrapAnew(ctx, made.masters, made.replaced())
		}
		defer made.shares.Destroy()
	}
	intent := gate.Intent{Action: access.MasterEscrow, Type: audit.ConfigWrite, Verb: "escrow_split", Resource: masterResource}
	if err := s.storeKEKs(ctx, c, intent, read, wrapped, keyring.EscrowURL, refused, made.change); err != nil {
		closeNew(made.masters, now)
		return api.EscrowShares{}, err
	}
	failpoint.Hit("kms/after-escrow")
	ctx, cancel := finishing(ctx) // the old shares are worthless already: whoever asked gets the new ones if anybody can
	defer cancel()
	if err := s.ring.Use(ctx, made.masters); err != nil {
		return api.EscrowShares{}, err
	}
	if len(made.masters) > len(now) {
		if err := s.saveMasters(ctx, now, made.masters); err != nil {
			return api.EscrowShares{}, fault.Wrap("", err, "making escrow shares").
				WithNext("add " + keyring.EscrowURL + " to masterKeys in the configuration, then make the shares anew: keyturn escrow split")
		}
	}
	return made.answer(len(wrapped)), nil
}

// split is a new set on its way.
type split struct {
	masters []keyring.MasterKey // with the new escrow key among them
	shares  keyring.EscrowSet
	change  escrowChange
}

// replaced are the wrappings under the key of the set before, also where another node has that key in a file, from a recovery:
// enough people may have it, and this node has not been told to keep it.
func (m split) replaced() func(keys.Wrapping) bool {
	return func(w keys.Wrapping) bool { return m.change.before != "" && w.MasterID == m.change.before }
}

// split makes a new set in memory.
func (s *Service) split(ctx context.Context, in api.SplitEscrowRequest, now []keyring.MasterKey) (made split, err error) {
	if err := material.CheckSplit(in.Threshold, in.Shares); err != nil {
		return made, err
	}
	before, err := s.storedEscrow(ctx)
	if err != nil {
		return made, err
	}
	if before.Set != "" && !in.Replace {
		return made, fault.Newf(api.CodeConflict, "making escrow shares: there is a set already, and its %d shares will open nothing any more", before.Shares).
			WithField("replace").WithNext("say that it is to be replaced: --yes; then collect the old shares and destroy them")
	}
	others := slices.DeleteFunc(slices.Clone(now), func(m keyring.MasterKey) bool { return !keyring.Opens(m) })
	if err := s.splittable(ctx, others, len(others) < len(now)); err != nil {
		return made, err
	}
	opened, err := s.cfg.Masters.Open(ctx, keyring.EscrowURL)
	if err != nil {
		return made, fault.Wrap("", err, "making escrow shares")
	}
	key, ok := opened.(keyring.Attacher)
	if !ok {
		return made, fault.New(api.CodeInternal, "making escrow shares: "+keyring.EscrowURL+" names something else")
	}
	made.masters = append(others, key)
	if made.shares, err = s.ring.NewEscrow(ctx, key, in.Threshold, in.Shares); err != nil {
		return made, err
	}
	made.change = escrowChange{before: before.Set, put: &escrowSet{
		Set: made.shares.Set, Threshold: in.Threshold, Shares: in.Shares, Created: s.clock().UTC().Truncate(time.Second), Sealed: made.shares.Sealed,
	}}
	return made, nil
}

// splittable says whether a new set can be put in place. One is added also when another master key is gone, as AddMaster
// does; where one is let go for it, all others must be there.
func (s *Service) splittable(ctx context.Context, others []keyring.MasterKey, configured bool) error {
	if !configured || s.cfg.Masters == nil {
		return s.mastersEditable()
	}
	return s.allPresent(ctx, others, "")
}

func (m split) answer(rewrapped int) api.EscrowShares {
	out := api.EscrowShares{Set: m.shares.Set, Threshold: m.change.put.Threshold, Rewrapped: rewrapped, Shares: []api.EscrowShare{}}
	for _, share := range m.shares.Shares {
		out.Shares = append(out.Shares, api.EscrowShare{Index: share.Index, Text: share.AppendText(make([]byte, 0, keyring.MaxShareText))})
	}
	return out
}

// Escrow says which set of shares the store has. Code not_found: none.
func (s *Service) Escrow(ctx context.Context, c *access.Caller) (api.Escrow, error) {
	var out api.Escrow
	in := gate.Intent{Action: access.MasterRead, Type: audit.ConfigRead, Verb: "escrow_shown", Resource: masterResource}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		set, err := s.storedEscrow(ctx)
		if err != nil {
			return err
		}
		if set.Set == "" {
			return errNoShares
		}
		set.describe(ev)
		out = set.view()
		return nil
	})
	if err != nil {
		return api.Escrow{}, err
	}
	return out, nil
}

// EscrowVerified records that enough shares of the store's set were seen to give its key: the evidence of a drill. The
// caller saw it; the shares stay with him.
func (s *Service) EscrowVerified(ctx context.Context, c *access.Caller, in api.EscrowVerifiedRequest) (api.Escrow, error) {
	var out api.Escrow
	intent := gate.Intent{Action: access.MasterChange, Type: audit.ConfigWrite, Verb: "escrow_verified", Resource: masterResource}
	err := s.gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		set, err := readEscrow(ctx, tx)
		switch {
		case err != nil:
			return err
		case set.Set == "":
			return errNoShares
		case set.Set != in.Set:
			return fault.New(api.CodeIntegrity, "the shares are of another set than the store's: they open nothing in it").WithField("set").
				WithNext("look for the shares of the store's set, or make new ones: keyturn escrow split")
		}
		set.Verified = s.clock().UTC().Truncate(time.Second)
		set.describe(ev)
		out = set.view()
		return set.put(ctx, tx)
	})
	if err != nil {
		return api.Escrow{}, err
	}
	return out, nil
}
