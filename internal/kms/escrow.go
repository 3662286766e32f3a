package kms

import (
	"context"
	"slices"
	"sync"
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

// Escrow is a master key in shares (package keyring/escrow). A new set is made in two steps (docs/decisions/0020): it is
// prepared, which answers with its shares and changes nothing, and committed once whoever asked has them on disk. What a
// crash leaves of a split: before its transaction the set that was there counts as it did, and the files that were
// written are shares of one that never counted; after it the new set counts, and its shares were written before.

// PrepareEscrow makes a new escrow key and answers with its shares, this once. They stand in no event, no log and nowhere
// in the store, and the key in this process's memory alone: until CommitEscrow names its set, another is prepared,
// preparedFor has passed or the process ends. Until then the set that the store has is the one that counts.
func (s *Service) PrepareEscrow(ctx context.Context, c *access.Caller, in api.SplitEscrowRequest) (api.EscrowShares, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	var made *prepared
	var shares keyring.EscrowSet
	defer func() { shares.Destroy() }()
	intent := gate.Intent{Action: access.MasterEscrow, Type: audit.ConfigWrite, Verb: "escrow_prepared", Resource: masterResource}
	err := s.gate.Use(ctx, c, intent, func(ctx context.Context, ev *audit.Event) (err error) {
		shares.Destroy() // of a run whose ground was taken away
		made.destroy()
		if made, shares, err = s.prepare(ctx, in); err != nil {
			return err
		}
		ev.Details.MasterKey = keyring.EscrowURL
		made.set.describe(ev)
		return nil
	})
	if err != nil {
		made.destroy()
		return api.EscrowShares{}, err
	}
	made.by = c.Principal.ID
	s.waiting.put(made)
	return answer(made.set, shares), nil
}

// CommitEscrow makes a prepared set the one that counts: every key-encryption key is wrapped under its key, and the shares of
// the set before open nothing any more. Who asks has the shares, whole and on disk; the store can't know.
//
// A prepared set is committed once or never: one that is refused is forgotten.
func (s *Service) CommitEscrow(ctx context.Context, c *access.Caller, in api.CommitEscrowRequest) (api.EscrowSplit, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	var made *prepared
	var masters []keyring.MasterKey
	var read, wrapped []keys.KEK
	var change escrowChange
	var refused error
	now := s.ring.Masters()
	if allowed(c, access.MasterEscrow, masterResource) {
		if made = s.waiting.take(in.Set, c.Principal.ID); made == nil {
			refused = errNotPrepared
		} else if masters, refused = s.with(ctx, made, now); refused == nil {
			made.set.Created = s.clock().UTC().Truncate(time.Second)
			change = escrowChange{before: made.before, put: &made.set}
			read, wrapped, refused = s.wrapAnew(ctx, masters, made.replaced())
		}
	}
	failpoint.Hit("kms/before-escrow")
	intent := gate.Intent{Action: access.MasterEscrow, Type: audit.ConfigWrite, Verb: "escrow_split", Resource: masterResource}
	if err := s.storeKEKs(ctx, c, intent, read, wrapped, keyring.EscrowURL, refused, change); err != nil {
		made.destroy()
		return api.EscrowSplit{}, err
	}
	failpoint.Hit("kms/after-escrow")
	ctx, cancel := finishing(ctx) // the old shares are worthless already: the process and its configuration follow
	defer cancel()
	if err := s.ring.Use(ctx, masters); err != nil {
		return api.EscrowSplit{}, err
	}
	if len(masters) > len(now) {
		if err := s.saveMasters(ctx, now, masters); err != nil {
			return api.EscrowSplit{}, fault.Wrap("", err, "making escrow shares: the new set counts").
				WithNext("add " + keyring.EscrowURL + " to masterKeys in the configuration; until then this node refuses to change master keys")
		}
	}
	return api.EscrowSplit{Set: made.set.Set, Threshold: made.set.Threshold, Shares: made.set.Shares, Replaced: made.before, Rewrapped: len(wrapped)}, nil
}

// errNotPrepared tells nobody which sets are prepared by others, nor quotes what was given: it may be a share, pasted.
var errNotPrepared = fault.New(api.CodeNotFound, "making escrow shares: no set of that name is prepared here, so nothing was changed").WithField("set").
	WithNext("begin anew: keyturn escrow split; on several nodes both steps go to one of them")

// preparedFor is how long a prepared set waits for its commit: long enough to write 64 files to a slow stick, and no longer
// than a secret should stay in memory that nobody may ever ask for.
const preparedFor = 10 * time.Minute

// prepared is a set that doesn't count yet.
type prepared struct {
	key    keyring.Attacher // with the new escrow key attached
	set    escrowSet
	before string // the set that it is to replace, empty for none
	by     string // the principal who has its shares, and alone may commit it
}

// destroy forgets the key.
func (p *prepared) destroy() {
	if p != nil {
		_ = p.key.Close()
	}
}

// replaced are the wrappings under the key of the set before, also where another node has that key in a file, from a recovery:
// enough people may have it, and this node has not been told to keep it.
func (p *prepared) replaced() func(keys.Wrapping) bool {
	return func(w keys.Wrapping) bool { return p.before != "" && w.MasterID == p.before }
}

// waiting holds the one set that is prepared and not committed. A newer one takes its place: two commands at once would
// have people keep shares of two sets of which one counts.
type waiting struct {
	mu    sync.Mutex
	set   *prepared
	timer *time.Timer
}

func (w *waiting) put(p *prepared) {
	w.forget()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set = p
	w.timer = time.AfterFunc(preparedFor, func() { w.take(p.set.Set, p.by).destroy() })
}

// take gives the set to who prepared it, once; nil when it isn't there.
func (w *waiting) take(set, by string) *prepared {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.set
	if p == nil || p.set.Set != set || p.by != by {
		return nil
	}
	w.set = nil
	w.timer.Stop()
	return p
}

// forget drops the set that waits, if one does.
func (w *waiting) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.set != nil {
		w.timer.Stop()
		w.set.destroy()
		w.set = nil
	}
}

// prepare makes a new set in memory. Whatever can be found wrong before its commit is found here, before anybody has
// written a share.
func (s *Service) prepare(ctx context.Context, in api.SplitEscrowRequest) (*prepared, keyring.EscrowSet, error) {
	none := keyring.EscrowSet{}
	if err := material.CheckSplit(in.Threshold, in.Shares); err != nil {
		return nil, none, err
	}
	before, err := s.storedEscrow(ctx)
	if err != nil {
		return nil, none, err
	}
	if before.Set != "" && !in.Replace {
		return nil, none, fault.Newf(api.CodeConflict, "making escrow shares: there is a set already, and its %d shares will open nothing any more", before.Shares).
			WithField("replace").WithNext("say that it is to be replaced: --yes; then collect the old shares and destroy them")
	}
	if _, err := s.splittable(ctx, s.ring.Masters()); err != nil {
		return nil, none, err
	}
	opened, err := s.cfg.Masters.Open(ctx, keyring.EscrowURL)
	if err != nil {
		return nil, none, fault.Wrap("", err, "making escrow shares")
	}
	key, ok := opened.(keyring.Attacher)
	if !ok {
		_ = opened.Close()
		return nil, none, fault.New(api.CodeInternal, "making escrow shares: "+keyring.EscrowURL+" names something else")
	}
	shares, err := s.ring.NewEscrow(ctx, key, in.Threshold, in.Shares)
	if err != nil {
		_ = key.Close()
		return nil, none, err
	}
	set := escrowSet{Set: shares.Set, Threshold: in.Threshold, Shares: in.Shares, Sealed: shares.Sealed}
	return &prepared{key: key, set: set, before: before.Set}, shares, nil
}

// with are the master keys that are in use with a prepared set's among them, in the place of the set's before. What was
// looked at when the set was prepared is looked at again: time has passed.
func (s *Service) with(ctx context.Context, made *prepared, now []keyring.MasterKey) ([]keyring.MasterKey, error) {
	others, err := s.splittable(ctx, now)
	if err != nil {
		return nil, err
	}
	if !s.ring.SealedUnderActive(keys.KEKRecovery, made.set.Sealed) { // who knew the old ones could know what the shares give
		return nil, fault.New(api.CodeConflict, "making escrow shares: new key-encryption keys were made meanwhile").WithNext("begin anew: keyturn escrow split")
	}
	return append(others, made.key), nil
}

// splittable are the master keys beside escrow, if a new set can be put in place. One is added also when another master key
// is gone, as AddMaster does; where one is let go for it, all others must be there.
func (s *Service) splittable(ctx context.Context, now []keyring.MasterKey) ([]keyring.MasterKey, error) {
	others := slices.DeleteFunc(slices.Clone(now), func(m keyring.MasterKey) bool { return !keyring.Opens(m) })
	if len(others) == len(now) || s.cfg.Masters == nil {
		return others, s.mastersEditable()
	}
	return others, s.allPresent(ctx, others, "")
}

func answer(set escrowSet, shares keyring.EscrowSet) api.EscrowShares {
	out := api.EscrowShares{Set: set.Set, Threshold: set.Threshold, Shares: []api.EscrowShare{}}
	for _, share := range shares.Shares {
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
